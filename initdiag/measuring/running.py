"""Mean and variance of a stream of chunks, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunningMoments"]


class RunningMoments:
    """Chan, Golub and LeVeque's pairwise update (1979). -inf (a dead draw) is left out; with an overflow, inf or NaN, the mean is infinite."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, math.nan, 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in one chunk of values."""
        finite = values[np.isfinite(values)]
        if np.any(np.isnan(values) | np.isposinf(values)):
            self.mean, self._squares = math.inf, math.nan
        if not len(finite) or self.mean == math.inf:
            self.count += len(finite)
            return
        mean, count = float(finite.mean()), len(finite)
        previous = mean if self.count == 0 else self.mean
        total = self.count + count
        self._squares += float(np.sum((finite - mean) ** 2)) + (mean - previous) ** 2 * self.count * count / total
        self.mean = previous + (mean - previous) * count / total
        self.count = total

    @property
    def variance(self) -> float:
        """Sample variance; NaN for fewer than two values."""
        return self._squares / (self.count - 1) if self.count > 1 else math.nan
