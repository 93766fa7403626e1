"""Two inputs through depth, drawn: the angle between their images after each layer.

Two inputs see the same weights, so at a layer with Gaussian weights their
pre-activations are Gaussian pairs, iid over the outputs, with ``v`` times their Gram
matrix (plus the bias's variance in every entry) for covariance. As in
`initdiag.law.simulate.forward` a draw is carried through in a few scalars: ``|x|``, and
of the difference ``d = x' - x`` its length and its part across ``x``, which keep their
accuracy where the angle is small. Without drawing: `initdiag.law.correlation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from initdiag._core.validation import seed_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law.simulate.forward import activated, is_simulated, orthonormal_images
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.log_moments import LogMoments

__all__ = ["DRAWS", "LayerAngle", "angles", "log_sines"]

Array = NDArray[np.float64]

_BLOCK = 64
"""Draws that share a random generator."""

DRAWS = 64
"""Draws of a simulation, unless given: the standard error of the mean of ``ln sin^2``
is then an eighth of its spread.
"""

_PARALLEL = 1e-13
"""Sine of the angle between the difference and ``x`` from which on all that is left
across ``x`` is rounding.
"""


@dataclass(frozen=True, slots=True)
class LayerAngle:
    """The angle between two inputs' images after one layer.

    Attributes
    ----------
    name : str
        Name of the layer.
    log_mean, log_mean_se, log_variance : float
        Moments of ``ln sin^2`` of the angle over the draws (natural log), where both
        images are not zero and not parallel.
    """

    name: str
    log_mean: float
    log_mean_se: float
    log_variance: float


def angles(
    architecture: Architecture, angle: float = math.pi / 2, *, draws: int = DRAWS, seed: int = 0
) -> tuple[LayerAngle, ...]:
    """Simulate the angle between two inputs of one length, layer by layer.

    Parameters
    ----------
    architecture : Architecture
        A chain; any activation that `predict` knows, Gaussian or orthogonal weights
        (others are taken for Gaussian).
    angle : float
        Angle between the inputs, in radians, in (0, pi).
    draws, seed : int
        Draws and seed of the simulation.

    Raises
    ------
    InvalidInput
        If the angle is not in (0, pi).
    UnsupportedArchitecture
        If the architecture is not a chain.
    """
    values = log_sines(architecture, architecture.layers, angle, draws, seed_integer(seed))
    return tuple(map(_layer_angle, architecture.layers, values))


def log_sines(
    architecture: Architecture, layers: Sequence[Layer], angle: float, draws: int, seed: int
) -> Array:
    """Return ``ln sin^2`` after each of the first ``layers`` of the chain, of shape
    (layers, draws).
    """
    if not 0 < angle < math.pi:
        raise InvalidInput(
            explain(expected="an angle in (0, pi)", got=repr(angle), do="Give radians.")
        )
    if architecture.gaps:
        raise UnsupportedArchitecture(
            f"not a plain chain: {architecture.gaps[0].path}: {architecture.gaps[0].reason}."
        )
    unknown = next((x.activation for x in layers if not is_simulated(x.activation)), None)
    if unknown is not None:
        raise UnsupportedArchitecture(f"{unknown.label} is not simulated.")
    radius = architecture.input_rms * math.sqrt(architecture.input_size)
    blocks = [
        _block(layers, radius, angle, np.random.default_rng((seed, b)))
        for b in range(-(-draws // _BLOCK))
    ]
    return np.concatenate(blocks, axis=1)[:, :draws]


def _layer_angle(layer: Layer, log_sines: Array) -> LayerAngle:
    m = LogMoments.of(log_sines)
    return LayerAngle(layer.name, m.mean, m.mean_se, m.variance)


@dataclass
class _Pairs:
    """A block of draws: ``|x|``, and the difference's parts along and across ``x``."""

    size: Array
    along: Array
    across: Array


def _block(layers: Sequence[Layer], radius: float, angle: float, rng: np.random.Generator) -> Array:
    ones = np.ones(_BLOCK)
    pairs = _Pairs(
        radius * ones, radius * (math.cos(angle) - 1) * ones, radius * math.sin(angle) * ones
    )
    found = []
    for layer in layers:
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
    apart = np.sqrt(np.einsum("ij,ij->i", across, across))
    return _Pairs(size, along, np.where(apart > _PARALLEL * np.abs(along), apart, 0.0))
