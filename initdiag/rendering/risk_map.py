"""The map of risk over depth and width: a heat map in a terminal, or a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from initdiag._core.console import (
    Console,
    ConsoleOptions,
    Group,
    RenderableType,
    RenderResult,
    Text,
)
from initdiag.diagnosing.calibration import DEPTHS
from initdiag.errors import InitdiagError
from initdiag.rendering import words
from initdiag.rendering.terminal import Encodable, plain_text
from initdiag.screening.depth_width import RiskMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "renderable", "to_text"]

_CELL = 6
"""Columns of a cell, which hold ``[>99]`` and a space."""

_LABEL = 7
"""Columns of a row's label: ``layers``, and a space."""

_COLOURS = (
    (0.05, "#1a9850"), (0.2, "#66bd63"), (0.4, "#a6d96a"), (0.6, "#fee08b"), (0.8, "#fdae61"),
    (0.95, "#f46d43"), (1.01, "#d73027"),
)  # fmt: skip
"""Background of a cell by the risk it is below: ColorBrewer's RdYlGn, green is safe.
The number in the cell says the same without colours.
"""


def to_text(found: RiskMap, width: int = 80) -> str:
    """Return the map as plain text of at most ``width`` columns, from 40 on."""
    return plain_text(renderable(found), width)


def renderable(found: RiskMap) -> RenderableType:
    """Return the map as a rich renderable."""
    return Encodable(
        Group(
            Text(_title(found), style="bold"),
            Text(_own(found)),
            Text(),
            _Cells(found),
            Text(),
            *(Text(line) for line in _answers(found)),
        )
    )


def _title(found: RiskMap) -> str:
    return (
        f"Risk in %, over hidden layers and their width, {found.fan_in} inputs, "
        f"{found.fan_out} outputs, {words.training(found)}"
    )


def _own(found: RiskMap) -> str:
    side = "at risk" if not found.own_risk < found.max_risk else "not at risk"
    return (
        f"[ ] this network: {found.depth} hidden layers of {found.width}, "
        f"risk {words.percent(found.own_risk)}, {side}"
    )


def _answers(found: RiskMap) -> list[str]:
    """Answer how deep is safe at this width, and how wide it must be at this depth."""
    limit = words.percent(found.max_risk)
    deepest = found.deepest[found.widths.index(found.width)]
    if deepest == 0:
        depth = f"At width {found.width} no depth is below {limit}."
    else:
        more = " or more" if deepest == found.deepest_tried else ""
        depth = f"At width {found.width}, {deepest} hidden layers{more} stay below {limit}."
    row = found.risk[found.depths.index(found.depth)]
    wide = [n for n, risk in zip(found.widths, row, strict=True) if risk < found.max_risk]
    if wide:
        width = f"At {found.depth} hidden layers, width {wide[0]} is below it."
    else:
        width = (
            f"At {found.depth} hidden layers no width of the map is below it: try another "
            "initialiser (--init)."
        )
    least, most = DEPTHS
    return [
        depth,
        width,
        f"The risk was learnt on networks of {least} to {most} linear layers; below and above, it "
        "is extrapolated.",
    ]


@dataclass(frozen=True)
class _Cells:
    """The heat map, of as many widths as there is room for; the own is among them."""

    found: RiskMap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for the widths, one for each depth, and one for the deepest."""
        found = self.found
        room = max(3, (options.max_width - _LABEL) // _CELL)
        columns = _chosen(len(found.widths), found.widths.index(found.width), room)
        sizes = "".join(_cell(str(found.widths[i])) for i in columns)
        yield Text(f"{'width':>{_LABEL - 1}} {sizes}", style="bold")
        for row, depth in reversed(list(enumerate(found.depths))):
            line = Text(f"{depth:>{_LABEL - 1}} ")
            for i in columns:
                is_own = depth == found.depth and found.widths[i] == found.width
                risk = float(found.risk[row, i])
                line.append(_cell(_percent(risk), is_own), style=_style(risk, is_own))
            yield line
        line = Text("safe".rjust(_LABEL - 1) + " ")
        for i in columns:
            deepest = found.deepest[i]
            line.append(_cell(f"{deepest}{'+' if deepest == found.deepest_tried else ''}"))
        yield line
        yield Text("safe: the most hidden layers below the limit", style="dim")


def _chosen(count: int, own: int, room: int) -> list[int]:
    """Return at most ``room`` columns: the network's own, and its neighbours."""
    start = min(max(0, own - room // 2), max(0, count - room))
    return list(range(start, min(count, start + room)))


def _cell(text: str, is_own: bool = False) -> str:
    return (f"[{text}]" if is_own else f"{text} ").rjust(_CELL)


def _percent(risk: float) -> str:
    return words.percent(risk).removesuffix(" %")


def _style(risk: float, is_own: bool) -> str:
    colour = next((name for limit, name in _COLOURS if risk < limit), "#808080")
    return f"{'bold ' if is_own else ''}black on {colour}"


def figure(found: RiskMap) -> Figure:
    """Return the map as a figure: colours for the risk, a line at the limit.

    Raises
    ------
    InitdiagError
        Without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InitdiagError("a figure needs matplotlib: pip install 'initdiag[plot]'") from error
    shown = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes: Any = shown.add_subplot()
    rows, columns = np.arange(len(found.depths)), np.arange(len(found.widths))
    image = axes.pcolormesh(columns, rows, found.risk, cmap="RdYlGn_r", vmin=0, vmax=1)
    if found.risk.min() < found.max_risk < found.risk.max():
        axes.contour(columns, rows, found.risk, [found.max_risk], colors="black", linewidths=1)
    own = found.widths.index(found.width), found.depths.index(found.depth)
    axes.plot(*own, "o", ms=12, mfc="none", mec="black", mew=2, label="this network")
    axes.set_xticks(columns, [str(n) for n in found.widths])
    axes.set_yticks(rows, [str(d) for d in found.depths])
    axes.set_xlabel("width of the hidden layers")
    axes.set_ylabel("hidden layers")
    axes.set_title(f"risk that training does not start, {words.training(found)}")
    axes.legend(loc="upper right")
    shown.colorbar(image, label="risk")
    return shown
