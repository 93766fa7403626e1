"""The law of ``h^2``, ``h = (W x)_i/sqrt(v)``, ``||x|| = 1``, for iid symmetric
entries: its Laplace transform and weighted moments.

It is closed by Pearson's symmetric laws, one for each excess kurtosis ``q = (mu4 - 3)
||x||_4^4`` (K. Pearson, Phil. Trans. A 216, 1916, types II and VII): a mixture of
Gaussians ``sigma^2 z^2`` (``q > 0``), else of points. ``docs/theory/other-weights.md``
says where that is exact.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GAUSSIAN", "Squares", "pearson", "sparse"]

Array = NDArray[np.float64]

_NEGLIGIBLE = 1e-9
"""Excess kurtosis below which a law is taken for Gaussian: to the
log-variance, about ``excess k c/n``, it adds as little.
"""

_MOST_COINS = 200
"""Beyond, the mean of the coins is as good as a gamma's: Pearson's law serves."""


_LOGIT_STEP = 0.25
"""Step of the trapezium rule for points.

A moment ``E h^{2k}`` is off by the part ``|Gamma(k + 1/2 + 2 pi i/step)|/Gamma(k +
1/2)`` of itself, the law's Mellin transform: 1e-14 for the kurtosis, 1e-12 for ``E
h^8`` (at a step of 0.4 they were 1e-8 and 5e-7, which was seen in the log-variance).
"""


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """A mixture of mean 1: ``values`` of ``sigma^2`` in ``h^2 = sigma^2 z^2``, ``z``
    normal, or of ``h^2`` itself, with ``weights``.

    Attributes
    ----------
    values, weights : float64 arrays of one length
        The weights sum to 1; values are 0 only at an atom.
    is_scale : bool
        Whether the values are of ``sigma^2``.
    """

    values: Array
    weights: Array
    is_scale: bool

    @property
    def zero_probability(self) -> float:
        """P(h = 0)."""
        return float(self.weights[self.values == 0].sum())

    def transforms(self, t: Array, orders: tuple[int, ...]) -> list[Array]:
        """Return ``E e^{-t h^2} - 1``, ``E e^{-t h^2}``, and ``E h^{2k} e^{-t h^2}``
        for each order ``k``, at every ``t``.
        """
        exponent = np.multiply.outer(t, self.values)
        logs = -0.5 * np.log1p(2 * exponent) if self.is_scale else -exponent
        itself = np.exp(logs)
        if self.is_scale:
            kernels = [self.weights * self.values**k * _odd_factorial(k) for k in orders]
            powers = [(2 * k + 1) * logs for k in orders]
            rest = [np.exp(p) @ w for p, w in zip(powers, kernels, strict=True)]
        else:
            rest = list(
                (itself @ np.stack([self.weights * self.values**k for k in orders], axis=1)).T
            )
        return [np.expm1(logs) @ self.weights, itself @ self.weights, *rest]


def _odd_factorial(k: int) -> float:
    """Return ``(2k - 1)!!``, the moment ``E z^{2k}`` of a normal variable."""
    return float(math.prod(range(2 * k - 1, 0, -2)))


GAUSSIAN = Squares(np.ones(1), np.ones(1), True)


def pearson(excess: float, reach: float) -> Squares:
    """Return Pearson's law of ``h^2`` with excess kurtosis ``excess``, at least -2.

    ``reach``: of points, how far down ``ln h^2`` must be resolved (``t h^2`` about 1 at
    the largest ``t``).
    """
    if abs(excess) < _NEGLIGIBLE:
        return GAUSSIAN
    return _student(2 + 3 / excess) if excess > 0 else _sphere_coordinate(-6 / excess - 2, reach)


def _normalised(values: Array, log_weights: Array, is_scale: bool) -> Squares:
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return Squares(values / float(weights @ values), weights, is_scale)


@functools.lru_cache(maxsize=64)
def _student(shape: float) -> Squares:
    """Return points for Student's entries, where ``1/sigma^2`` is a gamma variable of
    this shape: the trapezium rule in its logarithm, exact to rounding.
    """
    step = 0.5 / math.sqrt(shape)
    # Weights fall as exp(-shape a^2/2) for a small log-distance a, as exp(-shape a) and
    # double exponentially for large ones.
    down, up = max(40 / (shape - 1), 9 / math.sqrt(shape)), 9 / math.sqrt(shape) + 1
    u = np.arange(-down, up, step)
    return _normalised(np.exp(-u), shape * (u - np.expm1(u)), is_scale=True)


@functools.lru_cache(maxsize=64)
def _sphere_coordinate(m: float, reach: float) -> Squares:
    """Return points for ``h^2/m``, which is Beta(1/2, (m-1)/2), by the trapezium rule
    in its logit. For ``m = 1`` these are its two points.
    """
    if m <= 1 + 1e-6:
        return Squares(np.ones(1), np.ones(1), False)
    highest = min(80 / (m - 1), 800.0) if m < 100 else 6 - math.log(m)
    u = np.arange(-math.log(m) - reach - 20, highest, _LOGIT_STEP)
    return _normalised(
        np.exp(-np.logaddexp(0, -u)), u / 2 - m / 2 * np.logaddexp(0, u), is_scale=False
    )


def sparse(share: float, concentration: float) -> Squares:
    """Return the law for entries that are 0 but for a share, ``concentration =
    ||x||_4^4``: ``1/concentration`` coins.
    """
    from scipy import stats  # takes half a second, and few networks come here

    coins = 1 / concentration
    if share >= 1 - _NEGLIGIBLE:
        return GAUSSIAN
    if coins > _MOST_COINS:
        return pearson(3 * (1 - share) / (share * coins), 0.0)
    low = math.floor(coins * (1 + 1e-12))
    # Between two whole numbers of coins a mixture, so that the mean of 1/coins, hence
    # the kurtosis, is right.
    more = (1 / low - concentration) * low * (low + 1)
    values, weights = [], []
    for count, probability in ((low, 1 - more), (low + 1, more)):
        if probability > _NEGLIGIBLE:
            heads = np.arange(count + 1)
            values.append(heads / (count * share))
            weights.append(probability * stats.binom.pmf(heads, count, share))
    return Squares(np.concatenate(values), np.concatenate(weights), True)
