"""The families that entries of a weight are drawn from: normal, uniform, truncated.

Three sums over the entries carry all that a family's likelihood knows of the scale: how
many there are, their squares, and the largest. With the scale known the likelihood is a
density (`log_likelihood`); with an unknown scale it is averaged over all scales
(`log_evidence`), each ratio equally likely in the log. Both are in closed form.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

from initdiag.network.weights import KURTOSIS, WeightFamily
from initdiag.tracing.entries import EntrySums

__all__ = ["Sample", "Spread", "are_too_heavy", "is_continuous", "looks_like", "scale_p_value"]

_BOUNDS = {"uniform": math.sqrt(3), "truncated_normal": 2.2736945}
"""Largest possible entry in standard deviations (the normal is cut at 2 of its own)."""

_INSIDE = 0.9544997
"""Share of a normal law within 2 standard deviations."""

_PARENT_VARIANCE = 1 / 0.7737413
"""Variance of the normal law that, cut at 2 of its sd, has a variance of 1."""

_LOG_SCALES = math.log(1e6)
"""Width of the range of an unknown standard deviation, in the log."""

_KURTOSIS_SPREAD = {"normal": 24.0, "uniform": 1.3166, "truncated_normal": 3.8482}
"""N times the variance of the sample kurtosis about zero, by the delta method."""

_KURTOSIS_BELOW, _KURTOSIS_ABOVE = 5, 8
"""Standard errors that a sample kurtosis may lie below and above: it leans upwards."""

_LOOKED_AT = 64
"""Rows and columns of the leading block in which repeated values are looked for."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What a likelihood needs of the entries: count, sum of squares, largest size."""

    count: int
    square: float
    largest: float

    def over(self, variance: float) -> Spread:
        """Return the spread of the entries divided by this standard deviation."""
        return Spread(self.count, self.square / variance, self.largest / math.sqrt(variance))

    @classmethod
    def pooled(cls, spreads: Sequence[Spread]) -> Spread:
        """Return the spread of all entries together."""
        return cls(
            sum(s.count for s in spreads),
            math.fsum(s.square for s in spreads),
            max(s.largest for s in spreads),
        )

    def log_likelihood(self, family: WeightFamily, slack: float) -> float:
        """Return the log density of the entries at variance 1, within rounding.

        ``slack`` is the relative rounding error of the scale.
        """
        n = self.count
        if family == "uniform":
            bound = _BOUNDS["uniform"]
            if self.largest > bound * (1 + slack):
                return -math.inf
            return -n * math.log(2 * max(self.largest, bound * (1 - slack)))
        variance = min(max(self.square / n, 1 - 2 * slack), 1 + 2 * slack)
        if family == "truncated_normal":
            if self.largest > _BOUNDS[family] * (1 + slack):
                return -math.inf
            variance *= _PARENT_VARIANCE
        inside = _INSIDE if family == "truncated_normal" else 1.0
        log_constant = 0.5 * math.log(2 * math.pi * variance) + math.log(inside)
        return -n * log_constant - self.square / (2 * variance)

    def log_evidence(self, family: WeightFamily) -> float:
        """Return the log of the density averaged over an unknown scale."""
        n = self.count
        if family == "uniform":
            return -n * math.log(2 * self.largest) - math.log(n) - math.log(_LOG_SCALES)
        log_normal = math.lgamma(n / 2) - n / 2 * math.log(math.pi * self.square) - math.log(2)
        if family == "truncated_normal":
            log_normal += _log_gammainc(n / 2, 2 * self.square / self.largest**2)
            log_normal -= n * math.log(_INSIDE)
        return log_normal - math.log(_LOG_SCALES)


def _log_gammainc(a: float, x: float) -> float:
    """Return the log of the regularised lower incomplete gamma function.

    Where that underflows, ``x`` lies far below ``a``, and its leading order serves.
    """
    value = float(special.gammainc(a, x))
    if value > 1e-280:
        return math.log(value)
    return a * math.log(x) - x - math.log(a - x) - math.lgamma(a)


@dataclass(frozen=True, slots=True)
class Sample:
    """One matrix ``(fan_out, fan_in)`` and the sums over its entries.

    A convolution's kernel is the matrix from a patch to one position; ``positions`` is
    how many positions an input reaches, the entries of the kernel's window.
    """

    matrix: Tensor
    sums: EntrySums
    positions: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """``(fan_out, fan_in)``."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def fans(self) -> tuple[int, int]:
        """``fan_out`` and ``fan_in`` as initialisers count them."""
        return self.matrix.shape[0] * self.positions, self.matrix.shape[1]

    @property
    def eps(self) -> float:
        """Relative rounding error of the scale."""
        return 2 * torch.finfo(self.matrix.dtype).eps

    @property
    def spread(self) -> Spread:
        """What a likelihood needs of the entries."""
        return Spread(self.sums.count, self.sums.s2, self.sums.largest)


def scale_p_value(family: WeightFamily, spreads: Sequence[Spread], slack: float) -> float:
    """Return the two-sided p-value of variance 1 for all ``spreads`` together.

    The sum of squares is a chi-square with ``2N/(kurtosis - 1)`` degrees of freedom up
    to scale, exactly if normal. Of uniform entries the largest says more: ``N
    ln(bound/largest)`` is exponential.
    """
    if any(s.largest > _BOUNDS.get(family, math.inf) * (1 + 2 * slack) for s in spreads):
        return 0.0
    if family == "uniform":
        short = math.fsum(
            s.count * max(math.log(_BOUNDS[family] * (1 - slack) / s.largest), 0.0) for s in spreads
        )
        return float(special.gammaincc(len(spreads), short))
    count = sum(s.count for s in spreads)
    ratio = math.fsum(s.square for s in spreads) / count
    ratio = 1 + math.copysign(max(abs(ratio - 1) - 2 * slack, 0.0), ratio - 1)
    freedom = 2 * count / (KURTOSIS[family] - 1)
    tails = special.chdtr(freedom, freedom * ratio), special.chdtrc(freedom, freedom * ratio)
    return min(1.0, 2 * float(min(tails)))


def looks_like(family: WeightFamily, sample: Sample) -> bool:
    """Return whether the shape of the entries fits the family, whatever their scale."""
    mean, variance = _kurtosis_moments(family, sample.sums.count)
    z = (sample.sums.kurtosis - mean) / math.sqrt(variance) if variance > 0 else 0.0
    return -_KURTOSIS_BELOW <= z <= _KURTOSIS_ABOVE and is_continuous(sample)


def are_too_heavy(family: WeightFamily, samples: Sequence[Sample]) -> bool:
    """Return whether the kurtosis of all samples together is too large for a family."""
    moments = [_kurtosis_moments(family, s.sums.count) for s in samples]
    excess = math.fsum(s.sums.kurtosis - m for s, (m, _) in zip(samples, moments, strict=True))
    return excess > _KURTOSIS_ABOVE * math.sqrt(math.fsum(v for _, v in moments))


def is_continuous(sample: Sample) -> bool:
    """Return whether no more of the absolute values agree than rounding explains.

    Signs, quantised and pruned weights do not pass.
    """
    sizes = sample.matrix[:_LOOKED_AT, :_LOOKED_AT].detach().abs().double().cpu().numpy()
    _, counts = np.unique(sizes, return_counts=True)
    n = sizes.size
    agreeing = float(np.sum(counts * (counts - 1.0))) / 2
    expected = n * (n - 1) / 2 * 8 * torch.finfo(sample.matrix.dtype).eps
    return agreeing <= min(n - 1, 4) + 2 * expected


@functools.cache
def _kurtosis_moments(family: WeightFamily, n: int) -> tuple[float, float]:
    """Return mean and variance of the sample kurtosis about zero; exact if normal."""
    if family != "normal":
        return KURTOSIS[family], _KURTOSIS_SPREAD[family] / n
    mean = 3 * n / (n + 2)
    square = n**2 * (105 + 9 * (n - 1)) / ((n + 2) * (n + 4) * (n + 6))
    return mean, square - mean**2
