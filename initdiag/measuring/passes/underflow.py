"""Tangents without a scale of their own, kept in range: off a proved chain paths cannot
be rescaled apart.

A tangent map is linear: ``ln||J(s u)|| - ln s`` is the same for every ``s``, as long as
nothing leaves the range of double precision on the way. So rows that are 0, or nearly,
are run again from a larger ``u``. A row is dead where its tangent is cut from well
within the range to exactly 0 by a closed gate; one that fades to 0 at every scale is
refused, since nothing is known of it but that it is small.

Where the values fade as well, gates lose their signs. Then ``x`` is scaled with ``u``,
which is right for a network that is positively homogeneous: products with powers of two
are exact, so that this shows in every layer that is in range at both scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.passes.rows import LayerLogs

__all__ = ["LOWEST", "SCALES", "Logs", "any_row", "rescued"]

Logs = tuple[Tensor, list[LayerLogs]]
"""``ln||Ju||^2`` of each row, and of what leaves each linear layer on the way."""

SCALES = (2.0**960, 2.0**480, 2.0**240)
"""What ``u`` is multiplied with, one after the other where the larger one overflows:
exact in any precision.
"""

LOWEST = 2 * math.log(1e-290)
"""Squared norms below this (natural log) may have lost digits: double precision is
exact to a digit of 1e-308.
"""

_CUT = 2 * math.log(1e-150)
"""What falls to 0 from above this (natural log) was cut by a gate: no layer makes a
norm 1e170 times smaller.
"""


_ALIKE = 1e-8
"""Logs of up to 1e4 that differ by less are the same but for rounding."""


def rescued(found: Logs, run: Callable[[float, float], Logs], is_moved: Tensor) -> Logs:
    """Return ``found`` with the rows that underflow taken from passes from larger
    tangents; at no cost where none does.

    Parameters
    ----------
    found : Logs
        Logs of the pass at scale 1.
    run : callable
        Makes the pass whose inputs and tangents are so many times as large.
    is_moved : Tensor of bool
        Rows whose ``u`` is not 0.

    Raises
    ------
    UnsupportedArchitecture
        If rows underflow at every scale that does not overflow.
    """
    is_open = is_moved & _is_low(found)
    for scale in SCALES:
        if not any_row(is_open):
            return found
        for of_input in (scale, 1.0) if any_row(is_open & _is_faint(found)) else (1.0,):
            other = _divided(run(of_input, scale), of_input, scale)
            is_settled = is_open & _is_settled(found, other, of_input, scale)
            found, is_open = _merged(found, other, is_settled), is_open & ~is_settled
    is_lost = is_open & (found[0] < LOWEST)
    if any_row(is_lost):
        raise UnsupportedArchitecture(
            f"the gradient leaves the range of double precision in {int(is_lost.sum())} of "
            f"{int(is_moved.sum())} draws: it is smaller than what enters by more than "
            "a factor 1e600, or nearly, and where that happens is no plain chain, whose layers "
            "could be rescaled. Measure a shallower part (module=)."
        )
    return found


def any_row(rows: Tensor) -> bool:
    """Return whether any of ``rows`` is true; on the meta device, which has no values,
    none is.
    """
    return not rows.is_meta and bool(rows.any())


def _is_low(logs: Logs) -> Tensor:
    """Mark rows whose output is 0 or has lost digits, or in which a layer's tangent has
    lost digits. A tangent of 0 may be a closed branch.
    """
    is_low = logs[0] < LOWEST
    for layer in logs[1]:
        is_low = is_low | (layer.tangent < LOWEST) & layer.tangent.isfinite()
    return is_low


def _is_faint(logs: Logs) -> Tensor:
    """Mark rows whose values fade before some layer and are not cut to 0 by a gate.

    A gate that closes on values well in range is the row's own: at larger inputs,
    beside which biases vanish, it may open.
    """
    is_faint = torch.zeros_like(logs[0], dtype=torch.bool)
    last = torch.full_like(logs[0], math.inf)
    for layer in logs[1]:
        is_cut = layer.activation.isneginf() & (last > _CUT)
        is_faint = is_faint | (layer.activation < LOWEST) & ~is_cut
        last = torch.where(layer.activation.isneginf(), last, layer.activation)
    return is_faint


def _is_settled(found: Logs, other: Logs, of_input: float, scale: float) -> Tensor:
    """Mark rows that ``other`` decides: those in range or dead, and right, where it is
    of larger inputs.
    """
    lowest, cut = LOWEST - 2 * math.log(scale), _CUT - 2 * math.log(scale)
    last = torch.zeros_like(other[0])
    is_right, is_bright = (torch.ones_like(other[0], dtype=torch.bool) for _ in range(2))
    for a, b in zip(found[1], other[1], strict=True):
        last = torch.where(b.tangent.isneginf(), last, b.tangent)
        if of_input != 1.0:
            is_right &= _agree(a.activation, b.activation) & _agree(a.tangent, b.tangent)
            is_bright &= b.activation >= LOWEST - 2 * math.log(of_input)
    is_cut = other[0].isneginf() & last.isfinite() & (last > cut)
    return is_right & (is_bright & other[0].isfinite() & (other[0] >= lowest) | is_cut)


def _agree(logs: Tensor, others: Tensor) -> Tensor:
    return (logs < LOWEST) | ((logs - others).abs() < _ALIKE)


def _divided(logs: Logs, of_input: float, scale: float) -> Logs:
    """Turn ``logs`` of a pass with larger inputs and tangents to those at scale 1."""
    a, t = 2 * math.log(of_input), 2 * math.log(scale)
    return logs[0] - t, [
        LayerLogs(layer.name, layer.activation - a, layer.tangent - t) for layer in logs[1]
    ]


def _merged(logs: Logs, other: Logs, rows: Tensor) -> Logs:
    """Return ``logs`` with some rows taken from ``other``."""
    layers = [
        LayerLogs(
            a.name,
            torch.where(rows, b.activation, a.activation),
            torch.where(rows, b.tangent, a.tangent),
        )
        for a, b in zip(logs[1], other[1], strict=True)
    ]
    return torch.where(rows, other[0], logs[0]), layers
