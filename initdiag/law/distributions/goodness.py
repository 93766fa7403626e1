"""Test whether a sample has the shape of a law.

Kolmogorov and Smirnov's test after both are standardised by their own mean and
variance.

Mean and variance are tested by themselves (`initdiag.diagnosing.agreement`), where what
the theory leaves open is allowed for. The shape is what is left: ``D = sup |F_n(m + s
x) - F(mu + sigma x)|`` with the sample's ``m`` and ``s``. Under the law ``sqrt(n) D``
tends to the supremum of the Gaussian process of ``psi_x(z) = 1{z <= x} - F(x) + f(x) z
+ x f(x) (z^2 - 1)/2`` (Durbin, Ann. Statist. 1 (1973) 279), whose distribution depends
on ``F``, and is simulated here. Supremum and process are taken over the same points.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.stats import rv_continuous

__all__ = ["LEAST_DRAWS", "shape_p_value"]

LEAST_DRAWS = 100
"""Below, the limit law of the statistic is not near enough."""

_REACH = 10.0
_CELLS = 512
_POINTS = 64
_PATHS = 2000
_TAIL = 0.99

Real = NDArray[np.float64]


def shape_p_value(law: rv_continuous, sample: Real) -> float:
    """Return the p-value of the sample's shape under ``law`` (of any location and
    scale); above 1 % to about 0.005 sqrt(p).

    Beyond the simulated 99 % point the tail is ``exp(-x^2/(2 s^2))``, ``s^2`` the
    process' largest variance.
    """
    from scipy import interpolate

    x = np.linspace(-_REACH, _REACH, _CELLS + 1)
    cdf = np.asarray(law.cdf(law.mean() + law.std() * x))
    density = interpolate.CubicSpline(x, cdf)(x, 1)
    at = np.unique(np.searchsorted(cdf, np.linspace(0.005, 0.995, _POINTS)))
    covariance = _covariance(x, cdf, density, at)
    z = np.sort((sample - sample.mean()) / sample.std())
    empirical = np.searchsorted(z, x[at], side="right") / len(z)
    statistic = math.sqrt(len(z)) * float(np.max(np.abs(empirical - cdf[at])))
    return _tail_probability(statistic, covariance)


def _covariance(x: Real, cdf: Real, density: Real, at: NDArray[np.intp]) -> Real:
    """Return the covariance of ``psi`` at the points ``x[at]``, from cell masses."""
    mass, z = np.diff(cdf), (x[1:] + x[:-1]) / 2
    below = (z[:, None] <= x[at]).astype(float) - cdf[at]
    psi = below + density[at] * z[:, None] + x[at] * density[at] * (z[:, None] ** 2 - 1) / 2
    return np.asarray((psi * mass[:, None]).T @ psi)


def _tail_probability(statistic: float, covariance: Real) -> float:
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance)))
    normal = np.random.default_rng(0).standard_normal((_PATHS, len(root)))
    suprema = np.abs(normal @ root.T).max(axis=1)
    far = float(np.quantile(suprema, _TAIL))
    if statistic > far:
        return (1 - _TAIL) * math.exp(
            (far**2 - statistic**2) / (2 * float(covariance.diagonal().max()))
        )
    return float(np.mean(suprema >= statistic))
