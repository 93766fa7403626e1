"""Whether weights depend on one another, within a matrix and between matrices, in ways
that products of neighbours do not show.

Seven tests, each at ``_LEVEL`` for all matrices of a network together:

*Same sizes.* Two rows (or columns, or a row and a column) of one length whose sorted
absolute values agree to rounding, up to a factor: one is the other turned, negated or
rearranged. For ``m`` distinct values of relative precision ``e`` chance makes that with
a probability below ``m! (8 e)^m``: a value lies within ``4 e`` of itself of another
with at most ``8 e``, since ``x f(x) <= 1`` for the density of every usual initialiser.
Biases are such rows, too.

*Correlation.* Each row's largest correlation with the rows of an earlier matrix. Its
square is a Beta variable with parameters 1/2 and (n - 1)/2 for normal entries, and no
larger in the tail for bounded ones; the number of rows is Bonferroni's factor. Rows are
independent given the other matrix, so that their p-values are pooled by Fisher's rule.

*Even norms.* Bartlett's statistic of equal variances of rows (and columns), divided by
``(kurtosis - 1)/2``, is chi-square with one degree of freedom a row, less one. Rows
that were normalised are too even, rows of different scales too uneven; pooled over
layers.

*Equal norms* of whole matrices (`initdiag.tracing.norms`), *linear constraints*, such
as sums of 0 (`initdiag.tracing.constraints`), and *biases computed from weights*
(`initdiag.tracing.explained`).

*Tails.* Where no family is recognised, a choice instead of a test: no law without a
fourth moment may be likelier than those with one (`initdiag.tracing.tails`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from initdiag.network.weights import (
    EQUAL_NORMS,
    KURTOSIS,
    NOT_REARRANGED,
    UNCONSTRAINED,
    UNLIKE,
    WeightLaw,
)
from initdiag.tracing.constraints import constrained
from initdiag.tracing.explained import BiasedLayer, explained
from initdiag.tracing.families import Sample
from initdiag.tracing.norms import equal_norms
from initdiag.tracing.tails import are_without_fourth_moment

__all__ = ["Failures", "dependences"]

_LEVEL = 1e-6
"""Probability that an honest network fails one of the tests."""

_LINES = 256
"""Rows and columns of a matrix that are looked at, its first ones."""

_IN_ALL = 1024
"""Rows of all matrices of one width whose correlations are taken."""

_LEAST_WIDTH = 8
"""Entries of a row from which on correlations and norms follow their laws: of fewer
that are not normal the tails differ.
"""

Matrix = NDArray[np.float64]
Failures = dict[str, float]
"""Hypothesis -> p-value, of those that do not hold."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """Some rows, or some columns, of one matrix, at their full length; or its bias."""

    index: int
    name: Literal["rows", "columns", "bias"]
    values: Matrix


def dependences(
    names: Sequence[str],
    samples: Sequence[Sample],
    laws: Sequence[WeightLaw],
    earlier: Mapping[str, str],
    biased: Sequence[BiasedLayer] = (),
) -> list[Failures]:
    """Return for each matrix which hypotheses of independence do not hold.

    Parameters
    ----------
    names, samples, laws
        Of the matrices, in the order of execution.
    earlier : mapping
        Names of known copies, which are not looked at again.
    biased : sequence of BiasedLayer
        Biases of the layers that the matrices belong to, each once.
    """
    found: list[Failures] = [{} for _ in samples]
    firsts = {name: i for i, name in reversed(list(enumerate(names))) if name not in earlier}
    drawn = sorted(i for i in firsts.values() if samples[i].sums.s2 > 0)
    lines = [one for i in drawn for one in _lines(i, samples[i])]
    eps = max((samples[i].eps for i in drawn), default=0.0)
    added = [b for b in biased if b.index in drawn and bool(b.bias.any())]
    for first, second, p in _of_same_sizes([*lines, *map(_bias_line, added)], eps):
        name = f"{second.name}{NOT_REARRANGED}"
        if first.index != second.index or "bias" in (first.name, second.name):
            name = f"{UNLIKE}{names[first.index]}"
        found[second.index].setdefault(name, p)
    for i, p in explained(added, _LEVEL):
        found[i].setdefault(f"{UNLIKE}its bias", p)
    rows = [one for one in lines if one.name == "rows" and laws[one.index].family in KURTOSIS]
    for i, j, p in _correlated(rows):
        name = f"{UNLIKE}{names[i]}" if i != j else "independent rows"
        found[j].setdefault(name, p)
    for name, members, p in (*_uneven(lines, laws), *_wholes(drawn, samples, laws)):
        for i in members:
            found[i].setdefault(name, p)
    return found


def _lines(index: int, sample: Sample) -> Iterator[_Lines]:
    w = sample.matrix.detach()
    for name, part in _NAMES:
        yield _Lines(index, name, np.ascontiguousarray(part(w).double().cpu().numpy()))


_NAMES: tuple[tuple[Literal["rows", "columns"], Callable[[Tensor], Tensor]], ...] = (
    ("rows", lambda w: w[:_LINES]),
    ("columns", lambda w: w[:, :_LINES].T),
)


def _bias_line(one: BiasedLayer) -> _Lines:
    return _Lines(one.index, "bias", one.bias.detach().double().cpu().numpy().reshape(1, -1))


def _of_same_sizes(lines: Sequence[_Lines], eps: float) -> Iterator[tuple[_Lines, _Lines, float]]:
    """Yield pairs of lines of which one is the other rearranged, with a bound of the
    probability.
    """
    for _, group in _by_width(lines):
        squares = [one.values * one.values for one in group]
        sums = [np.maximum(s.sum(1), 1e-100) for s in squares]
        prints = np.concatenate(
            [np.einsum("ij,ij->i", s, s) / q**2 for s, q in zip(squares, sums, strict=True)]
        )
        owner = np.concatenate([np.full(len(one.values), k) for k, one in enumerate(group)])
        place = np.concatenate([np.arange(len(one.values)) for one in group])
        order = np.argsort(prints)
        peaks = np.concatenate(
            [np.abs(one.values).max(1) / np.sqrt(q) for one, q in zip(group, sums, strict=True)]
        )
        near = np.diff(prints[order]) <= 8 * eps * prints[order][1:]
        near &= np.abs(np.diff(peaks[order])) <= 8 * eps * peaks[order][1:]
        log_pairs = 2 * math.log(len(order))
        for a, b in zip(order[:-1][near], order[1:][near], strict=True):
            first, second = sorted(((owner[a], place[a]), (owner[b], place[b])))
            one, other = group[first[0]], group[second[0]]
            p = _chance(one.values[first[1]], other.values[second[1]], eps, log_pairs)
            if p < _LEVEL:
                yield one, other, p


def _chance(a: Matrix, b: Matrix, eps: float, log_pairs: float) -> float:
    """Return a bound of the probability that sorted sizes agree by chance; 1 where they
    do not.
    """
    x, y = np.sort(np.abs(a)), np.sort(np.abs(b))
    x, y = x / max(x[-1], 1e-300), y / max(y[-1], 1e-300)
    if not np.all(np.abs(x - y) <= 2 * eps * np.maximum(x, y)):
        return 1.0
    values = x[x > 0]
    distinct = 1 + int(np.sum(np.diff(values) > 2 * eps * values[1:])) if len(values) else 0
    distinct -= 1  # one of them went into the factor
    if distinct < 2:  # the rows of a 2 x 2 orthogonal matrix are rearranged
        return 1.0
    log_p = math.lgamma(distinct + 1) + distinct * math.log(8 * eps) + log_pairs
    return math.exp(min(log_p, 0.0))


def _by_width(lines: Sequence[_Lines]) -> Iterator[tuple[int, list[_Lines]]]:
    groups: dict[int, list[_Lines]] = {}
    for one in lines:
        groups.setdefault(one.values.shape[1], []).append(one)
    yield from groups.items()


def _correlated(rows: Sequence[_Lines]) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of matrices (or one twice) whose rows correlate, with the p-value."""
    found = [
        (group[a].index, group[b].index, p)
        for width, group in _by_width(rows)
        if width >= _LEAST_WIDTH
        for a, b, p in _pairs(group, width)
    ]
    yield from ((i, j, p) for i, j, p in found if p * len(found) < _LEVEL)


def _pairs(group: Sequence[_Lines], width: int) -> Iterator[tuple[int, int, float]]:
    """Yield the p-values of all pairs of matrices of one width."""
    count = max(2, _IN_ALL // len(group))
    parts = [one.values[:count] for one in group[:_IN_ALL]]
    # a mean that is not 0 is found elsewhere
    units = [(part - part.mean()).astype(np.float32) for part in parts]
    units = [u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-30) for u in units]
    ends = np.cumsum([0, *map(len, units)])
    stacked = np.concatenate(units)
    for b, unit in enumerate(units):
        table = np.abs(unit @ stacked[: ends[b + 1]].T)
        own = np.triu(table[:, ends[b] :], 1)
        pairs = len(unit) * (len(unit) - 1) / 2
        yield b, b, min(1.0, pairs * float(_tail(own.max(), width))) if pairs else 1.0
        if b:
            largest = np.maximum.reduceat(table[:, : ends[b]], ends[:b], axis=1)
            p = np.minimum(1.0, np.diff(ends[: b + 1]) * _tail(largest, width))
            total = -2 * np.log(np.maximum(p, 1e-300)).sum(0)
            yield from (
                (a, b, float(x)) for a, x in enumerate(special.chdtrc(2 * len(unit), total))
            )


def _tail(correlation: NDArray[np.floating], width: int) -> Matrix:
    """Return the probability of as large a correlation of independent rows."""
    rest = np.maximum(1 - np.square(correlation.astype(np.float64)), 0.0)
    return np.asarray(special.betainc((width - 1) / 2, 0.5, rest))


def _uneven(
    lines: Sequence[_Lines], laws: Sequence[WeightLaw]
) -> Iterator[tuple[str, list[int], float]]:
    """Yield the matrices whose norms of rows, or of columns, are not those of
    independent entries.
    """
    for lines_name in ("rows", "columns"):
        kind = [
            one
            for one in lines
            if one.name == lines_name
            and laws[one.index].family in ("other", *KURTOSIS)
            and one.values.shape[1] >= _LEAST_WIDTH
            and len(one.values) > 1
        ]
        found = [
            (one.index, _bartlett(one.values, laws[one.index]), len(one.values) - 1) for one in kind
        ]
        for group in (*([one] for one in found), found) if found else ():
            freedom, total = sum(f for *_, f in group), math.fsum(x for _, x, _ in group)
            is_known = all(laws[i].family in KURTOSIS for i, *_ in group)
            below = special.chdtr(freedom, total) if is_known else 1.0
            p = 4 * (len(found) + 1) * min(float(below), float(special.chdtrc(freedom, total)))
            if p < _LEVEL:
                name = f"{lines_name.removesuffix('s')} norms at random"
                yield name, [i for i, *_ in group], p


def _bartlett(values: Matrix, law: WeightLaw) -> float:
    """Return Bartlett's statistic of the rows' mean squares, for entries of a law."""
    rows, width = values.shape
    kurtosis = max(law.kurtosis, KURTOSIS["uniform"])
    squares = np.maximum(np.mean(values * values, 1), 1e-300)
    spread = math.log(squares.mean()) - float(np.mean(np.log(squares)))
    correction = 1 + (rows + 1) / (3 * rows * width)
    return float(width * rows * spread / correction / ((kurtosis - 1) / 2))


def _wholes(
    drawn: Sequence[int], samples: Sequence[Sample], laws: Sequence[WeightLaw]
) -> Iterator[tuple[str, list[int], float]]:
    """Yield the matrices whose norms are equal, and those of no recognised family whose
    tails are too heavy.
    """
    tests = {EQUAL_NORMS: equal_norms, UNCONSTRAINED: constrained}
    for name, test in tests.items():
        yield from ((name, i, p) for i, p in test(drawn, samples, laws) if p < _LEVEL)
    strangers = [i for i in drawn if laws[i].family == "other"]
    all_drawn = [i for i in drawn if laws[i].family in ("other", *KURTOSIS)]
    groups = [[samples[i] for i in group] for group in (strangers, all_drawn)]
    if strangers and any(map(are_without_fourth_moment, groups)):
        yield "finite fourth moment", strangers, 0.0
