"""Sums and products of free matrices: the laws of their eigenvalues.

The rules are written for the arguments ``omega_i`` at which the transforms of the
single laws agree (subordination; P. Biane, Math. Z. 227 (1998), 143), and followed by
Newton's method from ``z`` far up, for all laws at once. ``docs/theory/spectrum.md``
states them.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from initdiag._core.arrays import Complex, Real, complex_array
from initdiag._core.validation import number_in
from initdiag.errors import InvalidInput, explain
from initdiag.spectrum.free import series
from initdiag.spectrum.free.base import ROUNDING, Atoms, Law, meeting_atoms
from initdiag.spectrum.free.paths import descent, follow, inverse, slope, whole_turns_off

__all__ = ["FreeProduct", "FreeSum", "Scaled"]


@dataclass(frozen=True, slots=True)
class Scaled(Law):
    """The law of ``factor x``, ``factor > 0``."""

    law: Law
    factor: float

    def __post_init__(self) -> None:
        number_in(self.factor, "factor", 0.0, low_open=True)

    @property
    def mean(self) -> float:
        """The mean, times the factor."""
        return self.factor * self.law.mean

    @property
    def radius(self) -> float:
        """The bound, times the factor."""
        return self.factor * self.law.radius

    @property
    def atoms(self) -> Atoms:
        """The atoms, moved."""
        return {self.factor * x: mass for x, mass in self.law.atoms.items()}

    def moments(self, k: int) -> Real:
        """Return ``factor^j m_j``."""
        return np.asarray(self.law.moments(k) * self.factor ** np.arange(1.0, k + 1))

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``G(z/factor)/factor``."""
        return np.asarray(self.law.cauchy(complex_array(z) / self.factor) / self.factor)

    def r_transform(self, w: ArrayLike) -> Complex:
        """Return ``R(factor w)``."""
        return self.law.r_transform(self.factor * complex_array(w))

    def s_transform(self, m: ArrayLike) -> Complex:
        """Return ``S(m)/factor``."""
        return np.asarray(self.law.s_transform(m) / self.factor)


@dataclass(frozen=True, slots=True)
class FreeSum(Law):
    """The law of a sum of free matrices; ``a + b`` makes one."""

    terms: tuple[Law, ...]

    @classmethod
    def of(cls, *laws: Law) -> FreeSum:
        """Return the sum of the laws, sums among them taken apart."""
        terms: list[Law] = []
        for law in laws:
            terms.extend(law.terms if isinstance(law, FreeSum) else (law,))
        return cls(tuple(terms))

    @property
    def mean(self) -> float:
        """The sum of the means."""
        return math.fsum(law.mean for law in self.terms)

    @property
    def radius(self) -> float:
        """The sum of the bounds."""
        return math.fsum(law.radius for law in self.terms)

    @property
    def atoms(self) -> Atoms:
        """Sums of atoms whose masses exceed the room.

        (H. Bercovici and D. Voiculescu, Fields Inst. Commun. 12 (1997), 1.)
        """
        meet = functools.partial(meeting_atoms, operator.add)
        return functools.reduce(meet, (law.atoms for law in self.terms))

    def moments(self, k: int) -> Real:
        """Return the moments whose free cumulants are the sums."""
        cumulants = [series.cumulants_from_moments(law.moments(k)) for law in self.terms]
        return series.moments_from_cumulants(np.sum(cumulants, axis=0))

    def r_transform(self, w: ArrayLike) -> Complex:
        """Return the sum of the terms' transforms."""
        return np.asarray(np.sum([law.r_transform(w) for law in self.terms], axis=0))

    def s_transform(self, m: ArrayLike) -> Complex:
        """Solve ``R(m S(m)) = m``, which is true of any law."""
        m = complex_array(m)
        return np.asarray(inverse(self.r_transform, m, self.mean) / m)

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``G(z)``, as `Law.cauchy` says; ``z`` must not be a zero of ``G``
        either.

        (A symmetric law that has a gap about 0 has ``G(0) = 0``.)
        The unknowns are ``omega_1, ..., omega_k`` and ``f = 1/g``, in units of the
        radius.
        """
        count, unit = len(self.terms), self.radius

        def reciprocal(law: Law, omega: Complex) -> Complex:
            return np.asarray(1 / (unit * law.cauchy(unit * omega)))

        def step(unknowns: Complex, target: Complex) -> Complex:
            omega, f = unknowns[:-1], unknowns[-1]
            gaps, rates = np.empty_like(omega), np.empty_like(omega)
            for i, law in enumerate(self.terms):
                gaps[i] = reciprocal(law, omega[i]) - f
                rates[i] = slope(functools.partial(reciprocal, law), omega[i])
            excess = omega.sum(axis=0) - target - (count - 1) * f
            change = ((gaps / rates).sum(axis=0) - excess) / ((1 / rates).sum(axis=0) - count + 1)
            return np.concatenate([(change - gaps) / rates, change[None]])

        path = [point / unit for point in descent(complex_array(z), unit)]
        f = path[0] - self.mean / unit
        start = np.stack([*(f + law.mean / unit for law in self.terms), f])
        return np.asarray(1 / (unit * follow(step, start, path)[-1]))


@dataclass(frozen=True, slots=True)
class FreeProduct(Law):
    """The law of a product of free positive matrices; ``a @ b`` makes one.

    For two laws it is that of ``a^(1/2) b a^(1/2)``. With ``sizes`` the factors may be
    rectangular: the law is that of the eigenvalues of ``J^T J``, ``J = A_k ... A_1``.

    Attributes
    ----------
    factors : tuple of Law
        Laws of ``A_i^T A_i``, the first factor first.
    sizes : tuple of float, optional
        The number of columns of each ``A_i``, up to a common factor. None means that
        all matrices are square and of one size.
    """

    factors: tuple[Law, ...]
    sizes: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        wrong = [law for law in self.factors if law.mean <= 0]
        if wrong:
            raise InvalidInput(
                explain(
                    expected="laws on the positive half line",
                    got=f"{wrong[0]} with mean {wrong[0].mean:g}",
                    do="Multiply squared singular values, not a law with mean 0.",
                )
            )
        if self.sizes is not None and len(self.sizes) != len(self.factors):
            raise InvalidInput(
                explain(
                    expected=f"a size for each of the {len(self.factors)} factors",
                    got=f"{len(self.sizes)} sizes",
                    do="Give the number of columns of every factor.",
                )
            )
        for size in self.sizes or ():
            number_in(size, "a size", 0.0, low_open=True)

    @classmethod
    def of(cls, *laws: Law) -> FreeProduct:
        """Return the product of laws of one size, products among them taken apart."""
        factors: list[Law] = []
        for law in laws:
            if isinstance(law, FreeProduct) and law.sizes is None:
                factors.extend(law.factors)
            else:
                factors.append(law)
        return cls(tuple(factors))

    @property
    def _ratios(self) -> Sequence[float]:
        """The sizes in units of the first."""
        sizes = self.sizes or (1.0,) * len(self.factors)
        return [size / sizes[0] for size in sizes]

    @property
    def mean(self) -> float:
        """The product of the means."""
        return math.prod(law.mean for law in self.factors)

    @property
    def radius(self) -> float:
        """The product of the bounds."""
        return math.prod(law.radius for law in self.factors)

    @property
    def atoms(self) -> Atoms:
        """At 0 what the narrowest factor loses, elsewhere where atoms meet.

        A subspace that every factor only scales is left where their dimensions exceed
        the room (S. Belinschi, Math. Z. 243 (2003), 295).
        """
        found: Atoms = {1.0: 1.0}
        for law, size in zip(self.factors, self._ratios, strict=True):
            found = meeting_atoms(operator.mul, found, law.atoms, size)
        found.pop(0.0, None)
        kept = [
            size * (1 - law.atoms.get(0.0, 0.0))
            for law, size in zip(self.factors, self._ratios, strict=True)
        ]
        lost = 1 - min(1.0, *kept)
        return {0.0: lost, **found} if lost > ROUNDING else found

    def moments(self, k: int) -> Real:
        """Return the moments whose S-transform is the product."""
        total = np.eye(1, k)[0]
        for law, size in zip(self.factors, self._ratios, strict=True):
            one = series.s_series_from_moments(law.moments(k)) / size ** np.arange(k)
            total = series.product(total, one)
        return series.moments_from_s_series(total)

    def s_transform(self, m: ArrayLike) -> Complex:
        """Return the product of the factors' transforms, at ``m`` over their sizes."""
        m = complex_array(m)
        pairs = zip(self.factors, self._ratios, strict=True)
        return np.asarray(np.prod([law.s_transform(m / size) for law, size in pairs], axis=0))

    def r_transform(self, w: ArrayLike) -> Complex:
        """Solve ``R S(R) = w``, which is true of any law."""
        return inverse(lambda r: r * self.s_transform(r), complex_array(w), 1 / self.mean)

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``G(z)``, as `Law.cauchy` says; ``z`` is not 0.

        The unknowns are ``ln omega_1, ..., ln omega_k`` and ``ln m``. A factor of
        relative size ``c`` has the moment transform ``m/c``, and ``1/S = omega (m/c)/(1
        + m/c)``.
        """
        z, count = complex_array(z), len(self.factors)
        sizes = np.array(self._ratios).reshape(count, *(1,) * z.ndim)

        def log_moment(law: Law, log_omega: Complex) -> Complex:
            omega = np.exp(log_omega)
            return np.asarray(np.log(omega * law.cauchy(omega) - 1))

        def step(unknowns: Complex, target: Complex) -> Complex:
            log_omega, log_m = unknowns[:-1], unknowns[-1]
            gaps, rates = np.empty_like(log_omega), np.empty_like(log_omega)
            for i, law in enumerate(self.factors):
                gaps[i] = log_moment(law, log_omega[i])
                rates[i] = slope(functools.partial(log_moment, law), log_omega[i])
            m = np.exp(log_m) / sizes
            gaps = whole_turns_off(gaps - np.log(m))
            log_z = (log_omega + np.log(m / (1 + m))).sum(axis=0) + np.log1p(np.exp(log_m)) - log_m
            excess = whole_turns_off(log_z - np.log(target))
            kept = (1 / (1 + m)).sum(axis=0) - 1 / (1 + np.exp(log_m))
            change = ((gaps / rates).sum(axis=0) - excess) / (kept + (1 / rates).sum(axis=0))
            return np.concatenate([(change - gaps) / rates, change[None]])

        path = descent(z, self.radius)
        log_m = np.log(self.mean / path[0])
        means = np.array([law.mean for law in self.factors]).reshape(sizes.shape)
        start = np.concatenate([np.log(means * sizes) - log_m, log_m[None]])
        return np.asarray((1 + np.exp(follow(step, start, path)[-1])) / path[-1])
