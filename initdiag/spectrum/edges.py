"""Where a chain's spectrum begins and ends, and its atoms.

Outside the spectrum ``m(z)`` is real and monotone up to the first critical point, which
is an edge; a chain of Haar layers may have an atom there. ``docs/theory/spectrum.md``
derives both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from initdiag._core.arrays import Real
from initdiag.spectrum.equation import ChainEquation, GateTerm
from initdiag.spectrum.record import Atom, SpectralFactor

__all__ = ["atoms", "log_lower_edge", "log_upper_edge", "real_tau"]

_LOG_TAU = 500.0
"""Bracket of ``ln|tau|`` and its like: squared gates are at least 1e-200."""

_ROUNDING = 1e-12
"""Atoms of a smaller mass count as 0."""

_BISECTIONS = 64
"""They leave 500/2^63 of the bracket: rounding."""

_SCAN = np.linspace(-30.0, 28.0, 1161)
"""Log-distances (from ``m = 0`` or ``m = -a``) among which the first critical point is
looked for, in steps of 5 %.
"""


def log_upper_edge(equation: ChainEquation, found: tuple[Atom, ...] = ()) -> float:
    """Return ``ln`` of the largest eigenvalue; ``found`` are the atoms."""

    def y_and_m(v: Real) -> tuple[Real, Real]:
        return equation.start + np.exp(v), np.exp(v)

    root = _first_critical(equation, y_and_m)
    if root is None and found:
        return found[-1].log_eigenvalue
    if root is None:  # the limit m -> infinity
        return equation.log_scale + math.fsum(
            g.power * math.log(g.squares[-1]) for g in equation.gates
        )
    return _log_eigenvalue(equation, *root)


def log_lower_edge(equation: ChainEquation, found: tuple[Atom, ...] = ()) -> float:
    """Return ``ln`` of the smallest eigenvalue that is not 0; ``-inf`` if the spectrum
    reaches 0.
    """
    if equation.ties > 1:
        return -math.inf
    barrier = _next_singularity(equation)

    def y_and_m(v: Real) -> tuple[Real, Real]:
        y = -np.exp(v) if barrier is None else -barrier / (1 + np.exp(-v))
        return y, y - equation.start

    root = _first_critical(equation, y_and_m)
    if root is None:
        return found[0].log_eigenvalue if found else -math.inf
    return _log_eigenvalue(equation, *root)


def _next_singularity(equation: ChainEquation) -> float | None:
    """Return the distance below ``-a`` of the next zero or pole of ``z(m)``."""
    net = dict(zip(equation.points, equation.powers, strict=True))
    for gate in equation.gates:
        point = equation.start + gate.excess
        near = next((c for c in net if math.isclose(c, point, rel_tol=1e-11)), point)
        net[near] = net.get(near, 0) + gate.power
    beyond = [c - equation.start for c, q in net.items() if q and c > equation.start * (1 + 1e-11)]
    return min(beyond) if beyond else None


def _first_critical(
    equation: ChainEquation, y_and_m: Callable[[Real], tuple[Real, Real]]
) -> tuple[Real, Real] | None:
    """Return ``y`` and ``m`` at the first zero of ``dz/dm`` along the given line, ``v``
    rising.
    """

    def derivative(v: Real) -> Real:
        return _slope(equation, *y_and_m(v))

    signs = np.sign(derivative(_SCAN))
    turns = np.flatnonzero(signs[1:] != signs[0])
    if not turns.size:
        return None
    low, high = _SCAN[turns[0]], _SCAN[turns[0] + 1]
    v = optimize.brentq(lambda x: float(derivative(np.array([x]))[0]), low, high, xtol=1e-13)
    return y_and_m(np.array([v]))


def _slope(equation: ChainEquation, y: Real, m: Real) -> Real:
    """Return ``d(ln z)/dm`` at real ``m = y - a`` outside the spectrum."""
    factors = [m if point == 0 else y + (point - equation.start) for point in equation.points]
    total = np.array([q / f for f, q in zip(factors, equation.powers, strict=True)]).sum(axis=0)
    for gate in equation.gates:
        tau, gap = real_tau(gate, y, m)
        rate = ((tau[:, None] / gap) * (np.array(gate.squares) / gap)) @ np.array(
            gate.probabilities
        )
        total = total + gate.power * (1 / m - 1 / (gate.ratio * rate))
    return np.asarray(total)


def real_tau(gate: GateTerm, y: Real, m: Real) -> tuple[Real, Real]:
    """Return ``tau`` and ``tau - d^2`` (values last) for real ``m = y - a`` outside the
    spectrum, ``y`` and ``m`` each to full accuracy.

    By bisection in a logarithm ``v``, for all ``m`` at once (scipy's ``brentq`` takes
    one equation at a time, and a scan asks for a thousand): ``tau`` is above the values
    for ``m > 0``, negative for ``m < 0``, and between 0 and the values where
    ``E[tau/(tau - d^2); open]`` is negative (below ``m = -a``). That equation is used
    near ``m = -a``, ``E[d^2/(tau - d^2)] = m/ratio`` near ``m = 0``.
    """
    squares, probabilities = np.array(gate.squares), np.array(gate.probabilities)
    share, x = gate.share(y), m / gate.ratio
    above, between = m > 0, (m < 0) & (share < 0)
    near_zero = above | (~between & (-x < share))
    low, high = np.full_like(y, -_LOG_TAU), np.full_like(y, _LOG_TAU)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tau, gap = _tau_and_gap(squares, above, between, middle)
        value = (np.where(near_zero[:, None], squares, tau[:, None]) / gap) @ probabilities
        below = (value < np.where(near_zero, x, share)) ^ above
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _tau_and_gap(squares, above, between, (low + high) / 2)


def _tau_and_gap(
    squares: Real, above: NDArray[np.bool_], between: NDArray[np.bool_], v: Real
) -> tuple[Real, Real]:
    """Return ``tau(v)`` and ``tau - d^2`` (gate's values last) without cancellation."""
    e, largest, least = np.exp(v), squares[-1], squares[0]
    tau = np.where(above, largest * (1 + e), np.where(between, least / (1 + e), -e))
    base = np.where(above, largest, np.where(between, least, 0.0))
    rest = np.where(above, largest * e, np.where(between, -least * e / (1 + e), -e))
    return tau, (base[:, None] - squares) + rest[:, None]


def _log_eigenvalue(equation: ChainEquation, y: Real, m: Real) -> float:
    log_tau = tuple(np.log(real_tau(g, y, m)[0].astype(complex)) for g in equation.gates)
    return float(equation.log_eigenvalue(y.astype(complex), log_tau).real[0])


def atoms(input_size: int, factors: tuple[SpectralFactor, ...]) -> tuple[Atom, ...]:
    """Return the atoms away from 0, ascending."""
    if not all(factor.haar for factor in factors):
        return ()
    choices = [
        sorted(zip(f.probabilities, f.squared_gates, strict=True), reverse=True) for f in factors
    ]
    likeliest = [options[0] for options in choices]
    picks = [likeliest]
    for index, options in enumerate(choices):
        picks.extend(
            [*likeliest[:index], option, *likeliest[index + 1 :]] for option in options[1:]
        )
    found: dict[float, float] = {}
    for pick in picks:
        mass = _intersection(input_size, factors, pick)
        if mass > _ROUNDING and all(d2 > 0 for _, d2 in pick):
            position = math.fsum(
                math.log(f.variance * f.larger_width * d2)
                for f, (_, d2) in zip(factors, pick, strict=True)
            )
            found[position] = found.get(position, 0.0) + mass
    return tuple(Atom(position, mass) for position, mass in sorted(found.items()))


def _intersection(
    input_size: int, factors: tuple[SpectralFactor, ...], pick: list[tuple[float, float]]
) -> float:
    """Return the share of the input space that every layer maps by the picked value
    alone; it is negative if there is none.
    """
    lost = math.fsum(
        f.larger_width - f.fan_out * p for f, (p, _) in zip(factors, pick, strict=True)
    )
    return 1 - lost / input_size
