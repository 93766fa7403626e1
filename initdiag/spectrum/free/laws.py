"""The laws that products of random matrices are made of, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from initdiag._core.arrays import Complex, Real, complex_array
from initdiag._core.validation import number_in, positive_integer
from initdiag.errors import InvalidInput, explain
from initdiag.spectrum.free.base import Atoms, Law
from initdiag.spectrum.free.paths import descent, follow, inverse

__all__ = ["FussCatalan", "MarchenkoPastur", "Projection", "Semicircle"]


def _edge_root(z: Complex, low: float, high: float) -> Complex:
    """Return the ``sqrt((z - low)(z - high))`` that behaves like ``z`` at infinity.

    It is cut along ``[low, high]``; on the cut its value is the limit from above.
    """
    above = np.where(z.imag == 0, z.real + 0.0j, z)
    return np.asarray(np.sqrt(above - low) * np.sqrt(above - high))


@dataclass(frozen=True, slots=True)
class Projection(Law):
    """The eigenvalues of a projection: 1 with probability ``p``, else 0.

    This is also the law of a gate that is open with probability ``p``.
    """

    p: float

    def __post_init__(self) -> None:
        if number_in(self.p, "p", 0.0, low_open=True) > 1:
            raise InvalidInput(
                explain(expected="p: a probability > 0", got=repr(self.p), do="Change p.")
            )

    @property
    def mean(self) -> float:
        """The mean is ``p``."""
        return self.p

    @property
    def radius(self) -> float:
        """The largest value is 1."""
        return 1.0

    @property
    def atoms(self) -> Atoms:
        """All the mass, at 0 and 1."""
        return {1.0: 1.0} if self.p == 1 else {0.0: 1 - self.p, 1.0: self.p}

    def moments(self, k: int) -> Real:
        """Return ``p``, ``k`` times."""
        return np.full(k, float(self.p))

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``(1 - p)/z + p/(z - 1)``."""
        z = complex_array(z)
        return np.asarray((1 - self.p) / z + self.p / (z - 1))

    def r_transform(self, w: ArrayLike) -> Complex:
        """Return ``(w - 1 + sqrt((1 - w)^2 + 4 p w))/2``.

        It follows from ``w z^2 - (1 + w) z + (1 - p) = 0``, which says ``G(z) = w``.
        """
        w = complex_array(w)
        return np.asarray((w - 1 + np.sqrt((1 - w) ** 2 + 4 * self.p * w)) / 2)

    def s_transform(self, m: ArrayLike) -> Complex:
        """Return ``(1 + m)/(p + m)``."""
        m = complex_array(m)
        return np.asarray((1 + m) / (self.p + m))


@dataclass(frozen=True, slots=True)
class Semicircle(Law):
    """Wigner's law: the eigenvalues of a symmetric matrix with iid entries.

    It lives on ``[-2 sd, 2 sd]``, ``sd^2 = variance``.
    """

    variance: float = 1.0

    def __post_init__(self) -> None:
        number_in(self.variance, "variance", 0.0, low_open=True)

    @property
    def mean(self) -> float:
        """The mean is 0."""
        return 0.0

    @property
    def radius(self) -> float:
        """The edge is at ``2 sd``."""
        return 2 * math.sqrt(self.variance)

    @property
    def atoms(self) -> Atoms:
        """None."""
        return {}

    def moments(self, k: int) -> Real:
        """Return Catalan's numbers times powers of the variance; the odd ones are 0."""
        orders = range(1, k + 1)
        values = [0 if j % 2 else math.comb(j, j // 2) // (j // 2 + 1) for j in orders]
        return np.array([c * self.variance ** (j / 2) for c, j in zip(values, orders, strict=True)])

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``2/(z + sqrt(z^2 - 4 variance))``."""
        z = complex_array(z)
        return np.asarray(2 / (z + _edge_root(z, -self.radius, self.radius)))

    def r_transform(self, w: ArrayLike) -> Complex:
        """Return ``variance w^2``."""
        return np.asarray(self.variance * complex_array(w) ** 2)

    def s_transform(self, m: ArrayLike) -> Complex:
        """Refuse: a law of mean 0 has no S-transform."""
        raise InvalidInput(
            explain(
                expected="a law with a mean that is not 0",
                got="a semicircle",
                do="Multiply by the law of its square instead, MarchenkoPastur(1, variance).",
            )
        )


@dataclass(frozen=True, slots=True)
class MarchenkoPastur(Law):
    """The eigenvalues of ``X^T X`` for a matrix ``X`` with iid entries.

    Attributes
    ----------
    ratio : float
        ``X`` has ``n`` columns and ``ratio n`` rows.
    scale : float
        The entries have variance ``scale/n``.
    """

    ratio: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        number_in(self.ratio, "ratio", 0.0, low_open=True)
        number_in(self.scale, "scale", 0.0, low_open=True)

    @property
    def mean(self) -> float:
        """The mean is ``ratio scale``."""
        return self.ratio * self.scale

    @property
    def edges(self) -> tuple[float, float]:
        """The ends of the continuous part, ``scale (1 -+ sqrt(ratio))^2``."""
        root = math.sqrt(self.ratio)
        return self.scale * (1 - root) ** 2, self.scale * (1 + root) ** 2

    @property
    def radius(self) -> float:
        """The upper edge."""
        return self.edges[1]

    @property
    def atoms(self) -> Atoms:
        """The mass ``1 - ratio`` at 0, if there are fewer rows than columns."""
        return {0.0: 1 - self.ratio} if self.ratio < 1 else {}

    def moments(self, k: int) -> Real:
        """Return ``scale^j`` times the sum of Narayana's ``N(j, i) ratio^i``."""
        return np.array(
            [
                self.scale**j
                * math.fsum(
                    math.comb(j, i) * math.comb(j, i - 1) // j * self.ratio**i
                    for i in range(1, j + 1)
                )
                for j in range(1, k + 1)
            ]
        )

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``(a - root)/(2 scale z) = 2/(a + root)``, whichever does not cancel.

        Here ``a = z + scale (1 - ratio)`` and ``root = sqrt((z - low)(z - high))``.
        """
        z = complex_array(z)
        a, root = z + self.scale * (1 - self.ratio), _edge_root(z, *self.edges)
        plus, minus = a + root, a - root
        return np.where(np.abs(plus) > np.abs(minus), 2 / plus, minus / (2 * self.scale * z))

    def r_transform(self, w: ArrayLike) -> Complex:
        """Return ``ratio scale w/(1 - scale w)``."""
        w = complex_array(w)
        return np.asarray(self.ratio * self.scale * w / (1 - self.scale * w))

    def s_transform(self, m: ArrayLike) -> Complex:
        """Return ``1/(scale (ratio + m))``."""
        return np.asarray(1 / (self.scale * (self.ratio + complex_array(m))))


@dataclass(frozen=True, slots=True)
class FussCatalan(Law):
    """Squared singular values of a product of ``depth`` square iid matrices.

    The entries of ``n x n`` factors have variance ``1/n``, so that the mean is 1.
    """

    depth: int

    def __post_init__(self) -> None:
        positive_integer(self.depth, "depth")

    @property
    def mean(self) -> float:
        """The mean is 1."""
        return 1.0

    @property
    def radius(self) -> float:
        """The edge is at ``(L + 1)^(L + 1)/L^L`` for depth ``L``."""
        depth = self.depth
        return math.exp((depth + 1) * math.log(depth + 1) - depth * math.log(depth))

    @property
    def atoms(self) -> Atoms:
        """None."""
        return {}

    def moments(self, k: int) -> Real:
        """Return Fuss and Catalan's numbers ``C((L + 1) j, j)/(L j + 1)``."""
        depth = self.depth
        return np.array(
            [float(math.comb((depth + 1) * j, j) // (depth * j + 1)) for j in range(1, k + 1)]
        )

    def s_transform(self, m: ArrayLike) -> Complex:
        """Return ``(1 + m)^-depth``."""
        return np.asarray((1 + complex_array(m)) ** -float(self.depth))

    def r_transform(self, w: ArrayLike) -> Complex:
        """Solve ``R S(R) = w``, which is true of any law."""
        return inverse(lambda r: r * self.s_transform(r), complex_array(w), 1.0)

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return ``(1 + m)/z``, where ``(1 + m)^(L + 1)/m = z``."""

        def step(log_m: Complex, target: Complex) -> Complex:
            m = np.exp(log_m)
            residual = (1 + m) ** (self.depth + 1) / (m * target) - 1
            slope = (1 + residual) * ((self.depth + 1) * m / (1 + m) - 1)
            return np.asarray(-residual / slope)

        path = descent(complex_array(z), self.radius)
        log_m = follow(step, -np.log(path[0]), path)
        return np.asarray((1 + np.exp(log_m)) / path[-1])
