"""The law of a chain with any activation, simulated in three scalars a draw instead of
matrices: ``|x|^2``, ``|t|^2`` and their correlation, for input ``x`` and tangent ``t``.

Exact for Gaussian and Haar weights up to the standard errors of the simulation
(``docs/theory/one-direction.md``); other iid weights are taken for Gaussian ones of
their variance, which is off by the order of 1/width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.network.architecture import Activation, Architecture, Layer

__all__ = [
    "ACTIVATIONS",
    "BLOCK",
    "SELU",
    "Simulation",
    "activated",
    "is_simulated",
    "orthonormal_images",
    "simulate",
    "too_wide",
]

Array = NDArray[np.float64]

BLOCK = 256
"""Draws that share a random generator: draw ``i`` does not depend on how many are asked
for.
"""

WIDEST = 1 << 18
"""Units of a simulated layer, at most: a block has some arrays of 0.5 GiB then."""

SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)
"""Scale and alpha of SELU (Klambauer et al. 2017, arXiv 1706.02515)."""

_SQRT_2PI = math.sqrt(2 * math.pi)


def _gelu(h: Array) -> tuple[Array, Array]:
    """Return ``h Phi(h)`` with the exact Gaussian distribution function (Hendrycks and
    Gimpel 2016).
    """
    phi = special.ndtr(h)
    return h * phi, phi + h * np.exp(-h * h / 2) / _SQRT_2PI


def _silu(h: Array) -> tuple[Array, Array]:
    s = special.expit(h)
    return h * s, s * (1 + h * (1 - s))


def _elu(h: Array) -> tuple[Array, Array]:
    e = np.exp(np.minimum(h, 0.0))
    return np.where(h > 0, h, e - 1), np.where(h > 0, 1.0, e)


def _selu(h: Array) -> tuple[Array, Array]:
    scale, alpha = SELU
    e = alpha * np.exp(np.minimum(h, 0.0))
    return scale * np.where(h > 0, h, e - alpha), scale * np.where(h > 0, 1.0, e)


def _tanh(h: Array) -> tuple[Array, Array]:
    y = np.tanh(h)
    return y, 1 - y * y


def _sigmoid(h: Array) -> tuple[Array, Array]:
    s = special.expit(h)
    return s, s * (1 - s)


def _clipped(low: float, high: float) -> Callable[[Array], tuple[Array, Array]]:
    return lambda h: (np.clip(h, low, high), ((h > low) & (h < high)).astype(np.float64))


ACTIVATIONS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "linear": lambda h: (h, np.ones_like(h)),
    "relu": _clipped(0.0, math.inf),
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "gelu": _gelu,
    "silu": _silu,
    "elu": _elu,
    "selu": _selu,
    "softplus": lambda h: (np.logaddexp(0.0, h), special.expit(h)),
    "hardtanh": _clipped(-1.0, 1.0),
    "relu6": _clipped(0.0, 6.0),
}
"""Activation name -> (value, derivative) at a pre-activation, with PyTorch's default
parameters.
"""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Log-norms of a simulated chain.

    Attributes
    ----------
    log_norms : float64 array of shape (layers, draws)
        ``ln||J_l ... J_1 u||^2`` after each layer (natural log), ``||u|| = 1``; -inf
        where dead.
    """

    log_norms: Array


def simulate(architecture: Architecture, draws: int, seed: int) -> Simulation:
    """Simulate ``draws`` initialisations of a chain without gaps, for an input of root
    mean square ``architecture.input_rms``.
    """
    blocks = [
        _block(architecture, np.random.default_rng((seed, index)))
        for index in range(-(-draws // BLOCK))
    ]
    return Simulation(np.concatenate(blocks, axis=1)[:, :draws])


@dataclass
class _Draws:
    """A block of draws at one place of the chain: ``|x|``, ``ln|t|^2`` and the
    correlation of ``x`` and ``t``.
    """

    size: Array
    log_square: Array
    correlation: Array


def _block(architecture: Architecture, rng: np.random.Generator) -> Array:
    n = architecture.input_size
    along, across = (
        rng.standard_normal(BLOCK),
        rng.chisquare(n - 1, BLOCK) if n > 1 else np.zeros(BLOCK),
    )
    state = _Draws(
        np.full(BLOCK, architecture.input_rms * math.sqrt(n)),
        np.zeros(BLOCK),
        along / np.sqrt(along**2 + across),
    )
    found = []
    for layer in architecture.layers:
        state = _through(layer, state, rng)
        found.append(state.log_square)
    return np.array(found)


def _through(layer: Layer, state: _Draws, rng: np.random.Generator) -> _Draws:
    first, second = orthonormal_images(layer, rng)
    h = state.size[:, None] * first
    if layer.bias is not None and layer.bias.variance > 0:
        h += rng.normal(0.0, math.sqrt(layer.bias.variance), h.shape)
    rest = np.sqrt(np.maximum(1 - state.correlation**2, 0.0))
    tangent = state.correlation[:, None] * first + rest[:, None] * second
    x, slope = activated(layer, h)
    tangent *= slope
    if layer.activation.dropout:
        keep = 1 - layer.activation.dropout
        mask = (rng.random(h.shape) < keep) / keep
        x, tangent = x * mask, tangent * mask
    square = np.einsum("ij,ij->i", tangent, tangent)
    size = np.sqrt(np.einsum("ij,ij->i", x, x))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.nan_to_num(np.einsum("ij,ij->i", x, tangent) / (size * np.sqrt(square)))
        return _Draws(size, state.log_square + np.log(square), np.clip(correlation, -1.0, 1.0))


def is_simulated(activation: Activation) -> bool:
    """Return whether the activation's value and slope are known here."""
    return activation.name in ACTIVATIONS or activation.name == "leaky_relu"


def too_wide(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield which layers have more units than a simulation has memory for."""
    for layer in layers:
        if layer.fan_out > WIDEST:
            yield f"{layer.name}: more than {WIDEST:,} units are not simulated"


def activated(layer: Layer, h: Array) -> tuple[Array, Array]:
    """Return value and slope of the layer's activation at the pre-activations ``h``."""
    if layer.activation.name == "leaky_relu":
        slope = np.where(h > 0, 1.0, layer.activation.negative_slope)
        return h * slope, slope
    return ACTIVATIONS[layer.activation.name](h)


def orthonormal_images(
    layer: Layer, rng: np.random.Generator, draws: int = BLOCK
) -> tuple[Array, Array]:
    """Return the images of two orthonormal vectors under the layer's matrix, each of
    shape (draws, fan_out).
    """
    if not layer.is_haar:
        pair = math.sqrt(layer.weight.variance) * rng.standard_normal((2, draws, layer.fan_out))
        return pair[0], pair[1]
    larger = max(layer.fan_in, layer.fan_out)
    gain = math.sqrt(layer.weight.variance * larger)
    a, b = rng.standard_normal((2, draws, larger))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    if larger > 1:
        b -= np.einsum("ij,ij->i", a, b)[:, None] * a
        b /= np.linalg.norm(b, axis=1, keepdims=True)
    return gain * a[:, : layer.fan_out], gain * b[:, : layer.fan_out]
