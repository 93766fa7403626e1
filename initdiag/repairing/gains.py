"""Weights of gain 1: their scale by the law, and what a network that has other weights is to be multiplied with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from initdiag.errors import UnsupportedArchitecture
from initdiag.law.predict import predict
from initdiag.law.simulate.forward import activated, is_simulated
from initdiag.network.architecture import Architecture, Layer

__all__ = ["BOUNDED", "DRAWS", "factors", "sought", "std"]

DRAWS = 1024
"""Draws of a simulation or a measurement."""

_ROUNDS = 60
"""Most simulations of a chain of smooth activations, each of which corrects all layers."""

_STEPS = 30
"""Most measurements of what is no chain."""

_FIRST_STEP, _LARGEST_STEP = 0.05, 2.0
"""Of the log of the common factor, until the drift has changed its sign."""

BOUNDED = ("tanh", "sigmoid", "hardtanh", "relu6")
"""Activations that saturate on both sides, or above."""

_CLOSE = 1e-3
"""A drift that counts as 0 where the standard error is smaller still (orthogonal weights without gates have none)."""


def std(layer: Layer, *, is_output: bool) -> float:
    """Return the standard deviation of an entry, ``(fan_in E d^2)^{-1/2}``: a smooth slope at pre-activations of variance 1; an output activation that is smooth counts as linear."""
    return 1 / math.sqrt(layer.fan_in * _mean_square_slope(layer, is_output))


def _mean_square_slope(layer: Layer, is_output: bool) -> float:
    gate = layer.activation.gate
    if gate is not None:
        return gate.second_moment
    if is_output or not is_simulated(layer.activation):
        return 1.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    _, slope = activated(layer, nodes)
    return float(weights @ slope**2 / weights.sum()) / (1 - layer.activation.dropout)


def factors(arch: Architecture) -> dict[str, float]:
    """Return by weight what brings its layer's share of the drift to 0. Smooth activations need rounds: a layer's gain depends on what comes in."""
    found = dict.fromkeys((layer.name for layer in arch.layers), 1.0)
    is_smooth = any(layer.activation.gate is None for layer in arch.layers)
    output = arch.layers[-1]
    for _ in range(_ROUNDS):
        prediction = predict(arch, draws=DRAWS)
        steps = [math.exp(-share.rms_gain_log_mean / 2) for share in prediction.layers]
        if output.is_linear_output:
            steps[-1] = 1 / arch.layers[-1].gain
        elif output.activation.gate is None:
            steps[-1] = 1.0
        for i, layer in enumerate(arch.layers[:-1]):
            if layer.activation.name in BOUNDED:
                steps[i] = min(steps[i], 1 / found[layer.name])
        arch = arch.replace(gain=steps)
        for layer, step in zip(arch.layers, steps, strict=True):
            found[layer.name] *= step
        assert prediction.log_mean_se is not None
        if not is_smooth or 2 * math.fsum(abs(math.log(s)) for s in steps) < max(
            prediction.log_mean_se / 4, 1e-3
        ):
            return found
    raise UnsupportedArchitecture("no weights were found for which every layer's gain is 1.")


def sought(drift_at: Callable[[float], tuple[float, float]], slope: float) -> float:
    """Find the log factor at which the drift is within its standard error of 0, by secants inside a bracket; return that drift."""
    low, high = (
        (-math.inf, -math.inf),
        (math.inf, math.inf),
    )  # (log factor, drift): drift below and above 0
    at = 0.0
    for step in range(_STEPS):
        drift, error = drift_at(at)
        if not math.isfinite(drift):
            break
        if abs(drift) <= max(error, _CLOSE):
            return drift
        low, high = ((at, drift), high) if drift < 0 else (low, (at, drift))
        if math.isinf(low[0]) or math.isinf(high[0]):
            stride = max(abs(drift) / slope, _FIRST_STEP * 2**step)
            at -= math.copysign(min(stride, _LARGEST_STEP), drift)
        elif step % 3:
            at = low[0] - low[1] * (high[0] - low[0]) / (high[1] - low[1])
        else:
            at = (low[0] + high[0]) / 2
    raise UnsupportedArchitecture("no common factor of the weights brings the measured drift to 0.")
