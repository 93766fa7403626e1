"""The hypotheses of the theory, tested on the actual weights: iid symmetric entries, or a Haar matrix.

Each test is a few passes over at most 65,536 entries. Its level is ``TEST_LEVEL``, far below what a user would notice, because
one failed test takes a network's coverage away and a deep one is tested a thousand times. Most statistics are sums that random
signs leave symmetric, over the root of their expected squares: then the tail is no heavier than a normal one at any size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from initdiag.network.architecture import Hypothesis
from initdiag.tracing.entries import EntrySums

__all__ = ["TEST_LEVEL", "sign_symmetry", "weight_hypotheses"]

TEST_LEVEL = 1e-6
"""Level of each test; measured false alarms are in the tests."""

_BLOCK = 256
"""Rows and columns of the leading block that the tests of structure look at."""

_MEDIAN = 0.6745
"""Median of |z|, z standard normal: half of the entries of a normal matrix are larger, 61 % of a uniform one's."""

_POWER_STEPS = 12
_LEAST_COUNT = 5
"""Marked (and unmarked) entries expected in a line, below which its count is not chi-square (the textbook rule)."""

Matrix = NDArray[np.float64]


def sign_symmetry(sums: EntrySums, eps: float) -> tuple[Hypothesis, ...]:
    """Tests of zero mean and of symmetry, which random signs need.

    Symmetry is tested by third powers (which see the tails) and by signs (which see the bulk). A shift of the entries by a rounding error
    ``eps`` of their size is allowed: PyTorch's uniform numbers in half precision lie on a grid that is half a step off centre.
    """
    if sums.s2 == 0:
        return ()
    shift = eps * math.sqrt(sums.variance)
    mean = _two_sided(_beyond(sums.s1, sums.count * shift) / math.sqrt(sums.s2))
    tails = _two_sided(_beyond(sums.s3, 3 * shift * sums.s2) / math.sqrt(sums.s6))
    bulk = _two_sided(_beyond(sums.sign, sums.count * eps) / math.sqrt(sums.nonzero))
    return _hypothesis("zero mean", mean), _hypothesis("symmetry", tails, bulk)


def _beyond(total: float, allowed: float) -> float:
    """How much larger a sum is than what is allowed of it."""
    return max(abs(total) - allowed, 0.0)


def weight_hypotheses(sums: EntrySums, weight: Tensor, is_haar: bool) -> tuple[Hypothesis, ...]:
    """All tests of a weight matrix; none for a matrix of zeros."""
    if sums.s2 == 0:
        return ()
    w = weight[:_BLOCK, :_BLOCK].detach().double().cpu().numpy()
    w = w / math.sqrt(sums.variance)
    found = [
        *sign_symmetry(sums, torch.finfo(weight.dtype).eps),
        _hypothesis("independent rows", *_neighbours(w)),
        _hypothesis("independent columns", *_neighbours(w.T)),
        _hypothesis("no low-rank part", _low_rank(w)),
        _hypothesis("equal variances", *_unevenness(np.abs(w) > _MEDIAN)),
        _hypothesis("finite fourth moment", _heavy_tail(w)),
    ]
    if sums.nonzero < sums.count:
        found.append(_hypothesis("zeros at random", *_unevenness(w == 0)))
    if is_haar:
        found.append(_hypothesis("Haar", _spiky_or_flat(sums, max(weight.shape))))
    return tuple(found)


def _hypothesis(name: str, *p_values: float) -> Hypothesis:
    """The smallest of several p-values, times their number (Bonferroni)."""
    p = min(1.0, len(p_values) * min(p_values))
    return Hypothesis(name, p, p >= TEST_LEVEL)


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _neighbours(w: Matrix) -> tuple[float, float]:
    """Products of each row with the next, and with the one half the matrix away: under random signs independent fair coins."""
    return _product_p_value(w, 1), _product_p_value(w, max(1, len(w) // 2))


def _product_p_value(w: Matrix, lag: int) -> float:
    products = w[:-lag] * w[lag:]
    scale = math.sqrt(float(np.sum(products * products)))
    return _two_sided(float(products.sum()) / scale) if scale > 0 else 1.0


def _low_rank(w: Matrix) -> float:
    """Largest singular value against the edge of iid entries, by the power method (which can only fall short of it).

    The largest eigenvalue of ``W^T W`` is ``mu + s T``, ``T`` Tracy-Widom; centring and scale by Z. Ma, Bernoulli 18 (2012), the tail
    ``exp(-2/3 t^(3/2))`` by its leading order. Where a few large entries push it beyond that edge (sparse weights), they do so
    whatever their signs: the edge is then that of the same entries with random signs.
    """
    m, n = math.sqrt(w.shape[0] - 0.5), math.sqrt(w.shape[1] - 0.5)
    edge, top = (m + n) ** 2 * float(np.mean(w * w)), _top_eigenvalue(w)
    if top > edge:
        signs = np.random.default_rng(0).integers(0, 2, w.shape) * 2 - 1
        top -= max(_top_eigenvalue(w * signs) - edge, 0.0)
    t = max(top / edge - 1, 0.0) * (m + n) / (1 / m + 1 / n) ** (1 / 3)
    return math.exp(-2 / 3 * t**1.5)


def _top_eigenvalue(w: Matrix) -> float:
    """Of ``W^T W``, from below."""
    v = np.cos(np.arange(w.shape[1]) ** 1.5)
    for _ in range(_POWER_STEPS):
        v = w.T @ (w @ (v / np.linalg.norm(v)))
    return float(np.linalg.norm(v))


def _unevenness(marks: NDArray[np.bool_]) -> tuple[float, float]:
    """Whether the marked entries crowd in some rows or columns: chi-square tests of the counts, which no law of the entries changes."""
    share = float(marks.mean())
    p_values = [1.0, 1.0]
    for axis, size in enumerate(marks.shape):
        if size * min(share, 1 - share) < _LEAST_COUNT:
            continue
        counts = marks.sum(axis)
        distance = float(np.sum((counts - size * share) ** 2)) / (size * share * (1 - share))
        freedom = (
            len(counts) - 1
        )  # exchangeable marks; with as many in each line across (nn.init.sparse_) the distance is larger
        p_values[axis] = (
            float(special.chdtrc(freedom, distance * freedom / len(counts))) if freedom else 1.0
        )
    return p_values[0], p_values[1]


def _heavy_tail(w: Matrix) -> float:
    """Hill's test that the tail index is at least 4: ``4 sum ln(x_i/x_k)`` over the k largest is at most a Gamma(k) then.

    Of N entries that are not 0 it looks at sqrt(N); of fewer than 64 there is no tail to speak of.
    """
    sizes = np.abs(w[w != 0])
    if sizes.size < 64:
        return 1.0
    k = math.isqrt(sizes.size)
    largest = np.partition(sizes, -k - 1)[-k - 1 :]
    return float(special.gammaincc(k, 4 * float(np.log(largest / largest.min()).sum())))


def _spiky_or_flat(sums: EntrySums, larger: int) -> float:
    """Entries of a Haar matrix have kurtosis ``3N/(N+2)``; a permutation's have more, a Hadamard matrix's less.

    The sample's leans upwards, so that side is given 1.6 times the room.
    """
    z = (sums.kurtosis - 3 * larger / (larger + 2)) / math.sqrt(24 / sums.count)
    return _two_sided(z / 1.6 if z > 0 else z)
