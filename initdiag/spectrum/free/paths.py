"""Analytic equations solved along a path from where the answer is known.

The transforms have several branches. Following one solution continuously, by Newton's
method, from a place where there is only one keeps to the right branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from initdiag._core.arrays import Complex
from initdiag.errors import InitdiagError

__all__ = ["descent", "follow", "inverse", "slope", "whole_turns_off"]

Function = Callable[[Complex], Complex]
Step = Callable[[Complex, Complex], Complex]

_ITERATIONS = 60
"""Newton steps at one place of a path. About four are needed, and more at an edge of a
spectrum, where the solution has a square root and every step gains one bit."""

_ENOUGH, _LOST = 1e-13, 1e-6
"""A step below the first ends Newton's method; one above the second, at the path's end,
tells that it has failed. An edge's square root stops at about 1e-8, by rounding."""

_HEIGHTS = 1e3 * 0.5 ** np.arange(50)
"""Distances from the end of a path, in units of the law's radius. At 1,000 radii a law
looks like its mean to a part in 1,000; halving 49 times reaches 2e-12 radii."""

_FRACTIONS = np.linspace(0.02, 1.0, 50)
"""Places on the straight path from 0 to a transform's argument. Fifty are many times
more than the laws here need: the nearest singularity is usually as far away as the
argument."""

_DIFFERENCE = 1e-6
"""Relative step of numerical derivatives. They limit how fast Newton's method
converges, not its result."""


def slope(function: Function, x: Complex, scale: float = 1.0) -> Complex:
    """Return the derivative of an analytic function by a central difference."""
    h = _DIFFERENCE * scale
    return np.asarray((function(x + h) - function(x - h)) / (2 * h))


def whole_turns_off(difference: Complex) -> Complex:
    """Return a difference of two logarithms without its multiples of ``2 pi i``."""
    return np.asarray(difference - 2j * np.pi * np.round(difference.imag / (2 * np.pi)))


def follow(step: Step, start: Complex, path: Iterable[Complex]) -> Complex:
    """Follow unknowns of order one along a path of targets.

    Parameters
    ----------
    step : callable
        Maps the unknowns and a target to Newton's corrections.
    start : ndarray
        The unknowns at the first target, to Newton's reach.
    path : iterable of ndarray
        The targets, in order.

    Returns
    -------
    ndarray
        The unknowns at the last target.

    Raises
    ------
    InitdiagError
        If Newton's method fails at the last target.
    """
    unknowns, size = start, np.inf
    for target in path:
        before = np.inf
        for _ in range(_ITERATIONS):
            with np.errstate(all="ignore"):  # what is not finite is refused below
                correction = step(unknowns, target)
                steps = np.abs(correction) / (1 + np.abs(unknowns))
                unknowns = unknowns + correction / np.maximum(1.0, steps)
                size = np.max(steps, initial=0.0)
            if size < _ENOUGH or before <= size < _LOST:  # done, or down to rounding
                break
            before = size
    if not size < _LOST:
        raise InitdiagError(
            "a transform could not be followed to the point asked for: it lies on an atom or "
            "beyond the transform's domain. Ask for the density at a small height above an "
            "atom, and for R and S nearer to 0."
        )
    return unknowns


def descent(z: Complex, radius: float) -> list[Complex]:
    """Return the path from far above down to ``z``, which may be far above itself."""
    needed = _HEIGHTS[_HEIGHTS * radius > z.imag.min(initial=np.inf) / 2]
    return [*(z + 1j * radius * height for height in needed), z]


def inverse(function: Function, value: Complex, slope_at_zero: float) -> Complex:
    """Return the ``x`` with ``function(x) = value``, on the branch through 0.

    Parameters
    ----------
    function : callable
        Analytic at 0, where it is 0.
    value : ndarray
        No entry is 0.
    slope_at_zero : float
        The function's derivative at 0, which is not 0.
    """

    def log_function(log_x: Complex) -> Complex:
        return np.asarray(np.log(function(np.exp(log_x))))

    def step(log_x: Complex, target: Complex) -> Complex:
        residual = whole_turns_off(log_function(log_x) - np.log(target))
        return np.asarray(-residual / slope(log_function, log_x))

    start = np.log(_FRACTIONS[0] * value / slope_at_zero)
    return np.asarray(np.exp(follow(step, start, [f * value for f in _FRACTIONS])))
