"""What uniform and truncated normal weights add to the law, for many chains at once:
`initdiag.law.kurtosis.corrections`, layer by layer.

The corrections depend on the chain before a layer through three numbers: mean and
variance of the concentration ``k`` of what enters, and its covariance with the
log-norm. So the recursion goes along depth, over all architectures that are that deep.
A layer's response (`initdiag.law.kurtosis.layer_response`) is tabulated by width, as a
polynomial in ``k``: of degree 5 where ``k`` is small (behind wide layers: nearly
always), of degree 15 up to 1; from about 32 open gates on, the coefficients are
polynomials in ``1/n``. What is left of interpolation and rounding: 2e-12 of a
log-variance at most, seen behind and before layers of 1 to 1,000,000 units; the
formula's own error, which `predict` states, is a million times as large.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from initdiag.law import columns
from initdiag.law.kurtosis.layer_response import beyond_gaussian, respond
from initdiag.network.architecture import Gate

__all__ = ["Corrections", "corrections"]

Array = NDArray[np.float64]

_NEAR = 0.1
"""Concentration up to which few nodes suffice: behind some 100 ReLU units or more.

One layer in 13 is beyond, of widths 8 to 1,024 drawn evenly.
"""

_IN_NEAR, _IN_K, _IN_WIDTH = 6, 16, 12
"""Nodes of the interpolation in ``k`` up to `_NEAR` and up to 1, and in ``1/n``: the
error in a layer is a few 1e-12 at most from width 4 on.
"""

_MANY_OPEN = 32
"""Open gates on average from which on widths are interpolated: the coefficients are
then right to 2e-15 (uniform entries; 2e-11 from 16 open gates on, 5e-9 from 8 on).
"""

_BLOCK = 4096
"""Chains whose coefficients are gathered together: 1 MB of them, which the processor's
cache holds.
"""

_POWERS = np.array([1, 1, 1, 3, 2])
"""Powers of ``n`` by which the columns of `_responses` are multiplied, so that they are
smooth in ``1/n``.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """What the hidden layers and the output layer of each architecture add to log-mean
    and log-variance, and the error of the log-variance.
    """

    hidden_mean: Array
    hidden_variance: Array
    output_mean: Array
    output_variance: Array
    variance_error: Array


def corrections(
    hidden: Gate, output: Gate, excess: float, flat: NDArray[np.int32], offsets: NDArray[np.int64]
) -> Corrections:
    """Return the corrections of chains ``flat[offsets[i]:offsets[i + 1]]`` for a
    uniform unit vector at the input.

    Parameters
    ----------
    hidden, output : Gate
        Gates of the hidden layers and of the output layer.
    excess : float
        Excess kurtosis of an entry, negative.
    flat, offsets
        As in `initdiag.law.batch.ragged.Ragged`, without faults.
    """
    layers = np.diff(offsets) - 1
    deepest = int(layers.max())
    # Sixteen bits are sorted by radix.
    keys = (deepest - layers).astype(np.uint16 if deepest < 1 << 16 else np.int64)
    order = np.argsort(keys, kind="stable")
    starts, layers = offsets[:-1][order], layers[order]
    counts = np.searchsorted(
        -layers, -np.arange(deepest)
    )  # architectures with more layers than 0, 1, ...
    last, state = np.empty((3, len(order))), _entering(flat[starts].astype(np.float64))
    total = np.zeros((3, len(order)))
    tables = _Tables.of(hidden, excess, flat)
    place = tables.place.take(flat)
    for step, count in enumerate(counts.tolist()[1:], 1):
        last[:, count : state.shape[1]] = state[:, count:]
        added, state = _step(tables, place.take(starts[:count] + step), state[:, :count])
        total[:, :count] += added
    last[:, : state.shape[1]] = state
    ending = flat[offsets[1:] - 1]
    tables = _Tables.of(output, excess, ending)
    added, _ = _step(tables, tables.place.take(ending[order]), last)
    found = np.empty((5, len(order)))
    found[:, order] = *total[:2], *added[:2], total[2] + added[2]
    return Corrections(*found)


def _entering(n: Array) -> Array:
    """Return mean and variance of ``k`` for a uniform unit vector, and its covariance
    with the log-norm.
    """
    return np.stack([*columns.uniform_concentration(n), np.zeros_like(n)])


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Columns of `_responses` by distinct widths: arrays (column, node, width).

    Attributes
    ----------
    place : array
        By the width: where it is among the distinct ones.
    near, far : float64 arrays
        Coefficients in powers of ``k``, up to `_NEAR`; half of those in Chebyshev's
        polynomials in ``2 k - 1``, up to 1.
    width : float64 array
        The distinct widths themselves.
    """

    place: NDArray[np.intp]
    near: Array
    far: Array
    width: Array

    @classmethod
    def of(cls, gate: Gate, excess: float, widths: NDArray[np.int32]) -> _Tables:
        distinct = np.flatnonzero(np.bincount(widths))
        place = np.zeros(int(distinct[-1]) + 1, dtype=np.intp)
        place[distinct] = np.arange(len(distinct))
        first = math.ceil(_MANY_OPEN / (1 - gate.closed_probability))
        narrow, wide = distinct[distinct < first], distinct[distinct >= first]
        far = np.empty((len(_POWERS), _IN_K, len(distinct)))
        for i, n in enumerate(narrow):
            far[..., i] = _coefficients(gate, excess, int(n))
        if len(wide):
            basis = chebyshev.chebvander(2 * first / wide - 1, _IN_WIDTH - 1).T
            scaled = _wide(gate, excess, first) @ basis
            far[..., len(narrow) :] = scaled / wide.astype(np.float64) ** _POWERS[:, None, None]
        return cls(place, _NEAR_FROM_FAR @ far, far, distinct.astype(np.float64))


def _nodes(count: int) -> Array:
    """Return Chebyshev's points of the first kind."""
    return np.cos((np.arange(count) + 0.5) * np.pi / count)


_NEAR_FROM_FAR = 2 * np.linalg.solve(
    np.vander(_NEAR * (1 + _nodes(_IN_NEAR)) / 2, increasing=True),
    chebyshev.chebvander(_NEAR * (1 + _nodes(_IN_NEAR)) - 1, _IN_K - 1),
)
"""The coefficients in powers of ``k`` from those in Chebyshev's polynomials, by values
at Chebyshev's points up to `_NEAR`.
"""


@functools.lru_cache(maxsize=4096)
def _coefficients(gate: Gate, excess: float, width: int) -> Array:
    """Return half of Chebyshev's coefficients in ``2 k - 1`` of a layer's response, as
    an array (column, node).
    """
    x = _nodes(_IN_K)
    values = np.array([_responses(gate, excess, width, (1 + point) / 2) for point in x])
    return np.asarray(np.linalg.solve(chebyshev.chebvander(x, _IN_K - 1), values / 2)).T


def _responses(gate: Gate, excess: float, width: int, concentration: float) -> tuple[float, ...]:
    """Return `beyond_gaussian` of a layer's response at one concentration."""
    gaussian, own = respond(gate, width, 0.0, 0.0), respond(gate, width, excess, concentration)
    return beyond_gaussian(own, gaussian)


@functools.lru_cache(maxsize=64)
def _wide(gate: Gate, excess: float, first: int) -> Array:
    """Return the coefficients in ``2 first/n - 1`` of the scaled coefficients, as an
    array (column, node in k, node in 1/n).
    """
    widths = sorted({max(first, round(2 * first / (1 + x))) for x in _nodes(_IN_WIDTH)})
    scaled = np.array([_coefficients(gate, excess, n).T * float(n) ** _POWERS for n in widths])
    vandermonde = chebyshev.chebvander(2 * first / np.array(widths) - 1, _IN_WIDTH - 1)
    flat: Array = np.linalg.solve(vandermonde, scaled.reshape(len(widths), -1))
    return flat.reshape(scaled.shape).T


def _step(tables: _Tables, place: NDArray[np.intp], entering: Array) -> tuple[Array, Array]:
    """Return what `initdiag.law.columns.mixed_over_inputs` gives, for many chains: the
    corrections to log-mean and log-variance, the latter's error, and the next state.
    """
    k, spread, covariance = entering[0], entering[1].copy(), entering[2]
    averages, slopes, is_far = _near(tables, place, k, spread)
    far = np.flatnonzero(is_far)
    if len(far):
        averages[:, far], slopes[:, far], spread[far] = _far(
            tables, place[far], k[far], spread[far]
        )
    gaussian = tables.near[1, 0].take(place)
    variance, *passed_on = columns.mixed_over_inputs(
        [*averages], [*slopes], spread, covariance / k, gaussian
    )
    share = columns.light_error_share(k, tables.width.take(place))
    added = np.stack([averages[0], variance, share * np.abs(variance)])
    return added, np.stack([averages[1], *passed_on])


def _near(
    tables: _Tables, place: NDArray[np.intp], k: Array, spread: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return the columns averaged over ``k - s`` and ``k + s``, half the differences of
    the first two over ``s``, and where ``k + s`` may be beyond `_NEAR`.

    The bounds of `_far` are not reached here: ``s`` is below ``k/3`` behind layers that
    wide (seen: ``k/4``, with dropout 0.8 as without), ``3 k/4`` is allowed.
    """
    averages, slopes = np.empty((len(_POWERS), len(k))), np.empty((2, len(k)))
    is_far = np.empty(len(k), dtype=bool)
    for start in range(0, len(k), _BLOCK):
        part = slice(start, start + _BLOCK)
        own = tables.near.take(place[part], axis=2, mode="clip")
        means, differences = _powers(k[part], spread[part])
        np.einsum("cjn,jn->cn", own, means, out=averages[:, part])
        np.einsum("cjn,jn->cn", own[:2, 1:], differences, out=slopes[:, part])
        # k + s is at most sqrt(2 (k^2 + s^2))
        np.greater(means[2], _NEAR**2 / 2, out=is_far[part])
    return averages, slopes, is_far


def _powers(k: Array, v: Array) -> tuple[Array, Array]:
    """Return ``1, k, ... k^5`` averaged over ``k - s`` and ``k + s`` with ``v = s^2``,
    and half the differences of ``k, ... k^5`` over ``s``.
    """
    means, slopes = np.empty((_IN_NEAR, len(k))), np.empty((_IN_NEAR - 1, len(k)))
    means[0] = slopes[0] = 1.0
    means[1] = k
    square, v2 = k * k, v * v
    np.add(square, v, out=means[2])
    np.multiply(k, square + 3 * v, out=means[3])
    np.add(square * (square + 6 * v), v2, out=means[4])
    np.multiply(k, square * (square + 10 * v) + 5 * v2, out=means[5])
    np.multiply(k, 2, out=slopes[1])
    np.add(3 * square, v, out=slopes[2])
    np.multiply(4 * k, means[2], out=slopes[3])
    np.add(5 * square * (square + 2 * v), v2, out=slopes[4])
    return means, slopes


def _far(
    tables: _Tables, place: NDArray[np.intp], k: Array, spread: Array
) -> tuple[Array, Array, Array]:
    """Return what `_near` does at any ``k``, and ``s^2`` within the bounds of
    `columns.bounded_spread`.
    """
    s = columns.bounded_spread(k, spread)
    low, high = (
        np.moveaxis(chebyshev.chebvander(2 * x - 1, _IN_K - 1), 1, 0) for x in (k - s, k + s)
    )
    own = tables.far.take(place, axis=2, mode="clip")
    averages = np.einsum("cjn,jn->cn", own, low + high)
    half = np.einsum("cjn,jn->cn", own[:2], high - low)
    return averages, half / np.maximum(s, 1e-300), s**2
