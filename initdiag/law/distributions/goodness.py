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
"""Draws below which the shape is not tested: a choice on the safe side.

With 30, 50, 100, 300 and 1,000 draws of two laws (He, three and 19 layers; 2,000
samples each) the tests at 5 % and 1 % reject 4.6 to 5.9 % and 0.7 to 1.2 %.
"""

_REACH, _CELLS = 10.0, 512
"""Standard deviations to either side of the mean, and cells, over which the covariance
is summed: twice of both moves a p-value of 0.05 by less than 0.0005.
"""

_POINTS = 64
"""Quantiles at which the supremum is taken. The supremum over twice as many exceeds
the 5 % point of 64 in 5.2 % of the paths, that over half as many in 3.7 %.
"""

_PATHS = 2000
"""Simulated paths of the process: a p-value has the binomial error ``sqrt(p/2000)``,
0.005 at p = 0.05.
"""

_TAIL = 0.99
"""The simulated probability beyond which the tail is continued by its leading term: 20
paths lie there. It gives 0.0011 to 0.0012 where 200,000 paths give 0.001.
"""

Real = NDArray[np.float64]


def shape_p_value(law: rv_continuous, sample: Real) -> float:
    """Return the p-value of the sample's shape under ``law`` (of any location and
    scale); above 1 % with a standard error of about ``sqrt(p/2000)``.

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
