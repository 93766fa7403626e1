"""The hypotheses of the theory, tested on the actual weights: iid symmetric entries, or
a Haar matrix.

Each layer is tested for itself, in a few passes over at most 65,536 entries. What a
small layer cannot show for itself, all layers show together: the scores of the tests of
mean, symmetry and independence are pooled over the layers (`pooled`). A score is a sum
that random signs leave symmetric, over the root of its expected square; its tail is no
heavier than a normal one's at any size, up to a factor of 3.2 (Bentkus and Dzindzalieta
2015).

One failed test takes a network's coverage away, and a deep network is tested a thousand
times. So the level is the network's: all tests of an honest network together fail with
probability ``NETWORK_LEVEL``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from initdiag.network.weights import DISTINCT_UNITS, LOW_RANK, Hypothesis
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.symmetry import Scores, sign_scores

__all__ = [
    "NETWORK_LEVEL",
    "TEST_LEVEL",
    "pooled",
    "weight_hypotheses",
    "weight_scores",
]

NETWORK_LEVEL = 1e-5
"""Probability that an honest network fails any test: half for its layers, half for the
pool.
"""

TEST_LEVEL = 1e-6
"""Level of each test of a single layer; measured false alarms are in the tests."""

_BLOCK = 256
"""Rows and columns of the leading block that the tests of structure look at."""

_HEAD = 16
"""Leading entries by which equal lines of a matrix are looked for."""

_MEDIAN = 0.6745
"""Median of |z|, z standard normal: it halves a normal matrix; 61 % of a uniform one
lie above.
"""

_POWER_STEPS = 12
"""Steps of the power method; falling short of the largest singular value costs power
alone.
"""

_LEAST_COUNT = 5
"""Marked (and unmarked) entries expected in a line, below which its count is not
chi-square (the textbook rule).
"""

Matrix = NDArray[np.float64]


def weight_scores(sums: EntrySums, weight: Tensor) -> Scores:
    """Return the scores of a weight matrix; none for a matrix of zeros."""
    if sums.s2 == 0:
        return {}
    w = _block(sums, weight)
    return {
        **sign_scores(sums, torch.finfo(weight.dtype).eps),
        "independent rows": _neighbours(w),
        "independent columns": _neighbours(w.T),
    }


def _block(sums: EntrySums, weight: Tensor) -> Matrix:
    """Return the leading block in standard deviations."""
    w = weight[:_BLOCK, :_BLOCK].detach().double().cpu().numpy()
    return np.asarray(w / math.sqrt(sums.variance))


def weight_hypotheses(
    sums: EntrySums, weight: Tensor, is_haar: bool, level: float = TEST_LEVEL
) -> tuple[Hypothesis, ...]:
    """Return all tests of a weight matrix, each at ``level``; none for a matrix of
    zeros.
    """
    if sums.s2 == 0:
        return ()
    w = _block(sums, weight)
    p_values = {
        **{name: _smallest(*map(_two_sided, z)) for name, z in weight_scores(sums, weight).items()},
        LOW_RANK: _low_rank(w),
        "equal variances": _smallest(*_unevenness(np.abs(w) > _MEDIAN)),
        "finite fourth moment": _heavy_tail(w),
        DISTINCT_UNITS: _smallest(*map(_repetition, (weight, weight.T))),
    }
    if sums.nonzero < sums.count:
        p_values["zeros at random"] = _smallest(*_unevenness(w == 0))
    if is_haar:
        p_values["Haar"] = _spiky_or_flat(sums, max(weight.shape))
    return tuple(Hypothesis(name, p, p >= level) for name, p in p_values.items())


def pooled(scores: Sequence[Scores]) -> dict[str, float]:
    """Return hypothesis -> p-value of all layers together.

    Layers that deviate in one direction show in the sum of their scores, layers that
    deviate in any direction in the sum of squares. The latter's tail is bounded by
    Chernoff's bound of a chi-square: under random signs a score has no even moment
    above the normal one's (Khintchine), hence no larger ``E exp(t z^2)``.
    """
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for one in scores for name in one):
        columns = zip(*(one[name] for one in scores if name in one), strict=True)
        found[name] = _smallest(*(p for z in columns for p in _pooled_p_values(z)))
    return found


def _pooled_p_values(scores: Sequence[float]) -> tuple[float, float]:
    """Return the p-values of the sum of scores, and of the sum of their squares."""
    freedom, squares = len(scores), math.fsum(z * z for z in scores)
    excess = max(squares / freedom, 1.0)
    bound = math.exp(-freedom / 2 * (excess - 1 - math.log(excess)))
    return _two_sided(math.fsum(scores) / math.sqrt(freedom)), bound


def _smallest(*p_values: float) -> float:
    """Return the smallest of several p-values, times their number (Bonferroni)."""
    return min(1.0, len(p_values) * min(p_values))


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _neighbours(w: Matrix) -> tuple[float, float]:
    """Score the products of each row with the next, and with the one half the matrix
    away.

    Under random signs these are independent fair coins.
    """
    return _product_score(w, 1), _product_score(w, max(1, len(w) // 2))


def _product_score(w: Matrix, lag: int) -> float:
    products = w[:-lag] * w[lag:]
    scale = math.sqrt(float(np.sum(products * products)))
    return float(products.sum()) / scale if scale > 0 else 0.0


def _low_rank(w: Matrix) -> float:
    """Compare the largest singular value with the edge of iid entries.

    The power method can only fall short of it. The largest eigenvalue of ``W^T W`` is
    ``mu + s T``, ``T`` Tracy-Widom; centring and scale by Z. Ma, Bernoulli 18 (2012),
    the tail ``exp(-2/3 t^(3/2))`` by its leading order. Where a few large entries push
    it beyond that edge (sparse weights), they do so whatever their signs: the edge is
    then that of the same entries with random signs.
    """
    m, n = math.sqrt(w.shape[0] - 0.5), math.sqrt(w.shape[1] - 0.5)
    edge, top = (m + n) ** 2 * float(np.mean(w * w)), _top_eigenvalue(w)
    if top > edge:
        signs = np.random.default_rng(0).integers(0, 2, w.shape) * 2 - 1
        top -= max(_top_eigenvalue(w * signs) - edge, 0.0)
    t = max(top / edge - 1, 0.0) * (m + n) / (1 / m + 1 / n) ** (1 / 3)
    return math.exp(-2 / 3 * t**1.5)


def _top_eigenvalue(w: Matrix) -> float:
    """Return the largest eigenvalue of ``W^T W``, from below."""
    v = np.cos(np.arange(w.shape[1]) ** 1.5)
    for _ in range(_POWER_STEPS):
        v = w.T @ (w @ (v / np.linalg.norm(v)))
    return float(np.linalg.norm(v))


def _unevenness(marks: NDArray[np.bool_]) -> tuple[float, float]:
    """Test whether the marked entries crowd in some rows or columns.

    These are chi-square tests of the counts, which no law of the entries changes. The
    marks are exchangeable. Where each line across has as many (`nn.init.sparse_`), the
    distance is larger, by the factor that is taken off here.
    """
    share = float(marks.mean())
    p_values = [1.0, 1.0]
    for axis, size in enumerate(marks.shape):
        if size * min(share, 1 - share) < _LEAST_COUNT:
            continue
        counts = marks.sum(axis)
        distance = float(np.sum((counts - size * share) ** 2)) / (size * share * (1 - share))
        freedom = len(counts) - 1
        if freedom:
            p_values[axis] = float(special.chdtrc(freedom, distance * freedom / len(counts)))
    return p_values[0], p_values[1]


def _heavy_tail(w: Matrix) -> float:
    """Return the p-value of Hill's test that the tail index is at least 4.

    In that case ``4 sum ln(x_i/x_k)`` over the k largest entries is at most a Gamma(k).
    Of N entries that are not 0 the test looks at sqrt(N); of fewer than 64 there is no
    tail to speak of.
    """
    sizes = np.abs(w[w != 0])
    if sizes.size < 64:
        return 1.0
    k = math.isqrt(sizes.size)
    largest = np.partition(sizes, -k - 1)[-k - 1 :]
    return float(special.gammaincc(k, 4 * float(np.log(largest / largest.min()).sum())))


def _spiky_or_flat(sums: EntrySums, larger: int) -> float:
    """Test the kurtosis of a Haar matrix, ``3N/(N+2)``.

    A permutation has more, a Hadamard matrix less. The sample's leans upwards, so that
    side is given 1.6 times the room.
    """
    z = (sums.kurtosis - 3 * larger / (larger + 2)) / math.sqrt(24 / sums.count)
    return _two_sided(z / 1.6 if z > 0 else z)


def _repetition(w: Tensor) -> float:
    """Return the probability of as many equal rows by chance.

    Two units with one row of weights compute the same value, for ever. Rows of zeros
    do not count: such units differ in what comes after them, or before.

    The number of equal pairs is nearly Poisson. Two entries agree with the probability
    that is seen among the rows that differ, at least that of two zeros (which have
    tests of their own) and a rounding error (floats lie on a grid). A matrix of one
    value has no rows that differ: a single line of fair signs comes out so with
    probability ``2^(1-N)``; of a matrix it is not taken for chance, for entries of two
    values are refused at such sizes anyway (sums of them cancel exactly).
    """
    is_used = (w != 0).any(1)
    w = w if bool(is_used.all()) else w[is_used]
    distinct = _distinct_rows(w)
    repeated = len(w) - len(distinct)
    if repeated == 0:
        return 1.0
    entries = w[distinct].detach().double().cpu().numpy().reshape(-1)
    _, counts = np.unique(entries, return_counts=True)
    if len(counts) == 1:
        return 2.0 ** max(1 - w.numel(), -1000) if min(w.shape) == 1 else 0.0
    agree = float(np.sum(counts * (counts - 1.0))) / (entries.size * (entries.size - 1.0))
    zeros = float((w == 0).double().mean()) ** 2
    chance = max(agree, zeros, torch.finfo(w.dtype).eps) ** w.shape[1]
    pairs = len(w) * (len(w) - 1) / 2
    return float(special.gammainc(repeated, max(pairs * chance, 1e-300)))


def _distinct_rows(w: Tensor) -> list[int]:
    """Return the indices of the rows that equal none before them."""
    heads = w[:, :_HEAD].detach().double().cpu().numpy() + 0.0
    alike: dict[bytes, list[int]] = {}
    for index, head in enumerate(heads):
        known = alike.setdefault(head.tobytes(), [])
        if not any(torch.equal(w[index], w[other]) for other in known):
            known.append(index)
    return sorted(index for known in alike.values() for index in known)
