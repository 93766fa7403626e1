"""Whether entries have tails without a fourth moment, by likelihood.

The entries of all matrices together, each in units of its own median size, are held
against laws that have no fourth moment (Student's with at most 4 degrees of freedom)
and against laws that have one: Student's with more, and exponentials of a power of the
size, from normal ones to heavier than Laplace's. The likelier side decides, for no
family of the matrices is known; few entries say that by a few of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.tracing.families import Sample

__all__ = ["are_without_fourth_moment"]

_HEAVY, _LIGHT = (1.5, 2.0, 2.5, 3.0, 4.0), (5.0, 6.0, 8.0, 12.0)
"""Degrees of freedom of Student's laws on either side."""

_POWERS = (0.7, 1.0, 1.4, 2.0)
"""Exponents of the exponential laws: 2 is normal, 1 Laplace's."""

_SCALES = np.exp(np.linspace(-1.0, 1.0, 21))
"""Scales of Student's laws that are tried, in medians of the size."""

_MOST, _LEAST = 1 << 13, 256
"""Entries that are looked at, at most, and needed, at least: choices."""

Vector = NDArray[np.float64]


def are_without_fourth_moment(samples: Sequence[Sample]) -> bool:
    """Return whether laws without a fourth moment are likelier than those with one."""
    x = _sizes(samples)
    if len(x) < _LEAST:
        return False
    light = (*(_student(x, nu) for nu in _LIGHT), *(_exponential(x, p) for p in _POWERS))
    return max(_student(x, nu) for nu in _HEAVY) > max(light)


def _sizes(samples: Sequence[Sample]) -> Vector:
    """Return the sizes of some entries that are not 0, in units of their median."""
    each = _MOST // len(samples)
    parts = [np.abs(s.matrix.detach().reshape(-1)[:each].double().cpu().numpy()) for s in samples]
    return np.concatenate([w[w > 0] / np.median(w[w > 0]) for w in parts if np.any(w)])


def _student(x: Vector, freedom: float) -> float:
    """Return the largest log likelihood of Student's law over its scales."""
    half = (freedom + 1) / 2
    constant = math.lgamma(half) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    sums = np.log1p((x / _SCALES[:, None]) ** 2 / freedom).mean(1)
    return len(x) * float((constant - np.log(_SCALES) - half * sums).max())


def _exponential(x: Vector, power: float) -> float:
    """Return the largest log likelihood of the law ``exp(-(x/s)^power)``."""
    scale = (power * float(np.mean(x**power))) ** (1 / power)
    constant = math.log(power / 2) - float(special.gammaln(1 / power))
    return len(x) * (constant - math.log(scale) - 1 / power)
