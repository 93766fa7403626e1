"""The report's figures in SVG, panel by panel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from initdiag.diagnosing.coverage import RESIDUAL_SUM, uncovered
from initdiag.diagnosing.report import Report
from initdiag.rendering import curves, svg, trial, words
from initdiag.rendering.curves import Array

__all__ = ["HEIGHT", "WIDTH", "Panel", "panels"]

WIDTH, HEIGHT = 400, 270
_MOST_TITLES = 120
_BANDS_NOTE = (
    "Natural log of the mean square of activations and of a perturbation of the input, and of "
    "the weight gradients' squared norm. Lines are means over the draws, bands two standard "
    "deviations either way."
)
_ZIGZAG = (
    "Residual sums make it zigzag: a layer inside a branch shows what the branch carries, not "
    "the sum around it. A zigzag that neither rises nor falls is healthy."
)
_BAND_STYLES = ("activations", "measured", "gradients")


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing of `WIDTH` x `HEIGHT`: its title, how to read it, and the shapes."""

    title: str
    note: str
    shapes: str

    @property
    def view_box(self) -> str:
        """The drawing's own coordinates, as an ``svg`` element states them."""
        return f"0 0 {WIDTH} {HEIGHT}"


def panels(report: Report) -> list[Panel]:
    """Return the panels that the report has something to show in."""
    makers = (_distribution, _shares, _bands, _spectrum, _trial)
    return [panel for panel in (make(report) for make in makers) if panel is not None]


def _distribution(report: Report) -> Panel | None:
    found = curves.distribution(report)
    if found is None:
        return None
    drawn = [curve for curve in (found.law, found.log_normal) if curve is not None]
    tops = [float(curve.y.max()) for curve in drawn] + (
        [float(found.measured.heights.max())] if found.measured else []
    )
    margin = 0.02 * (found.high - found.low)
    frame = svg.Frame(
        14,
        66,
        WIDTH - 28,
        HEIGHT - 108,
        (found.low - margin, found.high + margin),
        (0.0, 1.22 * max(tops, default=1.0)),
    )
    shapes, entries = [], []
    if found.measured is not None:
        shapes.append(
            svg.bars(frame, found.measured.edges, found.measured.heights, "measured fill")
        )
        entries.append(("measured fill", "measured", True))
    if found.law is not None:
        entries.append(("law", "predicted", False))
    if found.log_normal is not None:
        shapes.append(svg.line(frame, found.log_normal.x, found.log_normal.y, "normal"))
        entries.append(("normal", "log-normal (Hanin-Nica)", False))
    if found.law is not None:
        shapes.append(svg.line(frame, found.law.x, found.law.y, "law"))
    axes = _gain_axis(frame) + svg.bottom_axis(frame, "ln gain²") + _healthy(frame)
    note = (
        "The size at which a random change of the input comes out, over many initialisations of "
        "this network: 1 is healthy. How far the hump is from 1 is the drift; how broad it is, "
        "the fluctuation."
    )
    return Panel(
        "How large the gradient is", note, svg.legend(14, 12, entries) + "".join(shapes) + axes
    )


def _gain_axis(frame: svg.Frame) -> str:
    """Draw the upper axis: the gain itself, in powers of ten."""
    unit = 2 * math.log(10)
    at = [
        (float(frame.px(x * unit)), name)
        for x, name in svg.decades(frame.x[0] / unit, frame.x[1] / unit)
    ]
    rule = [
        (frame.left, frame.top, frame.right, frame.top),
        *((x, frame.top - 4, x, frame.top) for x, _ in at),
    ]
    names = "".join(svg.text(x, frame.top - 8, name) for x, name in at)
    label = svg.text(
        (frame.left + frame.right) / 2,
        frame.top - 24,
        "gain: size of the gradient at the input",
        style="label",
    )
    return svg.lines(rule, "axis") + names + label


def _healthy(frame: svg.Frame) -> str:
    """Mark where a healthy gradient is: a line at 0, or the direction of 0."""
    low, high = frame.x
    if low < 0 < high:
        x = float(frame.px(0.0))
        anchor, side = ("end", -5) if x > (frame.left + frame.right) / 2 else ("start", 5)
        words_ = svg.text(x + side, frame.top + 14, "healthy", anchor=anchor, style="quiet")
        return svg.lines([(x, frame.top, x, frame.bottom)], "healthy") + words_
    if high <= 0:
        return svg.text(
            frame.right - 4,
            frame.top + 14,
            "healthy (0) \N{RIGHTWARDS ARROW}",
            anchor="end",
            style="quiet",
        )
    return svg.text(
        frame.left + 4,
        frame.top + 14,
        "\N{LEFTWARDS ARROW} healthy (0)",
        anchor="start",
        style="quiet",
    )


def _shares(report: Report) -> Panel | None:
    found = curves.shares(report)
    if found is None:
        return None
    strips = (
        ("drift of each layer (0 is healthy)", found.drift, "law fill", 34),
        ("fluctuation of each layer", found.fluctuation, "law fill", 148),
    )
    edges = np.arange(len(found.names) + 1, dtype=np.float64) - 0.5
    shapes = []
    for title, values, style, top in strips:
        frame = svg.Frame(52, top, WIDTH - 66, 82, (edges[0], edges[-1]), _range(values))
        titles = _titles(found.names, values) if len(values) <= _MOST_TITLES else ()
        shapes.append(svg.text(frame.left, top - 8, title, anchor="start", style="label"))
        shapes += [
            svg.left_axis(frame, 4),
            svg.bars(frame, edges, values, style if titles else f"{style} dense", titles),
        ]
        zero = float(frame.py(0.0))
        shapes.append(svg.lines([(frame.left, zero, frame.right, zero)], "axis"))
    shapes.append(
        svg.bottom_axis(frame, "layer, from input to output", _layer_marks(len(found.names)))
    )
    note = (
        "What each layer adds to the two numbers. Below 0 the first shrinks the gradient, above 0 "
        "it enlarges it; tall bars in the second are narrow layers."
    )
    return Panel("Where it is lost", note, "".join(shapes))


def _titles(names: tuple[str, ...], values: Array) -> list[str]:
    return [
        f"{index}  {name}: {words.number(float(value), 3)}"
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def _layer_marks(count: int) -> list[tuple[float, str]]:
    marks = [round(x) for x in svg.ticks(0, max(count - 1, 1)) if x == round(x)]
    return [(float(x), str(x)) for x in marks if x < count]


def _range(values: Array, *, with_zero: bool = True) -> tuple[float, float]:
    """Return the range of the finite values, widened; it is never empty."""
    known = values[np.isfinite(values)]
    ends = [float(known.min()), float(known.max())] if len(known) else [0.0]
    low, high = min([*ends, 0.0] if with_zero else ends), max([*ends, 0.0] if with_zero else ends)
    room = 0.06 * (high - low) or max(1.0, 0.06 * abs(high))
    return (low - room if low < 0 or not with_zero else low), (
        high + room if high > 0 or not with_zero or low == high else high
    )


def _bands(report: Report) -> Panel | None:
    found = curves.bands(report)
    if not found:
        return None
    every = np.concatenate([edge for band in found for edge in (band.low, band.high)])
    count = len(found[0].mean)
    frame = svg.Frame(
        52, 34, WIDTH - 66, HEIGHT - 80, (0.0, float(count - 1)), _range(every, with_zero=False)
    )
    x = np.arange(count, dtype=np.float64)
    shapes, entries = [svg.left_axis(frame, 6)], []
    for band, style in zip(found, _BAND_STYLES, strict=False):
        shapes += [
            svg.area(frame, x, band.low, band.high, f"{style} band"),
            svg.line(frame, x, band.mean, style),
        ]
        entries.append((style, band.label, False))
    axis = svg.bottom_axis(frame, "layer, from input to output", _layer_marks(count))
    has_branches = any(part.name == RESIDUAL_SUM for part in uncovered(report.architecture.gaps))
    note = f"{_BANDS_NOTE} {_ZIGZAG if has_branches else 'Flat is healthy.'}"
    return Panel(
        "Layer by layer, as measured", note, svg.legend(14, 14, entries) + "".join(shapes) + axis
    )


def _spectrum(report: Report) -> Panel | None:
    found = curves.spectrum(report)
    if found is None:
        return None
    tops = [float(found.law.y.max())] + (
        [float(found.measured.heights.max())] if found.measured else []
    )
    low, high = float(found.law.x[0]), float(found.law.x[-1])
    frame = svg.Frame(14, 34, WIDTH - 28, HEIGHT - 80, (low, high), (0.0, 1.06 * max(tops)))
    shapes, entries = [], [("law", "predicted", False)]
    if found.measured is not None:
        shapes.append(
            svg.bars(frame, found.measured.edges, found.measured.heights, "measured fill")
        )
        entries.insert(0, ("measured fill", "measured", True))
    shapes.append(svg.line(frame, found.law.x, found.law.y, "law"))
    axis = svg.bottom_axis(frame, "ln of the squared singular values of the Jacobian")
    note = (
        "How much each direction of the input is enlarged or shrunk: narrow around 0 is healthy. "
        "In the limit of wide layers."
    )
    if found.zero_mass > 0:
        lost = words.percent(found.zero_mass)
        note += f" Not drawn: {lost} of the directions, which do not come through at all."
    return Panel("In every direction", note, svg.legend(14, 14, entries) + "".join(shapes) + axis)


def _trial(report: Report) -> Panel | None:
    """Draw the losses of every draw, and the constant guess as a line."""
    found = report.trial
    if found is None:
        return None
    every = np.concatenate([*found.losses, [found.constant_loss]])
    is_wide = trial.is_wide(every)
    *losses, constant = (
        np.log10(np.where(one > 0, one, np.nan)) if is_wide else one
        for one in (*found.losses, np.array([found.constant_loss]))
    )
    last = max(map(len, losses)) - 1
    limits = _range(np.concatenate([*losses, constant]), with_zero=False)
    frame = svg.Frame(52, 34, WIDTH - 66, HEIGHT - 80, (0.0, float(max(last, 1))), limits)
    shapes = [svg.left_axis(frame, 6)]
    shapes += [svg.line(frame, np.arange(len(one) + 0.0), one, "law") for one in losses]
    entries = [("law", "loss, log10" if is_wide else "loss", False)]
    if np.isfinite(constant).all():
        y = float(frame.py(constant)[0])
        shapes.append(svg.lines([(frame.left, y, frame.right, y)], "healthy"))
        entries.append(("healthy", "best constant guess", False))
    axis = svg.bottom_axis(frame, "step")
    note = " ".join(trial.sentences(found)).replace("->", "\N{RIGHTWARDS ARROW}")
    return Panel("What real steps do", note, svg.legend(14, 14, entries) + "".join(shapes) + axis)
