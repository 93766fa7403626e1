"""Which initialiser a model's weights came from, judged within sampling error and over all its matrices together.

A small matrix fits several initialisers: then the one that fits most of the model's matrices is taken. What fits none may be a
known initialiser times a gain: that of He et al. for a leaky ReLU of the network's own slope; or any, where several matrices of different
shapes agree on it and a common standard deviation is ruled out. Matrices that pass one by one, but are all a little too small, do not
pass together. Otherwise the sample's own variance is all that is claimed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from initdiag.network.architecture import INITIALIZERS, KURTOSIS, WeightLaw
from initdiag.tracing.entries import EntrySums

__all__ = ["Sample", "nominal_laws"]

_VARIANCE_SDS = 4.0
"""Standard errors that a sample variance, and that of all matrices together, may lie from an initialiser's: two-sided level 6e-5."""

_BOUNDS = {"uniform": (math.sqrt(3), 1 / math.sqrt(3)), "truncated_normal": (2.2736945, 0.0995115)}
"""Largest entry in standard deviations, and the density of |w| there (the normal truncated at 2 of its own)."""

_SIMPLE_GAINS = (5 / 3, math.sqrt(2), math.sqrt(0.5), 0.75, 1.5, 2.0, 0.5, 3.0, 0.1, 10.0)
"""Gains that people write (``nn.init.calculate_gain`` and round numbers)."""

_GAIN_LEVEL = 1e-4
"""Below this p-value a common gain, or a common standard deviation, is ruled out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One matrix ``(fan_out, fan_in)`` and the sums over its entries."""

    matrix: Tensor
    sums: EntrySums

    @property
    def shape(self) -> tuple[int, int]:
        """``(fan_out, fan_in)``."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def eps(self) -> float:
        """Relative rounding error of an entry."""
        return 2 * torch.finfo(self.matrix.dtype).eps

    def nominal(self, initializer: str) -> float:
        """Variance that ``initializer`` gives a matrix of this shape."""
        return INITIALIZERS[initializer][1](self.shape[1], self.shape[0])

    def log_variance_sd(self, family: str) -> float:
        """Standard error of the log of the sample variance."""
        return math.sqrt((KURTOSIS[family] - 1) / self.sums.count)


def nominal_laws(samples: Sequence[Sample], slopes: Iterable[float] = ()) -> list[WeightLaw]:
    """Return each matrix's law: an initialiser's, an initialiser's times a gain, or the sample's own moments.

    Parameters
    ----------
    samples : sequence of Sample
        All matrices of the model.
    slopes : iterable of float
        Negative slopes of its leaky ReLUs.
    """
    candidates = [_candidates(sample) for sample in samples]
    votes: Counter[str] = Counter()
    likelihood: dict[str, float] = {}
    for sample, names in zip(samples, candidates, strict=True):
        votes.update(names)
        for name in names:
            likelihood[name] = likelihood.get(name, 0.0) + _log_likelihood(name, sample)
    laws = [
        _law(s, max(names, key=lambda n: (votes[n], likelihood[n]), default=None))
        for s, names in zip(samples, candidates, strict=True)
    ]
    for initializer in {law.initializer or "orthogonal" for law in laws} - {"orthogonal"}:
        group = [i for i, law in enumerate(laws) if law.initializer == initializer]
        if not _fits_jointly(initializer, 1.0, [samples[i] for i in group]):
            for i in group:
                laws[i] = _unrecognised(samples[i], INITIALIZERS[initializer][0])
    gains = [1 / math.hypot(1, slope) for slope in dict.fromkeys(slopes)]
    for family in KURTOSIS:
        members = [i for i, law in enumerate(laws) if law.family == family]
        strangers = [i for i in members if laws[i].initializer is None]
        for group in (
            (members, strangers) if strangers else ()
        ):  # a nominal law may fit one matrix of such a model by chance
            found = [samples[i] for i in group]
            common = _of_an_initializer(family, found, gains) or _in_common(family, found)
            if common is not None:
                for i, law in zip(group, common, strict=True):
                    laws[i] = law
                break
    return laws


def _log_likelihood(name: str, sample: Sample) -> float:
    """Of the entries under an initialiser that is plausible: uniform on its range, or normal (which serves for a truncated normal too)."""
    family, variance = INITIALIZERS[name][0], sample.nominal(name)
    if family == "uniform":
        return -sample.sums.count * math.log(2 * math.sqrt(3 * variance))
    return (
        -sample.sums.count
        / 2
        * (math.log(2 * math.pi * variance) + sample.sums.variance / variance)
    )


def _candidates(sample: Sample) -> list[str]:
    if sample.sums.s2 == 0:
        return []
    if _is_haar(sample.matrix):
        return ["orthogonal"]
    return [name for name in INITIALIZERS if _plausible(name, sample)]


def _plausible(name: str, sample: Sample, gain: float = 1.0) -> bool:
    """Whether the entries could have come from initialiser ``name`` times ``gain``, within sampling error."""
    family = INITIALIZERS[name][0]
    if family == "haar":
        return False
    variance = sample.nominal(name) * gain * gain
    tolerance = _VARIANCE_SDS * sample.log_variance_sd(family) + sample.eps
    return abs(sample.sums.variance / variance - 1) <= tolerance and _is_family(
        family, sample.sums, variance, sample.eps
    )


def _fits_jointly(name: str, gain: float, samples: Sequence[Sample]) -> bool:
    """Whether the entries of all matrices together have the variance of initialiser ``name`` times ``gain``, within sampling error.

    A matrix that is used again, or copied, is counted once: such have one kurtosis.
    """
    distinct = {(s.sums.count, f"{s.sums.kurtosis:.6g}"): s for s in samples}.values()
    count = sum(s.sums.count for s in distinct)
    ratio = math.fsum(s.sums.s2 / s.nominal(name) for s in distinct) / (count * gain * gain)
    tolerance = _VARIANCE_SDS * math.sqrt((KURTOSIS[INITIALIZERS[name][0]] - 1) / count)
    return abs(ratio - 1) <= tolerance + max(s.eps for s in distinct)


def _of_an_initializer(
    family: str, members: Sequence[Sample], gains: Iterable[float]
) -> list[WeightLaw] | None:
    """The first initialiser that all ``members`` fit, one by one and together: He's for the network's own leaky ReLUs, or one without a gain."""
    names = [name for name, (kind, _) in INITIALIZERS.items() if kind == family]
    options = [(name, gain) for gain in gains for name in names if name.startswith("he_")] + [
        (n, 1.0) for n in names
    ]
    for name, gain in options:
        if all(_plausible(name, s, gain) for s in members) and _fits_jointly(name, gain, members):
            return [WeightLaw.from_initializer(name, s.shape[1], s.shape[0], gain) for s in members]
    return None


def _is_family(family: str, sums: EntrySums, variance: float, slack: float) -> bool:
    """Whether the entries' spread fits a law of this family and variance; ``slack`` is the relative error of its sd.

    The largest of N entries falls short of a bound ``b`` with density ``d`` there by more than a factor ``exp(-12/(d b N))`` with probability 6e-6, and 800
    normal entries all lie within a truncated law's bound with 1e-5, 140 within the uniform's. A normal sample's kurtosis has standard error
    ``sqrt(24/N)`` and leans upwards.
    """
    largest = sums.largest / math.sqrt(variance)
    excess = (sums.kurtosis - KURTOSIS[family]) / math.sqrt(24 / sums.count)
    if family == "normal":
        inside = [
            b
            for (b, _), least in zip(_BOUNDS.values(), (140, 800), strict=True)
            if sums.count > least
        ]
        return -5 <= excess <= 8 and all(largest > b * (1 + slack) for b in inside)
    bound, density = _BOUNDS[family]
    shortest = bound * math.exp(-12 / (density * bound * sums.count))
    return abs(excess) <= 8 and shortest * (1 - slack) <= largest <= bound * (1 + 2 * slack)


def _is_haar(matrix: Tensor) -> bool:
    """Whether the smaller side's vectors are orthogonal and of one length: ``W W^T V = g^2 V`` for some vectors ``V``.

    The first few of them are looked at first, each with each, which spares the rest nearly always. A matrix of one row or column passes
    trivially, and is not called Haar. Of ``m`` vectors of length ``n``, iid entries leave a residual of about ``sqrt(m/n)``; entries rounded to a
    relative ``eps`` leave ``0.3 eps sqrt(m/n)`` (rounding errors of rms ``0.21 eps``, in both factors), and the factorisation before
    them, in single precision or better, a few of its own ``eps`` a vector.
    """
    w = matrix.detach() if matrix.shape[0] <= matrix.shape[1] else matrix.detach().T
    if w.shape[0] < 2:
        return False
    eps, length = torch.finfo(matrix.dtype).eps, w.shape[1]
    factorised = 10 * min(eps, torch.finfo(torch.float32).eps) * math.sqrt(length)
    few, all_at_once = np.eye(min(len(w), 8)), np.cos(np.arange(len(w)) ** 1.5)[:, None]
    return all(
        _orthogonality_error(w[: len(v)], v) < 2 * eps * math.sqrt(len(v) / length) + factorised
        for v in (few, all_at_once)
    )


def _orthogonality_error(rows: Tensor, v: NDArray[np.float64]) -> float:
    """Relative residual of ``W W^T V = g^2 V`` (Frobenius)."""
    w = rows.double().cpu().numpy()
    image = w @ (w.T @ v)
    scale = np.sum(image * v) / np.sum(v * v)
    return (
        float(np.linalg.norm(image - scale * v) / (scale * np.linalg.norm(v)))
        if scale > 0
        else math.inf
    )


def _law(sample: Sample, initializer: str | None) -> WeightLaw:
    fan_out, fan_in = sample.shape
    if initializer == "orthogonal":
        gain = math.sqrt(sample.sums.variance * max(sample.shape) / 2)
        return WeightLaw.from_initializer("orthogonal", fan_in, fan_out, gain)
    if initializer is not None:
        return WeightLaw.from_initializer(initializer, fan_in, fan_out)
    return _unrecognised(sample)


def _unrecognised(sample: Sample, family: str | None = None) -> WeightLaw:
    """The sample's own variance; the kurtosis of a family that is known, or that the entries look like."""
    sums = sample.sums
    if family is not None:
        return WeightLaw(family, sums.variance, KURTOSIS[family])
    if sums.s2 > 0 and _is_sparse(sample):
        return WeightLaw("sparse", sums.variance, KURTOSIS["normal"] * sums.count / sums.nonzero)
    for family in KURTOSIS if sums.s2 > 0 and sums.count > 60 else ():
        if _is_family(family, sums, sums.variance, 2.5 * sample.log_variance_sd(family)):
            return WeightLaw(family, sums.variance, KURTOSIS[family])
    return WeightLaw("other", sums.variance, max(sums.kurtosis, 1.0))


def _is_sparse(sample: Sample) -> bool:
    """Whether every column has equally many zeros, as ``nn.init.sparse_`` leaves it, and the rest looks normal."""
    sums = sample.sums
    zeros = sums.count - sums.nonzero
    if zeros == 0 or zeros % sample.shape[1]:
        return False
    excess = (sums.nonzero * sums.s4 / sums.s2**2 - KURTOSIS["normal"]) / math.sqrt(
        24 / sums.nonzero
    )
    per_column = (sample.matrix == 0).sum(0)
    return -5 <= excess <= 8 and bool((per_column == per_column[0]).all())


def _in_common(family: str, members: Sequence[Sample]) -> list[WeightLaw] | None:
    """One explanation of all ``members``: one standard deviation (then the samples' own variances stand), or an initialiser and a gain."""
    if len(members) < 2:
        return None
    if _common_log(members, [1.0] * len(members), family) is not None:
        return [_unrecognised(s) for s in members]
    fits = []
    for name in (n for n, (kind, _) in INITIALIZERS.items() if kind == family):
        common = _common_log(members, [s.nominal(name) for s in members], family)
        if common is not None:
            fits.append((*_simplest(common[0] / 2, common[1] / 2), name))
    if not fits:
        return None
    _, gain, name = min(fits)
    return [WeightLaw.from_initializer(name, s.shape[1], s.shape[0], gain) for s in members]


def _common_log(
    members: Sequence[Sample], nominal: Sequence[float], family: str
) -> tuple[float, float] | None:
    """Mean log ratio of sample to nominal variance and its standard error; None if the ratios differ by more than chance."""
    logs = [math.log(s.sums.variance / v) for s, v in zip(members, nominal, strict=True)]
    weights = [s.log_variance_sd(family) ** -2 for s in members]
    mean = math.fsum(w * x for w, x in zip(weights, logs, strict=True)) / math.fsum(weights)
    distance = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
    is_common = float(special.chdtrc(len(members) - 1, distance)) >= _GAIN_LEVEL
    return (mean, math.fsum(weights) ** -0.5) if is_common else None


def _simplest(log_gain: float, error: float) -> tuple[float, float]:
    """How far the gain is from a simple one, in standard errors, and that gain; over 3, the distance from 1 counts, and the gain itself."""
    distance, simple = min((abs(log_gain - math.log(g)) / error, g) for g in _SIMPLE_GAINS)
    return (distance, simple) if distance <= 3 else (3 + abs(log_gain), math.exp(log_gain))
