"""Whether the norms of whole matrices are too much alike for chance.

A matrix that was divided by its norm has a norm that does not vary. One matrix cannot
show that; several of one shape can, or several whose mean square is their initialiser's
own variance to rounding. Four norms are looked at: Frobenius', the sum of the absolute
values, the largest of them, and, of small matrices, the largest singular value.

The logs of two norms of independent draws lie within ``d`` of each other with a
probability of at most ``d`` times twice the density of their difference at 0. Of a mean
over ``N`` entries that density is below ``sqrt(N)/2`` for every usual initialiser, of
the largest entry below ``N/2``, of the largest singular value below the longer side's
length.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from initdiag.network.weights import KURTOSIS, WeightLaw
from initdiag.tracing.families import Sample, is_continuous

__all__ = ["equal_norms"]

_NEAR = 16
"""Roundings within which norms are equal: of the norm, of the quotient, of its sum."""

_FAINT = 0.035
"""Share of a layer's log-variance that is left out in silence: less than the standard
error of 1,000 draws, 0.045. `initdiag.repair` by "rescale" leaves such norms, too.
"""

_SIDE, _ENTRIES = 64, 1 << 16
"""Longest side of matrices whose singular values are taken, and most entries of those
whose absolute values are summed: a choice, for time.
"""


def equal_norms(
    drawn: Sequence[int], samples: Sequence[Sample], laws: Sequence[WeightLaw]
) -> Iterator[tuple[list[int], float]]:
    """Yield sets of matrices of equal norms, with a bound of the probability."""
    usual = [
        i for i in drawn if laws[i].family in ("other", *KURTOSIS) and _matters(laws[i], samples[i])
    ]
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in usual:
        shapes[samples[i].shape].append(i)
    named = {i: laws[i] for i in usual if laws[i].initializer}
    own = [i for i, law in named.items() if _is_own(samples[i], law)]
    chances = [_chance(samples[i], "size") for i in own]
    yield from _if_rare(own, len(named), chances, len(own))
    for group in shapes.values():
        if len(group) > 2:
            yield from _of_one_shape([i for i in group if is_continuous(samples[i])], samples)


def _matters(law: WeightLaw, sample: Sample) -> bool:
    """Return whether a norm that does not vary takes more than `_FAINT` off the
    log-variance of a layer without gates, which is about ``2/fan_out``.

    The log of the squared norm of independent entries has the variance ``(kurtosis -
    1)/(fan_in fan_out)``.
    """
    return (law.kurtosis - 1) / (2 * sample.shape[1]) > _FAINT


def _of_one_shape(
    group: Sequence[int], samples: Sequence[Sample]
) -> Iterator[tuple[list[int], float]]:
    logs = [_logs(samples[i]) for i in group]
    for kind in logs[0] if logs else ():
        values = np.array([one[kind] for one in logs])
        order = np.argsort(values)
        for start, first in enumerate(order):
            end = values[first] + _room(samples[group[first]])
            stop = int(np.searchsorted(values[order], end, "right"))
            alike = [group[k] for k in order[start:stop]]
            chances = [_chance(samples[i], kind) for i in alike]
            yield from _if_rare(alike, len(group), chances, len(alike) - 1)


def _if_rare(
    alike: list[int], among: int, chances: Sequence[float], times: int
) -> Iterator[tuple[list[int], float]]:
    """Yield the matrices if ``times`` coincidences among so many are not likely."""
    if times > 0:
        log_p = math.log(math.comb(among, len(alike))) + times * math.log(max(chances))
        if log_p < 0:
            yield alike, math.exp(log_p)


def _room(sample: Sample) -> float:
    return _NEAR * float(torch.finfo(sample.matrix.dtype).eps)


def _is_own(sample: Sample, law: WeightLaw) -> bool:
    """Return whether the mean square is the initialiser's variance, to rounding."""
    return abs(math.log(sample.sums.variance / law.variance)) <= 2 * _room(sample)


def _logs(sample: Sample) -> Mapping[str, float]:
    """Return the logs of the norms."""
    found = {"size": math.log(sample.sums.s2) / 2, "largest": math.log(sample.sums.largest)}
    if sample.sums.count <= _ENTRIES:
        w = sample.matrix.detach().double().cpu().numpy() / sample.sums.largest
        found["sum"] = found["largest"] + math.log(np.abs(w).sum())
        if max(w.shape) <= _SIDE:
            found["singular"] = found["largest"] + math.log(np.linalg.norm(w, 2))
    return found


def _chance(sample: Sample, kind: str) -> float:
    """Return a bound of the probability that two such norms are equal to rounding."""
    densities = {"largest": sample.sums.count / 2, "singular": float(max(sample.shape))}
    return 2 * _room(sample) * densities.get(kind, math.sqrt(sample.sums.count) / 2)
