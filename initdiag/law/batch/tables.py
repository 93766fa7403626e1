"""One gate's share of the law at every width at once: `initdiag.law.layer`, tabulated.

Up to a width where at least ``_MANY_OPEN`` gates are open on average the table holds
the exact moments themselves. Beyond, ``E ln X - ln E X`` and ``n Var ln X`` are smooth
functions of ``1/n`` (asymptotic series, the dead network's ``P0`` below 1e-38): they
are interpolated there by a polynomial in ``1/n`` through exact values near Chebyshev's
points, no worse than those values' own rounding. Tables grow as wider layers are asked
for, and are kept.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from initdiag.errors import InvalidInput, explain
from initdiag.law import layer as layer_law
from initdiag.network.architecture import Gate

__all__ = ["WIDEST", "WidthTable", "width_table"]

Array = NDArray[np.float64]

WIDEST = 1_000_000
"""The widest layer that is tabulated: a choice, 24 MB a gate."""

_MANY_OPEN = 128
"""Open gates on average from which on the moments are interpolated in ``1/n``.

That is on the safe side: from 32 on the interpolation equals the moments themselves
to their rounding, up to width 100,000 (1e-13 in the mean, 3e-13 for leaky ReLU; a part
of 4e-12 of the variance, 5e-11 for leaky ReLU).
"""

_NODES = 10
"""Nodes of the interpolation. More of them would let the rounding of the values at the
largest widths through.
"""


@dataclass(frozen=True, slots=True, eq=False)
class WidthTable:
    """Moments of ``ln sum_i d_i^2 z_i^2`` over ``n`` gates, given not dead, by the
    width ``n``; the entry at 0 is 0.

    Attributes
    ----------
    log_mean, log_variance : float64 arrays
        Natural log.
    log_alive : float64 array
        ``ln(1 - P(every gate is closed))``.
    """

    log_mean: Array
    log_variance: Array
    log_alive: Array


_BUILDING = threading.Lock()
_BUILT: dict[Gate, WidthTable] = {}
"""The largest table of each gate."""


def width_table(gate: Gate, widest: int) -> WidthTable:
    """Return the table of ``gate`` up to ``widest`` at least.

    Raises
    ------
    InvalidInput
        Above `WIDEST`.
    """
    if widest > WIDEST:
        raise InvalidInput(
            explain(
                expected=f"widths up to {WIDEST:,}", got=str(widest), do="Use initdiag.predict."
            )
        )
    with _BUILDING:
        known = _BUILT.get(gate)
        if known is None or len(known.log_mean) <= widest:
            size = min(max(1 << widest.bit_length(), 1024), WIDEST + 1)
            known = _BUILT[gate] = _build(gate, size)
        return known


def _build(gate: Gate, size: int) -> WidthTable:
    first = math.ceil(_MANY_OPEN / (1 - gate.closed_probability))
    direct = [_moments(gate, n) for n in range(1, min(first, size))]
    table = np.array([(0.0, 0.0), *direct])
    if size > first:
        n = np.arange(first, size, dtype=np.float64)
        shift, scaled = _interpolants(gate, first)
        tail = np.stack([shift(1 / n) + np.log(n * gate.second_moment), scaled(1 / n) / n], axis=1)
        table = np.concatenate([table, tail])
    dead = layer_law.dead_probability(gate, np.arange(size, dtype=np.float64))
    dead[0] = 0.0
    columns = (*table.T.copy(), np.log1p(-dead))
    for column in columns:
        column.flags.writeable = False
    return WidthTable(*columns)


def _moments(gate: Gate, n: int) -> tuple[float, float]:
    moments = layer_law.gate_log_moments(gate, n)
    return moments.mean, moments.variance


def _interpolants(
    gate: Gate, first: int
) -> tuple[interpolate.BarycentricInterpolator, interpolate.BarycentricInterpolator]:
    """Return ``E ln X - ln E X`` and ``n Var ln X`` as functions of ``1/n``, which goes
    from 0 to ``1/first``.
    """
    angles = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    widths = sorted({max(first, round(2 * first / (1 - math.cos(angle)))) for angle in angles})
    n = np.array(widths, dtype=np.float64)
    values = np.array([_moments(gate, width) for width in widths])
    shift = values[:, 0] - np.log(n * gate.second_moment)
    return (
        interpolate.BarycentricInterpolator(1 / n, shift),
        interpolate.BarycentricInterpolator(1 / n, n * values[:, 1]),
    )
