"""One layer's ``X = ||D z||^2`` as a mixture of chi-squares with positive weights: the
form in which the law is transformed.

Given the number ``K`` of open gates, ``X = chi2_K S_K`` with two independent factors;
``docs/theory/distribution-functions.md`` gives ``S_K`` for one and two nonzero gate
values. Terms of probability below ``FLOOR`` are left out: what remains is a law whose
distribution function is off by less than ``FLOOR`` a term.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.errors import UnsupportedArchitecture, explain
from initdiag.law import layer as layer_law
from initdiag.network.architecture import Gate

__all__ = ["FLOOR", "FULL", "ChiSquareMixture", "GivenOpen", "gated_chi_square", "given_open"]

Array = NDArray[np.float64]

FLOOR = 1e-18
"""Probabilities below it are dropped; tails are asked for down to 1e-12."""

FULL = 1e-300
"""The floor under which nothing that a double can tell from 0 is dropped, for moments
of high order.
"""

_FULL_TWO = 1e-100
"""That floor for gates with two nonzero values, whose mixtures are larger."""

_SPARSE = 1.8
"""Points a standard deviation that suffice to sum a smooth bell: the error is about
``exp(-2 pi^2 1.8^2) = 2e-28`` of it, and still ``3e-14`` where an exponential tilt has
taken 30 % off the standard deviation. For ``FULL`` twice as many are kept.
"""

_LOGIT_STEP, _LOGIT_RANGE = 0.2, 150.0
"""Largest step of the nodes in a logit, and their range to either side.

The slowest tail of the logit of a Beta(1/2, .) is ``exp(-|y|/2)``: ``exp(-75)``,
below ``FLOOR``, at its ends.
"""


@dataclass(frozen=True, slots=True, eq=False)
class ChiSquareMixture:
    """``chi2_K S`` with ``P(K = 2 half_dofs[i], S = exp(log_scales[j])) = weights[i,
    j]``.

    Attributes
    ----------
    half_dofs : array (m,)
        Half the degrees of freedom.
    log_scales : array (r,)
        Natural logs of the scales.
    weights : array (m, r)
        Nonnegative, summing to 1.
    """

    half_dofs: Array
    log_scales: Array
    weights: Array


@functools.lru_cache(maxsize=1024)
def gated_chi_square(gate: Gate, width: int, floor: float = FLOOR) -> ChiSquareMixture:
    """Return the law of ``sum_i d_i^2 z_i^2`` over ``width`` gates, given that one is
    open, as a mixture of chi-squares.

    Raises
    ------
    UnsupportedArchitecture
        If the gate has more than two different nonzero ``|d|``; no activation of
        initdiag has.
    """
    power = _squares(gate)
    k, probability = _open_gates(gate, width, floor)
    if len(power) == 1:
        return ChiSquareMixture(k / 2, np.log(list(power)), probability[:, None])
    floor = max(floor, _FULL_TWO)
    low, high = sorted(power)
    share = power[high] / (power[low] + power[high])
    y = _logit_grid(share, float(k[0]), float(k[-1]))
    rows = [
        pk * _direction_weights(int(n), share, y, floor)
        for n, pk in zip(k, probability, strict=True)
    ]
    scales = np.concatenate([low + (high - low) * special.expit(y), [low, high]])
    return _pruned(k / 2, np.log(scales), np.array(rows), floor)


@dataclass(frozen=True, slots=True)
class GivenOpen:
    """The gates given that ``k`` of them are open, an event of this ``probability``.

    Attributes
    ----------
    probability : float
        Given that one is open.
    k : int
        How many.
    low, high : float
        The smaller and the larger ``d^2`` of an open gate; equal if there is one only.
    share : float
        Probability that an open gate has the larger.
    """

    probability: float
    k: int
    low: float
    high: float
    share: float

    def weights(self, y: Array, floor: float) -> Array:
        """Return those of ``S_K`` of the module's text: on the nodes ``y`` in the logit
        of ``B``, then of the atoms "all low" and "all high".
        """
        return _direction_weights(self.k, self.share, y, floor)


def given_open(gate: Gate, width: int, floor: float = FLOOR) -> list[GivenOpen]:
    """Return the cases of ``K``, those of a probability above ``floor``."""
    power = _squares(gate)
    low, high = min(power), max(power)
    share = power[high] / math.fsum(power.values())
    k, probability = _open_gates(gate, width, floor)
    return [
        GivenOpen(float(p), int(n), low, high, share) for n, p in zip(k, probability, strict=True)
    ]


def _squares(gate: Gate) -> dict[float, float]:
    """Return the probabilities of the nonzero values of ``d^2``: one or two."""
    power: dict[float, float] = {}
    for d, p in zip(gate.values, gate.probabilities, strict=True):
        if d != 0.0 and p > 0.0:
            power[d * d] = power.get(d * d, 0.0) + p
    if len(power) > 2:
        raise UnsupportedArchitecture(
            explain(
                expected="a gate with at most two different nonzero values",
                got=f"|d| = {sorted(math.sqrt(d2) for d2 in power)}",
                do=(
                    "Its moments are known (log_mean, log_variance), its distribution function is "
                    "not."
                ),
            )
        )
    return power


def _open_gates(gate: Gate, width: int, floor: float) -> tuple[Array, Array]:
    """Return the numbers of open gates and their probabilities above ``floor``, thinned
    out where they form a smooth bell.
    """
    k, probability = layer_law.open_gates(gate, width)
    keep = probability > floor
    p = 1 - gate.closed_probability
    return _thinned(
        k[keep], probability[keep], width, math.sqrt(width * p * (1 - p)) / _density(floor)
    )


def _density(floor: float) -> float:
    return _SPARSE if floor > _FULL_TWO else 2 * _SPARSE


def _thinned(k: Array, probability: Array, largest: int, spacing: float) -> tuple[Array, Array]:
    """Keep every ``stride``-th term of a bell that is cut off at neither end of
    ``0..largest``: the sum is a trapezium rule.
    """
    is_whole = k[0] > 1 and k[-1] < largest
    stride = max(1, int(spacing)) if is_whole else 1
    thin = probability[::stride]
    return k[::stride], thin / thin.sum()


def _logit_grid(share: float, fewest: float, most: float) -> Array:
    """Return nodes in the logit of ``B``: fine enough for the largest ``K``, wide
    enough for the smallest.
    """
    narrow, wide = (math.sqrt(3 / (k * share * (1 - share))) for k in (most, fewest))
    half = 20 * wide if fewest * min(share, 1 - share) > 150 else _LOGIT_RANGE
    step = min(_LOGIT_STEP, narrow / 3)
    center = math.log(share / (1 - share))
    return np.asarray(
        center + step * np.arange(-math.ceil(half / step), math.ceil(half / step) + 1.0)
    )


def _direction_weights(k: int, share: float, y: Array, floor: float) -> Array:
    """Return the weights of ``S_K``, ``K = k``: on the nodes ``y``, then of the atoms
    "all low" and "all high".
    """
    atoms = [(1 - share) ** k, share**k]
    j = np.arange(1.0, k)
    log_pmf = (
        special.xlogy(j, share)
        + special.xlog1py(k - j, -share)
        - special.betaln(j + 1, k - j + 1)
        - math.log(k + 1)
    )
    keep = log_pmf > math.log(floor)
    if not keep.any():
        return np.concatenate([np.zeros_like(y), atoms])
    spacing = math.sqrt(k * share * (1 - share)) / _density(floor)
    j, pmf = _thinned(j[keep], np.exp(log_pmf[keep]), k - 1, spacing)
    log_normal = special.betaln(j / 2, (k - j) / 2)
    density = np.zeros_like(y)
    softplus = np.logaddexp(0.0, y)
    for half, weight, log_beta in zip(j / 2, pmf, log_normal, strict=True):
        density += weight * np.exp(half * y - k / 2 * softplus - log_beta)
    density *= (1 - sum(atoms)) / density.sum()
    return np.concatenate([density, atoms])


def _pruned(half_dofs: Array, log_scales: Array, weights: Array, floor: float) -> ChiSquareMixture:
    keep = weights.max(axis=0) > floor
    weights = weights[:, keep]
    return ChiSquareMixture(half_dofs, log_scales[keep], weights / weights.sum())
