"""A law of finitely many values: eigenvalues, a discrete gate, or a quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from initdiag._core.arrays import Complex, Real, complex_array
from initdiag._core.validation import number_in
from initdiag.errors import InvalidInput, explain
from initdiag.spectrum.free.base import Atoms, Law

__all__ = ["Empirical", "squared_slope"]

_ROUNDING = 1e-9
"""By which the sum of the weights may miss 1: a thousand roundings of 1e-12."""


@dataclass(frozen=True, slots=True)
class Empirical(Law):
    """Finitely many values with weights that sum to 1.

    Attributes
    ----------
    values, weights : tuple of float
        The points and their probabilities. `Empirical.of` makes them of eigenvalues.
    """

    values: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = len(self.values), len(self.weights)
        total = math.fsum(self.weights)
        good = sizes[0] == sizes[1] > 0 and abs(total - 1) <= _ROUNDING and min(self.weights) >= 0
        if not good:
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
        """Return the law of equally likely eigenvalues, an array of any shape."""
        flat = np.asarray(eigenvalues, dtype=np.float64).ravel()
        return cls(tuple(flat.tolist()), (1 / max(flat.size, 1),) * flat.size)

    @property
    def mean(self) -> float:
        """The first moment."""
        return math.fsum(x * p for x, p in zip(self.values, self.weights, strict=True))

    @property
    def radius(self) -> float:
        """The largest ``|x|``, at least the smallest positive number."""
        return max(np.finfo(float).tiny, *map(abs, self.values))

    @property
    def atoms(self) -> Atoms:
        """Every value with a positive weight."""
        found: Atoms = {}
        for x, p in zip(self.values, self.weights, strict=True):
            if p > 0:
                found[x] = found.get(x, 0.0) + p
        return found

    def moments(self, k: int) -> Real:
        """Return the weighted means of the powers."""
        powers = np.array(self.values)[:, None] ** np.arange(1, k + 1)
        return np.asarray(np.array(self.weights) @ powers)

    def cauchy(self, z: ArrayLike) -> Complex:
        """Return the sum of ``p/(z - x)``."""
        z = complex_array(z)
        return np.asarray((1 / (z[..., None] - np.array(self.values))) @ np.array(self.weights))


def squared_slope(slope: Callable[[Real], Real], q: float, nodes: int = 200) -> Empirical:
    """Return the law of ``slope(h)^2``, ``h ~ N(0, q)``: a smooth activation's gate.

    Parameters
    ----------
    slope : callable
        The activation's derivative, vectorised.
    q : float
        The variance of the pre-activation.
    nodes : int
        The number of nodes of the quadrature (Gauss and Hermite's).

    Examples
    --------
    >>> import numpy as np
    >>> gate = squared_slope(lambda h: 1 - np.tanh(h) ** 2, q=1.0)
    >>> round(gate.mean, 4)
    0.4644
    """
    q = number_in(q, "q", 0.0, low_open=True)
    h, weights = np.polynomial.hermite_e.hermegauss(nodes)
    values = np.asarray(slope(math.sqrt(q) * h), dtype=np.float64) ** 2
    return Empirical(tuple(values.tolist()), tuple((weights / weights.sum()).tolist()))
