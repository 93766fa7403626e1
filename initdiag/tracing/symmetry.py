"""Whether entries are as often positive as negative, and as large: what random signs
need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy import special

from initdiag.tracing.entries import EntrySums

__all__ = ["Scores", "sign_p_value", "sign_scores"]

Scores = Mapping[str, tuple[float, ...]]
"""Hypothesis -> scores: of mean square 1 if it holds, with tails as light as normal
ones.
"""


def sign_scores(sums: EntrySums, eps: float) -> Scores:
    """Return the scores of zero mean and of symmetry, which random signs need.

    Symmetry is tested by third powers (which see the tails) and by signs (which see the
    bulk). A shift of the entries by a rounding error ``eps`` of their size is allowed:
    PyTorch's uniform numbers in half precision lie on a grid that is half a step off
    centre.
    """
    if sums.s2 == 0:
        return {}
    shift = eps * math.sqrt(sums.variance)
    return {
        "zero mean": (_beyond(sums.s1, sums.count * shift) / math.sqrt(sums.s2),),
        "symmetry": (
            _beyond(sums.s3, 3 * shift * sums.s2) / math.sqrt(sums.s6),
            _lean(sums, eps) / math.sqrt(sums.nonzero),
        ),
    }


def sign_p_value(tensors: Sequence[tuple[EntrySums, float]]) -> float:
    """Return the two-sided p-value of the signs of all entries together, if each is
    a fair coin: exact, for a few signs have no normal tail.

    ``tensors`` are the sums over each, and its rounding error ``eps`` (`sign_scores`).
    """
    count = int(math.fsum(sums.nonzero for sums, _ in tensors))
    lean = abs(math.fsum(_lean(sums, eps) for sums, eps in tensors))
    fewer = round((count - lean) / 2)
    return min(1.0, 2 * float(special.bdtr(fewer, count, 0.5))) if count else 1.0


def _lean(sums: EntrySums, eps: float) -> float:
    """Return how many more entries are positive than negative, beyond rounding."""
    return _beyond(sums.sign, sums.count * eps)


def _beyond(total: float, allowed: float) -> float:
    """Return how much of a sum lies beyond what is allowed of it, with its sign."""
    return math.copysign(max(abs(total) - allowed, 0.0), total)
