"""The exact law of one layer at finite width: moments of the log of a gated chi-square.

For Gaussian weights and independent gates ``||D W u||^2`` is distributed as ``v X``,
``X = sum_i d_i^2 z_i^2``, whatever the unit vector ``u``: so the layers of a chain are
independent, each taken given that it is not dead. ``docs/theory/one-direction.md``
derives the moments for gates 0 or 1 (``psi`` functions), for any discrete gate (the
integrals ``I_k`` of ``Lc``), and for Haar weights (without the radius).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.law import columns
from initdiag.network.architecture import Gate, Layer

__all__ = [
    "LayerMoments",
    "conditional_laplace",
    "dead_probability",
    "gate_log_moments",
    "layer_log_moments",
    "open_gates",
    "own_draw",
    "without_own_draw",
]

_WINDOW = 40.0
"""Standard deviations of the binomial that are summed: beyond lies less than exp(-800).
"""

_STEP = 0.1
"""Step of the trapezium rule in ``ln t``; its error is about exp(-pi^2/step), below
rounding.
"""


@dataclass(frozen=True, slots=True)
class LayerMoments:
    """Mean and variance of a log (natural), given not dead."""

    mean: float
    variance: float


def dead_probability(gate: Gate, width: columns.F) -> columns.F:
    """Return P(every one of ``width`` gates is closed), for one width or an array."""
    dead: columns.F = gate.closed_probability**width
    return dead


def open_gates(gate: Gate, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers ``K >= 1`` of open gates and their probabilities given ``K >=
    1``, arrays of one length.
    """
    p = 1.0 - gate.closed_probability
    if p == 1.0:
        return np.array([float(width)]), np.ones(1)
    half = _WINDOW * math.sqrt(width * p * (1 - p)) + 10
    k = np.arange(
        max(1, math.floor(width * p - half)),
        min(width, math.ceil(width * p + half)) + 1,
        dtype=np.float64,
    )
    log_pmf = -special.betaln(k + 1, width - k + 1) + k * math.log(p) + (width - k) * math.log1p(-p)
    pmf = np.exp(log_pmf - log_pmf.max())
    return k, pmf / pmf.sum()


def layer_log_moments(layer: Layer) -> LayerMoments:
    """Return mean and variance of ``ln||D W u||^2``, ``||u|| = 1``, exact for Gaussian
    and for Haar weights.

    A layer whose weights are all zero has mean -inf and variance 0.
    """
    gate, weight = layer.activation.gate, layer.weight
    assert gate is not None, "the exact law holds for discrete gates only"
    if weight.variance == 0:
        return LayerMoments(-math.inf, 0.0)
    if layer.is_haar:
        unit = _gated_direction(gate, layer.fan_out, max(layer.fan_in, layer.fan_out))
    else:
        unit = _gated_chi2(gate, layer.fan_out)
    return LayerMoments(unit.mean + math.log(weight.variance), unit.variance)


def without_own_draw(layer: Layer) -> LayerMoments:
    """Return the share of a linear output layer without the draw of its own weights.

    The image ``W u`` of a unit vector has a length, which is in no weight's gradient,
    and a direction, uniform on the sphere in R^n. What remains is ``ln||D sqrt(v n)
    e||^2``, with ``e`` that direction and ``D`` the mask of a dropout: a constant where
    there is none. For Haar weights it is the same. The gradient ``e`` at the output,
    uniform on the sphere, has this share in every weight's gradient
    (`initdiag.law.gradients`).

    Parameters
    ----------
    layer : Layer
        One for which `Layer.is_linear_output` holds, with weights that are not all
        zero.

    Returns
    -------
    LayerMoments
        Natural log. The mean square is that of ``D W u``.
    """
    gate = layer.activation.gate
    assert gate is not None, "a linear output has a discrete gate"
    unit = _gated_direction(gate, layer.fan_out, layer.fan_out)
    return LayerMoments(unit.mean + math.log(layer.weight.variance), unit.variance)


def own_draw(layer: Layer) -> LayerMoments:
    """Return the moments of ``ln(||W u||^2/E||W u||^2)``, the draw of a layer's own
    weights.

    ``||W u||^2`` is a chi-square with ``fan_out`` degrees of freedom for Gaussian
    weights. For Haar weights it is ``Beta(fan_out/2, (N - fan_out)/2)`` with ``N =
    max(fan_in, fan_out)``, the same chi-square without its radius: a constant for ``N =
    fan_out``.
    """
    draw = _log_radius(layer.fan_out)
    return _without_radius(draw, max(layer.fan_in, layer.fan_out)) if layer.is_haar else draw


@functools.lru_cache(maxsize=4096)
def _log_radius(n: int) -> LayerMoments:
    """Return the moments of ``ln(R^2/n)`` for a chi-square ``R^2`` with ``n`` degrees
    of freedom.
    """
    mean, variance = columns.log_radius(np.asarray(float(n)))
    return LayerMoments(float(mean), float(variance))


def _without_radius(moments: LayerMoments, n: int) -> LayerMoments:
    """Take the factor ``R^2/n``, independent of what remains, out of a product."""
    radius = _log_radius(n)
    return LayerMoments(
        *columns.without_radius(moments.mean, moments.variance, (radius.mean, radius.variance))
    )


@functools.lru_cache(maxsize=4096)
def _gated_direction(gate: Gate, width: int, n: int) -> LayerMoments:
    """Return the moments of ``ln sum_i d_i^2 z_i^2``, given not dead, without the
    radius of the ``n`` normals that the ``z_i`` are part of.
    """
    return _without_radius(_gated_chi2(gate, width), n)


def gate_log_moments(gate: Gate, width: int) -> LayerMoments:
    """Return mean and variance of ``ln sum_i d_i^2 z_i^2`` over ``width`` gates, given
    not all closed, ``z`` standard normal.
    """
    return _gated_chi2(gate, width)


@functools.lru_cache(maxsize=4096)
def _gated_chi2(gate: Gate, width: int) -> LayerMoments:
    """Return the moments of ``ln sum_i d_i^2 z_i^2``, given not all ``d_i = 0``. Equal
    layers share one computation.
    """
    scales = {abs(d) for d in gate.values if d != 0.0}
    if len(scales) > 1:
        return _by_laplace_transform(gate, width)
    k, probability = open_gates(gate, width)
    digamma = special.digamma(k / 2)
    mean = float(probability @ digamma)
    variance = float(
        probability @ special.polygamma(1, k / 2) + probability @ (digamma - mean) ** 2
    )
    return LayerMoments(mean + math.log(2) + 2 * math.log(scales.pop()), variance)


def _by_laplace_transform(gate: Gate, width: int) -> LayerMoments:
    """Return moments by the two integrals in ``y = ln t``. The integrand is analytic in
    a strip, so that the trapezium rule is exact to rounding.
    """
    y, scale = _log_grid(gate, width)
    mean, second = _log_integrals(
        y, conditional_laplace(gate, width, np.exp(y) / scale) - np.exp(-np.exp(y))
    )
    return LayerMoments(mean + math.log(scale), second - mean**2)


def _log_grid(gate: Gate, width: int) -> tuple[NDArray[np.float64], float]:
    """Return a grid of ``y = ln t`` for the variable ``X / E X``, and ``E X``. It is
    wide enough for one open gate of the smallest value.
    """
    smallest = min(abs(d) for d in gate.values if d != 0.0)
    scale = width * gate.second_moment
    return np.arange(-45.0, 110.0 + math.log(scale / smallest**2), _STEP), scale


def _log_integrals(y: NDArray[np.float64], difference: NDArray[np.float64]) -> tuple[float, float]:
    """Return ``E ln X`` and ``E ln^2 X`` from ``Lc - e^-t`` at ``t = e^y``."""
    i0, i1 = _STEP * float(difference.sum()), _STEP * float(y @ difference)
    return -i0, 2 * (i1 + np.euler_gamma * i0)


def _log_gate_laplace(gate: Gate, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``ln sum_a p_a (1 + 2 t d_a^2)^(-1/2)``, accurate at every ``t``."""
    terms = [(d * d, p) for d, p in zip(gate.values, gate.probabilities, strict=True)]
    direct = sum((p / np.sqrt(1 + 2 * t * d2) for d2, p in terms), start=np.zeros_like(t))
    excess = sum(
        (p * np.expm1(-0.5 * np.log1p(2 * t * d2)) for d2, p in terms), start=np.zeros_like(t)
    )
    return np.where(
        direct > 0.5, np.log1p(np.maximum(excess, -0.9)), np.log(np.minimum(direct, 1.0))
    )


def conditional_laplace(gate: Gate, width: int, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``E[exp(-t X) | not dead]`` for ``X = sum d_i^2 z_i^2`` over ``width``
    gates.
    """
    dead = dead_probability(gate, width)
    return np.asarray((np.exp(width * _log_gate_laplace(gate, t)) - dead) / (1 - dead))
