"""Which initialiser a model's weights came from, by likelihood, over all its matrices
together.

*Candidates.* For every matrix: each initialiser of ``INITIALIZERS``; He's for the
slopes of the network's own leaky ReLUs; and each family with an unknown scale
(`initdiag.tracing.families` has the likelihoods). A candidate is out where the scale,
two-sided, or the shape of the entries refutes it. Orthogonal matrices are recognised by
their geometry.

*Pooling.* Most networks are drawn by one initialiser, some by two or three. So the
prior weight of a candidate for one matrix is the number of the other matrices that it
explains (a Dirichlet prior), each matrix given the choices of the others; doubts do not
count, or they would support each other. A small matrix then goes with the rest of the
model, a large one speaks for itself, and each may have its own initialiser. How much
the others say is inferred from them: where no two are alike, they say little. Matrices
that pass one by one, but are all a little too small, do not pass together: then that
initialiser is out for them.

*Honesty.* A name is given where it is decisive. Where another initialiser is possible,
its distance in the log of the variance is stated (``scale_error``). Where another is
likely and not near, or none fits, the scale is estimated: the sample's own variance,
and the standard error of its log, ``sqrt((kurtosis - 1)/N)``. Matrices of different
shapes that share an initialiser times one gain are such an estimate, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from initdiag.network.weights import INITIALIZERS, KURTOSIS, WeightFamily, WeightLaw
from initdiag.tracing.candidates import (
    LIKELY,
    MATRIX_LEVEL,
    POOLED_LEVEL,
    SAME,
    Candidate,
    candidates_for,
    distance,
    pooled_choice,
    table_of,
)
from initdiag.tracing.families import (
    Sample,
    Spread,
    are_too_heavy,
    is_continuous,
)
from initdiag.tracing.haar import is_haar

__all__ = ["Sample", "nominal_laws"]

_POSSIBLE = 1e-4
"""Posterior odds above which another initialiser is stated as a doubt.

Above ``LIKELY`` the scale is estimated, unless both are near.
"""

_NEAR = 0.25
"""Sampling errors of the log variance within which two initialisers make no difference.
"""

_SIMPLE_GAINS = (1.0, 5 / 3, math.sqrt(2), math.sqrt(0.5), 0.75, 1.5, 2.0, 0.5, 3.0, 0.1, 10.0)
"""Gains that people write (``nn.init.calculate_gain`` and round numbers)."""

_GAIN_ERRORS = 3
"""Standard errors within which an estimated gain is taken for a simple one."""

_GAIN_ODDS = math.log(20)
"""Log of the odds against a common gain of a given initialiser, before the weights are
seen.
"""


def nominal_laws(samples: Sequence[Sample], slopes: Iterable[float] = ()) -> list[WeightLaw]:
    """Return each matrix's law: an initialiser's, one times a gain, or the sample's
    own.

    Parameters
    ----------
    samples : sequence of Sample
        All matrices of the model. One that is used again counts once.
    slopes : iterable of float
        Negative slopes of its leaky ReLUs.
    """
    draws = {(s.fans, s.sums.s2, s.sums.s4): s for s in samples}
    laws = dict(zip(draws, _laws(list(draws.values()), slopes), strict=True))
    return [laws[s.fans, s.sums.s2, s.sums.s4] for s in samples]


def _laws(draws: Sequence[Sample], slopes: Iterable[float]) -> list[WeightLaw]:
    """Return the laws of matrices of which no two are the same draw."""
    found = [_of_geometry(sample) for sample in draws]
    rest = [i for i, law in enumerate(found) if law is None]
    if rest:
        laws = _by_likelihood([draws[i] for i in rest], slopes)
        for i, law in zip(rest, laws, strict=True):
            found[i] = law
    return [law for law in found if law is not None]


def _of_geometry(sample: Sample) -> WeightLaw | None:
    """Return the law of a matrix of zeros, an orthogonal or a sparse one; else None."""
    sums, (fan_out, fan_in) = sample.sums, sample.shape
    if sums.s2 == 0:
        return WeightLaw("other", 0.0, 3.0)
    if is_haar(sample.matrix):
        gain = math.sqrt(sums.variance * max(fan_in, fan_out) / 2)
        return WeightLaw.from_initializer("orthogonal", fan_in, fan_out, gain)
    if _is_sparse(sample):
        kurtosis = KURTOSIS["normal"] * sums.count / sums.nonzero
        return WeightLaw("sparse", sums.variance, kurtosis, scale_error=math.sqrt(2 / sums.nonzero))
    return None


def _is_sparse(sample: Sample) -> bool:
    """Return whether every column has equally many zeros, and the rest looks normal.

    So ``nn.init.sparse_`` leaves a matrix.
    """
    sums = sample.sums
    zeros = sums.count - sums.nonzero
    if zeros == 0 or zeros % sample.shape[1]:
        return False
    per_column = (sample.matrix == 0).sum(0)
    excess = (sums.nonzero * sums.s4 / sums.s2**2 - 3) / math.sqrt(24 / sums.nonzero)
    return -5 <= excess <= 8 and bool((per_column == per_column[0]).all())


def _by_likelihood(samples: Sequence[Sample], slopes: Iterable[float]) -> list[WeightLaw]:
    """Return the laws of iid matrices: named, of a common gain, or with estimated
    scales.
    """
    candidates = candidates_for(slopes)
    table = table_of(samples, candidates)
    chosen, posterior = pooled_choice(samples, candidates, table)
    laws = [
        _law(s, candidates, row, best)
        for s, row, best in zip(samples, posterior, chosen, strict=True)
    ]
    for family in KURTOSIS:
        members = [i for i, law in enumerate(laws) if law.family == family]
        strangers = [i for i in members if candidates[chosen[i]].name is None]
        for group in (members, strangers) if strangers else ():
            common = _common_gain(family, [samples[i] for i in group], table[group].max(1).sum())
            if common is not None:
                for i, law in zip(group, common, strict=True):
                    laws[i] = law
                break
    return _unless_heavy(samples, laws)


def _unless_heavy(samples: Sequence[Sample], laws: list[WeightLaw]) -> list[WeightLaw]:
    """Return the laws; matrices of one family whose tails are together too heavy for it
    are of no family that is known.
    """
    for family in KURTOSIS:
        members = [i for i, law in enumerate(laws) if law.family == family]
        if len(members) > 1 and are_too_heavy(family, [samples[i] for i in members]):
            for i in members:
                laws[i] = _estimated("other", samples[i])
    return laws


def _law(
    sample: Sample, candidates: Sequence[Candidate], row: NDArray[np.float64], best: int
) -> WeightLaw:
    """Return the law of one matrix, given the posterior over its candidates."""
    chosen = candidates[best]
    if not row.any():
        return _estimated("other", sample)
    if chosen.name is None:
        return _estimated(chosen.family, sample)
    error = _log_variance_error(chosen.family, sample)
    others = [
        (distance(sample, chosen, other), p / row[best])
        for other, p in zip(candidates, row, strict=True)
        if other.name is not None
    ]
    if any(far > _NEAR * error and odds > LIKELY for far, odds in others):
        return _estimated(chosen.family, sample)
    doubt = max(far for far, odds in others if odds > _POSSIBLE and far < math.inf)
    fan_out, fan_in = sample.fans
    law = WeightLaw.from_initializer(chosen.name, fan_in, fan_out, chosen.gain)
    return replace(law, scale_error=doubt if doubt > SAME else 0.0)


def _estimated(family: WeightFamily, sample: Sample) -> WeightLaw:
    """Return the law with the sample's own variance, and its error."""
    sums = sample.sums
    if family == "other":
        kurtosis = 1.0 if sums.kurtosis < 1.0 else sums.kurtosis
        if not is_continuous(sample) and kurtosis < 1.0 + SAME:
            return WeightLaw("other", sums.variance, kurtosis)
        error = math.sqrt((kurtosis - 1) / sums.count)
        return WeightLaw("other", sums.variance, kurtosis, scale_error=error)
    error = _log_variance_error(family, sample)
    return WeightLaw(family, sums.variance, KURTOSIS[family], scale_error=error)


def _log_variance_error(family: WeightFamily, sample: Sample) -> float:
    """Return the standard error of the log of the sample variance."""
    return math.sqrt((KURTOSIS[family] - 1) / sample.sums.count)


def _common_gain(
    family: WeightFamily, samples: Sequence[Sample], rival: float
) -> list[WeightLaw] | None:
    """Return the laws of an initialiser times one gain, if that explains all
    ``samples`` best.

    It has to beat one common standard deviation, which leaves the initialiser unknown,
    and the log likelihood ``rival`` of a candidate for each.
    """
    if len({sample.fans for sample in samples}) < 2:
        return None
    names = [name for name, (kind, _) in INITIALIZERS.items() if kind == family]
    units = {name: Candidate(family, name) for name in names}
    evidence = {
        name: _evidence(family, samples, [c.variance(s) for s in samples]) - _GAIN_ODDS
        for name, c in units.items()
    }
    best = max(evidence, key=lambda name: evidence[name])
    alike = _evidence(family, samples, [1.0] * len(samples))
    if evidence[best] <= max(alike, rival):
        return None
    spread = Spread.pooled([s.spread.over(units[best].variance(s)) for s in samples])
    gain = _simplest(spread, family)
    chosen = Candidate(family, best, gain)
    if chosen.p_value(samples) < POOLED_LEVEL or any(
        chosen.p_value([s]) < MATRIX_LEVEL for s in samples
    ):
        return None
    return [
        replace(
            WeightLaw.from_initializer(best, *s.fans[::-1], gain),
            scale_error=_log_variance_error(family, s),
        )
        for s in samples
    ]


def _evidence(family: WeightFamily, samples: Sequence[Sample], variances: Sequence[float]) -> float:
    """Return the log of the density of all entries, given their variances up to one
    scale.
    """
    pairs = list(zip(samples, variances, strict=True))
    jacobian = math.fsum(s.sums.count / 2 * math.log(v) for s, v in pairs)
    return Spread.pooled([s.spread.over(v) for s, v in pairs]).log_evidence(family) - jacobian


def _simplest(spread: Spread, family: WeightFamily) -> float:
    """Return the estimated gain, or the simple one that it is within its error of."""
    gain = math.sqrt(spread.square / spread.count)
    error = math.sqrt((KURTOSIS[family] - 1) / spread.count) / 2
    distance, simple = min((abs(math.log(gain / g)) / error, g) for g in _SIMPLE_GAINS)
    return simple if distance <= _GAIN_ERRORS else gain
