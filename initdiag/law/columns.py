"""The columns of the law: what one layer adds to each number, as a function of widths.

A chain's log-mean, log-variance, beta and ``ln P(not dead)`` are sums over its layers,
each a column of what the layers add. Every function here takes one width or an array of
widths, so that the two who compose a law share it: `initdiag.predict` keeps the columns
layer by layer, and `initdiag.screen` sums them over the ragged widths of many chains
(`initdiag.law.batch`). What a gated chi-square adds, the one function that is not a
formula, is in `initdiag.law.layer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "any_dead",
    "bounded_spread",
    "entry_kurtosis_share",
    "gate_beta",
    "light_error_share",
    "log_radius",
    "mixed_over_inputs",
    "radius_beta",
    "uniform_concentration",
    "without_radius",
]

Array = NDArray[np.float64]
F = TypeVar("F", float, Array)
"""One number or an array of them."""


def _smaller(a: F, b: F | float) -> F:
    """Return the smaller of two numbers, or array by entry.

    A plain float stays one: NumPy's functions take ten times as long for it, and so
    does what is computed with the scalar that they return.
    """
    if isinstance(a, float):
        return min(a, b)
    return np.minimum(a, b)


def _larger(a: F, b: F | float) -> F:
    """Return the larger of two numbers, or array by entry: as `_smaller` does."""
    if isinstance(a, float):
        return max(a, b)
    return np.maximum(a, b)


def log_radius(n: Array) -> tuple[Array, Array]:
    """Return mean and variance of ``ln(R^2/n)``, ``R^2`` a chi-square with ``n``
    degrees of freedom: natural log.

    A Haar matrix is a Gaussian one without this radius, for ``n = max(fan_in,
    fan_out)``. The draw of a Gaussian output layer's own weights is this radius, for
    ``n = fan_out``.
    """
    half = n / 2
    return special.digamma(half) - np.log(half), special.polygamma(1, half)


def without_radius(mean: F, variance: F, radius: tuple[F, F]) -> tuple[F, F]:
    """Take the log-moments of a radius, independent of what remains, out of a
    product's.

    A variance is never below 0: rounding alone would put it there.
    """
    return mean - radius[0], _larger(variance - radius[1], 0.0)


def gate_beta(kurtosis: F, fan_out: F) -> F:
    """Return a layer's share ``(3 c - 1)/n`` of beta, ``c`` its gates' kurtosis."""
    return (3 * kurtosis - 1) / fan_out


def radius_beta(n: F) -> F:
    """Return what beta counts of a radius: ``2/n``, the leading order of its
    log-variance ``psi'(n/2)``.
    """
    return 2 / n


def entry_kurtosis_share(excess: F, fourth: F, kurtosis: F, fan_out: F) -> F:
    """Return the first layer's term ``(mu4 - 3) ||u||_4^4 c/n`` of beta."""
    return excess * fourth * kurtosis / fan_out


def any_dead(log_alive: F) -> F:
    """Return ``1 - exp(log_alive)``, the probability that some layer is dead, from the
    sum of the layers' ``ln P(not dead)``; without cancellation where it is small.
    """
    dead: F = 0.0 - np.expm1(log_alive)
    return dead


def uniform_concentration(n: F) -> tuple[F, F]:
    """Return mean and variance of ``||u||_4^4``, ``u`` uniform on the sphere in R^n."""
    mean = 3 / (n + 2)
    return mean, (105 + 9 * (n - 1)) / ((n + 2) * (n + 4) * (n + 6)) - mean**2


def bounded_spread(concentration: F, variance: F) -> F:
    """Return the standard deviation of a concentration ``k``, so that ``k`` less and
    plus it stays within [k/4, 1].
    """
    room = _smaller(1 - concentration, 0.75 * concentration)
    spread: F = _larger(variance, 0.0) ** 0.5
    return _smaller(spread, room)


def mixed_over_inputs(
    averages: Sequence[F], slopes: Sequence[F], variance: F, covariance_per_k: F, gaussian: F
) -> tuple[F, F, F]:
    """Return what a layer adds to the log-variance, the variance of the concentration
    that leaves, and its covariance with the log-norm.

    Parameters
    ----------
    averages : five
        The layer's response averaged over the concentration ``k`` that enters: log-mean
        beyond the Gaussian one, concentration, log-variance beyond the Gaussian one,
        variance of the concentration, its covariance with the layer's log-norm.
    slopes : two
        By how much the first two of them change with ``k``.
    variance : number or array
        Variance of ``k``.
    covariance_per_k : number or array
        Covariance of ``k`` with the log-norm so far, over the mean of ``k``.
    gaussian : number or array
        Concentration that leaves for Gaussian entries, which depends on no ``k``.
    """
    mean, leaving, log_variance, leaving_variance, covariance = averages
    both = variance * slopes[0]
    return (
        log_variance + (both * slopes[0] + 2 * (mean * covariance_per_k)),
        leaving_variance + variance * slopes[1] * slopes[1],
        covariance + (both * slopes[1] + (leaving - gaussian) * covariance_per_k),
    )


def light_error_share(concentration: F, fan_out: F) -> F:
    """Return the share of a correction that may be wrong for entries of light tails,
    one standard deviation: at most 1.

    `initdiag.law.kurtosis.corrections` says by what explicit products it was found.
    """
    return _smaller(_CHAIN_ERROR + concentration / fan_out, 1.0)


_CHAIN_ERROR = 0.05
"""What the closure of the chain by mean and spread of the concentration may be off by:
3 to 7 % in explicit products of uniform entries, widths 2 to 10.
"""
