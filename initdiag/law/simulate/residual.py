"""The law of a chain whose hidden layers are given skip connections, simulated: what
`initdiag.diagnosing.advice` promises of them.

The first layer stays, ``x_1 = W_1 x_0``; every further hidden layer of as many units
becomes ``x <- x + s W phi(x)``; the output is ``W_L phi(x)``. Given ``phi(x)`` and its
tangent, their images under ``W`` are a pair of Gaussian (or Haar) vectors that depend
on two norms and a correlation alone, as in `initdiag.law.simulate.forward`; ``x``
itself is kept, for the sum.

At ``s^2 = 1/blocks`` the mean square grows by ``(1 + 1/blocks)^blocks``, less than e,
at any depth, and to first order the log-variance is about ``4/n`` in place of the
chain's ``5 depth/n``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from initdiag.law.simulate.forward import activated, orthonormal_images
from initdiag.network.architecture import Architecture, Layer

__all__ = ["can_be_residual", "simulate_residual"]

Array = NDArray[np.float64]


def can_be_residual(architecture: Architecture) -> bool:
    """Return whether there are hidden layers of equal width to put skip connections
    around, and no dropout or gap in the way.
    """
    hidden = architecture.layers[:-1]
    is_plain = not architecture.gaps and all(layer.activation.dropout == 0 for layer in hidden)
    return is_plain and len(hidden) > 1 and len({layer.fan_out for layer in hidden}) == 1


def simulate_residual(architecture: Architecture, scale: float, draws: int, seed: int) -> Array:
    """Return draws of ``ln||Ju||^2`` (natural log) of the chain with skip connections,
    ``||u|| = 1``; -inf where dead.

    Parameters
    ----------
    architecture : Architecture
        A chain for which `can_be_residual` holds, biases 0.
    scale : float
        ``s``, the factor on every branch.
    draws, seed : int
        Draws and seed of the simulation.
    """
    rng = np.random.default_rng(seed)
    first, *hidden, output = architecture.layers
    n = architecture.input_size
    x, tangent = np.full((draws, n), architecture.input_rms), rng.standard_normal((draws, n))
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    x, tangent = _images(first, x, tangent, rng)
    for before, layer in zip((first, *hidden), hidden, strict=False):
        branch = _images(layer, *_gated(before, x, tangent), rng)
        x, tangent = x + scale * branch[0], tangent + scale * branch[1]
    last = _images(output, *_gated(architecture.layers[-2], x, tangent), rng)
    _, tangent = _gated(output, *last)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.einsum("ij,ij->i", tangent, tangent)))


def _gated(layer: Layer, h: Array, tangent: Array) -> tuple[Array, Array]:
    value, slope = activated(layer, h)
    return value, slope * tangent


def _images(
    layer: Layer, x: Array, tangent: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw ``(W x, W t)`` of each row, for its own ``W``."""
    first, second = orthonormal_images(layer, rng, len(x))
    size, length = np.linalg.norm(x, axis=1), np.linalg.norm(tangent, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.nan_to_num(np.einsum("ij,ij->i", x, tangent) / (size * length)).clip(-1, 1)
    across = np.sqrt(1 - along**2)
    return size[:, None] * first, length[:, None] * (
        along[:, None] * first + across[:, None] * second
    )
