"""Forward and backward pass of a chain, simulated at the cost of its widths:
activations, ``delta_l = dLoss/dh_l``, ``J^T v``.

Backward a layer's matrix is needed again, given what it did forward. Given one image,
the law of a Gaussian and of a Haar matrix is known: ``docs/theory/gradients.md``.

So this is exact, up to the standard errors of the simulation, for every activation,
bias and cotangent ``v``, also one that depends on the output, as a loss' gradient does.
The weights are Gaussian or Haar; other iid ones are taken for Gaussian ones of their
variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from initdiag.errors import InvalidInput, explain
from initdiag.law.simulate.forward import activated
from initdiag.network.architecture import Architecture, Layer

__all__ = ["Backpropagation", "Cotangent", "simulate"]

Array = NDArray[np.float64]

Cotangent = Callable[[Array, np.random.Generator], Array]
"""From outputs of shape (draws, n_L) to ``v = dLoss/d(output)`` of the same shape."""

_BLOCK = 64
"""Draws that share a random generator, at most: draw ``i`` does not depend on how many
are asked for.
"""

_BUDGET = 1 << 28
"""Bytes that one block's forward pass may keep, about: deep and wide chains have
smaller blocks.
"""


@dataclass(frozen=True, slots=True)
class Backpropagation:
    """Logs (natural) of squared norms, one column a draw; -inf where dead.

    Attributes
    ----------
    activations : float64 array of shape (L + 1, draws)
        ``ln||a_l||^2``, the input first.
    deltas : float64 array of shape (L + 1, draws)
        First ``ln||J^T v||^2``, then ``ln||delta_l||^2`` of the layers 1 to L.
    """

    activations: Array
    deltas: Array


def simulate(
    architecture: Architecture, cotangent: Cotangent, draws: int, seed: int
) -> Backpropagation:
    """Simulate ``draws`` forward and backward passes of a chain, for an input of root
    mean square ``architecture.input_rms``.
    """
    kept = sum(3 * max(layer.fan_in, layer.fan_out) for layer in architecture.layers)
    rows = max(1, min(_BLOCK, _BUDGET // (8 * kept)))
    generators = (np.random.default_rng((seed, index)) for index in range(-(-draws // rows)))
    blocks = [_block(architecture, cotangent, rows, rng) for rng in generators]
    activations, deltas = (
        np.concatenate(part, axis=1)[:, :draws] for part in zip(*blocks, strict=True)
    )
    return Backpropagation(activations, deltas)


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the backward pass needs of one layer: ``e = a/||a||`` (0 where ``a`` is),
    ``y = W e`` (of R^N for Haar), the slopes.
    """

    layer: Layer
    direction: Array
    image: Array
    slope: Array


def _block(
    architecture: Architecture, cotangent: Cotangent, rows: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    a = np.full((rows, architecture.input_size), architecture.input_rms)
    log_activations, passed = [_log_square(a)], []
    for layer in architecture.layers:
        a, step = _forward(layer, a, rng)
        log_activations.append(_log_square(a))
        passed.append(step)
    delta = passed[-1].slope * _checked(cotangent(a, rng), a.shape)
    unit, log_size = _normalised(delta)
    log_deltas = [log_size]
    for step, below in zip(passed[::-1], [*passed[-2::-1], None], strict=True):
        back = _transposed(step, unit, rng)
        unit, log_square = _normalised(back if below is None else below.slope * back)
        log_deltas.append(log_deltas[-1] + log_square)
    return np.array(log_activations), np.array(log_deltas[::-1])


def _forward(layer: Layer, a: Array, rng: np.random.Generator) -> tuple[Array, _Passed]:
    direction, log_square = _normalised(a)
    image = _images(layer, len(a), rng)
    scale = _gain(layer) * np.exp(log_square / 2)
    h = scale[:, None] * image[:, : layer.fan_out]
    if layer.bias is not None and layer.bias.variance > 0:
        h = h + rng.normal(0.0, math.sqrt(layer.bias.variance), h.shape)
    out, slope = activated(layer, h)
    if layer.activation.dropout:
        keep = 1 - layer.activation.dropout
        mask = (rng.random(h.shape) < keep) / keep
        out, slope = out * mask, slope * mask
    return out, _Passed(layer, direction, image, slope)


def _gain(layer: Layer) -> float:
    """Return the standard deviation of an entry of Gaussian weights, or the factor
    ``g`` of Haar weights.
    """
    larger = max(layer.fan_in, layer.fan_out)
    return math.sqrt(layer.weight.variance * (larger if layer.is_haar else 1))


def _images(layer: Layer, rows: int, rng: np.random.Generator) -> Array:
    """Draw images of a unit vector under the matrix over `_gain`: Gaussian in
    R^fan_out, or uniform on the sphere of R^N.
    """
    if not layer.is_haar:
        return rng.standard_normal((rows, layer.fan_out))
    return _normalised(rng.standard_normal((rows, max(layer.fan_in, layer.fan_out))))[0]


def _transposed(step: _Passed, delta: Array, rng: np.random.Generator) -> Array:
    """Return ``W^T delta`` for unit vectors ``delta``, given the images of the
    directions ``e``.
    """
    is_haar = step.layer.is_haar
    e = _padded(step.direction, step.image.shape[1]) if is_haar else step.direction
    along = _dot(step.image[:, : step.layer.fan_out], delta) * (_dot(e, e) > 0)
    z = rng.standard_normal(e.shape)
    across = z - _dot(e, z)[:, None] * e
    if is_haar:
        rest = np.sqrt(np.maximum(_dot(delta, delta) - along**2, 0.0))
        across = _normalised(across)[0] * rest[:, None]
    else:
        across *= np.sqrt(_dot(delta, delta))[:, None]
    return _gain(step.layer) * (along[:, None] * e + across)[:, : step.layer.fan_in]


def _padded(vectors: Array, size: int) -> Array:
    return np.pad(vectors, ((0, 0), (0, size - vectors.shape[1])))


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _normalised(vectors: Array) -> tuple[Array, Array]:
    """Return unit vectors (0 where a row is 0) and the logs of the squared norms,
    without over- or underflow of the squares.
    """
    largest = np.abs(vectors).max(axis=1)
    scaled = vectors / np.where(largest > 0, largest, 1.0)[:, None]
    square = _dot(scaled, scaled)
    with np.errstate(divide="ignore"):
        log_square = 2 * np.log(largest) + np.log(square)
    return scaled / np.sqrt(np.where(square > 0, square, 1.0))[:, None], log_square


def _log_square(vectors: Array) -> Array:
    return _normalised(vectors)[1]


def _checked(v: Array, shape: tuple[int, ...]) -> Array:
    """Return ``v``, if it has the outputs' shape and is finite."""
    v = np.asarray(v, dtype=np.float64)
    if v.shape != shape or not np.isfinite(v).all():
        raise InvalidInput(
            explain(
                expected=f"cotangent: finite gradients of shape {shape}, that of the outputs",
                got=f"shape {v.shape}, {int((~np.isfinite(v)).sum())} not finite",
                do="Return dLoss/d(output), one row a draw.",
            )
        )
    return v
