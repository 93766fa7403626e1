"""iid symmetric weights that are not Gaussian: mean and variance of ``ln||Ju||^2``,
with an error, and ``E||Ju||^4`` exactly.

The entries' law is closed by its kurtosis (`initdiag.law.kurtosis.entry_squares`), the
layer is then exact (`initdiag.law.kurtosis.layer_response`), and the concentration
``k = ||x||_4^4/||x||_2^4`` goes from layer to layer with its mean, its spread and its
covariance with the log-norm so far. ``docs/theory/other-weights.md`` derives it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from initdiag.errors import UnsupportedArchitecture, explain
from initdiag.law import columns
from initdiag.law.kurtosis.layer_response import beyond_gaussian, respond
from initdiag.law.layer import dead_probability
from initdiag.law.prediction import LayerPrediction
from initdiag.network.architecture import Gate, Layer

__all__ = ["Correction", "corrections", "log_fourth_norm"]


@dataclass(frozen=True, slots=True)
class Correction:
    """What a layer's non-Gaussian entries add to its share of the Gaussian law (natural
    log, given not dead).

    Attributes
    ----------
    log_mean, log_variance : float
        Added to the layer's share of mean and variance of ``ln||Ju||^2``.
    log_mean_error, log_variance_error : float
        How far off that may be: one standard deviation, not below 0. The layers' errors
        have one cause, so that they add.
    excess : float
        Excess kurtosis of an entry of ``W x``: ``(mu4 - 3) E k``.
    dead_probability : float
        P(every output is 0); above the gates' where the entries of a row may all be 0
        (sparse weights: as if all inputs were equally concentrated).
    """

    log_mean: float
    log_variance: float
    log_mean_error: float
    log_variance_error: float
    excess: float
    dead_probability: float


@dataclass(frozen=True, slots=True)
class _Input:
    """What is known of the vector that enters a layer: mean and variance of ``k``, and
    its covariance with the log-norm so far.
    """

    concentration: float
    variance: float
    covariance: float

    @property
    def spread(self) -> float:
        """One standard deviation of ``k``, so that the two points ``k`` less and plus
        it lie within [k/4, 1]; 0 where it is below rounding.
        """
        spread = columns.bounded_spread(self.concentration, self.variance)
        return spread if spread >= 1e-9 * self.concentration else 0.0


def corrections(layers: Sequence[Layer], u_fourth: float | None = None) -> list[Correction]:
    """Return what each layer's non-Gaussian entries add to mean and variance of
    ``ln||Ju||^2``.

    Parameters
    ----------
    layers : sequence of Layer
        Layers of the chain, with discrete gates.
    u_fourth : float, optional
        ``||u||_4^4`` of the unit vector that is propagated, from ``1/n_0`` to 1
        (one-hot); a uniform unit vector if not given.

    Returns
    -------
    list of Correction
        All zeros for Gaussian and for Haar weights.
    """
    if not any(map(_excess, layers)):
        return [
            Correction(0.0, 0.0, 0.0, 0.0, 0.0, dead_probability(_gate(x), x.fan_out))
            for x in layers
        ]
    entering = _entering(layers[0].fan_in, u_fourth)
    found = []
    for layer in layers:
        correction, entering = _step(layer, entering)
        found.append(correction)
    return found


def _entering(n: int, u_fourth: float | None) -> _Input:
    if u_fourth is not None:
        return _Input(u_fourth, 0.0, 0.0)
    return _Input(*columns.uniform_concentration(float(n)), 0.0)


def _excess(layer: Layer) -> float:
    return 0.0 if layer.weight.family in ("haar", "normal") else layer.weight.kurtosis - 3


def _gate(layer: Layer) -> Gate:
    gate = layer.activation.gate
    assert gate is not None, "the corrections hold for discrete gates only"
    return gate


def _step(layer: Layer, entering: _Input) -> tuple[Correction, _Input]:
    """Return one layer's correction, and what enters the next."""
    gate, excess, n = _gate(layer), _excess(layer), layer.fan_out
    gaussian = respond(gate, n, 0.0, 0.0)
    if not excess:
        leaving = _Input(
            gaussian.concentration, gaussian.concentration_variance, gaussian.covariance
        )
        return Correction(0.0, 0.0, 0.0, 0.0, 0.0, gaussian.dead_probability), leaving
    share = 3 / layer.weight.kurtosis if layer.weight.family == "sparse" else None
    k, spread = entering.concentration, entering.spread
    low = high = respond(gate, n, excess, k - spread, share)
    if spread:
        high = respond(gate, n, excess, k + spread, share)
    ends = beyond_gaussian(low, gaussian), beyond_gaussian(high, gaussian)
    averages = [(a + b) / 2 for a, b in zip(*ends, strict=True)]
    slopes = [(b - a) / (2 * spread) if spread else 0.0 for a, b in zip(*ends, strict=True)][:2]
    mean, concentration = averages[:2]
    variance, leaving_variance, covariance = columns.mixed_over_inputs(
        averages, slopes, spread**2, entering.covariance / k, gaussian.concentration
    )
    off = _error_share(layer, k)
    size = abs(excess) * k
    correction = Correction(
        mean,
        variance,
        off * max(abs(mean), abs(variance) / 4),
        off * abs(variance),
        math.copysign(size, excess),
        (low.dead_probability + high.dead_probability) / 2,
    )
    return correction, _Input(concentration, leaving_variance, covariance)


def _error_share(layer: Layer, concentration: float) -> float:
    """Return the share of the correction that may be wrong: one standard deviation,
    found by explicit products of widths 1 to 32.

    Light tails: the closure is off by a part of order ``k/n`` (truncated normal
    entries, one-hot ``u``: 33 % at width 4, 20 % at 8, 5 % at 32), the chain by about 5
    % (uniform entries, any ``u``, widths 2 to 10: 3 to 7 %). Heavy tails: sums of
    Student-t entries are less far from Gaussian than their kurtosis says (t(8): 15 %,
    t(5): 20 to 60 %). Sparse entries: about a tenth of the excess kurtosis of ``W x``,
    and the ways in which all of a row may be 0 at narrow widths (half of them zeros: 5,
    9 to 23, 100 % at widths 32, 16, 4; four fifths: 17, 35 % at 32, 16); exact for
    one-hot ``u``.
    """
    excess = _excess(layer)
    share = columns.light_error_share(concentration, float(layer.fan_out))
    if layer.weight.family == "sparse":
        share += (excess * concentration / 10 + 4 / layer.fan_out) * min(
            1.0, 2 * (1 - concentration)
        )
    elif excess > 0:
        share += excess / 12
    return min(1.0, share)


def log_fourth_norm(
    layers: Sequence[Layer] | Sequence[LayerPrediction], u_fourth: float | None = None
) -> float:
    """Return ``ln E||Ju||^4`` (natural log), dead draws counting 0: exact for any
    kurtosis and any discrete gate.

    By the recursion of the pair ``(E||x||_4^4, E||x||^4)`` (see above), in the log
    domain.

    Parameters
    ----------
    layers : sequence of Layer or of LayerPrediction
        ``architecture.layers`` or ``prediction.layers``.
    u_fourth : float, optional
        See `corrections`.

    Raises
    ------
    UnsupportedArchitecture
        If a layer has no discrete gate.
    """
    ratio = columns.uniform_concentration(layers[0].fan_in)[0] if u_fourth is None else u_fourth
    total = 0.0
    for gate, excess, variance, radius, layer in map(_fourth_moment_terms, layers):
        if variance == 0:
            return -math.inf
        n = layer.fan_out
        own = n * gate.moment(4) * (3 + excess * ratio)
        both = own + n * (n - 1) * gate.second_moment**2
        total += math.log(both * radius) + 2 * math.log(variance)
        ratio = own / both
    return total


def _fourth_moment_terms(
    layer: Layer | LayerPrediction,
) -> tuple[Gate, float, float, float, Layer | LayerPrediction]:
    """Return the gate, the excess kurtosis and the variance of an entry, ``N/(N+2)`` of
    Haar weights (else 1), and the layer.
    """
    if isinstance(layer, Layer):
        gate, kurtosis, variance = (
            layer.activation.gate,
            layer.weight.kurtosis,
            layer.weight.variance,
        )
        is_haar = layer.is_haar
    else:
        gate, kurtosis, variance, is_haar = (
            layer.gate,
            layer.kurtosis,
            layer.weight_variance,
            layer.haar,
        )
    if gate is None:
        raise UnsupportedArchitecture(
            explain(
                expected="layers with discrete gates (linear, ReLU, leaky ReLU, dropout)",
                got=f"{layer.name} without one",
                do="Measure it: initdiag.measure(model).",
            )
        )
    larger = max(layer.fan_in, layer.fan_out)
    return (
        gate,
        0.0 if is_haar else kurtosis - 3,
        variance,
        larger / (larger + 2) if is_haar else 1.0,
        layer,
    )
