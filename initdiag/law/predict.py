"""`predict`: the law of a chain, composed of its layers' laws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from initdiag._core.validation import positive_integer, seed_integer
from initdiag.errors import InvalidInput, explain
from initdiag.law import columns, hanin_nica
from initdiag.law import layer as layer_law
from initdiag.law.kurtosis import corrections
from initdiag.law.output import output_draw
from initdiag.law.prediction import LayerPrediction, PredictedMoments, Prediction
from initdiag.law.simulate import forward
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.log_moments import LogMoments

__all__ = ["LARGEST_ERROR", "predict", "scale_error"]

_NARROWEST_FOR_SIGNS = 16
"""Fewest inputs of a hidden layer with entries of two values: of fewer that are open
and alike in size, sums cancel exactly in every unit.

Explicit products: none of 20,000 chains of ten layers of 16, several in a hundred of
width 8.
"""

_PERTURBED = 8
"""Simulations with other scales: their spread is known to ``1/sqrt(2 * 7)``, about a
quarter.
"""

LARGEST_ERROR = 0.25
"""Share of the log-variance that its own error may be before the formula is refused: a
choice, which keeps the standard deviation of the log known to an eighth.
"""


def predict(
    architecture: Architecture | Sequence[int],
    *,
    draws: int = 2048,
    seed: int = 0,
    u_fourth: float | None = None,
    **assumptions: Any,
) -> Prediction:
    """Predict the distribution of ``ln||Ju||^2``, ``J`` the input-output Jacobian at
    initialisation, ``||u|| = 1``.

    Parameters
    ----------
    architecture : Architecture or sequence of int
        What `trace` returned, or widths ``n_0, ..., n_L``.
    draws, seed : int
        Draws and seed of the simulation, where an activation has no discrete gate
        (tanh, GELU ...).
    u_fourth : float, optional
        ``||u||_4^4`` of the unit vector that is propagated, from ``1/n_0`` (all
        coordinates alike) to 1 (one-hot); a uniform unit vector if not given. It
        matters to weights that are neither Gaussian nor orthogonal.
    **assumptions
        With widths: as in `Architecture.from_widths`.

    Returns
    -------
    Prediction
        Exact for Gaussian and orthogonal weights with discrete gates; for other iid
        weights exact to first order in the kurtosis, with the error of the formula
        (`initdiag.law.kurtosis.corrections`); simulated for other activations
        (`initdiag.law.simulate.forward`); coverage "none", with the reasons, for
        anything that is not a chain.

    Raises
    ------
    InvalidInput
        If widths or assumptions are out of range.

    Examples
    --------
    >>> round(predict([784, 256, 256, 10], init="he_normal").log_mean, 2)
    -3.79
    """
    if hasattr(architecture, "state_dict"):
        got = type(architecture).__name__
        do = "Trace the module first: initdiag.predict(initdiag.trace(model))."
        raise InvalidInput(explain(expected="an Architecture, or widths", got=got, do=do))
    if not isinstance(architecture, Architecture):
        architecture = Architecture.from_widths(architecture, **assumptions)
    elif assumptions:
        raise InvalidInput(
            explain(
                expected="assumptions with widths only",
                got=f"an Architecture and {sorted(assumptions)}",
                do="Use architecture.replace(...) for a what-if.",
            )
        )
    seed = seed_integer(seed)
    obstacles = _obstacles(architecture)
    if obstacles:
        return _uncovered(obstacles)
    if any(layer.activation.gate is None for layer in architecture.layers):
        draws = positive_integer(draws, "draws")
        wide = tuple(forward.too_wide(architecture.layers))
        return _uncovered(wide) if wide else _simulated(architecture, draws, seed)
    prediction = _compose(architecture.layers, u_fourth)
    limits = (
        *_cancelling(architecture.layers, u_fourth),
        *_too_coarse(prediction, architecture.layers),
    )
    return _uncovered(limits) if limits else prediction


def _uncovered(reasons: tuple[str, ...]) -> Prediction:
    return Prediction("none", reasons, moments=None, beta=None, layers=())


def _obstacles(architecture: Architecture) -> tuple[str, ...]:
    """Return why the theory does not cover the network; nothing if it does."""
    found = [f"{gap.path}: {gap.reason}" for gap in architecture.gaps]
    for layer in architecture.layers:
        if layer.activation.gate is None and not forward.is_simulated(layer.activation):
            found.append(
                f"{layer.name}: {layer.activation.label} has no discrete gate law and cannot be "
                "simulated"
            )
        if (
            layer.bias is not None
            and not layer.bias.symmetric
            and layer.activation.name not in ("linear",)
        ):
            found.append(
                f"{layer.name}: its bias is not symmetric about 0, so that its gates are not "
                "fair coins"
            )
        found.extend(
            f"{layer.name}: weights fail the hypothesis {name!r}" for name in layer.weight.failed
        )
    return tuple(found)


def _cancelling(layers: tuple[Layer, ...], u_fourth: float | None) -> Iterator[str]:
    """Yield the layers whose outputs may all be exactly 0, by chance alone, though
    gates are open. The first layer is among them only for a given ``u`` of several
    coordinates.
    """
    exempt = 1 if u_fourth is None or u_fourth >= 1 else 0
    for layer in layers[exempt:]:
        weight = layer.weight
        if (
            weight.family == "other"
            and weight.kurtosis < 1.01
            and layer.fan_in < _NARROWEST_FOR_SIGNS
        ):
            yield (
                f"{layer.name}: entries of two values +-s cancel exactly behind {layer.fan_in} "
                "units"
            )


def _too_coarse(prediction: Prediction, layers: tuple[Layer, ...]) -> Iterator[str]:
    """Yield the layer to blame if the formula's error is more than a share of the
    log-variance: the one with the largest part in it.
    """
    moments = prediction.known
    if moments.log_variance_error > LARGEST_ERROR * moments.log_variance:
        errors = [
            c.log_variance_error for c in corrections.corrections(layers, prediction.u_fourth)
        ]
        layer = layers[errors.index(max(errors))]
        yield (
            f"{layer.name}: entries of kurtosis {layer.weight.kurtosis:.3g} are too far from "
            "Gaussian at this width: "
            f"log-variance {moments.log_variance:.3g} +- {moments.log_variance_error:.2g}"
        )


def _compose(layers: tuple[Layer, ...], u_fourth: float | None) -> Prediction:
    beta = math.fsum(map(hanin_nica.layer_beta, layers)) + hanin_nica.entry_kurtosis_term(
        layers[0], u_fourth
    )
    added = corrections.corrections(layers, u_fourth)
    shares = tuple(map(_layer_prediction, layers, added))
    log_mean = math.fsum(s.log_mean for s in shares)
    non_gaussian = sorted({layer.weight.family for layer in layers} - {"normal", "haar"})
    rms_gain_log_mean = log_mean + math.log(layers[0].fan_in / layers[-1].fan_out)
    log_variance = math.fsum(s.log_variance for s in shares)
    hidden_drift, hidden_log_variance = _without_output_draw(
        layers[-1], shares, rms_gain_log_mean, log_variance
    )
    moments = PredictedMoments(
        log_mean=log_mean,
        log_variance=log_variance,
        log_mean_se=0.0,
        log_variance_se=0.0,
        rms_gain_log_mean=rms_gain_log_mean,
        hidden_drift=hidden_drift,
        hidden_log_variance=hidden_log_variance,
        dead_probability=_any_dead(shares),
        log_mean_error=math.hypot(math.fsum(c.log_mean_error for c in added), scale_error(layers)),
        log_variance_error=math.fsum(c.log_variance_error for c in added),
    )
    reasons = (
        *(f"{family} weights: first order in the excess kurtosis" for family in non_gaussian),
        *_estimated_scales(layers),
    )
    return Prediction(
        coverage="first-order" if reasons else "exact",
        reasons=reasons,
        moments=moments,
        beta=beta,
        layers=shares,
        u_fourth=u_fourth,
        depth=len(layers),
    )


def scale_error(layers: Sequence[Layer]) -> float:
    """Return the standard error of the log-mean that the layers' uncertain scales
    leave.

    Each layer's scale has an error of its own (`WeightLaw.scale_error`). On a chain of
    discrete gates it moves the log-mean by as much, and the log-variance not at all.
    """
    return math.hypot(*(layer.weight.scale_error for layer in layers))


def _estimated_scales(layers: Sequence[Layer]) -> Iterator[str]:
    """Say of how many layers the scale is read off the weights, and with what error in
    all.
    """
    estimated = [x for x in layers if _is_estimated(x)]
    if estimated:
        what = "1 layer is" if len(estimated) == 1 else f"{len(estimated)} layers is"
        whose = "its" if len(estimated) == 1 else "their"
        yield (
            f"the scale of {what} estimated from {whose} weights (+- {scale_error(estimated):.2g})"
        )


def _is_estimated(layer: Layer) -> bool:
    return layer.weight.initializer is None and layer.weight.scale_error > 0


def _without_output_draw(
    output: Layer,
    shares: tuple[LayerPrediction, ...],
    rms_gain_log_mean: float,
    log_variance: float,
) -> tuple[float, float]:
    """Return drift and log-variance without the draw of a linear output: see
    `Prediction.hidden_drift`.
    """
    if not output.is_linear_output or output.weight.variance == 0:
        return rms_gain_log_mean, log_variance
    kept = layer_law.without_own_draw(output)
    drift = rms_gain_log_mean + (kept.mean - shares[-1].log_mean)
    return drift, math.fsum((*(share.log_variance for share in shares[:-1]), kept.variance))


def _simulated(architecture: Architecture, draws: int, seed: int) -> Prediction:
    log_norms = forward.simulate(architecture, draws, seed).log_norms
    smooth = dict.fromkeys(
        layer.activation.label for layer in architecture.layers if layer.activation.gate is None
    )
    others = sorted({layer.weight.family for layer in architecture.layers} - {"normal", "haar"})
    reasons = [
        f"{', '.join(smooth)}: simulated over {draws} draws, input of root mean square "
        f"{architecture.input_rms:.3g}"
    ]
    reasons += [f"{family} weights: taken for Gaussian ones of their variance" for family in others]
    moments = [LogMoments.of(row) for row in log_norms]
    before = [LogMoments.of(np.zeros(draws)), *moments[:-1]]
    layers = tuple(map(_simulated_layer, architecture.layers, before, moments))
    found = Prediction.simulated(
        log_norms[-1],
        (*reasons, *_estimated_scales(architecture.layers)),
        architecture.input_size,
        architecture.output_size,
        output_draw(architecture, as_gaussian=True),
        len(layers),
        layers,
    )
    mean_error, variance_error = _simulated_scale_errors(architecture, draws, seed)
    known = dataclasses.replace(
        found.known, log_mean_error=mean_error, log_variance_error=variance_error
    )
    return dataclasses.replace(found, moments=known)


def _simulated_scale_errors(
    architecture: Architecture, draws: int, seed: int
) -> tuple[float, float]:
    """Return the standard errors of log-mean and log-variance that uncertain scales
    leave.

    They are the spreads over simulations, with the same random numbers, whose variances
    lie off by random multiples of their errors.
    """
    errors = np.array([layer.weight.scale_error for layer in architecture.layers])
    if not errors.any():
        return 0.0, 0.0
    found = []
    for off in np.random.default_rng(seed).standard_normal((_PERTURBED, len(errors))) * errors:
        gains = [math.exp(x / 2) for x in off]
        norms = forward.simulate(architecture.replace(gain=gains), draws, seed).log_norms[-1]
        moments = LogMoments.of(norms)
        found.append((moments.mean, moments.variance))
    mean_error, variance_error = np.std(found, axis=0, ddof=1)
    return float(mean_error), float(variance_error)


def _simulated_layer(layer: Layer, before: LogMoments, after: LogMoments) -> LayerPrediction:
    share = after.mean - before.mean
    return LayerPrediction(
        name=layer.name,
        fan_in=layer.fan_in,
        fan_out=layer.fan_out,
        gate=layer.activation.gate,
        gain=math.exp(share / 2) * math.sqrt(layer.fan_in / layer.fan_out),
        log_mean=share,
        log_variance=after.variance - before.variance,
        beta=None,
        dead_probability=after.dead_fraction - before.dead_fraction,
        weight_variance=layer.weight.variance,
        haar=layer.is_haar,
    )


def _layer_prediction(layer: Layer, correction: corrections.Correction) -> LayerPrediction:
    gate = layer.activation.gate
    assert gate is not None, "checked by _obstacles"
    exact = layer_law.layer_log_moments(layer)
    is_zero = layer.weight.variance == 0
    return LayerPrediction(
        name=layer.name,
        fan_in=layer.fan_in,
        fan_out=layer.fan_out,
        gate=gate,
        gain=layer.gain,
        log_mean=exact.mean + correction.log_mean + _log_bias(layer),
        log_variance=exact.variance + correction.log_variance,
        beta=hanin_nica.layer_beta(layer),
        dead_probability=1.0 if is_zero else correction.dead_probability,
        weight_variance=layer.weight.variance,
        haar=layer.is_haar,
        kurtosis=3.0 if layer.is_haar else layer.weight.kurtosis,
    )


def _log_bias(layer: Layer) -> float:
    """Return how far the log of a variance lies above the mean log of the sample's.

    That is half the log's variance (to first order), and 0 where the scale is known.
    """
    return layer.weight.scale_error**2 / 2 if _is_estimated(layer) else 0.0


def _any_dead(shares: tuple[LayerPrediction, ...]) -> float:
    """Return ``1 - prod (1 - P_l)``, without cancellation where the P_l are small."""
    if any(s.dead_probability == 1.0 for s in shares):
        return 1.0
    log_alive = math.fsum(math.log1p(-s.dead_probability) for s in shares)
    return float(columns.any_dead(log_alive))
