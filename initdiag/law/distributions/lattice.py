"""Distribution functions of chains of Haar weights and leaky gates whose transforms
hardly decay: by convolution on a lattice.

The law is bounded above, and each summand is laid out as atoms ``A`` on the lattice and
masses ``g`` in its cells. ``docs/theory/distribution-functions.md`` derives how sums of
points ``P`` and cells ``C`` are formed, ``C <- C (A + g (1 + z)/2) + P g, P <- P A``,
and what is smeared by that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, interpolate, special

from initdiag.law.distributions.line import safe_log
from initdiag.law.distributions.mixture import FLOOR, GivenOpen, given_open
from initdiag.law.distributions.transforms import Factor, Tilt

__all__ = ["LatticeInversion"]

Array = NDArray[np.float64]
ComplexArray = NDArray[Any]

_CELLS, _MOST_CELLS = 1 << 18, 1 << 21
"""Cells of the whole law, and of all cases (numbers of open gates) of its layers
together.
"""

_LOGIT_END, _LOGIT_STEP = 90.0, 0.02
"""The slowest tails of a logit of Beta are ``exp(-|y|/2)``: 3e-20 at the ends.

Cubic splines on the step are good to 1e-9 of the density.
"""

_LEAST = 1e-18
"""Tails below it are cut off."""

_ROUNDING = 1e-7
"""Rounding of a place on the lattice, in steps."""

_NEAR = 1e-13
"""An atom counts as met this near to it, relatively: its place is a sum of logarithms.
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Summand:
    """One independent part of ``W``: atoms at 0 and at ``span``, and between them a
    density, given by that of a logit.

    Attributes
    ----------
    atoms : tuple of float
        Masses at 0 and at ``span``.
    span : float
        ``ln(a^2/b^2)``, or infinite.
    reach : float
        Up to where there is mass to speak of.
    lower : callable
        Mass of the density below a logit, which falls as ``W`` grows.
    mass : float
        Mass of the density.
    """

    atoms: tuple[float, float]
    span: float
    reach: float
    lower: Any
    mass: float

    @classmethod
    def of(
        cls,
        y: Array,
        density: Array,
        atoms: tuple[float, float],
        span: float,
        least: float = _LEAST,
    ) -> _Summand:
        """Return the summand whose logit has ``density`` (up to a factor) at the nodes
        ``y``; a tail below ``least`` is cut off.
        """
        mass = max(1 - sum(atoms), 0.0) if density.any() else 0.0
        lower = interpolate.CubicSpline(y, density).antiderivative() if mass else None
        if lower is None or math.isfinite(span):
            return cls(atoms, span, span, lower, mass)
        first = int(np.searchsorted(lower(y) / lower(y[-1]), least))
        return cls(atoms, span, float(np.logaddexp(0.0, -y[first])), lower, mass)

    def cells(self, step: float) -> Array:
        """Return the masses of the density in the cells of a lattice, from 0 on."""
        edges = step * np.arange(1.0, math.ceil(self.reach / step + 1e-6))
        with np.errstate(divide="ignore"):
            logit = (
                np.log(-np.expm1(np.minimum(edges - self.span, 0.0)))
                - edges
                - np.log(-np.expm1(-edges))
            )
        y = np.clip(np.concatenate([[math.inf], logit, [-math.inf]]), -_LOGIT_END, _LOGIT_END)
        masses = np.maximum(-np.diff(self.lower(y)), 0.0)
        return np.asarray(masses * (self.mass / masses.sum()))


@dataclass(frozen=True, slots=True, eq=False)
class _Lattice:
    """A circle of ``size`` points of distance ``step``; laws on it are real Fourier
    transforms.
    """

    step: float
    size: int

    def points(self, places: Sequence[float], masses: Sequence[float]) -> ComplexArray:
        """Return the transform of atoms; one between two points is shared."""
        values = np.zeros(self.size)
        for place, mass in zip(places, masses, strict=True):
            index, share = divmod(place / self.step + _ROUNDING, 1.0)
            share = max(share - 2 * _ROUNDING, 0.0)
            values[int(index)] += mass * (1 - share)
            values[int(index) + 1] += mass * share
        return np.asarray(fft.rfft(values))

    def cells(self, masses: Array) -> ComplexArray:
        """Return the transform of the masses of cells, the first one at 0."""
        return np.asarray(fft.rfft(masses, self.size))

    @property
    def halves(self) -> ComplexArray:
        """``(1 + z)/2``: one half to the next cell."""
        return np.asarray((1 + np.exp(-2j * np.pi * np.arange(self.size // 2 + 1) / self.size)) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sums of masses in a row: of the first ``i`` and of the others, each added up from
    its own end.
    """

    nearer: Array
    beyond: Array

    @classmethod
    def of(cls, masses: Array) -> _Sums:
        """Return the sums of these masses, one more than there are."""
        nearer, beyond = (np.concatenate([[0.0], np.cumsum(one)]) for one in (masses, masses[::-1]))
        return cls(nearer, beyond[::-1])


class LatticeInversion:
    """Tails and density of a sum of Haar factors of one or two gate values each,
    relative to the sum of their locations.

    Parameters
    ----------
    factors : sequence of Factor
        All of Haar weights, none of them constant.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.edge = math.fsum(factor.count * _edge(factor) for factor in factors)
        tilts = [factor.tilted(0.0).whole for factor in factors]
        self.center = Tilt(
            0.0, math.fsum(t.mean for t in tilts), math.fsum(t.variance for t in tilts)
        )
        layers = [(list(_cases(factor)), factor.count) for factor in factors]
        self._lattice = _lattice(layers)
        self._places, masses = _atoms(layers)
        cells = np.maximum(fft.irfft(_rest(layers, self._lattice), self._lattice.size), 0.0)
        cells *= max(1 - masses.sum(), 0.0) / (cells.sum() or 1.0)
        self._density = cells / self._lattice.step
        self._cells, self._atoms = _Sums.of(cells), _Sums.of(masses)

    @property
    def has_atoms(self) -> bool:
        """Whether single values have a probability of their own."""
        return bool(self._places.size)

    def log_tail(self, x: Array, side: int) -> Array:
        """Return ``ln P(Y > x)`` (``side`` 1) or ``ln P(Y <= x)`` (-1)."""
        w = self.edge - x
        # the atoms above x
        met = np.searchsorted(self._places, w - _NEAR * (1 + np.abs(x)))
        cells, atoms = (
            sums.nearer if side > 0 else sums.beyond for sums in (self._cells, self._atoms)
        )
        probability = np.interp(w / self._lattice.step, np.arange(cells.size), cells) + atoms[met]
        return np.minimum(safe_log(probability), 0.0)

    def on_atoms(self, x: Array) -> Array:
        """Return ``x``, what is an atom up to rounding in its place."""
        if not self.has_atoms:
            return x
        places = self.edge - self._places[::-1]
        after = np.clip(np.searchsorted(places, x), 1, max(places.size - 1, 1))
        nearest = np.array([places[after - 1], places[np.minimum(after, places.size - 1)]])
        nearest = np.take_along_axis(nearest, np.abs(nearest - x).argmin(axis=0)[None], axis=0)[0]
        return np.where(np.abs(nearest - x) <= 2 * _NEAR * (1 + np.abs(x)), nearest, x)

    def log_density(self, x: Array) -> Array:
        """Return the log of the density, the atoms apart."""
        index = np.floor((self.edge - x) / self._lattice.step)
        inside = (index >= 0) & (index < self._density.size)
        return safe_log(
            np.where(inside, self._density[np.where(inside, index, 0).astype(int)], 0.0)
        )


_Case = tuple[float, list[_Summand]]


def _cases(factor: Factor) -> Iterator[_Case]:
    """Yield the numbers of open gates: their probability, and the independent summands
    of ``W`` given it.
    """
    assert factor.layer.gate is not None
    n = 2 * factor.half_radius
    for case in given_open(factor.layer.gate, factor.layer.fan_out, FLOOR):
        summands = [_direction(case)] if case.low < case.high else []
        yield case.probability, [*summands, *([_radius(case, n)] if case.k < n else [])]


def _edge(factor: Factor) -> float:
    """Return ``ln(v N a^2)`` of one layer relative to its location; `Factor.edges`
    leaves out what is improbable.
    """
    layer = factor.layer
    assert layer.gate is not None
    largest = max(
        abs(d) for d, p in zip(layer.gate.values, layer.gate.probabilities, strict=True) if p
    )
    return math.log(2 * layer.weight_variance * factor.half_radius * largest**2) - factor.location


def _nodes(narrowest: float) -> Array:
    """Return the number of nodes in a logit, for a density as narrow as this."""
    step = min(_LOGIT_STEP, narrowest / 20)
    return np.linspace(-_LOGIT_END, _LOGIT_END, 2 * math.ceil(_LOGIT_END / step) + 1)


def _direction(case: GivenOpen) -> _Summand:
    y = _nodes(math.sqrt(3 / (case.k * case.share * (1 - case.share))))
    weights = case.weights(y, FLOOR)
    low, high = weights[-2:].tolist()
    return _Summand.of(y, weights[:-2], (high, low), math.log(case.high / case.low))


def _radius(case: GivenOpen, n: float) -> _Summand:
    a, b = case.k / 2, (n - case.k) / 2
    y = _nodes(math.sqrt(1 / a + 1 / b))
    density = np.exp(a * y - (a + b) * np.logaddexp(0.0, y) - special.betaln(a, b))
    return _Summand.of(y, density, (0.0, 0.0), math.inf, _LEAST / case.probability)


def _lattice(layers: Sequence[tuple[list[_Case], int]]) -> _Lattice:
    """Return a lattice that holds all summands, and on which the first one's span is a
    whole number of steps.
    """
    ranges = [
        count * max(math.fsum(s.reach for s in summands) for _, summands in cases)
        for cases, count in layers
    ]
    length = math.fsum(ranges)
    spans = [
        s.span
        for cases, _ in layers
        for _, summands in cases
        for s in summands
        if math.isfinite(s.span)
    ]
    cells = min(_CELLS, _MOST_CELLS // sum(len(cases) for cases, _ in layers))
    step = spans[0] / math.ceil(spans[0] * cells / length) if spans else length / cells
    pieces = sum(2 * count for _, count in layers)
    return _Lattice(
        step, fft.next_fast_len(2 * math.ceil(length / step / 2) + 2 * pieces + 4, real=True)
    )


def _rest(layers: Sequence[tuple[list[_Case], int]], lattice: _Lattice) -> ComplexArray:
    """Return the transform of the cells of the whole law, its atoms apart."""
    halves = lattice.halves
    points, rest = np.ones_like(halves), np.zeros_like(halves)
    for cases, count in layers:
        atoms, cells = np.zeros_like(halves), np.zeros_like(halves)
        for probability, summands in cases:
            a, g = np.ones_like(halves), np.zeros_like(halves)
            for summand in summands:
                a, g = _added(a, g, *_transforms(summand, lattice), halves)
            atoms, cells = atoms + probability * a, cells + probability * g
        for _ in range(count):
            points, rest = _added(points, rest, atoms, cells, halves)
    return rest


def _added(
    points: ComplexArray,
    rest: ComplexArray,
    atoms: ComplexArray,
    cells: ComplexArray,
    halves: ComplexArray,
) -> tuple[ComplexArray, ComplexArray]:
    return points * atoms, rest * (atoms + cells * halves) + points * cells


def _transforms(summand: _Summand, lattice: _Lattice) -> tuple[ComplexArray, ComplexArray]:
    finite = [
        (at, mass) for at, mass in zip((0.0, summand.span), summand.atoms, strict=True) if mass
    ]
    atoms = lattice.points([at for at, _ in finite], [mass for _, mass in finite])
    cells = lattice.cells(summand.cells(lattice.step)) if summand.mass else np.zeros_like(atoms)
    return atoms, cells


def _atoms(layers: Sequence[tuple[list[_Case], int]]) -> tuple[Array, Array]:
    """Return the places, as ``W``, and the masses of the law's atoms: what has every
    layer at one of its own.
    """
    places, masses = np.zeros(1), np.ones(1)
    for cases, count in layers:
        own: dict[float, float] = {}
        for probability, summands in cases:
            if len(summands) == 1 or not summands:
                span, (at_zero, at_span) = (
                    (summands[0].span, summands[0].atoms) if summands else (0.0, (1.0, 0.0))
                )
                for place, mass in ((0.0, at_zero), (span, at_span)):
                    own[place] = own.get(place, 0.0) + probability * mass
        for _ in range(count):
            places, masses = _convolved(places, masses, [(p, m) for p, m in own.items() if m])
    return places, masses


def _convolved(
    places: Array, masses: Array, own: Sequence[tuple[float, float]]
) -> tuple[Array, Array]:
    """Add a layer's atoms; those at one place are one, those too small to be
    seen none.
    """
    if not own:
        return np.empty(0), np.empty(0)
    all_places = np.concatenate([places + at for at, _ in own])
    all_masses = np.concatenate([masses * mass for _, mass in own])
    order = np.argsort(all_places)
    sums, ordered = all_masses[order], all_places[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1.0) > _NEAR * (1 + ordered))
    merged = np.add.reduceat(sums, starts) if starts.size else sums
    keep = merged > _LEAST
    return ordered[starts][keep], merged[keep]
