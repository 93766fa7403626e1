"""Quantiles: the logarithm of a tail inverted by Newton's method inside a bracket, for
many probabilities at once.

The logarithm of a tail is nearly linear far out and, for the laws at hand, nearly
concave: Newton's method converges in a few steps from anywhere, and the bracket, which
every evaluation narrows, catches it where it would not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["quantiles"]

Array = NDArray[np.float64]

_TOLERANCE = 1e-11
"""Error of the log of the probability: a hundredth of the 1e-9 that is promised."""

_NOISE, _STALE = 1e-4, 3
"""Where the tail itself is only known to less than this (rounding), a solution is final
that has not improved in so many steps.
"""

_STEPS = 200
"""More than enough for bisection alone to exhaust the doubles."""


def quantiles(
    log_probability: Array,
    side: int,
    log_tail: Callable[[Array, int], Array],
    log_density: Callable[[Array], Array],
    mean: float,
    deviation: float,
) -> Array:
    """Return ``x`` with ``log_tail(x, side) = log_probability``, elementwise; at a jump
    of the law, the place of the jump.

    Parameters
    ----------
    log_probability : array
        Natural logs of the probabilities, finite and negative; accurate where they are
        at most ln(1/2).
    side : int
        1 for the upper tail, -1 for the lower.
    log_tail, log_density : callable
        Functions of the law, vectorised.
    mean, deviation : float
        Moments of the law; the first guess is the normal law's.
    """
    x: Array = mean - side * deviation * special.ndtri_exp(log_probability)
    search = _Search(x, deviation)
    todo = np.arange(x.size)
    for _ in range(_STEPS):
        at = x[todo]
        tail = log_tail(at, side)
        excess = tail - log_probability[todo]
        go_on = ~search.record(todo, at, excess, is_above=side * excess < 0)
        todo, at, excess, tail = todo[go_on], at[go_on], excess[go_on], tail[go_on]
        if not todo.size:
            break
        with np.errstate(invalid="ignore"):
            slope = -side * np.exp(log_density(at) - tail)
        x[todo] = _next_guess(at, excess, slope, search.low[todo], search.high[todo], deviation)
    return search.best


class _Search:
    """Brackets and best solutions so far, one for each probability."""

    def __init__(self, x: Array, deviation: float) -> None:
        self.deviation = deviation
        self.low, self.high = np.full_like(x, -math.inf), np.full_like(x, math.inf)
        self.best, self.error = x.copy(), np.full_like(x, math.inf)
        self.stale = np.zeros(x.size, dtype=int)

    def record(
        self, which: NDArray[np.int64], at: Array, excess: Array, is_above: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Take in what was found ``at`` the guesses; return which of them need no
        further step.
        """
        self.high[which[is_above]] = at[is_above]
        self.low[which[~is_above]] = at[~is_above]
        is_better = np.abs(excess) < self.error[which] / 2
        self.best[which[is_better]] = at[is_better]
        self.error[which[is_better]] = np.abs(excess[is_better])
        self.stale[which] = np.where(is_better, 0, self.stale[which] + 1)
        is_narrow = self.high[which] - self.low[which] <= 4e-16 * (np.abs(at) + self.deviation)
        error = self.error[which]
        is_jump = is_narrow & (error > _NOISE)
        self.best[which[is_jump]] = self.high[which[is_jump]]
        return np.asarray(
            is_narrow | (error <= _TOLERANCE) | ((error < _NOISE) & (self.stale[which] >= _STALE))
        )


def _next_guess(
    x: Array, excess: Array, slope: Array, low: Array, high: Array, deviation: float
) -> Array:
    """Return Newton's step where it stays inside the bracket. Elsewhere it is the
    bracket's middle, or four deviations further where the bracket is open.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        newton = x - excess / slope
    inside = (newton > low) & (newton < high) & np.isfinite(newton)
    with np.errstate(invalid="ignore"):
        middle = np.where(np.isfinite(low) & np.isfinite(high), (low + high) / 2, np.nan)
    stride = np.where(np.isfinite(low), low + 4 * deviation, high - 4 * deviation)
    return np.where(inside, newton, np.where(np.isnan(middle), stride, middle))
