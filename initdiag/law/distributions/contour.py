"""Distribution functions of chains of Haar weights alone, whose transforms hardly
decay on vertical lines.

The inversion integral is taken over a parabola around the poles of the transform
(Talbot 1979; Weideman and Trefethen 2007); its trapezium rule converges exponentially.
``docs/theory/distribution-functions.md`` has the derivation and the letters used here:
``M``, ``K``, ``N``, the edge, ``c`` and ``m``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.law.distributions.line import safe_log
from initdiag.law.distributions.transforms import Factor, Tilt, stirling_rest

__all__ = ["OrthogonalInversion", "log_gamma_ratio"]

Array = NDArray[np.float64]
ComplexArray = NDArray[Any]

_STEP = 0.15
"""Step of the trapezium rule, in units of the distance to the nearest pole. The rule's
error is about exp(-2 pi/0.15) = 6e-19.
"""

_NEXT = 4.0
"""Tilts are at most this many 1/(standard deviation) apart,"""

_GROWTH = 3.0
"""and near the edge, where their scale is 1/(edge - x), in at most this ratio."""

_MOST_LOST = 10.0
"""Log of the relative accuracy that a step may cost, as in
`initdiag.law.distributions.line`.
"""

_LOG_ACCURACY = 40.0
"""A parabola ends where its integrand is below exp(-40) of the apex's for every x that
it serves.
"""

_LARGEST_TILT = 1e15
"""Distance to the edge below which lines are not made: doubles do not resolve it.
"""

_LOG_LAST = -60.0
"""Log of the tail below which tails are continued exponentially, as in
`initdiag.law.distributions.line`.
"""


def log_gamma_ratio(a: Array, n: float, s: ComplexArray) -> ComplexArray:
    """Return ``ln Gamma(a + s) - ln Gamma(n + s)``, shape ``a.shape + s.shape``,
    without cancellation for large ``n`` or ``|s|``.
    """
    upper = n + s
    lower = a[:, None] + s
    large = np.abs(lower) > 30
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = (a - n)[:, None]
        stirling = (lower - 0.5) * special.log1p(shift / upper) + shift * (np.log(upper) - 1)
        stirling += stirling_rest(lower) - stirling_rest(upper)
    return np.asarray(np.where(large, stirling, special.loggamma(lower) - special.loggamma(upper)))


@dataclass(frozen=True, slots=True, eq=False)
class Parabola:
    """The inversion integral over a parabola with apex ``c``, made for ``y`` about
    ``position`` and up to ``closest``.

    At its ``nodes``, ``weights`` are ``M(s)/M(c) e^{-(s - c) closest} ds/(2 pi i)``.
    """

    c: float
    log_normalizer: float
    position: float
    closest: float
    nodes: ComplexArray
    weights: ComplexArray

    def log_tail(self, y: Array) -> Array:
        """Return ``ln P(Y > edge + y)`` if ``c > 0``, ``ln P(Y <= edge + y)`` if ``c <
        0``.
        """
        return self._log_sum(y, self.weights / (self.nodes * math.copysign(1.0, self.c)))

    def log_density(self, y: Array) -> Array:
        """Return the log of the density."""
        return self._log_sum(y, self.weights)

    def _log_sum(self, y: Array, weights: ComplexArray) -> Array:
        value = np.array(
            [(np.exp((self.c - self.nodes) * (at - self.closest)) @ weights).real for at in y]
        )
        return np.asarray(self.log_normalizer - self.c * y + safe_log(value))


class OrthogonalInversion:
    """Tails and density of a sum of Haar factors of one gate value each, relative to
    the sum of their locations.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.factors = tuple(factors)
        self.edge = math.fsum(factor.edges[1] for factor in self.factors)
        self.pole = max(factor.pole for factor in self.factors)
        relative = self._tilt(0.0)
        self.center = Tilt(0.0, self.edge + relative.mean, relative.variance)
        self._lines: dict[int, list[Parabola]] = {-1: [], 1: []}
        self._ends: dict[int, list[float]] = {-1: [], 1: []}

    def log_tail(self, x: Array, side: int) -> Array:
        """Return ``ln P(Y > x)`` (``side`` 1) or ``ln P(Y <= x)`` (-1)."""
        beyond = side * (x - self.center.mean) >= 0
        result = np.empty_like(x)
        result[beyond] = self._on_lines(x[beyond], side, Parabola.log_tail)
        other = self._on_lines(x[~beyond], -side, Parabola.log_tail)
        result[~beyond] = np.log1p(-np.exp(np.minimum(other, -1e-16)))
        return np.where(x < self.edge, result, -math.inf if side > 0 else 0.0)

    def log_density(self, x: Array) -> Array:
        """Return the log of the density, the edge's atom apart."""
        result = np.empty_like(x)
        for side in (-1, 1):
            here = (x >= self.center.mean) == (side > 0)
            result[here] = self._on_lines(x[here], side, Parabola.log_density)
        return np.where(x < self.edge, result, -math.inf)

    def _on_lines(self, x: Array, side: int, evaluate: Callable[[Parabola, Array], Array]) -> Array:
        """Evaluate every ``x`` below the edge on the parabola in whose window it is;
        beyond the last, go on exponentially.
        """
        result = np.full_like(x, -math.inf)
        inside = x < self.edge
        if not inside.any():
            return result
        y = x[inside] - self.edge
        lines, ends = self._reaching(side, float((side * y).max()))
        nearest = np.minimum(side * y, ends[-1])
        index = np.searchsorted(ends, nearest, side="left")
        values = np.empty_like(y)
        for i in np.unique(index):
            here, line = index == i, lines[int(i)]
            values[here] = evaluate(line, side * nearest[here]) - line.c * (
                y[here] - side * nearest[here]
            )
        result[inside] = values
        return result

    def _reaching(self, side: int, farthest: float) -> tuple[list[Parabola], Array]:
        """Return the lines of one side and the ``side * y`` up to which each is used,
        after making those missing up to ``farthest``.
        """
        lines, ends = self._lines[side], self._ends[side]
        c, position = (
            (lines[-1].c, lines[-1].position)
            if lines
            else self._next(side, 0.0, self.center.mean - self.edge)
        )
        while not ends or (ends[-1] < farthest and self._goes_on(side, lines[-1])):
            if lines:
                c, position = self._next(side, c, position)
            following = self._next(side, c, position)[1]
            end = -math.sqrt(position * following) if side > 0 else (position + following) / 2
            start = side * ends[-1] if ends else self.center.mean - self.edge
            lines.append(self._parabola(c, position, max(start, end)))
            ends.append(side * end)
        return lines, np.array(ends)

    def _goes_on(self, side: int, line: Parabola) -> bool:
        return line.log_normalizer - line.c * line.position > _LOG_LAST and (
            side < 0 or line.c < _LARGEST_TILT
        )

    def _next(self, side: int, c: float, position: float) -> tuple[float, float]:
        """Return the next tilt and the ``y`` it is made for: its mean, or what is as
        far out on the scale of the pole or of the edge.
        """
        tilted = self._tilt(c)
        natural = _NEXT / math.sqrt(tilted.variance) if tilted.variance > 0 else math.inf
        room = 0.6 * (c - self.pole) if side < 0 else (_GROWTH - 1) * c if c > 0 else math.inf
        step = min(natural, room)
        while (
            self._tilt(c + side * step).log_normalizer
            - tilted.log_normalizer
            - side * step * tilted.mean
            > _MOST_LOST
        ):
            step *= 0.7
        c += side * step
        mean = self._tilt(c).mean
        if side > 0:
            return c, min(mean, max(-3 / c, position / _GROWTH))
        return c, mean if step == natural else min(
            mean, self.center.mean - self.edge - 3 / (c - self.pole)
        )

    def _tilt(self, c: float) -> Tilt:
        """Return the tilted law of the sum, relative to the edge."""
        tilts = [_tilted(factor, c) for factor in self.factors]
        return Tilt(
            math.fsum(t.log_normalizer for t in tilts),
            math.fsum(t.mean for t in tilts),
            math.fsum(t.variance for t in tilts),
        )

    def _parabola(self, c: float, position: float, closest: float) -> Parabola:
        """Compute nodes until the integrand has vanished for the ``y`` closest to the
        edge.
        """
        tilted = self._tilt(c)
        opening = max(c - self.pole, *(factor.half_radius for factor in self.factors))
        scale = min(
            abs(c),
            c - self.pole,
            2 / math.sqrt(tilted.variance) if tilted.variance > 0 else math.inf,
        )
        step = _STEP * scale / (2 * opening)
        u, log_values = np.empty(0), np.empty(0, dtype=np.complex128)
        while not log_values.size or log_values.real[-1] > -_LOG_ACCURACY:
            more = step * np.arange(u.size, u.size + 64, dtype=np.float64)
            s = c + opening * (2j * more - more**2)
            values = self._log_transform(s) - tilted.log_normalizer
            log_values = np.append(log_values, values - (s - c) * closest)
            u = np.append(u, more)
        s = c + opening * (2j * u - u**2)
        weights = np.exp(log_values) * (1 + 1j * u) * (2 * opening * step / math.pi)
        weights[0] /= 2
        return Parabola(c, tilted.log_normalizer, position, closest, s, weights)

    def _log_transform(self, s: ComplexArray) -> ComplexArray:
        total = np.zeros(s.size, dtype=np.complex128)
        for factor in self.factors:
            terms = factor.log_weights + _log_beta_transform(factor, s)
            peak = terms.real.max(axis=0)
            total += factor.count * (peak + np.log(np.exp(terms - peak).sum(axis=0)))
        return total


def _log_beta_transform(factor: Factor, s: ComplexArray) -> ComplexArray:
    """Return ``ln E B^s`` of ``B ~ Beta(K/2, (N - K)/2)`` for every ``K``."""
    a, n = factor.half_dofs, factor.half_radius
    return log_gamma_ratio(a, n, s) - log_gamma_ratio(a, n, np.zeros(1, dtype=np.complex128))


def _tilted(factor: Factor, c: float) -> Tilt:
    """Return the tilted law of the sum of a factor's layers, relative to their edge."""
    a, n = factor.half_dofs, factor.half_radius
    terms = factor.log_weights[:, 0] + _log_beta_transform(factor, np.array([c + 0j]))[:, 0].real
    log_normalizer = float(np.logaddexp.reduce(terms))
    probability = np.exp(terms - log_normalizer)
    if c < 1e4 * n:
        means = special.digamma(a + c) - special.digamma(n + c)
        variances = special.polygamma(1, a + c) - special.polygamma(1, n + c)
    else:
        variances = (n - a) / (c + (n + a - 1) / 2) ** 2
        means = (a - n) / (c + (n + a - 1) / 2)
    mean = float(probability @ means)
    variance = float(probability @ (np.maximum(variances, 0.0) + (means - mean) ** 2))
    return Tilt(factor.count * log_normalizer, factor.count * mean, factor.count * variance)
