"""What a law of eigenvalues is: its moments, atoms, density and four transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from initdiag._core.arrays import Complex, Real, complex_array
from initdiag.spectrum.free.paths import inverse

if TYPE_CHECKING:
    from initdiag.spectrum.free.convolution import FreeProduct, FreeSum, Scaled

__all__ = ["ROUNDING", "Atoms", "Law", "meeting_atoms"]

Atoms = dict[float, float]
"""Where a law has its atoms, and their masses."""

ROUNDING = 1e-12
"""Atoms of a smaller mass count as 0; sums and products round to about 1e-15."""


@dataclass(frozen=True, slots=True)
class Law(ABC):
    """A law on the real line with bounded support.

    Laws are immutable. ``a + b`` is the law of a sum of free matrices, ``a @ b`` that
    of their product, ``factor * a`` that of a scaled matrix.
    """

    @property
    @abstractmethod
    def mean(self) -> float:
        """The first moment."""

    @property
    @abstractmethod
    def radius(self) -> float:
        """A bound of ``|x|`` on the support."""

    @property
    @abstractmethod
    def atoms(self) -> Atoms:
        """The points that have a mass of their own, with that mass."""

    @abstractmethod
    def moments(self, k: int) -> Real:
        """Return ``m_1, ..., m_k``, ``m_j = E x^j``."""

    @abstractmethod
    def cauchy(self, z: ArrayLike) -> Complex:
        """Return the Cauchy transform ``G(z) = E 1/(z - x)``.

        Parameters
        ----------
        z : array_like of complex
            Points with ``Im z >= 0``. On the real axis the limit from above is meant;
            it does not exist at an atom.
        """

    def density(self, x: ArrayLike, height: float = 0.0) -> Real:
        """Return the density ``-(1/pi) Im G(x + i height)`` of the part without atoms.

        Parameters
        ----------
        x : array_like of float
            Real points, of any shape, that are not atoms (unless ``height > 0``).
        height : float
            With a positive one the law is seen, atoms and all, through a Cauchy kernel
            of that half-width: this is how to look at an empirical law.

        Returns
        -------
        ndarray
            An array of the same shape.
        """
        return np.asarray(
            np.maximum(-self.cauchy(complex_array(x) + 1j * height).imag / np.pi, 0.0)
        )

    def moment_transform(self, w: ArrayLike) -> Complex:
        """Return ``M(w) = G(1/w)/w - 1``, the sum of ``m_n w^n`` over ``n >= 1``."""
        w = complex_array(w)
        return np.asarray(self.cauchy(1 / w) / w - 1)

    def r_transform(self, w: ArrayLike) -> Complex:
        """Return ``R(w)``, which adds under free sums.

        Raises
        ------
        InitdiagError
            If ``w`` is beyond the domain of the branch that is 0 at 0.
        """
        w = complex_array(w)
        u = inverse(lambda u: self.cauchy(1 / u), w, 1.0)
        return np.asarray(w / u - 1)

    def s_transform(self, m: ArrayLike) -> Complex:
        """Return ``S(m)``, which multiplies under free products.

        The mean must not be 0.

        Raises
        ------
        InitdiagError
            If ``m`` is beyond the domain of the branch that is ``1/mean`` at 0.
        """
        m = complex_array(m)
        w = inverse(self.moment_transform, m, self.mean)
        return np.asarray(w * (1 + m) / m)

    def __add__(self, other: Law) -> FreeSum:
        """Return the law of the sum of two free matrices."""
        from initdiag.spectrum.free.convolution import FreeSum

        return FreeSum.of(self, other)

    def __matmul__(self, other: Law) -> FreeProduct:
        """Return the law of the product of two free positive matrices."""
        from initdiag.spectrum.free.convolution import FreeProduct

        return FreeProduct.of(self, other)

    def __rmul__(self, factor: float) -> Scaled:
        """Return the law of the matrix times a number."""
        from initdiag.spectrum.free.convolution import Scaled

        return Scaled(self, factor)


def meeting_atoms(
    combine: Callable[[float, float], float], one: Atoms, two: Atoms, size: float = 1.0
) -> Atoms:
    """Return where atoms of two free laws meet, at their sum or product.

    The second law's space is ``size`` times the result's.
    """
    found: Atoms = {}
    for x, p in one.items():
        for y, q in two.items():
            mass = p - size * (1 - q)
            if mass > ROUNDING:
                found[combine(x, y)] = found.get(combine(x, y), 0.0) + mass
    return found
