"""What uniform and truncated normal weights add to the law, for many chains at once: `initdiag.law.kurtosis`, layer by layer.

The corrections depend on the chain before a layer through three numbers (the concentration ``k`` of what enters, its spread, its covariance with the
log-norm). So the recursion goes along depth, over all architectures that are that deep. A layer's response (`initdiag.law.layer_response`) is tabulated: for each
width Chebyshev's polynomials in ``k``, exact at their nodes; from about 32 open gates on, their coefficients are polynomials in ``1/n``. Numbers agree with `predict` to
about 1e-8, the noise of the integrals themselves; the formula's own error, which `predict` states, is a thousand times as large.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from initdiag.architecture import Gate
from initdiag.law.layer_response import respond

__all__ = ["Corrections", "corrections"]

Array = NDArray[np.float64]

_IN_K = 14
_IN_WIDTH = 12
"""Nodes of the interpolation in ``k`` and in ``1/n``."""

_MANY_OPEN = 32
"""Open gates on average from which on widths are interpolated."""

_POWERS = np.array([1, 1, 1, 2, 2, 1])
"""Of ``n``, by which the columns of `_responses` are multiplied, so that they are smooth in ``1/n``."""


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """Of each architecture: what the hidden layers and the output layer add to log-mean and log-variance, and the error of the log-variance."""

    hidden_mean: Array
    hidden_variance: Array
    output_mean: Array
    output_variance: Array
    variance_error: Array


def corrections(
    hidden: Gate, output: Gate, excess: float, flat: NDArray[np.int32], offsets: NDArray[np.int64]
) -> Corrections:
    """Return the corrections of chains ``flat[offsets[i]:offsets[i + 1]]`` for a uniform unit vector at the input.

    Parameters
    ----------
    hidden, output : Gate
        Of the layers.
    excess : float
        Excess kurtosis of an entry, negative.
    flat, offsets
        As in `initdiag.law.ragged.Ragged`, without faults.
    """
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    starts, layers = offsets[:-1][order], lengths[order] - 1
    found = np.zeros((5, len(order)))
    tables = _Tables.of(hidden, excess, flat), _Tables.of(output, excess, flat[offsets[1:] - 1])
    state = _entering(flat[starts].astype(np.float64))
    for step in range(1, int(layers[0]) + 1):
        hidden_count, count = (int(np.searchsorted(-layers, -deep, side="right")) for deep in (step + 1, step))
        width = flat[starts[:count] + step]
        ending = slice(hidden_count, count)
        mean, variance, error, _ = _step(tables[1], width[ending], state[:, ending])
        found[2, ending], found[3, ending] = mean, variance
        found[4, ending] += error
        mean, variance, error, state = _step(tables[0], width[:hidden_count], state[:, :hidden_count])
        found[0, :hidden_count] += mean
        found[1, :hidden_count] += variance
        found[4, :hidden_count] += error
    restored = np.empty_like(found)
    restored[:, order] = found
    return Corrections(*restored)


def _entering(n: Array) -> Array:
    """Of a uniform unit vector: mean and mean square of ``k``, and its covariance with the log-norm."""
    square = (105 + 9 * (n - 1)) / ((n + 2) * (n + 4) * (n + 6))
    return np.stack([3 / (n + 2), square, np.zeros_like(n)])


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Coefficients in ``k`` by width: array (distinct widths, node, column); the last column is the Gaussian concentration, constant."""

    row: NDArray[np.int32]
    coefficients: Array

    @classmethod
    def of(cls, gate: Gate, excess: float, widths: NDArray[np.int32]) -> _Tables:
        distinct = np.flatnonzero(np.bincount(widths))
        row = np.zeros(int(distinct[-1]) + 1, dtype=np.int32)
        row[distinct] = np.arange(len(distinct))
        first = math.ceil(_MANY_OPEN / (1 - gate.closed_probability))
        narrow, wide = distinct[distinct < first], distinct[distinct >= first]
        parts = [_coefficients(gate, excess, int(n))[None] for n in narrow]
        if len(wide):
            x = 2 * first / wide - 1
            scaled = np.tensordot(chebyshev.chebvander(x, _IN_WIDTH - 1), _wide(gate, excess, first), axes=1)
            parts.append(scaled / wide[:, None, None].astype(np.float64) ** _POWERS)
        return cls(row, np.concatenate(parts))


def _nodes(count: int) -> Array:
    """Chebyshev's points on [-1, 1]."""
    return -np.cos((np.arange(count) + 0.5) * np.pi / count)


@functools.lru_cache(maxsize=4096)
def _coefficients(gate: Gate, excess: float, width: int) -> Array:
    """Chebyshev coefficients in ``2 k - 1`` of a layer's response: array (node, column)."""
    x = _nodes(_IN_K)
    values = np.array([_responses(gate, excess, width, (1 + point) / 2) for point in x])
    return np.asarray(np.linalg.solve(chebyshev.chebvander(x, _IN_K - 1), values))


def _responses(gate: Gate, excess: float, width: int, concentration: float) -> tuple[float, ...]:
    """Log-mean and log-variance beyond the Gaussian ones, concentration, its square, its covariance; the Gaussian concentration."""
    gaussian, own = respond(gate, width, 0.0, 0.0), respond(gate, width, excess, concentration)
    return (
        own.log_mean - gaussian.log_mean,
        own.log_variance - gaussian.log_variance,
        own.concentration,
        own.concentration_square,
        own.covariance,
        gaussian.concentration,
    )


@functools.lru_cache(maxsize=64)
def _wide(gate: Gate, excess: float, first: int) -> Array:
    """Coefficients in ``2 first/n - 1`` of the scaled coefficients: array (node in 1/n, node in k, column)."""
    widths = sorted({max(first, round(2 * first / (1 + x))) for x in _nodes(_IN_WIDTH)})
    scaled = np.array([_coefficients(gate, excess, n) * float(n) ** _POWERS for n in widths])
    vandermonde = chebyshev.chebvander(2 * first / np.array(widths) - 1, _IN_WIDTH - 1)
    flat: Array = np.linalg.solve(vandermonde, scaled.reshape(len(widths), -1))
    return flat.reshape(scaled.shape)


def _step(tables: _Tables, width: NDArray[np.int32], entering: Array) -> tuple[Array, Array, Array, Array]:
    """Corrections to log-mean and log-variance, the latter's error, and the state that leaves: `kurtosis._step` over many chains."""
    k, square, covariance = entering
    spread = np.sqrt(np.maximum(square - k**2, 0.0))
    spread = np.minimum(spread, np.minimum(1 - k, 0.75 * k))
    x = 2 * np.stack([k - spread, k + spread]) - 1
    basis = np.moveaxis(chebyshev.chebvander(x, _IN_K - 1), 0, 1)
    low, high = np.moveaxis(basis @ tables.coefficients[tables.row[width]], 1, 0)
    half, middle = (high - low) / 2, (high + low) / 2
    mean, leaving, gaussian = middle[:, 0], middle[:, 2], middle[:, 5]
    variance = middle[:, 1] + half[:, 0] ** 2 + 2 * mean / k * covariance
    within = middle[:, 4] + half[:, 0] * half[:, 2] + (leaving - gaussian) / k * covariance
    share = np.minimum(0.05 + k / width, 1.0)  # kurtosis._error_share for light tails
    return mean, variance, share * np.abs(variance), np.stack([leaving, middle[:, 3], within])
