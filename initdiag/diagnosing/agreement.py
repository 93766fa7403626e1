"""Test whether the measurement agrees with the prediction.

It is one test, of mean, variance, shape and dead share together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from initdiag.diagnosing.expectation import Expectation, expectation
from initdiag.law.distributions.goodness import LEAST_DRAWS, shape_p_value
from initdiag.law.predict import predict
from initdiag.law.prediction import Prediction
from initdiag.measuring.between_weights import norm_variance
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.log_moments import LogMoments

_OWN_SHAPE = 0.95
"""Share of the law's log-variance that an ensemble must have, to have its shape too: a
choice. Random signs keep the weights' sizes, and what that takes of the variance takes
of the shape as well.
"""

_EXPECTED_DEAD = 0.5
"""Dead draws that are expected below which none says nothing: none of them has then a
probability of ``exp(-0.5) = 0.6`` or more.
"""

_FEWEST_ENTRIES = 32
"""Entries of a layer below which random signs around it say too little of its law: of
15 modules a shape (512 draws, level 0.001) 0 to 11 were rejected with 4 to 16 entries
in the smallest layer, of 30 with 32 entries and more than one layer none or one.
"""

_FARTHEST = 37.0
"""Standard errors beyond which a normal tail leaves the range of doubles (6e-300)."""

__all__ = ["Agreement", "agreement", "signs_hide_variance"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The test of a prediction against a measurement.

    Attributes
    ----------
    expected_log_mean, expected_log_variance : float
        What theory expects of this ensemble: for signs, from the sample norms of the
        weights.
    mean_z, variance_z : float
        Distances in standard errors; the variance's by its cube root, whose law is near
        normal for few draws too. NaN where they are not tested.
    p_value : float
        Probability, under the theory, of a measurement at least as far off, in
        everything together.
    level : float
        Limit of ``p_value`` below which ``agrees`` is False.
    agrees : bool
        Whether the theory is not rejected.
    moments_p_value : float or None
        For mean and variance; None where too few draws are alive, or random signs do
        not show them.
    shape_p_value : float or None
        For the law's shape, by Kolmogorov's and Smirnov's statistic
        (`initdiag.law.distributions.goodness`); None where the theory gives no law,
        under 100 draws, with few entries that are not Gaussian, and under random signs
        at widths of a few units, where weights that are kept leave a shape of their
        own.
    dead_p_value : float or None
        For the share of dead draws; None where none are seen or expected. A simulation
        is compared by Fisher's exact test of two samples.
    scale_p_value : float or None
        For the size of the weights that random signs keep, against the law that they
        are taken for; None under other ensembles, or where no initialiser is named.
    """

    expected_log_mean: float
    expected_log_variance: float
    mean_z: float
    variance_z: float
    p_value: float
    level: float
    agrees: bool
    moments_p_value: float | None = None
    shape_p_value: float | None = None
    dead_p_value: float | None = None
    scale_p_value: float | None = None


def agreement(
    architecture: Architecture,
    measurement: Measurement,
    level: float,
    prediction: Prediction | None = None,
) -> Agreement | None:
    """Test the theory against the measurement; None where it does not cover the
    network, or nothing can be tested.

    ``prediction`` is `predict`'s of the architecture, unless given.

    Four tests count together. What is printed of a prediction and of a measurement by
    random signs differs by what signs show of these weights, and by the weights' own
    size, which signs keep: the first three look at the former, the fourth at the latter
    (`_scale_p_value`). They are: mean and variance, whose joint distance is chi-square
    with 2 degrees of freedom (their covariance is ``m3/n``, ``m3`` the third central
    moment), unless random signs do not show them (`signs_hide_variance`); the law's
    shape; the share of dead draws, where any are seen or expected; the size of the
    weights. They are taken for independent (the first two are so to leading order), and
    the smallest p-value counts, by Sidak's rule.
    """
    prediction = prediction or predict(architecture)
    expected = expectation(architecture, prediction, measurement.method)
    if expected is None:
        return None
    moments = LogMoments.of(measurement.log_norms)
    is_hidden = measurement.method == "signs" and signs_hide_variance(architecture)
    has_moments = (
        not is_hidden
        and moments.variance_se > 0
        and math.isfinite(expected.log_mean)
        and expected.log_variance > 0
    )
    mean_z, variance_z, moments_p_value = (
        _moments_test(moments, expected) if has_moments else _NOT_TESTED
    )
    parts = (
        moments_p_value,
        _shape_p_value(architecture, prediction, expected, measurement) if has_moments else None,
        _dead_p_value(prediction, measurement),
        _scale_p_value(architecture.layers) if measurement.method == "signs" else None,
    )
    if all(p is None for p in parts):
        return None
    p_value = _smallest(parts)
    return Agreement(
        expected.log_mean,
        expected.log_variance,
        mean_z,
        variance_z,
        p_value,
        level,
        p_value >= level,
        *parts,
    )


def signs_hide_variance(architecture: Architecture) -> bool:
    """Return whether random signs around the weights cannot show how they vary from one
    initialisation to the next.

    ``R W S`` has the singular values of ``W``: with a single linear layer only the
    direction ``u`` varies over the draws. In a layer of few entries ``|W|``, which is
    kept, is most of what there is to vary, and the delta method that accounts for it
    does not hold.
    """
    return len(architecture.layers) == 1 or _has_few_entries(architecture)


def _has_few_entries(architecture: Architecture) -> bool:
    return any(layer.fan_in * layer.fan_out < _FEWEST_ENTRIES for layer in architecture.layers)


_NOT_TESTED = (math.nan, math.nan, None)


def _moments_test(moments: LogMoments, expected: Expectation) -> tuple[float, float, float]:
    """Return the z-scores of mean and variance, and their joint p-value."""
    mean_sd = math.hypot(math.sqrt(expected.log_variance / moments.count), expected.log_mean_sd)
    # few draws underrate their own fourth moment
    normal = math.sqrt(2 / (moments.count - 1))
    relative_se = max(moments.variance_se / moments.variance, normal)
    relative_sd = math.hypot(relative_se, expected.log_variance_sd / expected.log_variance)
    mean_z = (moments.mean - expected.log_mean) / mean_sd
    variance_z = _variance_z(moments.variance / expected.log_variance, relative_sd)
    correlation = moments.third_moment / moments.count / (mean_sd * relative_sd * moments.variance)
    return mean_z, variance_z, _moments_p_value(mean_z, variance_z, correlation)


def _variance_z(ratio: float, relative_sd: float) -> float:
    """Return a number that is close to standard normal if ``ratio`` is a sample
    variance over its expectation, for few draws too.

    Wilson and Hilferty's cube root (1931), with the degrees of freedom
    ``2/relative_sd^2`` that the sample's own fourth moment gives.
    """
    return float((ratio ** (1 / 3) - (1 - relative_sd**2 / 9)) / (relative_sd / 3))


def _moments_p_value(mean_z: float, variance_z: float, correlation: float) -> float:
    r = min(max(correlation, -0.99), 0.99)
    return math.exp(-(mean_z**2 - 2 * r * mean_z * variance_z + variance_z**2) / (1 - r * r) / 2)


def _shape_p_value(
    architecture: Architecture,
    prediction: Prediction,
    expected: Expectation,
    measurement: Measurement,
) -> float | None:
    """Return the p-value of the law's shape. Random signs have it only while the norms
    of the weights make little of its variance.

    To first order in the kurtosis the law's shape is that of Gaussian weights, which
    few entries that are not Gaussian do not have.
    """
    has_shape = expected.log_variance >= _OWN_SHAPE * prediction.known.log_variance
    is_known = prediction.coverage == "exact" or (
        prediction.coverage == "first-order" and not _has_few_entries(architecture)
    )
    alive = measurement.log_norms[np.isfinite(measurement.log_norms)]
    return (
        shape_p_value(prediction.law, alive)
        if is_known and has_shape and len(alive) >= LEAST_DRAWS
        else None
    )


def _dead_p_value(prediction: Prediction, measurement: Measurement) -> float | None:
    """Return the p-value of the share of dead draws, against the law's probability or
    against the draws of a simulation, which is a sample itself.
    """
    probability = prediction.known.dead_probability
    dead = round(measurement.dead_fraction * measurement.draws)
    if not dead and probability * measurement.draws < _EXPECTED_DEAD:
        return None
    if prediction.samples is None:
        return _binomial_p_value(dead, measurement.draws, probability)
    simulated = int(np.isneginf(prediction.samples).sum())
    return _fisher_p_value(dead, measurement.draws, simulated, len(prediction.samples))


def _scale_p_value(layers: Sequence[Layer]) -> float | None:
    """Return the p-value of the sum of ``ln(s^2/v)``, by which a measurement by signs
    is off the prediction.

    A layer's sample mean square ``s^2`` over its nominal ``v`` is a chi-square over its
    degrees of freedom: exactly for normal entries, in mean and variance for others.
    Each becomes a standard normal by its quantile, and they add up weighted by the
    errors of the logarithms, as the logarithms do.
    """
    named = [
        layer
        for layer in layers
        if layer.weight.initializer and layer.weight.sample_variance and norm_variance(layer) > 0
    ]
    if not named:
        return None
    errors = np.sqrt([norm_variance(layer) for layer in named])
    z = float(errors @ [_scale_z(layer) for layer in named] / np.linalg.norm(errors))
    return math.erfc(abs(z) / math.sqrt(2))


def _scale_z(layer: Layer) -> float:
    """Return how many standard errors a layer's weights exceed what their law says."""
    weight, count = layer.weight, layer.fan_in * layer.fan_out
    assert weight.sample_variance is not None
    freedom = 2 * count / (weight.kurtosis - 1)
    if count < _FEWEST_ENTRIES:
        freedom = min(freedom, count)  # few light-tailed entries are not chi-square
    below = freedom * weight.sample_variance / weight.variance / 2
    tail, sign = special.gammainc(freedom / 2, below), 1.0
    if tail > 0.5:
        tail, sign = special.gammaincc(freedom / 2, below), -1.0
    return sign * max(float(special.ndtri(tail)), -_FARTHEST)


def _smallest(p_values: Sequence[float | None]) -> float:
    """Return the probability that the smallest of so many independent p-values is as
    small as this.
    """
    found = [p for p in p_values if p is not None]
    return -math.expm1(len(found) * math.log1p(-min(found))) if min(found) < 1 else 1.0


def _binomial_p_value(count: int, draws: int, probability: float) -> float:
    """Return the two-sided p-value: twice the smaller tail, at most 1."""
    upper = float(special.bdtrc(count - 1, draws, probability)) if count > 0 else 1.0
    return min(1.0, 2 * min(upper, float(special.bdtr(count, draws, probability))))


def _fisher_p_value(count: int, draws: int, other_count: int, other_draws: int) -> float:
    """Return Fisher's exact two-sided p-value that two samples have one probability."""
    from scipy import stats

    table = [[count, draws - count], [other_count, other_draws - other_count]]
    return float(stats.fisher_exact(table).pvalue)
