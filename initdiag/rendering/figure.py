"""The report's panels with matplotlib, for papers and notebooks.

They show the same curves in the same colours as the HTML page.

Colours are Okabe and Ito's, told apart by every kind of colour vision; lines differ by
their dashes too, for a black-and-white print.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from initdiag.diagnosing.report import Report
from initdiag.errors import InitdiagError
from initdiag.rendering import curves, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["figure"]

_MEASURED, _LAW, _NORMAL, _ACTIVATIONS, _INK, _QUIET = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#16191d",
    "#59616b",
)
_BAND_STYLES = {
    "activations": (_ACTIVATIONS, (0, (1, 1.5))),
    "perturbation": (_MEASURED, "-"),
    "weight gradients": (_INK, "-"),
}
_GRIDS = ((1, 1), (1, 1), (1, 2), (1, 3), (2, 2))
"""Rows and columns for so many panels."""
_MOST_BARS = 120
_LOOK = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": _QUIET,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def figure(report: Report) -> Figure:
    """Return the panels that the report has something to show in, two a row.

    Parameters
    ----------
    report : Report
        Any.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot: it needs no closing, and no display. Save it with
        ``savefig``.

    Raises
    ------
    InitdiagError
        Without matplotlib.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise InitdiagError(
            "expected matplotlib, for the figure, got none. "
            "Install it: pip install 'initdiag[plot]'"
        ) from error
    report = words.printable(report)
    drawers = _drawers(report)
    with style.context(["default", _LOOK]):
        rows, columns = _GRIDS[len(drawers)]
        whole = Figure(
            figsize=(4.4 * columns + 0.4, 3.4 * rows + 0.3),
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08),
        )
        name = f"{words.verdict_name(report)}: {words.short(report.target, 70)}"
        whole.suptitle(name, x=0.01, ha="left", fontweight="bold", color=_INK)
        parts = whole.subfigures(rows, columns, squeeze=False).ravel()
        for part, draw in zip(parts, drawers, strict=False):
            draw(part)
        if not drawers:
            parts[0].text(0.01, 0.5, "\n".join(words.headline(report)), color=_QUIET, wrap=True)
        whole.canvas.draw()
    return whole


def _drawers(report: Report) -> list[Callable[[SubFigure], None]]:
    """Return a drawing function for each panel that has something to show."""
    makers: list[tuple[Callable[[Report], Any], Callable[[SubFigure, Any], None]]] = [
        (curves.distribution, _distribution),
        (curves.shares, _shares),
        (curves.bands, _bands),
        (curves.spectrum, _spectrum),
    ]
    found = [(make(report), draw) for make, draw in makers]
    return [functools.partial(_draw, draw, data) for data, draw in found if data]


def _draw(draw: Callable[[SubFigure, Any], None], data: Any, part: SubFigure) -> None:
    draw(part, data)


def _bars(axes: Any, bars: curves.Bars, color: str, **look: Any) -> None:
    """Draw bars, with thin lines between them as long as there is room."""
    if len(bars.heights) > _MOST_BARS:
        axes.stairs(bars.heights, bars.edges, fill=True, color=color, **look)
        return
    axes.bar(
        bars.edges[:-1],
        bars.heights,
        np.diff(bars.edges),
        align="edge",
        color=color,
        edgecolor="white",
        linewidth=0.4,
        **look,
    )


def _distribution(part: SubFigure, data: curves.Distribution) -> None:
    axes: Any = part.subplots()
    if data.measured is not None:
        _bars(axes, data.measured, _MEASURED, alpha=0.55, label="measured")
    if data.log_normal is not None:
        axes.plot(
            data.log_normal.x,
            data.log_normal.y,
            color=_NORMAL,
            linestyle="--",
            label="log-normal (Hanin-Nica)",
        )
    if data.law is not None:
        axes.plot(data.law.x, data.law.y, color=_LAW, label="predicted")
    axes.set(xlabel="ln gain²", yticks=[], xlim=(data.low, data.high))
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.set_title("How large the gradient is")
    axes.spines["left"].set_visible(False)
    axes.legend(loc="upper left", ncols=2)
    if data.low < 0 < data.high:
        axes.axvline(0, color=_INK, linestyle=":", linewidth=1.2)
    _gain_axis(axes)


def _gain_axis(axes: Any) -> None:
    """Draw the upper axis: the gain itself, in powers of ten; 1 is healthy."""
    from initdiag.rendering.svg import decades

    unit = 2 * math.log(10)
    upper = axes.secondary_xaxis("top", functions=(lambda x: x / unit, lambda x: x * unit))
    marks = decades(*(end / unit for end in axes.get_xlim()))
    upper.set_xticks([x for x, _ in marks], [name for _, name in marks])
    upper.set_xlabel("gain (healthy: 1)", color=_QUIET, fontsize=8.5)


def _shares(part: SubFigure, data: curves.Shares) -> None:
    upper, lower = part.subplots(2, 1, sharex=True)
    edges = np.arange(len(data.names) + 1, dtype=np.float64) - 0.5
    for axes, values, label in (
        (upper, data.drift, "drift"),
        (lower, data.fluctuation, "fluctuation"),
    ):
        _bars(axes, curves.Bars(edges, values), _LAW)
        axes.axhline(0, color=_QUIET, linewidth=0.8)
        axes.set_ylabel(label)
        axes.grid(axis="y", color="#d5dae0", linewidth=0.6)
        axes.set_axisbelow(True)
    upper.set_title("Where it is lost")
    lower.set_xlabel("layer, from input to output")
    lower.xaxis.get_major_locator().set_params(integer=True)


def _bands(part: SubFigure, data: tuple[curves.Band, ...]) -> None:
    axes: Any = part.subplots()
    layers = np.arange(len(data[0].mean))
    for band in data:
        color, dashes = _BAND_STYLES[band.label]
        axes.fill_between(layers, band.low, band.high, color=color, alpha=0.2, linewidth=0)
        axes.plot(layers, band.mean, color=color, linestyle=dashes, label=band.label)
    axes.set(xlabel="layer, from input to output", ylabel="ln of the mean square, ± 2 sd")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("Layer by layer, as measured")
    axes.legend()


def _spectrum(part: SubFigure, data: curves.Spectrum) -> None:
    axes: Any = part.subplots()
    if data.measured is not None:
        _bars(axes, data.measured, _MEASURED, alpha=0.55, label="measured")
    axes.plot(data.law.x, data.law.y, color=_LAW, label="predicted")
    axes.set(xlabel="ln of the squared singular values of the Jacobian", yticks=[], ylim=(0, None))
    axes.set_title("In every direction")
    axes.spines["left"].set_visible(False)
    axes.legend()
