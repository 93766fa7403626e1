"""Moments, free cumulants and S-transforms as power series, each from the other.

A series is the array of its coefficients, that of the power 0 first. The free cumulants
are the coefficients of the R-transform; those of a free sum add.
"""

from __future__ import annotations

import numpy as np

from initdiag._core.arrays import Real

__all__ = [
    "cumulants_from_moments",
    "moments_from_cumulants",
    "moments_from_s_series",
    "product",
    "s_series_from_moments",
]


def product(one: Real, two: Real) -> Real:
    """Return the product of two series of equal length, cut off at that length."""
    return np.asarray(np.convolve(one, two)[: len(one)])


def _reciprocal(series: Real) -> Real:
    """Return ``1/series``; the constant term is not 0."""
    result = np.zeros_like(series)
    result[0] = 1 / series[0]
    for n in range(1, len(series)):
        result[n] = -(series[1 : n + 1] @ result[n - 1 :: -1][:n]) / series[0]
    return result


def _reversion(series: Real) -> Real:
    """Return the coefficients ``1, ..., k`` of the inverse function of ``w series(w)``.

    By Lagrange's formula the coefficient of ``y^n`` is that of ``w^(n-1)`` in
    ``series^-n``, divided by ``n``.
    """
    reciprocal = _reciprocal(series)
    power, result = np.eye(1, len(series))[0], np.zeros_like(series)
    for n in range(1, len(series) + 1):
        power = product(power, reciprocal)
        result[n - 1] = power[n - 1] / n
    return result


def moments_from_cumulants(cumulants: Real) -> Real:
    """Return ``m_1, ..., m_k`` from ``c_1, ..., c_k``.

    ``R(w (1 + M(w))) = M(w)`` says that ``w (1 + M(w))`` inverts ``u/(1 + R(u))``.
    """
    denominator = np.append(1.0, cumulants)
    return _reversion(_reciprocal(denominator))[1:]


def cumulants_from_moments(moments: Real) -> Real:
    """Return ``c_1, ..., c_k`` from ``m_1, ..., m_k``: the inverse of the above."""
    return _reciprocal(_reversion(np.append(1.0, moments)))[1:]


def s_series_from_moments(moments: Real) -> Real:
    """Return ``s_0, ..., s_(k-1)`` of ``S(m)`` from ``m_1, ..., m_k``.

    ``S(m) = (1 + m) w/m``, where ``w`` inverts ``M(w) = m``; ``m_1`` is not 0.
    """
    s_series = _reversion(moments)
    s_series[1:] += s_series[:-1].copy()
    return s_series


def moments_from_s_series(s_series: Real) -> Real:
    """Return ``m_1, ..., m_k`` from ``s_0, ..., s_(k-1)``."""
    alternating: Real = np.where(np.arange(len(s_series)) % 2, -1.0, 1.0)  # 1/(1 + m)
    return _reversion(product(s_series, alternating))
