"""Small functions that draw SVG: a frame of data coordinates, axes, lines, areas, bars.

Colours are classes of ``templates/report.css``.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Frame",
    "area",
    "bars",
    "bottom_axis",
    "decades",
    "left_axis",
    "legend",
    "line",
    "lines",
    "text",
    "ticks",
]

Array = NDArray[np.float64]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle in pixels, and the data range that it shows."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    @property
    def bottom(self) -> float:
        """Pixel of the lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Pixel of the right edge."""
        return self.left + self.width

    def px(self, x: float | Array) -> Array:
        """Return the abscissae in pixels."""
        return self.left + self.width * (np.asarray(x, dtype=np.float64) - self.x[0]) / (
            self.x[1] - self.x[0]
        )

    def py(self, y: float | Array) -> Array:
        """Return the ordinates in pixels, kept inside the frame."""
        share = (np.asarray(y, dtype=np.float64) - self.y[0]) / (self.y[1] - self.y[0])
        return self.bottom - self.height * np.clip(share, 0.0, 1.0)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most ``most`` round numbers in ``[low, high]``.

    Their steps are 1, 2 or 5 times a power of ten.
    """
    span = high - low
    if not 0 < span < math.inf:
        return []
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [step * (first + i) for i in range(most + 2) if step * (first + i) <= high + 1e-9 * span]


def decades(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Return ticks ``(x, label)`` for ``10^x`` with ``x`` in ``[low, high]``.

    Where there is room, 2 and 5 stand between the powers of ten.
    """
    if high - low > 2:
        return [(x, _power(x)) for x in ticks(low, high, most) if x == round(x)]
    marks = [
        (math.log10(m) + e, f"{m * 10.0**e:g}")
        for e in range(math.floor(low), math.ceil(high) + 1)
        for m in (1, 2, 5)
    ]
    inside = [(x, label) for x, label in marks if low <= x <= high]
    return inside[:: max(1, math.ceil(len(inside) / most))]


def _power(exponent: float) -> str:
    if abs(exponent) >= 1e6:
        return f"10^{exponent:.1g}"
    return "10" + f"{exponent:.0f}".translate(_SUPERSCRIPTS)


def text(x: float, y: float, words: str, *, anchor: str = "middle", style: str = "") -> str:
    """Return a text, escaped."""
    name = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{html.escape(words)}</text>'


def lines(segments: Iterable[tuple[float, float, float, float]], style: str) -> str:
    """Return straight segments ``x1, y1, x2, y2`` in pixels as one path."""
    path = "".join(f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" for x1, y1, x2, y2 in segments)
    return f'<path class="{style}" d="{path}"/>' if path else ""


def line(frame: Frame, x: Array, y: Array, style: str) -> str:
    """Return a curve; a value that is not finite interrupts it."""
    return f'<path class="{style}" d="{"".join(_run(run) for run in _runs(frame, x, y))}"/>'


def area(frame: Frame, x: Array, low: Array, high: Array, style: str) -> str:
    """Return the area between two curves."""
    is_known = np.isfinite(low) & np.isfinite(high)
    if not is_known.any():
        return ""
    x, low, high = x[is_known], low[is_known], high[is_known]
    both = np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]])
    return f'<path class="{style}" d="{"".join(_run(run) + "Z" for run in _runs(frame, *both))}"/>'


def _runs(frame: Frame, x: Array, y: Array) -> list[Array]:
    """Return the finite stretches of a curve in pixels."""
    is_known = np.isfinite(y)
    ends = np.flatnonzero(np.diff(is_known.astype(int))) + 1
    points = np.column_stack([frame.px(x), frame.py(np.where(is_known, y, frame.y[0]))])
    pieces = zip(np.split(points, ends), np.split(is_known, ends), strict=True)
    return [piece for piece, known in pieces if len(known) and known[0]]


def _run(points: Array) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist())


def bars(frame: Frame, edges: Array, heights: Array, style: str, titles: Sequence[str] = ()) -> str:
    """Return bars from 0 to ``heights``, with tooltips if there are ``titles``."""
    left, base = frame.px(edges), float(frame.py(0.0))
    tops = frame.py(np.where(np.isfinite(heights), heights, 0.0))
    shapes = [
        f"M{a:.2f} {base:.1f}V{y:.1f}H{b:.2f}V{base:.1f}Z"
        for a, b, y in zip(left[:-1], left[1:], tops, strict=True)
    ]
    if not titles:
        return f'<path class="{style}" d="{"".join(shapes)}"/>'
    named = zip(shapes, titles, strict=True)
    return "".join(
        f'<path class="{style}" d="{d}"><title>{html.escape(name)}</title></path>'
        for d, name in named
    )


def bottom_axis(frame: Frame, label: str, marks: Sequence[tuple[float, str]] | None = None) -> str:
    """Return the axis below a frame; its marks are round numbers unless given."""
    if marks is None:
        marks = [(x, number(x)) for x in ticks(*frame.x)]
    at = [(float(frame.px(x)), name) for x, name in marks]
    rule = [
        (frame.left, frame.bottom, frame.right, frame.bottom),
        *((x, frame.bottom, x, frame.bottom + 4) for x, _ in at),
    ]
    names = "".join(text(x, frame.bottom + 16, name) for x, name in at)
    return (
        lines(rule, "axis")
        + names
        + text((frame.left + frame.right) / 2, frame.bottom + 32, label, style="label")
    )


def left_axis(frame: Frame, most: int = 4) -> str:
    """Return the numbers left of a frame, with faint lines across."""
    at = [(float(frame.py(y)), number(y)) for y in ticks(*frame.y, most)]
    grid = lines(((frame.left, y, frame.right, y) for y, _ in at), "grid")
    return grid + "".join(text(frame.left - 6, y + 4, name, anchor="end") for y, name in at)


def number(value: float) -> str:
    """Return a tick's name: ``-50``, ``0.05``, a true minus sign."""
    name = f"{0.0 if abs(value) < 1e-12 else value:.6g}"
    return name.replace("-", "\N{MINUS SIGN}")


def legend(left: float, y: float, entries: Iterable[tuple[str, str, bool]]) -> str:
    """Return ``(style, words, is_filled)`` entries in a row from pixel ``left`` on."""
    parts = []
    for style, words, is_filled in entries:
        swatch = (
            f"M{left:.1f} {y - 8:.1f}h14v8h-14Z" if is_filled else f"M{left:.1f} {y - 4:.1f}h18"
        )
        parts.append(
            f'<path class="{style}" d="{swatch}"/>' + text(left + 22, y, words, anchor="start")
        )
        left += 36 + 6.2 * len(words)
    return "".join(parts)
