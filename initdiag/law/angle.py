"""Two inputs through depth: the angle between their images, and when the network can no longer tell them apart.

Two inputs see the same weights, so at a layer with Gaussian weights their pre-activations are Gaussian pairs, iid over the outputs, with
``v`` times their Gram matrix (plus the bias's variance in every entry) for covariance. As in `initdiag.law.simulation` a draw is carried through
in a few scalars: ``|x|``, and of the difference ``d = x' - x`` its length and its part across ``x``, which keep their accuracy where the angle
is small.

At infinite width the cosine after a ReLU is ``(sin a + (pi - a) cos a)/pi`` of the angle ``a`` before it (Cho and Saul 2009): angles shrink,
slowly. A bias, which both inputs share, shrinks them fast where the signal is small beside it. At width ``n`` each ReLU layer takes about
``2/n`` more off the mean of ``ln sin^2`` (Jakub and Nica 2023, arXiv 2302.09712).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from initdiag.architecture import Architecture, Layer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law.simulation import activated, is_simulated, orthonormal_images
from initdiag.measurement import LogMoments

__all__ = ["LayerAngle", "angles"]

Array = NDArray[np.float64]

_BLOCK = 64
"""Draws that share a random generator."""


@dataclass(frozen=True, slots=True)
class LayerAngle:
    """The angle between two inputs' images after one layer.

    Attributes
    ----------
    name : str
        Of the layer.
    log_mean, log_mean_se, log_variance : float
        Of ``ln sin^2`` of the angle over the draws (natural log), where both images are not zero and not parallel.
    """

    name: str
    log_mean: float
    log_mean_se: float
    log_variance: float


def angles(
    architecture: Architecture, angle: float = math.pi / 2, *, draws: int = 64, seed: int = 0
) -> tuple[LayerAngle, ...]:
    """Simulate the angle between two inputs of one length, layer by layer.

    Parameters
    ----------
    architecture : Architecture
        A chain; any activation that `predict` knows, Gaussian or orthogonal weights (others are taken for Gaussian).
    angle : float
        Between the inputs, in radians, in (0, pi).
    draws, seed : int
        Of the simulation.

    Raises
    ------
    InvalidInput
        If the angle is not in (0, pi).
    UnsupportedArchitecture
        If the architecture is no chain.
    """
    if not 0 < angle < math.pi:
        raise InvalidInput(explain(expected="an angle in (0, pi)", got=repr(angle), do="Give radians."))
    if architecture.gaps:
        raise UnsupportedArchitecture(f"not a plain chain: {architecture.gaps[0].path}: {architecture.gaps[0].reason}.")
    unknown = next((x.activation for x in architecture.layers if not is_simulated(x.activation)), None)
    if unknown is not None:
        raise UnsupportedArchitecture(f"{unknown.label} is not simulated.")
    blocks = [_block(architecture, angle, np.random.default_rng((seed, b))) for b in range(-(-draws // _BLOCK))]
    values = np.concatenate(blocks, axis=1)[:, :draws]
    moments = (LogMoments.of(row) for row in values)
    return tuple(
        LayerAngle(layer.name, m.mean, m.mean_se, m.variance)
        for layer, m in zip(architecture.layers, moments, strict=True)
    )


@dataclass
class _Pairs:
    """A block of draws: ``|x|``, and the difference's parts along and across ``x``."""

    size: Array
    along: Array
    across: Array


def _block(architecture: Architecture, angle: float, rng: np.random.Generator) -> Array:
    radius = architecture.input_rms * math.sqrt(architecture.input_size)
    ones = np.ones(_BLOCK)
    pairs = _Pairs(radius * ones, radius * (math.cos(angle) - 1) * ones, radius * math.sin(angle) * ones)
    found = []
    for layer in architecture.layers:
        pairs = _through(layer, pairs, rng)
        with np.errstate(divide="ignore", invalid="ignore"):
            other = np.hypot(pairs.size + pairs.along, pairs.across)
            found.append(2 * np.log(pairs.across / other))
    return np.array(found)


def _through(layer: Layer, pairs: _Pairs, rng: np.random.Generator) -> _Pairs:
    first, second = orthonormal_images(layer, rng, _BLOCK)
    h = pairs.size[:, None] * first
    if layer.bias is not None and layer.bias.variance > 0:
        h += rng.normal(0.0, math.sqrt(layer.bias.variance), h.shape)
    x, _ = activated(layer, h)
    shifted, _ = activated(layer, h + pairs.along[:, None] * first + pairs.across[:, None] * second)
    difference = shifted - x
    size = np.sqrt(np.einsum("ij,ij->i", x, x))
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.einsum("ij,ij->i", x, difference) / size
        across = difference - x * (along / size)[:, None]
    return _Pairs(size, along, np.sqrt(np.einsum("ij,ij->i", across, across)))
