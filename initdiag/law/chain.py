"""`predict`: the law of a chain, composed of its layers' laws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from initdiag.architecture import Architecture, Gate, Layer, positive_integer
from initdiag.errors import InvalidInput, explain
from initdiag.law import finite_width, hanin_nica, kurtosis, simulation
from initdiag.measurement import LogMoments
from initdiag.prediction import LayerPrediction, Prediction

__all__ = ["predict"]

_MOST_EXCESS = 1.0
"""Excess kurtosis of a layer's pre-activations up to which the first order holds.

Found by redraws of sparse weights: log-variance 3 % high at 0.9 (width 16, kurtosis 6), 10 to 25 % at 1.2 (width 64, kurtosis 15; width 128,
kurtosis 30), twice the truth at 8 (width 16, kurtosis 30).
"""


def predict(
    architecture: Architecture | Sequence[int], *, draws: int = 2048, seed: int = 0, **assumptions: Any
) -> Prediction:
    """Predict the distribution of ``ln||Ju||^2``, ``J`` the input-output Jacobian at initialisation, ``||u|| = 1``.

    Parameters
    ----------
    architecture : Architecture or sequence of int
        What `trace` returned, or widths ``n_0, ..., n_L``.
    draws, seed : int
        Of the simulation, where an activation has no discrete gate (tanh, GELU ...).
    **assumptions
        With widths: as in `Architecture.from_widths`.

    Returns
    -------
    Prediction
        Exact for Gaussian and orthogonal weights with discrete gates, of first order in the kurtosis for other iid weights; simulated for
        other activations (`initdiag.law.simulation`); coverage "none", with the reasons, for anything that is not a chain.

    Raises
    ------
    InvalidInput
        If widths or assumptions are out of range.

    Examples
    --------
    >>> round(predict([784, 256, 256, 10], init="he_normal").log_mean, 2)
    -3.79
    """
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
    obstacles = _obstacles(architecture)
    if obstacles:
        return Prediction("none", obstacles, None, None, None, None, None, None, None, None, None, ())
    if any(layer.activation.gate is None for layer in architecture.layers):
        return _simulated(architecture, positive_integer(draws, "draws"), seed)
    return _compose(architecture.layers)


def _obstacles(architecture: Architecture) -> tuple[str, ...]:
    """Why the theory does not cover the network; empty if it does."""
    found = [f"{gap.path}: {gap.reason}" for gap in architecture.gaps]
    for layer in architecture.layers:
        if layer.activation.gate is None and not simulation.is_simulated(layer.activation):
            found.append(f"{layer.name}: {layer.activation.label} has no discrete gate law, nor can it be simulated")
        if layer.bias is not None and not layer.bias.symmetric and layer.activation.name not in ("linear",):
            found.append(f"{layer.name}: its bias is not symmetric about 0, so that its gates are not fair coins")
        found.extend(f"{layer.name}: weights fail the hypothesis {name!r}" for name in layer.weight.failed)
    has_gates = all(layer.activation.gate is not None for layer in architecture.layers)
    return tuple(found) or (tuple(_heavy_tailed(architecture.layers)) if has_gates else ())


def _heavy_tailed(layers: tuple[Layer, ...]) -> Iterator[str]:
    """Layers whose entries' kurtosis is too large, at their width, for the first order to be near the truth."""
    for layer, correction in zip(layers, kurtosis.variance_corrections(layers), strict=True):
        gate = layer.activation.gate
        assert gate is not None, "checked by _obstacles"
        if correction * layer.fan_out / gate.kurtosis > _MOST_EXCESS:
            yield f"{layer.name}: entries of kurtosis {layer.weight.kurtosis:.3g} are beyond the first order at this width"


def _compose(layers: tuple[Layer, ...]) -> Prediction:
    shares = tuple(map(_layer_prediction, layers, kurtosis.variance_corrections(layers)))
    log_mean = math.fsum(s.log_mean for s in shares)
    non_gaussian = sorted({layer.weight.family for layer in layers} - {"normal", "haar"})
    rms_gain_log_mean = log_mean + math.log(layers[0].fan_in / layers[-1].fan_out)
    log_variance = math.fsum(s.log_variance for s in shares)
    hidden_drift, hidden_log_variance = _without_output_draw(shares, rms_gain_log_mean, log_variance)
    return Prediction(
        coverage="first-order" if non_gaussian else "exact",
        reasons=tuple(f"{family} weights: first order in the excess kurtosis" for family in non_gaussian),
        log_mean=log_mean,
        log_variance=log_variance,
        log_mean_se=0.0,
        log_variance_se=0.0,
        rms_gain_log_mean=rms_gain_log_mean,
        hidden_drift=hidden_drift,
        hidden_log_variance=hidden_log_variance,
        beta=math.fsum(map(hanin_nica.layer_beta, layers)) + hanin_nica.entry_kurtosis_term(layers[0]),
        dead_probability=_any_dead(shares),
        layers=shares,
    )


def _without_output_draw(
    shares: tuple[LayerPrediction, ...], rms_gain_log_mean: float, log_variance: float
) -> tuple[float, float]:
    """Drift and log-variance with a linear output's draw replaced by its mean square: see `Prediction.hidden_drift`."""
    output = shares[-1]
    if output.gate != Gate((1.0,), (1.0,)) or output.gain == 0:
        return rms_gain_log_mean, log_variance
    drift = rms_gain_log_mean + 2 * math.log(output.gain) - output.rms_gain_log_mean
    return drift, math.fsum(share.log_variance for share in shares[:-1])


def _simulated(architecture: Architecture, draws: int, seed: int) -> Prediction:
    log_norms = simulation.simulate(architecture, draws, seed).log_norms
    smooth = dict.fromkeys(layer.activation.label for layer in architecture.layers if layer.activation.gate is None)
    others = sorted({layer.weight.family for layer in architecture.layers} - {"normal", "haar"})
    reasons = [
        f"{', '.join(smooth)}: simulated over {draws} draws, input of root mean square {architecture.input_rms:.3g}"
    ]
    reasons += [f"{family} weights: taken for Gaussian ones of their variance" for family in others]
    moments = [LogMoments.of(row) for row in log_norms]
    before = [LogMoments.of(np.zeros(draws)), *moments[:-1]]
    layers = tuple(map(_simulated_layer, architecture.layers, before, moments))
    return Prediction.simulated(
        log_norms[-1],
        tuple(reasons),
        architecture.input_size,
        architecture.output_size,
        architecture.layers[-1].activation.name == "linear",
        layers,
    )


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
        haar=layer.weight.family == "haar",
    )


def _layer_prediction(layer: Layer, correction: float) -> LayerPrediction:
    gate = layer.activation.gate
    assert gate is not None, "checked by _obstacles"
    exact = finite_width.layer_log_moments(layer)
    is_zero = layer.weight.variance == 0
    return LayerPrediction(
        name=layer.name,
        fan_in=layer.fan_in,
        fan_out=layer.fan_out,
        gate=gate,
        gain=layer.gain,
        log_mean=exact.mean - correction / 2,
        log_variance=exact.variance + correction,
        beta=hanin_nica.layer_beta(layer),
        dead_probability=1.0 if is_zero else finite_width.dead_probability(gate, layer.fan_out),
        weight_variance=layer.weight.variance,
        haar=layer.weight.family == "haar",
    )


def _any_dead(shares: tuple[LayerPrediction, ...]) -> float:
    """``1 - prod (1 - P_l)``, without cancellation where the P_l are small."""
    if any(s.dead_probability == 1.0 for s in shares):
        return 1.0
    return 0.0 - math.expm1(math.fsum(math.log1p(-s.dead_probability) for s in shares))
