"""Whether a fixed combination of a matrix' columns, or of its rows, is 0.

Weights whose rows (or columns) were centred are such, and all that were projected. Two
tests. *Sums*: of independent entries the squares of the sums over rows are together
nearly chi-square; they may not be too small. *Rank*: the smallest singular value of a
square matrix of ``n`` rows, in units of an entry's standard deviation over ``sqrt(n)``,
lies below ``e`` with a probability of at most about ``e`` (Edelman 1988 for normal
entries; the factor of other usual densities is below 4), and of another shape more
rarely. Both are pooled over layers by Fisher's rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.network.weights import KURTOSIS, LOW_RANK, WeightLaw
from initdiag.tracing.families import Sample, is_continuous

__all__ = ["constrained"]

_SIDE = 64
"""Longest side of matrices whose singular values are taken: a choice, for time."""

_ROOM = 4.0
_LEAST = 4
"""Lines from which on their sums are looked at."""


def constrained(
    drawn: Sequence[int], samples: Sequence[Sample], laws: Sequence[WeightLaw]
) -> Iterator[tuple[list[int], float]]:
    """Yield sets of matrices that satisfy a linear constraint, with the p-value."""
    families = ("other", *KURTOSIS)
    usual = [i for i in drawn if laws[i].family in families and LOW_RANK not in laws[i].failed]
    free = {i: _p_values(samples[i]) for i in usual if is_continuous(samples[i])}
    for kind in range(3):
        found = [(i, p[kind]) for i, p in free.items() if p[kind] < 1]
        for group in (*([one] for one in found), found) if found else ():
            logs = -2 * math.fsum(math.log(max(p, 1e-300)) for _, p in group)
            p_value = 3 * (len(found) + 1) * float(special.chdtrc(2 * len(group), logs))
            yield [i for i, _ in group], p_value


def _p_values(sample: Sample) -> tuple[float, float, float]:
    """Return those of the sums over rows, over columns, and of the rank."""
    w = sample.matrix.detach().double().cpu().numpy() / sample.sums.largest
    scale = math.sqrt(sample.sums.variance) / sample.sums.largest
    rank = 1.0
    if min(w.shape) > 1 and max(w.shape) <= _SIDE:
        smallest = float(np.linalg.svd(w, compute_uv=False)[-1])
        rank = min(1.0, _ROOM * smallest * math.sqrt(min(w.shape)) / scale)
    return _small_sums(w, scale), _small_sums(w.T, scale), rank


def _small_sums(w: NDArray[np.float64], scale: float) -> float:
    """Return the probability of as small sums over the rows, at most."""
    count, width = w.shape
    if min(count, width) < _LEAST:
        return 1.0
    square = float(np.square(w.sum(1)).sum()) / (width * scale * scale)
    return float(special.chdtr(count, square))
