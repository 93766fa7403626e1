"""The Kolmogorov distance of two laws on the line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

__all__ = ["kolmogorov_distance"]

_POINTS, _DEVIATIONS = 2001, 10.0
"""Points of the grid, and how many standard deviations of either law it covers.

The largest difference is refined from there. With 51 points it is the same to 1e-13 for
chains of 3 to 9 layers of 4 to 64 units: the rest is for laws with several humps.
"""

_REFINED = 3
"""Points of the largest differences that are refined: as many humps may be alike."""


def kolmogorov_distance(law: Any, other: Any) -> float:
    """Return ``sup_x |F(x) - G(x)|`` of two ``scipy.stats`` distributions, ``G``
    continuous, ``F`` but for its ends.

    Where ``law`` ends in an atom, the supremum may be at its edge or just before it.
    """
    low, high = _range(law, other)
    x = np.linspace(low, high, _POINTS)
    candidates = [edge for edge in law.support() if math.isfinite(edge)]
    ends = np.array([at for edge in candidates for at in (np.nextafter(edge, -math.inf), edge)])

    def difference(at: NDArray[np.float64] | float) -> Any:
        return np.abs(law.cdf(at) - other.cdf(at))

    values = difference(x)
    best = max(float(values.max()), float(difference(ends).max()) if ends.size else 0.0)
    return max([best, *(_refined(difference, x, int(i)) for i in np.argsort(values)[-_REFINED:])])


def _range(law: Any, other: Any) -> tuple[float, float]:
    means, deviations = (
        np.array([d.mean() for d in (law, other)]),
        np.array([d.std() for d in (law, other)]),
    )
    return float((means - _DEVIATIONS * deviations).min()), float(
        (means + _DEVIATIONS * deviations).max()
    )


def _refined(difference: Callable[[float], Any], x: NDArray[np.float64], i: int) -> float:
    """Return the largest difference between the neighbours of grid point ``i``."""
    bounds = (float(x[max(i - 1, 0)]), float(x[min(i + 1, x.size - 1)]))
    found = optimize.minimize_scalar(
        lambda at: -float(difference(at)), bounds=bounds, method="bounded"
    )
    return -float(found.fun)
