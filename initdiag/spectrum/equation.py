"""The equation between an eigenvalue ``z`` and the moment transform ``m`` of a chain,
from which all else follows: ``z = (n_0 + s)/s * prod_l f_l(s)`` with ``s = n_0 m``.

``docs/theory/spectrum.md`` derives it, its factors ``f_l`` and ``tau_l``, the powers
``q_j`` of ``m + c_j`` and the elementary integral ``A(m)``, whose imaginary part is the
mass above an eigenvalue, atoms included. ``m`` runs from 0 (``z`` infinite) to ``-a``,
``a = min(1, min c_l)``; it is held as ``y = m + a`` and every factor computed as ``y +
(c - a)``, without cancellation near either end.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag._core.arrays import Complex, Real
from initdiag.spectrum.record import SpectralFactor

__all__ = ["ChainEquation", "GateTerm", "chain_equation"]


@dataclass(frozen=True, slots=True)
class GateTerm:
    """A layer whose open gates take several values, ``power`` times: ``squares``
    (positive) with ``probabilities``.
    """

    ratio: float
    squares: tuple[float, ...]
    probabilities: tuple[float, ...]
    power: int
    excess: float
    """``c - a``, ``c = ratio P(d != 0)``."""

    def share(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return ``E[tau/(tau - d^2); d != 0]`` as ``(y + c - a)/ratio``."""
        return (y + self.excess) / self.ratio

    def mean(self, function: NDArray[Any]) -> NDArray[Any]:
        """Return the expectation over the open gates, which are the last axis."""
        return np.asarray(function @ np.array(self.probabilities))


@dataclass(frozen=True, slots=True)
class ChainEquation:
    """``ln z = log_scale + sum powers ln(m + points) + sum_g power_g ln(m tau_g)``.

    ``points`` ascend from 0, whose power is -1; a general gate's ``m`` is kept in its
    own term.
    """

    log_scale: float
    points: tuple[float, ...]
    powers: tuple[int, ...]
    gates: tuple[GateTerm, ...]
    start: float
    """``a``: the share of eigenvalues that are not 0."""
    ties: int
    """How many factors vanish at ``m = -a``; the support reaches 0 if more than one
    does.
    """
    top_mass: float
    """``n_0 - sum (N - n P(d = max))`` over ``n_0``: mass of the atom at the top if
    positive; ``-inf`` with an iid layer.
    """

    @property
    def shifts(self) -> Real:
        """``points - a``."""
        return np.array(self.points) - self.start

    def log_eigenvalue(self, y: Complex, log_tau: tuple[Complex, ...] = ()) -> Complex:
        """Return ``ln z`` at ``m = y - a``, ``Im m <= 0``; its imaginary part is the
        total phase, not reduced.
        """
        powers = np.array(self.powers, dtype=float)
        x, below = y.real[..., None] + self.shifts, -y.imag[..., None]
        total = (
            self.log_scale + np.log(np.hypot(x, below)) @ powers + 1j * (_angle(x, below) @ powers)
        )
        for gate, t in zip(self.gates, log_tau, strict=True):
            m = y - self.start
            total = total + gate.power * (np.log(np.abs(m)) + 1j * _angle(m.real, -m.imag) + t)
        return np.asarray(total)

    def slope(self, y: Complex) -> Complex:
        """Return ``y d(ln z)/dy`` without the ``tau`` of general gates."""
        powers, vanishing = np.array(self.powers, dtype=float), self.shifts == 0
        x, below = y.real[..., None] + self.shifts[~vanishing], -y.imag[..., None]
        share = powers[~vanishing] / (x**2 + below**2)
        total = powers[vanishing].sum() + y * (
            (x * share).sum(axis=-1) + 1j * (below * share).sum(axis=-1)
        )
        extra = sum(gate.power for gate in self.gates)
        return np.asarray(total + extra * y / (y - self.start))

    def tail(self, y: Complex, log_tau: tuple[Complex, ...] = ()) -> Real:
        """Return ``P(Lambda > lambda) = Im A(m)/pi``."""
        powers, points = np.array(self.powers, dtype=float), np.array(self.points)
        imaginary = -(
            _angle(y.real[..., None] + self.shifts, -y.imag[..., None]) @ (powers * points)
        )
        imaginary = imaginary + (powers.sum() + sum(g.power for g in self.gates)) * y.imag
        for gate, t in zip(self.gates, log_tau, strict=True):
            argument = np.abs(
                np.angle(1 - np.array(gate.squares) * np.exp(-t[..., None]))
            )  # tau is in the upper half plane
            imaginary = imaginary + gate.power * gate.ratio * gate.mean(argument)
        return np.asarray(imaginary / np.pi)


def _angle(x: Real, below: Real) -> Real:
    """Return the argument of ``x - i below`` with its cut along the positive imaginary
    axis: analytic across the real axis, on which rounding may land.

    Real functions throughout: numpy's complex logarithm takes six times as long.
    """
    return np.asarray(np.arctan2(x, below) - np.pi / 2)


@lru_cache(maxsize=128)
def chain_equation(input_size: int, factors: tuple[SpectralFactor, ...]) -> ChainEquation:
    """Return the equation of a chain; equal layers are merged into powers."""
    points: Counter[float] = Counter({0.0: -1, 1.0: 1})
    gates: Counter[tuple[float, tuple[float, ...], tuple[float, ...]]] = Counter()
    log_scale, opened = 0.0, [1.0]
    for factor in factors:
        squares, probabilities = _open(factor)
        count = _rounded(factor.open_count / input_size)
        opened.append(count)
        if factor.haar:
            log_scale += math.log(factor.variance * factor.larger_width)
            points[_rounded(factor.larger_width / input_size)] -= 1
        else:
            log_scale += math.log(factor.variance) + math.log(input_size)
        if len(squares) == 1:
            log_scale += math.log(squares[0])
            points[count] += 1
        else:
            gates[(count, squares, probabilities)] += 1
    start = min(opened)
    kept = sorted((c, q) for c, q in points.items() if q)
    terms = tuple(
        GateTerm(count / math.fsum(p), d2, p, power, count - start)
        for (count, d2, p), power in gates.items()
    )
    return ChainEquation(
        log_scale,
        tuple(c for c, _ in kept),
        tuple(q for _, q in kept),
        terms,
        start,
        points[start] + sum(t.power for t in terms if t.excess == 0),
        _top_mass(input_size, factors),
    )


def _open(factor: SpectralFactor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the positive values of ``d^2`` and their probabilities."""
    pairs = [
        (d2, p)
        for d2, p in zip(factor.squared_gates, factor.probabilities, strict=True)
        if d2 > 0 and p > 0
    ]
    return tuple(d2 for d2, _ in pairs), tuple(p for _, p in pairs)


def _rounded(value: float) -> float:
    """Return ``value`` to 12 digits, so that equal widths are equal however they were
    computed.
    """
    return float(f"{value:.12g}")


def _top_mass(input_size: int, factors: tuple[SpectralFactor, ...]) -> float:
    if not all(factor.haar for factor in factors):
        return -math.inf
    lost = math.fsum(f.larger_width - f.fan_out * _open(f)[1][-1] for f in factors)
    return _rounded(1 - lost / input_size)
