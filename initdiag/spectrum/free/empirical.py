"""A law of finitely many values: eigenvalues, a discrete gate, or a quadrature for a smooth one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from initdiag.errors import InvalidInput, explain
from initdiag.spectrum.equation import Complex, Real
from initdiag.spectrum.free.laws import FRACTIONS, follow, require_positive
from initdiag.spectrum.mean_field import gaussian_quadrature

__all__ = ["Empirical", "squared_slope"]


@dataclass(frozen=True, slots=True)
class Empirical:
    """Finitely many values with weights: eigenvalues, a discrete gate, a quadrature; R and S by inverting ``G``."""

    values: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = len(self.values), len(self.weights)
        total = math.fsum(self.weights)
        if sizes[0] != sizes[1] or not sizes[0] or abs(total - 1) > 1e-9 or min(self.weights) < 0:
            raise InvalidInput(
                explain(
                    expected="as many values as weights >= 0, which sum to 1",
                    got=f"{sizes[0]} values, {sizes[1]} weights with sum {total:g}",
                    do="Use Empirical.of(eigenvalues) for equal weights.",
                )
            )
        if not all(map(math.isfinite, self.values)):
            raise InvalidInput(
                explain(expected="finite values", got="NaN or infinity", do="Leave them out.")
            )

    @classmethod
    def of(cls, eigenvalues: ArrayLike) -> Empirical:
        """Return the law of equally likely eigenvalues."""
        flat = np.asarray(eigenvalues, dtype=np.float64).ravel()
        return cls(tuple(flat.tolist()), (1 / max(flat.size, 1),) * flat.size)

    @property
    def mean(self) -> float:
        """First moment."""
        return math.fsum(x * p for x, p in zip(self.values, self.weights, strict=True))

    @property
    def radius(self) -> float:
        """Largest ``|x|``."""
        return max(map(abs, self.values))

    def _sum(self, z: Complex, power: int) -> Complex:
        return np.asarray(
            ((z[..., None] - np.array(self.values)) ** -float(power)) @ np.array(self.weights)
        )

    def cauchy(self, z: Complex) -> Complex:
        """``sum p/(z - x)``."""
        return self._sum(np.asarray(z, dtype=np.complex128), 1)

    def r_transform(self, w: Complex) -> Complex:
        """``w z - 1`` where ``G(z) = w``: followed from ``z`` about ``1/w + mean`` near ``w = 0``."""
        w = np.asarray(w, dtype=np.complex128)

        def step(unknowns: tuple[Complex, ...], target: Complex) -> tuple[Complex, ...]:
            value, slope = self._sum(unknowns[0], 1), self._sum(unknowns[0], 2)
            return (-(1 / value - 1 / target) * value**2 / slope,)

        (z,) = follow(
            step, (1 / (FRACTIONS[0] * w) + self.mean,), [np.asarray(f * w) for f in FRACTIONS]
        )
        return np.asarray(w * z - 1)

    def s_transform(self, m: Complex) -> Complex:
        """``(1 + m)/(m z)`` where ``z G(z) - 1 = m``: followed from ``z`` about ``mean/m`` near ``m = 0``."""
        m = np.asarray(m, dtype=np.complex128)

        def step(unknowns: tuple[Complex, ...], target: Complex) -> tuple[Complex, ...]:
            (z,) = unknowns
            value = z * self._sum(z, 1) - 1
            return ((1 / value - 1 / target) * value**2 / (self._sum(z, 1) - z * self._sum(z, 2)),)

        (z,) = follow(
            step, (self.mean / (FRACTIONS[0] * m),), [np.asarray(f * m) for f in FRACTIONS]
        )
        return np.asarray((1 + m) / (m * z))


def squared_slope(slope: Callable[[Real], Real], q: float, nodes: int = 200) -> Empirical:
    """Return the law of ``slope(h)^2``, ``h ~ N(0, q)``, by quadrature: the gate of a smooth activation.

    Parameters
    ----------
    slope : callable
        The activation's derivative, vectorised.
    q : float
        Variance of the pre-activation.
    nodes : int
        Of the quadrature, even.
    """
    require_positive(q, "q")
    h, weights = gaussian_quadrature(nodes)
    values = np.asarray(slope(math.sqrt(q) * h), dtype=np.float64) ** 2
    return Empirical(tuple(values.tolist()), tuple(weights.tolist()))
