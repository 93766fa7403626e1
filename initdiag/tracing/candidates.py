"""What may explain a weight matrix, and the choice that explains all matrices together.

`initdiag.tracing.initializers` says why; this is how.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.network.weights import INITIALIZERS, KURTOSIS, Initializer, WeightFamily
from initdiag.tracing.families import Sample, looks_like, scale_p_value

__all__ = [
    "LIKELY",
    "MATRIX_LEVEL",
    "POOLED_LEVEL",
    "SAME",
    "Candidate",
    "candidates_for",
    "distance",
    "pooled_choice",
    "table_of",
]

_CONCENTRATIONS = {0.1: 0.8, 1.0: 0.15, 10.0: 0.05}
"""Pseudo-counts of the prior over candidates, and how likely each is: a convention.

With 0.1, a second initialiser in a network of ten layers costs about 7 nats. With 10,
every layer may have its own: then the others say little of a small one.
"""

_STRANGE = 0.1
"""Pseudo-count of a family to which no other matrix belongs."""

_RARE = {"fan_out": 0.2, "truncated_normal": 0.1}
"""Prior weights of what PyTorch's users rarely choose: fan_out, truncated normals."""

MATRIX_LEVEL, POOLED_LEVEL = 1e-6, 1e-5
"""Two-sided p-values of the scale, of one matrix or of all, that refute a candidate."""

_UNEXPLAINED = 10.0
"""Nats below the likeliest candidate at which a matrix is not explained at first."""

_SWEEPS = 20
"""Rounds in which the matrices choose again, given the others' choices; three do."""

LIKELY = 0.03
"""Posterior odds below which another candidate is not likely."""

SAME = 1e-9
"""Difference of two log variances that are one, up to rounding."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An initialiser times a gain, or, without a name, a family of unknown scale."""

    family: WeightFamily
    name: Initializer | None = None
    gain: float = 1.0
    weight: float = 1.0

    def variance(self, sample: Sample) -> float:
        """Return the variance of an entry of a matrix of this shape."""
        assert self.name is not None
        fan_out, fan_in = sample.fans
        return INITIALIZERS[self.name][1](fan_in, fan_out) * self.gain**2

    def p_value(self, samples: Sequence[Sample]) -> float:
        """Return the two-sided p-value of the scale of all samples together."""
        spreads = [s.spread.over(self.variance(s)) for s in samples]
        return scale_p_value(self.family, spreads, max(s.eps for s in samples))

    def log_likelihood(self, sample: Sample) -> float:
        """Return the log density of the matrix; -inf where it refutes the scale."""
        if self.name is None:
            return sample.spread.log_evidence(self.family)
        if self.p_value([sample]) < MATRIX_LEVEL:
            return -math.inf
        variance = self.variance(sample)
        unit = sample.spread.over(variance).log_likelihood(self.family, sample.eps)
        return unit - sample.sums.count / 2 * math.log(variance)


def candidates_for(slopes: Iterable[float]) -> list[Candidate]:
    """Return all candidates of an iid matrix."""
    names = [(name, family) for name, (family, _) in INITIALIZERS.items() if family in KURTOSIS]
    gains = [1 / math.hypot(1, slope) for slope in dict.fromkeys(slopes) if slope]
    return [
        *(Candidate(f, n, 1.0, _rarity(n)) for n, f in names),
        *(Candidate(f, n, gain) for gain in gains for n, f in names if n.startswith("he_")),
        *(Candidate(family, weight=_rarity(family)) for family in KURTOSIS),
    ]


def _rarity(name: str) -> float:
    """Return the prior weight of an initialiser or a family."""
    return math.prod(w for ending, w in _RARE.items() if name.endswith(ending))


def table_of(samples: Sequence[Sample], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Return the log densities, a row a matrix; -inf where scale or shape is wrong."""
    rows = []
    for sample in samples:
        shapes = {family for family in KURTOSIS if looks_like(family, sample)}
        rows.append(
            [c.log_likelihood(sample) if c.family in shapes else -math.inf for c in candidates]
        )
    return np.array(rows)


def pooled_choice(
    samples: Sequence[Sample], candidates: Sequence[Candidate], table: NDArray[np.float64]
) -> tuple[list[int], NDArray[np.float64]]:
    """Return the index of each matrix's likeliest candidate, and the posterior.

    An initialiser that the matrices it explains refute together is taken out for them.
    """
    table, identities = table.copy(), _identities(samples, candidates)
    while True:
        posterior = _posterior(table, candidates, identities)
        usual = [c.weight for c in candidates]
        chosen = [_likeliest(i, r, usual) for i, r in zip(identities, posterior, strict=True)]
        groups: dict[int, list[int]] = {}
        for k, best in enumerate(chosen):
            if candidates[best].name is not None and posterior[k, best] > 0:
                groups.setdefault(best, []).append(k)
        refuted = [
            (group, best)
            for best, group in groups.items()
            if candidates[best].p_value([samples[k] for k in group]) < POOLED_LEVEL
        ]
        if not refuted:
            return chosen, posterior
        for group, best in refuted:
            table[group, best] = -math.inf


def _posterior(
    table: NDArray[np.float64], candidates: Sequence[Candidate], identities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return P(candidate | matrix, the others' choices), a row a matrix.

    A row is 0 where all candidates are out. A candidate that no other matrix chose is
    as likely as its family is among the others.
    """
    best = table.max(1, keepdims=True)
    likelihood = np.exp(table - np.where(np.isfinite(best), best, 0.0))
    weights = np.array([c.weight for c in candidates])
    kinship = np.array([[c.family == d.family for d in candidates] for c in candidates])
    choices, posterior = _alike(identities, _fewest(table)), np.zeros_like(table)
    for _ in range(_SWEEPS):
        kin = (choices @ kinship > 0) * 1.0
        others = (kin.sum(0) - kin + _STRANGE) / (len(table) - 1 + _STRANGE)
        prior = _concentration(choices) / weights.sum() * others + _support(choices)
        joint = likelihood * weights * prior
        total = joint.sum(1, keepdims=True)
        posterior = joint / np.where(total > 0, total, 1.0)
        chosen = _alike(identities, np.where(posterior.any(1), posterior.argmax(1), -1))
        if (chosen == choices).all():
            break
        choices = chosen
    return posterior


def _support(choices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many other matrices each candidate explains, a row a matrix.

    A matrix that cannot tell two candidates apart speaks for the one that explains more
    of the others: square layers go with the layer that tells Xavier from LeCun.
    """
    explained = choices.sum(0) - choices
    return np.array(
        [np.delete(_most(choices, totals), i, axis=0).sum(0) for i, totals in enumerate(explained)]
    )


def _most(choices: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the choices without those of which an equal one has a larger total."""
    theirs = choices * totals
    most: NDArray[np.float64] = choices * (theirs >= theirs.max(1, keepdims=True))
    return most


def _concentration(choices: NDArray[np.float64]) -> float:
    """Return the expected pseudo-count, given how many initialisers the matrices need.

    The probability that ``n`` matrices have ``k`` given ones is that of the Dirichlet
    process (Ewens 1972): ``c^k Gamma(c) / Gamma(c + n)`` up to a factor without ``c``.
    """
    left = choices.any(1)
    n, k = int(left.sum()), 0
    while left.any():
        most = choices[left].sum(0).argmax()
        left &= choices[:, most] == 0
        k += 1
    c, p = np.array([*_CONCENTRATIONS]), np.array([*_CONCENTRATIONS.values()])
    logs = k * np.log(c) + special.gammaln(c) - special.gammaln(c + n)
    return float(np.average(c, weights=p * np.exp(logs - logs.max())))


def _identities(samples: Sequence[Sample], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Return numbers that are equal where two candidates mean the same law of a matrix.

    So a square matrix cannot tell fan_in from fan_out.
    """
    return np.array([[_identity(s, c, k) for k, c in enumerate(candidates)] for s in samples])


def _identity(sample: Sample, candidate: Candidate, index: int) -> float:
    if candidate.name is None:
        return 1e6 + index
    return 1e3 * list(KURTOSIS).index(candidate.family) + math.log(candidate.variance(sample))


def _alike(identities: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 for each row's choice (none if -1), and for what means the same."""
    values = identities[np.arange(len(identities)), chosen]
    same = np.abs(identities - values[:, None]) < SAME
    return (same & (chosen >= 0)[:, None]).astype(np.float64)


def _fewest(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return first choices, few in all: again and again what explains most, or -1."""
    start = np.full(len(table), -1)
    best_of_row = np.where(np.isfinite(table.max(1)), table.max(1), 0.0)
    loss = np.minimum(np.round(best_of_row[:, None] - table, 6), _UNEXPLAINED)
    left = np.isfinite(table).any(1)
    while left.any():
        best = int(loss[left].sum(0).argmin())
        explained = left & (loss[:, best] < _UNEXPLAINED)
        start[explained] = best
        left &= ~explained
        if not explained.any():
            break
    return start


def _likeliest(
    identities: NDArray[np.float64], row: NDArray[np.float64], usual: Sequence[float]
) -> int:
    """Return the likeliest candidate, those that mean the same counted together.

    The most usual of these gives the name, unless the others' names exclude it.
    """
    masses = (np.abs(identities[:, None] - identities) < SAME) @ row
    is_open = row > LIKELY * row.max()
    return max(
        range(len(row)), key=lambda k: (round(float(masses[k]), 9), is_open[k] * usual[k], row[k])
    )


def distance(sample: Sample, one: Candidate, other: Candidate) -> float:
    """Return the distance in the log of the variance; infinite if not comparable."""
    if one is other:
        return 0.0
    if one.name is None or other.name is None or one.family != other.family:
        return math.inf
    return abs(math.log(one.variance(sample) / other.variance(sample)))
