"""Weights of gain 1: their scale by the law, and the factors that lead there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from initdiag.errors import UnsupportedArchitecture
from initdiag.law.predict import predict
from initdiag.law.simulate.forward import activated, is_simulated
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.weights import WeightFamily

__all__ = ["BOUNDED", "DRAWS", "factors", "of_gain_1", "sought", "std"]

DRAWS = 1024
"""Draws of a simulation or a measurement.

The drift of a network of log-variance 10 is then known to 0.1.
"""

_ROUNDS = 60
"""Most simulations of a chain of smooth activations, each of which corrects all layers.

A layer's correction is right once those before it are, so that a chain needs about as
many rounds as it has layers, and far fewer where the activation's gain hardly depends
on scale.
"""

_STEPS = 30
"""Most measurements of a network that is not a chain: ten halvings, twenty secants."""

_FIRST_STEP, _LARGEST_STEP = 0.05, 2.0
"""Steps of the log factor until the drift has changed its sign: 5 % to a factor 7."""

_NODES = 100
"""Nodes of the Gauss-Hermite rule.

Against 250 nodes, ln E d^2 is off by less than 1e-9 for tanh, GELU, SiLU, sigmoid and
softplus, and by up to 0.04 where the slope jumps (hardtanh), which the simulated rounds
of `factors` take out.
"""

BOUNDED = ("tanh", "sigmoid", "hardtanh", "relu6")
"""Activations that saturate on both sides, or above."""

_CLOSE = 1e-3
"""A drift that counts as 0 where its standard error is smaller still.

Orthogonal weights without gates have none.
"""


def std(layer: Layer, is_output: bool) -> float:
    """Return the standard deviation ``(fan_in E d^2)^{-1/2}`` of an entry.

    A smooth slope ``d`` counts at pre-activations of variance 1, except that a smooth
    output activation counts as linear.
    """
    return 1 / math.sqrt(layer.fan_in * _mean_square_slope(layer, is_output))


def _mean_square_slope(layer: Layer, is_output: bool) -> float:
    gate = layer.activation.gate
    if gate is not None:
        return gate.second_moment
    if is_output or not is_simulated(layer.activation):
        return 1.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    _, slope = activated(layer, nodes)
    return float(weights @ slope**2 / weights.sum()) / (1 - layer.activation.dropout)


def of_gain_1(arch: Architecture, family: WeightFamily) -> Architecture:
    """Return a chain with fresh weights of gain 1 and no biases, as `initdiag.repair`
    draws them: normal ones, or orthogonal ones (``"haar"``).

    Raises
    ------
    UnsupportedArchitecture
        If no such weights are found.
    """
    last = arch.layers[-1].name

    def drawn(layer: Layer) -> Layer:
        weight = dataclasses.replace(
            layer.weight, variance=std(layer, layer.name == last) ** 2, family=family,
            kurtosis=3.0, hypotheses=(), initializer=None, gain=1.0,
        )  # fmt: skip
        return dataclasses.replace(layer, weight=weight, bias=None)

    arch = dataclasses.replace(arch, layers=tuple(map(drawn, arch.layers)))
    if all(layer.activation.gate is not None for layer in arch.layers):
        return arch
    found = factors(arch)
    return arch.replace(gain=[found[layer.name] for layer in arch.layers])


def factors(arch: Architecture) -> dict[str, float]:
    """Return, by weight, the factor that brings its layer's share of the drift to 0.

    Smooth activations need several rounds, for a layer's gain depends on what comes in.
    """
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
        moved = 2 * math.fsum(abs(math.log(step)) for step in steps)
        if not is_smooth or moved < max(prediction.known.log_mean_se / 4, _CLOSE):
            return found
    raise UnsupportedArchitecture("no weights were found for which every layer's gain is 1.")


def sought(
    drift_at: Callable[[float], tuple[float, float]], start: tuple[float, float], slope: float
) -> tuple[float, float]:
    """Find the log factor at which the drift is within its standard error of 0.

    Parameters
    ----------
    drift_at : callable
        Returns the drift and its standard error at a log factor (natural logs).
    start : (float, float)
        What it returns at 0.
    slope : float
        How much the drift is expected to grow with the log factor.

    Returns
    -------
    (float, float)
        That log factor and its drift, by secants inside a bracket.

    Raises
    ------
    UnsupportedArchitecture
        If there is none, or it is not found.
    """
    # (log factor, drift) on either side
    low, high = (-math.inf, -math.inf), (math.inf, math.inf)
    at, (drift, error) = 0.0, start
    for step in range(_STEPS):
        if not math.isfinite(drift):
            break
        if abs(drift) <= max(error, _CLOSE):
            return at, drift
        low, high = ((at, drift), high) if drift < 0 else (low, (at, drift))
        if math.isinf(low[0]) or math.isinf(high[0]):
            stride = max(abs(drift) / slope, _FIRST_STEP * 2**step)
            at -= math.copysign(min(stride, _LARGEST_STEP), drift)
        elif step % 3:
            at = low[0] - low[1] * (high[0] - low[0]) / (high[1] - low[1])
        else:
            at = (low[0] + high[0]) / 2
        drift, error = drift_at(at)
    raise UnsupportedArchitecture("no common factor of the weights brings the measured drift to 0.")
