"""The law of the squared derivative of every layer's activation: exact for discrete
gates, mean-field for the others.

In the limit of large width pre-activations are centred Gaussian with variance ``q_l =
v_l n_{l-1} E phi(h_{l-1})^2 + bias variance`` (Poole et al. 2016, arXiv 1606.05340),
and the gates ``phi'(h)``, ``h ~ N(0, q_l)``, are free of the weights (Pastur, arXiv
2001.06188). Piecewise linear ``phi`` make discrete laws of them, whose probabilities
the normal CDF gives; smooth ones are replaced by a quadrature in ``h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import special

from initdiag._core.arrays import Real
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.network.architecture import Activation, Architecture, Gate, Layer

__all__ = ["SMOOTH", "gaussian_quadrature", "squared_gates"]

SquaredGate = tuple[tuple[float, ...], tuple[float, ...], bool]
Pair = tuple[Callable[[Real], Real], Callable[[Real], Real]]

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Klambauer et al. 2017, arXiv 1706.02515, equation 14."""

_NODES = 200
"""Nodes of the quadrature for the moments of ``phi``: 2,000 nodes change ``E phi^2`` by
a part of 3e-13 at most, for every smooth activation and ``q`` from 0.1 to 100 (100
nodes: 3e-10, tanh at 100). What lies beyond `_REACH` costs more: 6e-8.
"""

_REACH = 5.5
"""Standard deviations that the quadratures cover; beyond lies 4e-8 of the mass.

A node's own mass must not be far smaller.
"""

_GATE_NODES = 96
"""Nodes of the quadrature that stands for a smooth gate's law.

Doubling it moves edges by less than 1e-9 and the CDF by 1e-5 (tanh, GELU, SiLU, four
layers); but the mean of ``ln lambda`` by 0.04 where ``phi'`` has a zero (GELU, SiLU),
at which a logarithm is ill served.
"""


_FLOOR = 1e-200
"""Squared slopes below it are raised to it: an underflow is not a closed gate."""


def _sigmoid_slope(h: Real) -> Real:
    return np.asarray(special.expit(h) * special.expit(-h))


def _normal_density(h: Real) -> Real:
    return np.asarray(np.exp(-(h**2) / 2) / math.sqrt(2 * math.pi))


def _elu(h: Real) -> Real:
    return np.where(h > 0, h, np.expm1(np.minimum(h, 0)))


def _elu_slope(h: Real) -> Real:
    return np.where(h > 0, 1.0, np.exp(np.minimum(h, 0)))


def _selu(h: Real) -> Real:
    return _SELU_SCALE * np.where(h > 0, h, _SELU_ALPHA * np.expm1(np.minimum(h, 0)))


def _selu_slope(h: Real) -> Real:
    return _SELU_SCALE * np.where(h > 0, 1.0, _SELU_ALPHA * np.exp(np.minimum(h, 0)))


SMOOTH: dict[str, Pair] = {
    "tanh": (np.tanh, lambda h: 4 * _sigmoid_slope(2 * h)),
    "sigmoid": (special.expit, _sigmoid_slope),
    "gelu": (lambda h: h * special.ndtr(h), lambda h: special.ndtr(h) + h * _normal_density(h)),
    "silu": (lambda h: h * special.expit(h), lambda h: special.expit(h) + h * _sigmoid_slope(h)),
    "elu": (_elu, _elu_slope),
    "selu": (_selu, _selu_slope),
    "softplus": (lambda h: np.logaddexp(0, h), special.expit),
}
"""Name -> (phi, phi'), for the activations whose derivative is not discrete."""

CLIPPED: dict[str, tuple[float, float]] = {"hardtanh": (-1.0, 1.0), "relu6": (0.0, 6.0)}
"""Name -> the interval on which the derivative is 1; outside it is 0."""


def gaussian_quadrature(count: int) -> tuple[Real, Real]:
    """Return nodes and weights of the standard normal law: Gauss-Legendre on either
    side of 0, where a kink may be.
    """
    x, w = np.polynomial.legendre.leggauss(count // 2)
    half = _REACH / 2 * (x + 1)
    weight = w * _normal_density(half)
    nodes, weights = np.concatenate([-half[::-1], half]), np.concatenate([weight[::-1], weight])
    return nodes, weights / weights.sum()


def squared_gates(architecture: Architecture, input_second_moment: float) -> list[SquaredGate]:
    """Return for every layer the values of ``d^2``, ascending, their probabilities, and
    whether they are exact at any width.

    Raises
    ------
    InvalidInput
        If ``input_second_moment`` is not a positive number.
    """
    if not 0 < input_second_moment < math.inf:
        raise InvalidInput(
            explain(
                expected="input_second_moment: a finite number > 0",
                got=repr(input_second_moment),
                do="Give the mean of the squared entries of an input.",
            )
        )
    gates, second_moment = [], input_second_moment
    for layer in architecture.layers:
        gates.append(_squared_gate(layer.activation, layer_variance(layer, second_moment)))
        second_moment = _output_second_moment(layer, second_moment)
    return gates


def layer_variance(layer: Layer, second_moment: float) -> float:
    """Return ``q``, the variance of a pre-activation, from the mean square of an entry
    that enters.
    """
    bias = layer.bias.variance if layer.bias is not None else 0.0
    return layer.weight.variance * layer.fan_in * second_moment + bias


def _output_second_moment(layer: Layer, second_moment: float) -> float:
    """Return ``E phi(h)^2``, dropout included."""
    activation, q = layer.activation, layer_variance(layer, second_moment)
    gate = _gate(activation)
    if gate is not None:
        return q * gate.second_moment
    keep = 1 - activation.dropout
    if activation.name in CLIPPED:
        return _clipped_second_moment(*CLIPPED[activation.name], q) / keep
    nodes, weights = gaussian_quadrature(_NODES)
    return float(weights @ SMOOTH[activation.name][0](math.sqrt(q) * nodes) ** 2) / keep


def _clipped_second_moment(low: float, high: float, q: float) -> float:
    """Return ``E clip(h, low, high)^2``."""
    a, b = low / math.sqrt(q), high / math.sqrt(q)
    density = _normal_density(np.array([a, b]))
    inside = special.ndtr(b) - special.ndtr(a) - (b * density[1] - a * density[0])
    return float(low**2 * special.ndtr(a) + high**2 * special.ndtr(-b) + q * inside)


@lru_cache(maxsize=64)
def _gate(activation: Activation) -> Gate | None:
    """Return ``activation.gate``, made once for the equal layers of a chain."""
    return activation.gate


def _squared_gate(activation: Activation, q: float) -> SquaredGate:
    gate = _gate(activation)
    if gate is not None:
        return *_merged([d * d for d in gate.values], list(gate.probabilities)), True
    keep = 1 - activation.dropout
    values, probabilities = _open_law(activation.name, q)
    values, probabilities = (
        np.append(values / keep**2, 0.0),
        np.append(probabilities * keep, 1 - keep),
    )
    return *_merged(values.tolist(), probabilities.tolist()), False


def _open_law(name: str, q: float) -> tuple[Real, Real]:
    """Return the law of ``phi'(h)^2`` for ``h ~ N(0, q)``."""
    if name in CLIPPED:
        low, high = (bound / math.sqrt(q) for bound in CLIPPED[name])
        p = float(special.ndtr(high) - special.ndtr(low))
        return np.array([0.0, 1.0]), np.array([1 - p, p])
    if name not in SMOOTH:
        raise UnsupportedArchitecture(
            f"the spectrum needs the derivative of {name!r}, which is not known here. "
            f"Known are {', '.join([*SMOOTH, *CLIPPED])}, and the activations with discrete gates."
        )
    nodes, weights = gaussian_quadrature(_GATE_NODES)
    return np.maximum(SMOOTH[name][1](math.sqrt(q) * nodes) ** 2, _FLOOR), weights


def _merged(
    values: list[float], probabilities: list[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return distinct values, ascending, and their probabilities; equal to 12 digits is
    equal.
    """
    law: dict[float, list[float]] = {}
    for value, p in zip(values, probabilities, strict=True):
        if p > 0:
            law.setdefault(float(f"{value:.12g}"), []).append(p)
    return tuple(sorted(law)), tuple(math.fsum(law[v]) for v in sorted(law))
