"""The transforms of free probability, for the laws that products of random matrices are made of.

Conventions, for a law with moments ``m_n``, in all of this file:

- Cauchy transform ``G(z) = E 1/(z - x) = sum m_n/z^(n+1)``; the density is ``-(1/pi) lim Im G(x + i0)`` (Stieltjes inversion);
- moment transform ``M(w) = sum_{n >= 1} m_n w^n = G(1/w)/w - 1``;
- R-transform ``1 + R(G(z)) = z G(z)``, equivalently ``R(w (1 + M(w))) = M(w)``: ``w`` times what others call R;
- S-transform ``S(z G(z) - 1) = G(z)/(z G(z) - 1)``, equivalently ``S(M(w)) = w (1 + M(w))/M(w)``.

For free variables R adds under sums and S multiplies under products (Voiculescu). R and S have branches (already for two fair projections the
right one changes in mid-spectrum), ``G`` in the upper half plane has none. So `FreeSum` and `FreeProduct` write the rules for the arguments
``omega_i`` at which the two transforms agree (subordination): with ``omega = (1 + R(G))/G``, ``G_1(omega_1) = G_2(omega_2) = G``, "R adds" is ``omega_1 + omega_2 = z + 1/G``;
with ``omega = (1 + m)/(m S(m))``, "S multiplies" is ``omega_1 omega_2 = z (1 + m)/m``. Both are followed by Newton's method from ``z`` far up, where
they are explicit, down to the wanted ``z``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from initdiag.errors import InvalidInput, explain
from initdiag.spectrum.equation import Complex, Real
from initdiag.spectrum.free.empirical import Empirical, squared_slope
from initdiag.spectrum.free.laws import (
    FussCatalan,
    Law,
    MarchenkoPastur,
    Projection,
    Semicircle,
    descent,
    follow,
)

__all__ = [
    "Empirical", "FreeProduct", "FreeSum", "FussCatalan", "Law", "MarchenkoPastur", "Projection", "Semicircle",
    "density", "moment_transform", "squared_slope",
]  # fmt: skip

_STEP = 1e-6
"""Relative step of the numerical derivatives in Newton's method: it limits its speed, not its result."""


def density(cauchy: Callable[[Complex], Complex], x: ArrayLike, height: float = 0.0) -> Real:
    """Return ``-(1/pi) Im G(x + i height)``: the density, seen through a Cauchy kernel of that half-width if it is not 0."""
    z = np.atleast_1d(np.asarray(x, dtype=np.complex128)) + 1j * height
    return np.asarray(np.maximum(-cauchy(np.asarray(z)).imag / np.pi, 0.0))


def moment_transform(cauchy: Callable[[Complex], Complex], w: Complex) -> Complex:
    """Return ``M(w) = G(1/w)/w - 1``."""
    return np.asarray(cauchy(1 / w) / w - 1)


def _slope(function: Callable[[Complex], Complex], z: Complex, scale: ArrayLike) -> Complex:
    """Return the derivative of an analytic function, by differences along the real direction."""
    h = _STEP * np.asarray(scale)
    return np.asarray((function(z + h) - function(z - h)) / (2 * h))


@dataclass(frozen=True, slots=True)
class FreeSum:
    """The law of ``a + b``, free: R adds."""

    a: Law
    b: Law

    @property
    def mean(self) -> float:
        """Sum of the means."""
        return self.a.mean + self.b.mean

    @property
    def radius(self) -> float:
        """Sum of the bounds."""
        return self.a.radius + self.b.radius

    def r_transform(self, w: Complex) -> Complex:
        """Return the sum of the two."""
        return self.a.r_transform(w) + self.b.r_transform(w)

    def s_transform(self, m: Complex) -> Complex:
        """Refuse: not needed, and not elementary."""
        raise InvalidInput(
            explain(
                expected="a product's or a known law's S", got="a free sum", do="Use its cauchy(z)."
            )
        )

    def cauchy(self, z: Complex) -> Complex:
        """Return ``G(z)``; not on an atom: ask at ``x + i epsilon`` there."""

        def reciprocal(law: Law, omega: Complex) -> Complex:
            return np.asarray(1 / law.cauchy(omega))

        def step(unknowns: tuple[Complex, ...], target: Complex) -> tuple[Complex, ...]:
            one, two = unknowns
            f1, f2 = reciprocal(self.a, one), reciprocal(self.b, two)
            d1 = _slope(lambda x: reciprocal(self.a, x), one, np.abs(one))
            d2 = _slope(lambda x: reciprocal(self.b, x), two, np.abs(two))
            gap, excess = f1 - f2, one + two - target - f1
            change = -(gap + d2 * excess) / (d1 + d2 * (1 - d1))
            return change, -excess - (1 - d1) * change

        path = descent(z, self.radius)
        one, _ = follow(step, (path[0] - self.b.mean, path[0] - self.a.mean), path)
        return self.a.cauchy(one)


@dataclass(frozen=True, slots=True)
class FreeProduct:
    """The law of ``a^(1/2) b a^(1/2)``, free, both on the positive half line: S multiplies."""

    a: Law
    b: Law

    def __post_init__(self) -> None:
        if self.a.mean <= 0 or self.b.mean <= 0:
            raise InvalidInput(
                explain(
                    expected="two laws on the positive half line",
                    got=f"means {self.a.mean:g} and {self.b.mean:g}",
                    do="Multiply squared singular values, not a law with mean 0.",
                )
            )

    @property
    def mean(self) -> float:
        """Product of the means."""
        return self.a.mean * self.b.mean

    @property
    def radius(self) -> float:
        """Product of the bounds."""
        return self.a.radius * self.b.radius

    def s_transform(self, m: Complex) -> Complex:
        """Return the product of the two."""
        return self.a.s_transform(m) * self.b.s_transform(m)

    def r_transform(self, w: Complex) -> Complex:
        """Refuse: not needed, and not elementary."""
        raise InvalidInput(
            explain(
                expected="a sum's or a known law's R", got="a free product", do="Use its cauchy(z)."
            )
        )

    def cauchy(self, z: Complex) -> Complex:
        """Return ``G(z)``; not at 0, and not on an atom: ask at ``x + i epsilon`` there."""

        def log_moment(law: Law, log_omega: Complex) -> Complex:
            omega = np.exp(log_omega)
            return np.asarray(np.log(omega * law.cauchy(omega) - 1))

        def step(unknowns: tuple[Complex, ...], target: Complex) -> tuple[Complex, ...]:
            one, two = unknowns
            l1, l2 = log_moment(self.a, one), log_moment(self.b, two)
            d1 = _slope(lambda x: log_moment(self.a, x), one, 1.0)
            d2 = _slope(lambda x: log_moment(self.b, x), two, 1.0)
            m = np.exp(l1)
            excess = one + two - np.log(target * (1 + m) / m)
            excess = excess - 2j * np.pi * np.round(excess.imag / (2 * np.pi))
            gap = l1 - l2
            gap = gap - 2j * np.pi * np.round(gap.imag / (2 * np.pi))
            kept = 1 + d1 / (1 + m)
            change = -(gap + d2 * excess) / (d1 + d2 * kept)
            return change, -excess - kept * change

        path = descent(z, self.radius)
        log_one, _ = follow(
            step, (np.log(path[0] / self.b.mean), np.log(path[0] / self.a.mean)), path
        )
        one = np.exp(log_one)
        return np.asarray(one * self.a.cauchy(one) / path[-1])
