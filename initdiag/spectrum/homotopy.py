"""The spectrum of any chain at any wanted eigenvalue: one path through the upper half
plane.

The solution at ``z = -lambda``, where all is real and monotone, is followed along ``z =
lambda exp(i phi)`` from ``phi = pi`` to 0 by Newton's method in ``ln y`` and ``ln
tau_g``, for all ``lambda`` at once. ``docs/theory/spectrum.md`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from initdiag._core.arrays import Complex, Real
from initdiag.errors import InitdiagError
from initdiag.spectrum.edges import real_tau
from initdiag.spectrum.equation import ChainEquation, GateTerm

__all__ = ["State", "log_eigenvalue_at_negative", "refine", "solve"]

_PATHS = (0.6, 0.9, 0.98)
"""Ratios of successive arguments of ``z``: a finer path for what the one before has
lost. They decide what it costs, not what comes out: see `_LOST`.
"""

_LAST = 1e-7
"""Argument from which the path steps to 0."""

_LOOSE, _TIGHT = 1e-5, 1e-13
"""Steps in ``ln y`` that end Newton's method on the path, where a point need only lead
to the next, and at its end, where the error is the step's square: rounding.
"""

_LOST, _WRONG_SIDE = 1e-9, 1e-5
"""Residual in ``ln z``, and share of ``y`` on the wrong side of the real axis, that
tell of a point that was lost.
"""

_LOGIT = np.linspace(-1.0, 1.0, 1201)
"""Nodes of the table at negative ``z``, to be stretched."""

_LEAST_LOG_TAU = -600.0
"""Squared gates are at least 1e-200, and no ``tau`` on the way is much below what they
are times the smallest ``y``.
"""

_LARGEST_LOGIT = 36.0
"""``ln(y/(a - y))`` of the table's ends, where ``y`` is ``a`` to rounding: outside,
Newton's method extrapolates.
"""


@dataclass(frozen=True, slots=True)
class State:
    """``ln y`` and ``ln tau_g`` at every wanted eigenvalue."""

    log_y: Complex
    log_tau: tuple[Complex, ...]

    def interpolate(self, node: Real, x: Real) -> State:
        """Return the linear interpolation at ``x`` of states at the ascending
        ``node``.
        """
        log_y, *log_tau = (
            np.interp(x, node, v.real) + 1j * np.interp(x, node, v.imag)
            for v in (self.log_y, *self.log_tau)
        )
        return State(log_y, tuple(log_tau))

    def replace(self, where: NDArray[np.bool_], other: State) -> State:
        """Return the state with the entries ``where`` taken from ``other``,
        in order.
        """
        merged = []
        for mine, theirs in zip(
            (self.log_y, *self.log_tau), (other.log_y, *other.log_tau), strict=True
        ):
            new = mine.copy()
            new[where] = theirs
            merged.append(new)
        return State(merged[0], tuple(merged[1:]))

    @property
    def y(self) -> Complex:
        """``m + a``."""
        return np.asarray(np.exp(self.log_y))


def solve(equation: ChainEquation, log_lambda: Real) -> State:
    """Return the state at ``z = lambda + i0``, one entry for each of the
    one-dimensional ``log_lambda``.

    Raises
    ------
    InitdiagError
        If Newton's method loses the path: not known to happen away from the edges.
    """
    zeros = np.zeros(log_lambda.shape, dtype=np.complex128)
    state, lost = (
        State(zeros, (zeros,) * len(equation.gates)),
        np.ones(log_lambda.shape, dtype=bool),
    )
    for ratio in _PATHS:
        found, wrong = _follow(equation, log_lambda[lost], ratio)
        state = state.replace(lost, found)
        lost[lost] = wrong
        if not lost.any():
            return state
    raise InitdiagError(
        f"the spectrum's equation was not solved at ln(lambda) = {log_lambda[lost][:3]}: please "
        "report it, with the widths"
    )


def _follow(
    equation: ChainEquation, log_lambda: Real, ratio: float
) -> tuple[State, NDArray[np.bool_]]:
    """Return the state at the path's end, and where it was lost."""
    state = _at_negative(equation, log_lambda)
    phi = np.pi
    while phi > _LAST:
        phi *= ratio
        state, _ = _newton(equation, state, np.asarray(log_lambda + 1j * phi), 6, _LOOSE)
    return refine(equation, state, log_lambda)


def refine(
    equation: ChainEquation, state: State, log_lambda: Real
) -> tuple[State, NDArray[np.bool_]]:
    """Return the state at ``z = lambda`` from a near one, and where it was lost."""
    state, residual = _newton(equation, state, log_lambda.astype(np.complex128), 60, _TIGHT)
    right_side = state.y.imag <= _WRONG_SIDE * np.abs(state.y)
    # a number that is not finite is lost, too
    return state, ~(right_side & (residual <= _LOST))


def log_eigenvalue_at_negative(
    equation: ChainEquation, logit: Real
) -> tuple[Real, tuple[Complex, ...]]:
    """Return ``ln lambda``, and the ``ln tau_g``, at which ``m(-lambda) = y - a``,
    ``logit = ln(y/(a - y))``.
    """
    y, m = equation.start / (1 + np.exp(-logit)), -equation.start / (1 + np.exp(logit))
    log_tau = tuple(np.log(-real_tau(gate, y, m)[0]) + 1j * np.pi for gate in equation.gates)
    return np.asarray(equation.log_eigenvalue(y.astype(complex), log_tau).real), log_tau


def _at_negative(equation: ChainEquation, log_lambda: Real) -> State:
    """Return the state at ``z = -lambda``, where ``y`` is real and ``tau`` negative,
    from a table.
    """
    logit = np.sinh(6 * _LOGIT) / np.sinh(6) * _LARGEST_LOGIT
    values, log_tau = log_eigenvalue_at_negative(equation, logit)
    wanted = np.interp(log_lambda, values, logit)
    log_y = np.log(equation.start) - np.logaddexp(0, -wanted)
    start = State(log_y + 0j, tuple(np.interp(wanted, logit, t.real) + 1j * np.pi for t in log_tau))
    return _newton(equation, start, np.asarray(log_lambda + 1j * np.pi), 8, _TIGHT)[0]


def _newton(
    equation: ChainEquation, state: State, log_z: Complex, count: int, enough: float
) -> tuple[State, Real]:
    """Return the state after at most ``count`` steps, or a step of size ``enough``, and
    what was left of the equation before the last.
    """
    residual = np.zeros(log_z.shape)
    with np.errstate(all="ignore"):  # what is not finite counts as lost
        for _ in range(count):
            state, residual, step = _newton_step(equation, state, log_z)
            if step.max() < enough:
                break
    return state, residual


def _newton_step(equation: ChainEquation, state: State, log_z: Complex) -> tuple[State, Real, Real]:
    y = state.y
    residual, slope = equation.log_eigenvalue(y, state.log_tau) - log_z, equation.slope(y)
    linear = []
    for gate, t in zip(equation.gates, state.log_tau, strict=True):
        shift, rate = _gate_step(gate, y, np.asarray(y - equation.start), t)
        residual, slope = residual + gate.power * shift, slope + gate.power * rate
        linear.append((shift, rate))
    step = -residual / slope
    step = step / np.maximum(1.0, np.abs(step))
    log_tau = tuple(
        t + shift + rate * step for t, (shift, rate) in zip(state.log_tau, linear, strict=True)
    )
    return State(state.log_y + step, log_tau), np.abs(residual), np.abs(step)


def _gate_step(gate: GateTerm, y: Complex, m: Complex, log_tau: Complex) -> tuple[Complex, Complex]:
    """Return ``(shift, rate)``: the gate's equation asks for ``d ln tau = shift + rate
    d ln y``.

    ``E[tau/(tau - d^2); open] = share`` or ``E[d^2/(tau - d^2)] = m/ratio``, whichever
    sides are smaller: no digits are lost.
    """
    inverse = (
        np.array(gate.squares)
        * np.exp(-np.maximum(log_tau.real, _LEAST_LOG_TAU) - 1j * log_tau.imag)[..., None]
    )
    fraction = 1 / (1 - inverse)  # tau/(tau - d^2)
    closeness = inverse * fraction  # d^2/(tau - d^2), which is fraction - 1
    share, moment = gate.mean(fraction), gate.mean(closeness)
    use_share = np.abs(share) < np.abs(moment)
    value = np.where(use_share, share, moment)
    wanted = np.where(use_share, gate.share(y), m / gate.ratio)
    derivative = -gate.mean(closeness * fraction) / value  # d ln value / d ln tau
    return np.asarray(np.log(wanted / value) / derivative), np.asarray(
        (y / gate.ratio / wanted) / derivative
    )
