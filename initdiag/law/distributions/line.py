"""Distribution functions from moment generating functions, with *relative* accuracy in
both tails.

The tails are integrals of ``M(s) e^{-sx}/s`` over a vertical line ``Re s = c``, by a
trapezium rule whose only error is bounded by Chernoff's inequality. A few lines, about
five tilted standard deviations apart, serve every ``x``; each is computed when it is
first needed. ``docs/theory/distribution-functions.md`` has the derivation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from initdiag.errors import UnsupportedArchitecture, explain
from initdiag.law.distributions.transforms import Factor, Tilt, TiltedFactor

__all__ = ["Inversion", "Line", "safe_log"]

Array = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

_LOG_ACCURACY = 38.0
"""Aliases are below exp(-38) = 3e-17 of the tilted scale; windows reach 3 deviations
from the mean, where H has lost exp(-4.5).
"""

_FIRST, _NEXT = 2.5, 5.0
"""Tilts in units of 1/(standard deviation): of the first line on each side of 0, and
from one line to the next.
"""

_TOWARDS_POLE = 0.6
"""Most of the way to the pole that one step takes."""

_MOST_LOST_FIRST, _MOST_LOST = 3.5, 13.0
"""Most that a step may cost, as the log of the relative accuracy. A normal law's steps
lose 2.5^2/2 and 5^2/2, a law with a second hump (leaky gates) may lose more.
"""

_RELIABLE, _LAST_RELIABLE = 1e-8, 1e-12
"""A line held back by the pole or a hump serves ``x`` until H, computed to about 1e-15,
is this small; the last such line, this small.
"""

_NODES = 1 << 10
"""Nodes after which a line is the last towards the pole."""

_MOST_NODES = 1 << 12
"""A line that needs more has a transform that hardly decays, and is not made (see
`Inversion.reaches`).
"""

_DECAYED = 4 - _LOG_ACCURACY
"""Log of what of the transform is no longer computed."""

_FAR = np.linspace(0.9 * _MOST_NODES, _MOST_NODES, 16)
"""Nodes at the end of such a line, where its decay is looked at before all are
computed.
"""

_CHUNK = 1 << 13
"""Values of ``x`` at a time: what fits into a processor's cache."""

_LOG_LAST = -60.0
"""Lines are not made for tails below exp(-60) = 1e-26 (the mixtures are cut at 1e-18):
from there on the last line's exponential goes on.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """The transform on ``Re s = c``: nodes ``c + i frequency``, and what of ``M(s)/M(c)
    e^{-i frequency mean}`` is there.
    """

    c: float
    tilted: Tilt
    step: float
    frequency: Array
    characteristic: ComplexArray

    def log_tail(self, x: Array) -> Array:
        """Return ``ln P(Y > x)`` if ``c > 0``, ``ln P(Y <= x)`` if ``c < 0``."""
        return self._chernoff(x) + safe_log(self.tail_ratio(x))

    def tail_ratio(self, x: Array) -> Array:
        """Return ``H(x)`` of the module's text."""
        return self._sum(x, self.characteristic / (self.c + 1j * self.frequency)) * math.copysign(
            1.0, self.c
        )

    def log_density(self, x: Array) -> Array:
        """Return the log of the density of ``Y``."""
        return self._chernoff(x) + safe_log(self._sum(x, self.characteristic))

    def _chernoff(self, x: Array) -> Array:
        return np.asarray(self.tilted.log_normalizer - self.c * x)

    def _sum(self, x: Array, values: ComplexArray) -> Array:
        """Apply the trapezium rule to the whole line, whose lower half is the conjugate
        of the upper: a polynomial in ``e^{-i step (x - mean)}``.
        """
        weights = np.full(values.size, self.step / math.pi)
        weights[0] /= 2
        coefficients = (weights * values)[::-1]
        result = np.empty_like(x)
        for start in range(0, x.size, _CHUNK):
            here = slice(start, start + _CHUNK)
            result[here] = np.polyval(
                coefficients, np.exp(-1j * self.step * (x[here] - self.tilted.mean))
            ).real
        return result


def safe_log(values: Array) -> Array:
    """Return the natural log, -inf where rounding left nothing positive."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(values, 0.0))


@dataclass(frozen=True, slots=True)
class Window:
    """A line with the ``side * x`` up to which it is used, and whether further lines
    could follow.
    """

    line: Line
    end: float
    is_last: bool


class Inversion:
    """Tails and density of a sum of factors, relative to the sum of their locations.

    Parameters
    ----------
    factors : sequence of Factor
        Independent summands, at least one of them not constant.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.factors = tuple(factors)
        self.pole = max(factor.pole for factor in self.factors)
        self.center = self.tilt(0.0)
        self._windows: dict[int, list[Window]] = {-1: [], 1: []}

    def tilt(self, c: float) -> Tilt:
        """Return the tilted law of the sum."""
        return _sum_of_tilts([factor.tilted(c) for factor in self.factors])

    def log_transform(self, s: Array) -> Array:
        """Return ``ln E e^{sY}`` at real ``s``."""
        return np.asarray(sum(factor.log_transform(s) for factor in self.factors))

    def log_tail(self, x: Array, side: int) -> Array:
        """Return ``ln P(Y > x)`` (``side`` 1) or ``ln P(Y <= x)`` (-1), each from lines
        of its own tail beyond the mean.
        """
        beyond = side * (x - self.center.mean) >= 0
        result = np.empty_like(x)
        result[beyond] = self._on_lines(x[beyond], side, Line.log_tail)
        other = self._on_lines(x[~beyond], -side, Line.log_tail)
        result[~beyond] = np.log1p(-np.exp(np.minimum(other, -1e-16)))
        return result

    def log_density(self, x: Array) -> Array:
        """Return the log of the density."""
        result = np.empty_like(x)
        for side in (-1, 1):
            here = (x >= self.center.mean) == (side > 0)
            result[here] = self._on_lines(x[here], side, Line.log_density)
        return result

    def reaches(self, log_probability: float) -> bool:
        """Return whether the transform decays on all lines that serve tails down to a
        probability.

        It does not where the law has atoms or jumps of its density: narrow layers of
        Haar weights without a single one of iid weights.
        """
        return all(self._side_reaches(side, log_probability) for side in (-1, 1))

    def _side_reaches(self, side: int, log_probability: float) -> bool:
        windows = self._windows[side]
        while True:
            if windows:
                last = windows[-1]
                tail = float(last.line.log_tail(np.array([side * last.end]))[0])
                if last.is_last or tail < log_probability:
                    return True
            window = self._next_window(side, windows[-1].line if windows else None)
            if window is None:
                return False
            windows.append(window)

    def _on_lines(self, x: Array, side: int, evaluate: Callable[[Line, Array], Array]) -> Array:
        """Evaluate every ``x`` on the line in whose window it is; beyond the last
        window, go on exponentially.
        """
        if not x.size:
            return np.empty_like(x)
        windows = self._reaching(side, float((side * x).max()))
        ends = np.array([window.end for window in windows])
        inside = side * np.minimum(side * x, ends[-1])
        index = np.searchsorted(ends, side * inside, side="left")
        result = np.empty_like(x)
        for i in np.unique(index):
            here, line = index == i, windows[int(i)].line
            result[here] = evaluate(line, inside[here]) - line.c * (x - inside)[here]
        return result

    def _reaching(self, side: int, farthest: float) -> list[Window]:
        """Return the windows of one side, after making those that are missing up to
        ``farthest``.
        """
        windows = self._windows[side]
        while not windows or (windows[-1].end < farthest and not windows[-1].is_last):
            window = self._next_window(side, windows[-1].line if windows else None)
            if window is not None:
                windows.append(window)
            elif windows:
                windows[-1] = replace(windows[-1], is_last=True)
            else:
                raise _undecayed()
        return windows

    def _next_window(self, side: int, last: Line | None) -> Window | None:
        """Return the next window, None if there the transform hardly decays.

        Go ``_NEXT`` deviations on; towards the pole, at most ``_TOWARDS_POLE`` of the
        way that is left; never so far that accuracy is lost.
        """
        c, tilted = (0.0, self.center) if last is None else (last.c, last.tilted)
        natural = (_FIRST if last is None else _NEXT) / math.sqrt(tilted.variance)
        room = math.inf if side > 0 else _TOWARDS_POLE * (c - self.pole)
        step = self._bounded(
            c, tilted, side * min(natural, room), _MOST_LOST_FIRST if last is None else _MOST_LOST
        )
        c += step
        factors = [factor.tilted(c) for factor in self.factors]
        tilted = _sum_of_tilts(factors)
        is_held_back = abs(step) < natural
        line = self._make_line(c, factors, tilted, widen=is_held_back)
        if line is None:
            return None
        if is_held_back:
            return self._window_by_value(line, side)
        end = side * tilted.mean + _NEXT / 2 * math.sqrt(tilted.variance)
        return Window(line, end, bool(tilted.log_normalizer - c * tilted.mean < _LOG_LAST))

    def _bounded(self, c: float, tilted: Tilt, step: float, most: float) -> float:
        """Shorten a step until the line there has lost at most ``exp(most)`` of
        relative accuracy where this one is at its best.
        """
        base = tilted.log_normalizer
        while float(self.log_transform(np.array([c + step]))[0]) - base - step * tilted.mean > most:
            step *= 0.7
        return step

    def _window_by_value(self, line: Line, side: int) -> Window:
        """Return the window of a line that is held back from its place: as far as its
        sums are reliable.
        """
        is_last = line.frequency.size > _NODES
        x = line.tilted.mean + side * np.linspace(0.0, math.pi / line.step, 400)
        small = line.tail_ratio(x) < (_LAST_RELIABLE if is_last else _RELIABLE)
        return Window(
            line,
            side * float(x[max(int(small.argmax()) - 1, 0)] if small.any() else x[-1]),
            is_last,
        )

    def _make_line(
        self, c: float, factors: list[TiltedFactor], tilted: Tilt, *, widen: bool
    ) -> Line | None:
        """Compute the nodes of a line until the transform has decayed to rounding;
        ``widen`` for a window of up to half a period.
        """
        step = 2 * math.pi / (self._period(c, tilted) * (2.0 if widen else 1.0))
        size = math.ceil(9.2 / (math.sqrt(tilted.variance) * step)) + 1
        frequency, log_values = np.empty(0), np.empty(0, dtype=np.complex128)
        while frequency.size < _MOST_NODES:
            more = step * np.arange(frequency.size, frequency.size + size, dtype=np.float64)
            values = _log_characteristic(factors, more)
            frequency, log_values = np.append(frequency, more), np.append(log_values, values)
            if values.real[-3:].max() < _DECAYED:
                return Line(c, tilted, step, frequency, np.exp(log_values))
            if frequency.size == size and not _has_decayed(factors, step * _FAR):
                return None
            size = max(size // 2, 8)
        return None

    def _period(self, c: float, tilted: Tilt) -> float:
        """Return ``T``: Chernoff's bound on ``H`` is negligible at ``T`` less a
        window's width, on both sides of the mean.
        """
        deviation = math.sqrt(tilted.variance)
        units = np.array([0.5, 1.0, 2.0, 4.0, 7.0]) / deviation
        if c > 0:
            up, down = units, np.append(units[units < c], c)
        else:
            room = c - self.pole
            up, down = (
                np.append(units[units < -c], -c),
                np.append(units[units < room], (0.5 * room, 0.9 * room)),
            )
        need = _LOG_ACCURACY + math.log1p(abs(c) * deviation)
        reach = max(self._reach(c, tilted, b, need) for b in (up, -down))
        return reach + 3 * deviation

    def _reach(self, c: float, tilted: Tilt, b: Array, need: float) -> float:
        """Return the least distance from the tilted mean at which some ``b`` bounds
        ``H`` by ``exp(-need)``.
        """
        excess = self.log_transform(np.append(c + b, c))
        return float(((excess[:-1] - excess[-1] - b * tilted.mean + need) / np.abs(b)).min())


def _sum_of_tilts(factors: Sequence[TiltedFactor]) -> Tilt:
    """Return the tilted law of a sum of independent factors."""
    tilts = [factor.whole for factor in factors]
    return Tilt(
        math.fsum(t.log_normalizer for t in tilts),
        math.fsum(t.mean for t in tilts),
        math.fsum(t.variance for t in tilts),
    )


def _log_characteristic(factors: Sequence[TiltedFactor], frequency: Array) -> ComplexArray:
    values = np.zeros(frequency.size, dtype=np.complex128)
    for factor in factors:
        values += factor.log_characteristic(frequency)
    return values


def _has_decayed(factors: Sequence[TiltedFactor], frequency: Array) -> bool:
    return bool(_log_characteristic(factors, frequency).real.max() < _DECAYED)


def _undecayed() -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        explain(
            expected="a law with a density",
            got="one with atoms or jumps of its density",
            do="Use rvs, mean, var and log_moment.",
        )
    )
