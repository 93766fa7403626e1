"""Moments of a chain's spectrum: in the limit, by Lagrange's inversion, and exactly at
finite width, by four traces that each layer maps linearly.

``docs/theory/spectrum.md`` derives both, with the letters used here (``t``, ``a``,
``b``, ``c``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from initdiag._core.arrays import Real
from initdiag._core.validation import positive_integer
from initdiag.errors import UnsupportedArchitecture
from initdiag.spectrum.equation import ChainEquation, GateTerm, chain_equation
from initdiag.spectrum.record import SpectralFactor, SpectralLaw

__all__ = ["log_finite_width_moments", "log_free_moments"]


def log_free_moments(law: SpectralLaw, k: int) -> Real:
    """Return ``ln m_1, ..., ln m_k`` in the limit of large width."""
    k = positive_integer(k, "the number of moments")
    equation = chain_equation(law.input_size, law.factors)
    order = np.arange(1, k + 1)
    gates = [_gate_log_series(gate, k) for gate in equation.gates]
    reduced = np.array([_coefficient(equation, gates, j) for j in range(1, k + 1)])
    return np.asarray(np.log(reduced) - np.log(order) + order * law.log_mean_eigenvalue)


def _coefficient(equation: ChainEquation, gates: Iterable[Real], k: int) -> float:
    """Return ``[t^(k-1)] (f(t)/f(0))^k``."""
    product = np.eye(1, k)[0]
    for point, power in zip(equation.points, equation.powers, strict=True):
        if point:
            product = np.convolve(product, _binomial_series(power * k, point, k))[:k]
    for gate, series in zip(equation.gates, gates, strict=True):
        product = np.convolve(product, _exponential(gate.power * k * series[:k]))[:k]
    return float(product[k - 1])


def _binomial_series(exponent: int, point: float, count: int) -> Real:
    """Return the coefficients of ``(1 + t/point)^exponent``."""
    j = np.arange(1, count)
    return np.asarray(np.cumprod(np.append(1.0, (exponent - j + 1) / (j * point))))


def _gate_log_series(gate: GateTerm, count: int) -> Real:
    """Return the coefficients in ``t = m`` of ``ln(x tau/E d^2)`` with ``x = t/ratio``.

    With ``w = 1/tau``: ``x = psi(w) = sum_j E d^(2j) w^j``, and for the inverse
    function ``[x^j] ln(x/(w E d^2)) = (1/j) [w^j] (w E d^2/psi(w))^j /(E d^2)^j`` times
    -1 (Lagrange's formula for a logarithm: ``[x^j] ln(w/x) = (1/j) [w^j] (w/psi)^j``).
    """
    squares, probabilities = np.array(gate.squares), np.array(gate.probabilities)
    scaled = squares / (squares @ probabilities)
    psi = np.array([(scaled**j) @ probabilities for j in range(1, count + 1)])
    log_psi = _logarithm(psi)
    series = np.zeros(count)
    for j in range(1, count):
        series[j] = -_exponential(-j * log_psi)[j] / j / gate.ratio**j
    return series


def _logarithm(series: Real) -> Real:
    """Return the coefficients of the logarithm of a series that starts with 1."""
    log = np.zeros_like(series)
    for n in range(1, len(series)):
        i = np.arange(1, n)
        log[n] = series[n] - (i * log[1:n]) @ series[n - i] / n
    return log


def _exponential(series: Real) -> Real:
    """Return the coefficients of the exponential of a series that starts with 0."""
    exponential = np.zeros(len(series))
    exponential[0] = 1.0
    for n in range(1, len(series)):
        i = np.arange(1, n + 1)
        exponential[n] = (i * series[1 : n + 1]) @ exponential[n - i] / n
    return exponential


def log_finite_width_moments(law: SpectralLaw) -> Real:
    """Return ``ln`` of the exact ``E tr (J^T J)/n_0`` and ``E tr (J^T J)^2/n_0``.

    Raises
    ------
    UnsupportedArchitecture
        With an activation whose derivative is not discrete.
    """
    smooth = [factor.name for factor in law.factors if not factor.discrete]
    if smooth:
        raise UnsupportedArchitecture(
            "exact moments at finite width need discrete gates (ReLU, leaky ReLU, linear, "
            f"dropout), and layers {', '.join(smooth)} "
            "have a smooth derivative. Use moments(2), the limit of large width, or measure the "
            "spectrum."
        )
    log_t = log_second = 0.0
    a, b, c = 1.0, float(law.input_size), 1.0  # over n_0, and over exp(log_second)
    for factor in law.factors:
        log_t += math.log(_mean_step(factor))
        a, b, c = _second_step(factor, a, b, c)
        log_second += math.log(b)
        a, b, c = a / b, 1.0, c / b
    return np.array([log_t, log_second + math.log(a)])


def _mean_step(factor: SpectralFactor) -> float:
    """Return ``E tr G'`` over ``E tr G``; for Haar rows ``g^2/N = v`` again."""
    return factor.variance * factor.fan_out * factor.gate_moment(1)


def _second_step(
    factor: SpectralFactor, a: float, b: float, c: float
) -> tuple[float, float, float]:
    """Take one layer in the recursion for ``a, b, c``."""
    n, big, excess = factor.fan_out, factor.larger_width, factor.kurtosis - 3
    if factor.haar:
        pairs, scale = big * max(big - 1, 1) * (big + 2), (factor.variance * big) ** 2
        same = (b + 2 * a) / (big * (big + 2))
        cross, traces = (big * a - b) / pairs, ((big + 1) * b - 2 * a) / pairs
    else:
        scale, same, cross, traces = factor.variance**2, b + 2 * a + excess * c, a, b
    diagonal = n * factor.gate_moment(2) * same
    off = n * (n - 1) * factor.gate_moment(1) ** 2
    return scale * (off * cross + diagonal), scale * (off * traces + diagonal), scale * diagonal
