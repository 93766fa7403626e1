"""The spectrum's curve by its phase: no choice of branch, no polynomial roots.

For chains whose gates are 0 or one value. ``z`` is real and positive where the total
phase of its factors is 0; on each ray ``y = m + a = r exp(-i theta)`` that is one root
in ``ln r``, found for all ``theta`` at once. ``docs/theory/spectrum.md`` derives it,
says what Haar layers' poles need (``t = y/(y + C - a)``), and why ``theta`` is spaced
as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from initdiag._core.arrays import Complex, Real
from initdiag.spectrum.equation import ChainEquation

__all__ = ["Curve", "phase_curve", "solve_from"]

_LOG_R = 80.0
"""Bracket of ``ln r``: beyond, every phase is at its limit to rounding."""

_ITERATIONS = 200
"""More than the bisections that the bracket asks for (60); Newton needs about ten."""

_TOLERANCE = 1e-12
"""Error of ``ln r`` at which Newton's iteration ends; its last step squares it."""

_COUNTS = (600, 2400)
"""Points of a curve: the first is enough (1e-10) for hundreds of layers, the second for
10,000.
"""

_COARSE = 48
"""Points that are solved from nothing."""

_NOISE = 1e-9
"""By which rounding may make the tail rise: it sums as many terms as there are layers.
"""

_AT_ONCE = 16
"""Factors whose phases are formed at once: what fits into the cache."""

_MASS, _ENDS = 1e-6, 0.05
"""Shares of the mass by which the quadrature, and the tail at the first and last point,
may miss it; a wrong root misses far more.
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of the spectrum, ``ln lambda`` ascending, with quadrature weights (shares
    of all eigenvalues) and ``P(Lambda > lambda)``.
    """

    log_eigenvalue: Real
    weight: Real
    tail: Real
    y: Complex


@dataclass(frozen=True, slots=True)
class _Angles:
    """``theta`` and its distance ``delta`` from ``pi/k``, each accurate at its own end,
    and Fejer's weights.
    """

    theta: Real
    delta: Real
    weight: Real
    cos: Real
    sin: Real

    @classmethod
    def midpoints(cls, count: int, ties: int) -> _Angles:
        u = (np.arange(count) + 0.5) / count
        width = np.pi / ties
        theta, delta = width * np.sin(np.pi * u / 2) ** 2, width * np.cos(np.pi * u / 2) ** 2
        near_pi = (theta > np.pi / 2) & (ties == 1)
        cos = np.where(near_pi, -np.cos(delta), np.cos(theta))
        sin = np.where(near_pi, np.sin(delta), np.sin(theta))
        return cls(theta, delta, width / 2 * _fejer(count), cos, sin)


@lru_cache(maxsize=8)
def _fejer(count: int) -> Real:
    """Return the weights of Fejer's first rule on [-1, 1]: ``1 - 2 sum_i cos(2 i
    phi)/(4 i^2 - 1)``, twice over ``count``, by a cosine transform.
    """
    order = np.arange(count)
    transform = np.where(order % 2 == 0, 2 / (1.0 - order**2 + (order == 1)), 0.0)
    return np.asarray(fft.dct(transform, type=3) / count)


@dataclass(frozen=True, slots=True)
class _Plane:
    """The coordinate ``t``, in which ``z`` is a product of ``(alpha + beta t)^power``;
    ``reach = C - a``, or infinite for ``t = y``.
    """

    alpha: Real
    beta: Real
    power: Real
    reach: float

    @classmethod
    def all_of(cls, equation: ChainEquation) -> Iterator[_Plane]:
        """Yield the planes to try: for each pole from the farthest, and the
        plain one.
        """
        shifts, powers = equation.shifts, np.array(equation.powers, dtype=float)
        for reach in shifts[(powers < 0) & (shifts > 0)][::-1]:
            yield cls._of(shifts, powers, float(reach))
        yield cls(shifts, np.ones_like(shifts), powers, np.inf)

    @classmethod
    def _of(cls, shifts: Real, powers: Real, reach: float) -> _Plane:
        return cls(
            np.append(shifts, 1.0),
            np.append(reach - shifts, -1.0),
            np.append(powers, -powers.sum()),
            reach,
        )

    def to_y(self, t: Complex) -> Complex:
        return t if self.reach == np.inf else t * self.reach / (1 - t)

    def slope(self, equation: ChainEquation, t: Complex) -> Complex:
        """Return ``d(ln z)/d(ln t)``."""
        slope = equation.slope(self.to_y(t))
        return slope if self.reach == np.inf else slope / (1 - t)


def phase_curve(equation: ChainEquation) -> Curve | None:
    """Return the curve, or None if none was found that holds the whole mass (see the
    module's docstring).
    """
    assert not equation.gates, "a general gate has no explicit phase"
    for count in _COUNTS:
        angles = _Angles.midpoints(count, equation.ties)
        for plane in _Plane.all_of(equation):
            curve = _curve(equation, plane, angles)
            if _holds_the_mass(equation, curve):
                return curve
    return None


def _curve(equation: ChainEquation, plane: _Plane, angles: _Angles) -> Curve:
    t = np.exp(_radii(equation, plane, angles)) * (angles.cos - 1j * angles.sin)
    y = plane.to_y(t)
    slope = plane.slope(equation, t)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # where the slope is real the mass is not finite, and the curve refused
        weight = -y.imag / np.pi * (np.abs(slope) ** 2 / np.abs(slope.imag)) * angles.weight
    return Curve(
        equation.log_eigenvalue(y).real[::-1], weight[::-1], equation.tail(y)[::-1], y[::-1]
    )


def _holds_the_mass(equation: ChainEquation, curve: Curve) -> bool:
    """Return whether ``ln lambda`` and the tail are monotone, and the tail and the
    quadrature of the density cover the whole mass.
    """
    tail, top = curve.tail, max(equation.top_mass, 0.0)
    if np.diff(curve.log_eigenvalue).min() < 0 or np.diff(tail).max() > _NOISE:
        return False
    missing = abs(curve.weight.sum() - (equation.start - top))
    ends = max(abs(tail[0] - equation.start), abs(tail[-1] - top))
    return bool(missing < _MASS * equation.start and ends < _ENDS * equation.start)


def _radii(equation: ChainEquation, plane: _Plane, angles: _Angles) -> Real:
    """Return ``ln r``: few points from nothing, then all from their interpolation
    (``r`` goes to 0 like ``delta`` where factors tie).
    """
    coarse = _Angles.midpoints(_COARSE, equation.ties)
    known = _roots(equation, plane, coarse, np.full(_COARSE, np.log(equation.start)))
    tied = equation.ties > 1
    smooth = np.interp(angles.theta, coarse.theta, known - tied * np.log(coarse.delta))
    return _roots(equation, plane, angles, smooth + tied * np.log(angles.delta))


def _roots(equation: ChainEquation, plane: _Plane, angles: _Angles, log_r: Real) -> Real:
    """Return ``ln r`` by Newton's method, by bisection outside the bracket."""
    low, high = np.full_like(log_r, -_LOG_R), np.full_like(log_r, _LOG_R)
    for _ in range(_ITERATIONS):
        phase, derivative = _phase(equation, plane, angles, log_r)
        low, high = np.where(phase > 0, log_r, low), np.where(phase > 0, high, log_r)
        with np.errstate(divide="ignore", invalid="ignore"):
            new = log_r - phase / derivative
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        step, log_r = np.abs(new - log_r), new
        if np.all((step < _TOLERANCE) | (phase == 0)):
            break
    return log_r


def _phase(
    equation: ChainEquation, plane: _Plane, angles: _Angles, log_r: Real
) -> tuple[Real, Real]:
    """Return the total phase, with ``pi - k theta`` formed without cancellation, and
    its derivative by ``ln r``.
    """
    x, y = np.exp(log_r) * angles.cos, np.exp(log_r) * angles.sin
    phase, derivative = equation.ties * angles.delta, np.zeros_like(x)
    for start in range(0, len(plane.power), _AT_ONCE):
        alpha, beta, power = (
            a[start : start + _AT_ONCE, None] for a in (plane.alpha, plane.beta, plane.power)
        )
        real, imaginary, sign = alpha + beta * x, beta * y, np.sign(alpha)
        phase = phase - (power * sign * np.arctan2(imaginary, real * sign)).sum(axis=0)
        derivative = derivative - (power * alpha * imaginary / (real**2 + imaginary**2)).sum(axis=0)
    return phase, derivative


def solve_from(equation: ChainEquation, y: Complex, log_lambda: Real) -> Complex:
    """Return ``y`` at the wanted ``ln lambda`` by Newton's method in ``ln y``, from a
    near point of the curve.
    """
    log_y = np.log(y)
    for _ in range(30):
        y = np.exp(log_y)
        step = (equation.log_eigenvalue(y) - log_lambda) / equation.slope(y)
        log_y = log_y - step / np.maximum(1.0, np.abs(step))
        if np.all(np.abs(step) < _TOLERANCE):
            break
    return np.asarray(np.exp(log_y))
