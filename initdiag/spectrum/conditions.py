"""What a spectrum says of training, in a few numbers: its scale, its spread, its rank,
its distance from isometry.

The scale is the classical condition ``(1/n) sum sigma_i^2 = 1``; that all singular
values be near 1 (dynamical isometry) is the stronger wish (A. Saxe, J. McClelland and
S. Ganguli, arXiv 1312.6120; J. Pennington, S. Schoenholz and S. Ganguli, arXiv
1711.04735). All of it is counted over the ``d = min(n_0, n_L)`` singular values that
the shape of ``J`` leaves room for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from initdiag._core.serialization import Record
from initdiag.spectrum.record import SpectralLaw

__all__ = ["Conditions", "conditions_of"]

_DECADE = 2 * math.log(10)
"""A factor of 10 in a singular value, in ``ln lambda``."""

_FIRST, _STARTS = 0.0005, 40
"""Quantile of the first window of a decade, and how many are tried, twice: all over,
and then about the best. Few: every one is a Newton iteration.
"""

_SINGLE_PRECISION = 2.0**-23
"""Relative spacing of float32: singular values below this times the largest are lost in
its rounding.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Conditions(Record):
    """Conditions for training, in the limit of large width; logarithms are natural.

    Attributes
    ----------
    directions : int
        ``d = min(n_0, n_L)``: singular values that there is room for.
    log_mean_square : float
        ``ln((1/n_L) sum sigma_i^2)``, the squared RMS gain of a random perturbation of
        the input: 0 keeps the scale.
    share_within_decade : float
        Largest share of the singular values, those of 0 left out, within a factor of 10
        of one another.
    rank_share : float
        Share of the ``d`` that are not 0.
    resolved_share : float
        Share of the ``d`` that are above float32's relative spacing times the largest.
    isometry_distance : float
        Relative variance of the ``d`` squared singular values, ``d sum sigma^4/(sum
        sigma^2)^2 - 1``: 0 if all are equal.
    log_quantiles : tuple of float
        ``ln sigma`` at 5, 50 and 95 % of the singular values that are not 0.
    """

    directions: int
    log_mean_square: float
    share_within_decade: float
    rank_share: float
    resolved_share: float
    isometry_distance: float
    log_quantiles: tuple[float, float, float]

    @property
    def effective_directions(self) -> float:
        """``(sum sigma^2)^2/sum sigma^4``: how many equal singular values would pass a
        random perturbation as unevenly.
        """
        return self.directions / (1 + self.isometry_distance)


def conditions_of(law: SpectralLaw) -> Conditions:
    """Return what ``law`` says of training."""
    directions = min(law.input_size, law.factors[-1].fan_out)
    distribution = law.law
    rank_share = min((1 - law.zero_mass) * law.input_size / directions, 1.0)
    first, second = law.log_moments(2)
    low, middle, high = (float(q) / 2 for q in distribution.ppf(np.array([0.05, 0.5, 0.95])))
    resolved = distribution.sf(law.log_upper_edge + 2 * math.log(_SINGLE_PRECISION))
    return Conditions(
        directions=directions,
        log_mean_square=law.log_mean_eigenvalue
        + math.log(law.input_size / law.factors[-1].fan_out),
        share_within_decade=_share_within_decade(distribution),
        rank_share=rank_share,
        resolved_share=rank_share * float(resolved),
        isometry_distance=max(directions / law.input_size * math.exp(second - 2 * first) - 1, 0.0),
        log_quantiles=(low, middle, high),
    )


def _share_within_decade(distribution: Any) -> float:
    """Return the largest ``P(x <= ln lambda <= x + ln 100)``, found to 0.1 %."""
    low, high, share = _FIRST, 1 - _FIRST, 0.0
    for _ in range(2):
        probabilities = np.linspace(low, high, _STARTS)
        shares = distribution.cdf(distribution.ppf(probabilities) + _DECADE) - probabilities
        best = int(np.argmax(shares))
        share = max(share, float(shares[best]))
        low, high = probabilities[max(best - 1, 0)], probabilities[min(best + 1, _STARTS - 1)]
    return min(share + _FIRST, 1.0)
