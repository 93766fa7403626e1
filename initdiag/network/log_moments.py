"""Mean and variance of a sample of log-norms, with their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogMoments"]


@dataclass(frozen=True, slots=True)
class LogMoments:
    """Mean and variance of the log-norms that are not dead, with standard errors and
    count of the finite ones.

    The variance is the headline of this package, so it carries its own standard error,
    from the fourth moment: ``sqrt((m4 - s^4 (n-3)/(n-1)) / n)``. NaN where there are
    too few draws. With an infinite log-norm, an overflow, the mean is infinite and the
    rest NaN: what is left without it would pass for the whole.
    """

    mean: float
    mean_se: float
    variance: float
    variance_se: float
    third_moment: float
    dead_fraction: float
    count: int

    @classmethod
    def of(cls, log_norms: NDArray[np.float64]) -> LogMoments:
        """Return the moments of ``log_norms`` (natural log); -inf counts as dead, +inf
        as overflow.
        """
        alive = log_norms[np.isfinite(log_norms)]
        n = len(alive)
        dead = float(np.mean(np.isneginf(log_norms))) if len(log_norms) else math.nan
        if n == 0 or np.isposinf(log_norms).any():
            mean = math.inf if np.isposinf(log_norms).any() else math.nan
            return cls(mean, math.nan, math.nan, math.nan, math.nan, dead, n)
        mean = float(alive.mean())
        if n < 4:
            return cls(mean, math.nan, math.nan, math.nan, math.nan, dead, n)
        centred = alive - mean
        variance = float(centred @ centred) / (n - 1)
        fourth = float(np.mean(centred**4))
        variance_se = math.sqrt(max(fourth - variance * variance * (n - 3) / (n - 1), 0.0) / n)
        third = float(np.mean(centred**3))
        return cls(mean, math.sqrt(variance / n), variance, variance_se, third, dead, n)
