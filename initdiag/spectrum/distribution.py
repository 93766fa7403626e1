"""A chain's spectrum as a distribution: density, CDF, quantiles and samples of ``ln
lambda``.

Density and tail are closed expressions in the solution ``m`` of the chain's equation
(see `equation`); what is left is to solve it at the points asked for: from the nearest
point of the phase curve, or, where there is none, by the homotopy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from initdiag._core.arrays import Complex, Real
from initdiag.law.distributions.base import LogLaw
from initdiag.spectrum import homotopy
from initdiag.spectrum.equation import ChainEquation, chain_equation
from initdiag.spectrum.homotopy import State
from initdiag.spectrum.phase import phase_curve, solve_from
from initdiag.spectrum.record import Atom, SpectralFactor, SpectralLaw

__all__ = ["SpectrumDistribution", "density_of", "law_of"]

_NODES = 801
"""Nodes of a table without a phase curve: twice as many move a mean log by 1e-7."""

_ROUNDING = 1e-9
"""Mass beside the atoms that counts as 0."""

_POLISH = 8
"""Newton steps of a quantile, from the table's interpolation, at most; two or three are
enough but for narrow bands.
"""

_QUANTILE = 1e-12
"""By which the CDF at a quantile may miss the wanted probability."""

_MARGIN = 1e-9
"""Share of the support at either end in which Newton's method is not asked to tell a
square root from 0.
"""

_REACH = 1e-9
"""Share of the mass below the table of such a spectrum, where it reaches 0."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Nodes ``ln lambda`` ascending with ``m + a`` and ``P(Lambda > lambda)``: from the
    phase curve, with its quadrature, or from the homotopy, with its state.
    """

    equation: ChainEquation
    atoms: tuple[Atom, ...]
    node: Real
    tail: Real
    y: Complex
    span: tuple[float, float] = (0.0, 0.0)
    """Where ``m`` is solved for; between it and the edges there is no mass to rounding.
    """
    weight: Real | None = None
    state: State | None = None

    def moment(self, n: int) -> float:
        """Return the integral of ``(ln lambda)^n`` over all eigenvalues that
        are not 0.
        """
        atoms = sum(atom.mass * atom.log_eigenvalue**n for atom in self.atoms)
        if self.weight is not None:
            return float(self.weight @ self.node**n + atoms)
        return self._moment_by_parts(n) + atoms if self.node.size else float(atoms)

    def _moment_by_parts(self, n: int) -> float:
        """Return ``[-x^n T] + int n x^(n-1) T dx`` for the continuous tail T, by the
        trapezium rule with end corrections from ``T' = -density``.
        """
        x, density = self.node, -self.y.imag / np.pi
        tail = self.tail - sum(
            (a.mass * (x < a.log_eigenvalue) for a in self.atoms), np.zeros_like(x)
        )
        values = n * x ** (n - 1) * tail
        slopes = n * (n - 1) * x ** max(n - 2, 0) * tail - n * x ** (n - 1) * density
        h = np.diff(x)
        cells = h * (values[1:] + values[:-1]) / 2 - h**2 * np.diff(slopes) / 12
        return float(x[0] ** n * tail[0] - x[-1] ** n * tail[-1] + cells.sum())

    def evaluate(self, x: Real) -> tuple[Real, Real]:
        """Return density and ``P(Lambda > lambda)`` at ``x = ln lambda``
        (one-dimensional, finite).
        """
        density, tail = np.zeros_like(x), self._steps(x)
        if not self.node.size:
            return density, tail
        tied = self.equation.ties > 1
        inside = (x <= self.span[1]) & ((x >= self.span[0]) | tied)
        if inside.any():
            density[inside], tail[inside] = self._solve(x[inside])
        return density, tail

    def _steps(self, x: Real) -> Real:
        """Return the tail outside the continuous part, where only atoms change it."""
        tail = np.zeros_like(x)
        for atom in self.atoms:
            tail += atom.mass * (x < atom.log_eigenvalue)
        if self.node.size:
            tail += (self.equation.start - sum(a.mass for a in self.atoms)) * (x < self.span[0])
        return tail

    def _solve(self, x: Real) -> tuple[Real, Real]:
        if self.state is None:
            y = solve_from(self.equation, self._near(x), x)
            tail = self.equation.tail(y)
        else:
            state, tail = self._continue(self.state, _off_atoms(x, self.atoms))
            y = state.y
        return np.maximum(-y.imag / np.pi, 0.0), np.clip(tail, 0.0, self.equation.start)

    def _near(self, x: Real) -> Complex:
        """Interpolate the phase curve; below it ``y`` goes like ``lambda^(1/ties)``."""
        log_y = np.log(self.y)
        below = np.minimum(x - self.node[0], 0) / self.equation.ties
        near = np.interp(x, self.node, log_y.real) + 1j * np.interp(x, self.node, log_y.imag)
        return np.asarray(np.exp(near + below))

    def _continue(self, state: State, x: Real) -> tuple[State, Real]:
        """Refine the table's states. A state that is lost, or leaves the tail's
        bracket, is followed all the way.
        """
        found, lost = homotopy.refine(self.equation, state.interpolate(self.node, x), x)
        tail = self.equation.tail(found.y, found.log_tau)
        right = np.clip(np.searchsorted(self.node, x), 1, len(self.node) - 1)
        lost |= (
            (x < self.node[0])
            | (tail > self.tail[right - 1] + _ROUNDING)
            | (tail < self.tail[right] - _ROUNDING)
        )
        if lost.any():
            found = found.replace(lost, homotopy.solve(self.equation, x[lost]))
            tail = self.equation.tail(found.y, found.log_tau)
        return found, tail


def _off_atoms(x: Real, atoms: tuple[Atom, ...]) -> Real:
    """Move ``x`` upwards off an atom, where ``m`` is infinite."""
    for atom in atoms:
        x = np.where(np.abs(x - atom.log_eigenvalue) < 1e-9, atom.log_eigenvalue + 1e-9, x)
    return x


@lru_cache(maxsize=32)
def _table(
    input_size: int,
    factors: tuple[SpectralFactor, ...],
    edges: tuple[float, float],
    atoms: tuple[Atom, ...],
) -> _Table:
    equation = chain_equation(input_size, factors)
    if equation.start - sum(a.mass for a in atoms) < _ROUNDING:
        return _Table(equation, atoms, np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.complex128))
    curve = None if equation.gates else phase_curve(equation)
    if curve is not None:
        return _Table(
            equation,
            atoms,
            curve.log_eigenvalue,
            curve.tail,
            curve.y,
            (curve.log_eigenvalue[0], curve.log_eigenvalue[-1]),
            weight=curve.weight,
        )
    low, high = edges if edges[0] > -np.inf else (_low_end(equation), edges[1])
    node = low + (high - low) * np.sin(np.pi / 2 * (np.arange(_NODES) + 0.5) / _NODES) ** 2
    margin = _MARGIN * (high - low)
    state = homotopy.solve(equation, _off_atoms(node, atoms))
    tail = np.minimum.accumulate(
        np.clip(equation.tail(state.y, state.log_tau), 0.0, equation.start)
    )
    return _Table(equation, atoms, node, tail, state.y, (low + margin, high - margin), state=state)


def _low_end(equation: ChainEquation) -> float:
    """Return ``ln lambda`` below which almost no mass is left, where the spectrum
    reaches 0.
    """
    return float(homotopy.log_eigenvalue_at_negative(equation, np.log([_REACH]))[0][0])


def _table_of(law: SpectralLaw) -> _Table:
    return _table(law.input_size, law.factors, (law.log_lower_edge, law.log_upper_edge), law.atoms)


def density_of(law: SpectralLaw, log_lambda: Real) -> Real:
    """Return the density of ``ln lambda`` at points of any shape."""
    flat = np.atleast_1d(log_lambda).ravel()
    density = np.zeros_like(flat)
    finite = np.isfinite(flat)
    density[finite] = _table_of(law).evaluate(flat[finite])[0]
    return density.reshape(log_lambda.shape)


def law_of(law: SpectralLaw) -> SpectrumDistribution:
    """Return the distribution of ``ln lambda`` given ``lambda > 0``."""
    return SpectrumDistribution(law)


class SpectrumDistribution(LogLaw):
    """Distribution of ``ln lambda`` given ``lambda > 0``; the record it came from is
    ``.spectrum``.
    """

    def __init__(self, spectrum: SpectralLaw) -> None:
        self.spectrum = spectrum
        self._share = 1 - spectrum.zero_mass
        low = spectrum.log_lower_edge
        if spectrum.atoms and spectrum.atoms[0].log_eigenvalue <= low:
            low = np.nextafter(
                low, -np.inf
            )  # scipy takes sf for 1 at the lower end: wrong at an atom
        super().__init__(a=low, b=spectrum.log_upper_edge, name="spectrum")

    def _updated_ctor_param(self) -> dict[str, Any]:
        return {"spectrum": self.spectrum}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.spectrum,)

    def _evaluate(self, x: Any) -> tuple[Real, Real]:
        flat = np.asarray(x, dtype=np.float64)
        density, tail = _table_of(self.spectrum).evaluate(flat.ravel())
        return density.reshape(flat.shape) / self._share, np.minimum(
            tail / self._share, 1.0
        ).reshape(flat.shape)

    def _pdf(self, x: Any) -> Real:
        return self._evaluate(x)[0]

    def _sf(self, x: Any) -> Real:
        return self._evaluate(x)[1]

    def _cdf(self, x: Any) -> Real:
        return 1 - self._evaluate(x)[1]

    def _ppf(self, q: Any) -> Real:
        wanted = (1 - np.asarray(q, dtype=np.float64)) * self._share
        return _inverse_tail(_table_of(self.spectrum), wanted.ravel()).reshape(wanted.shape)

    def _munp(self, n: int) -> float:
        return _table_of(self.spectrum).moment(n) / self._share


def _inverse_tail(table: _Table, wanted: Real) -> Real:
    """Return ``ln lambda`` with ``P(Lambda > lambda)`` as wanted: interpolation in the
    table, then safeguarded Newton steps.
    """
    position, tail = _with_atoms(table)
    index = np.clip(np.searchsorted(-tail, -wanted), 1, len(tail) - 1)
    low, high = position[index - 1], position[index]
    drop = tail[index - 1] - tail[index]
    part = np.clip((tail[index - 1] - wanted) / np.where(drop > 0, drop, 1.0), 0.0, 1.0)
    x = low + part * (high - low)
    below = wanted > tail[0]
    if (
        table.node.size and table.equation.ties > 1 and below.any()
    ):  # there the mass goes like lambda^(1/ties)
        ties, start = table.equation.ties, table.equation.start
        with np.errstate(divide="ignore"):
            log_part = np.log((start - wanted[below]) / (start - tail[0]))
        x[below] = table.node[0] + ties * log_part
        low[below], high[below] = x[below] - ties, table.node[0]
    inside = (high > low) & np.isfinite(x)
    x[inside] = _polish(table, wanted[inside], x[inside], low[inside], high[inside])
    return x


def _with_atoms(table: _Table) -> tuple[Real, Real]:
    """Return the table's nodes and tails, with two rows for each atom: just before it
    and at it.
    """
    position, tail = table.node, table.tail
    for atom in table.atoms:
        at = int(np.searchsorted(position, atom.log_eigenvalue))
        before = table.evaluate(np.array([atom.log_eigenvalue - 1e-8]))[1][0]
        position = np.insert(position, at, [atom.log_eigenvalue] * 2)
        tail = np.insert(tail, at, [before, max(before - atom.mass, 0.0)])
    return position, np.minimum.accumulate(tail)


def _polish(table: _Table, wanted: Real, x: Real, low: Real, high: Real) -> Real:
    for _ in range(_POLISH):
        density, value = table.evaluate(x)
        if np.all(np.abs(value - wanted) < _QUANTILE):
            break
        low, high = np.where(value > wanted, x, low), np.where(value > wanted, high, x)
        with np.errstate(divide="ignore", invalid="ignore"):
            new = x + (value - wanted) / density
        x = np.where((new >= low) & (new <= high), new, (low + high) / 2)
    return x
