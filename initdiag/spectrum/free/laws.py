"""The laws that products of random matrices are made of, with their Cauchy, R and S transforms (conventions: see `transforms`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from initdiag.errors import InitdiagError, InvalidInput, explain
from initdiag.spectrum.equation import Complex

__all__ = [
    "FRACTIONS",
    "FussCatalan",
    "Law",
    "MarchenkoPastur",
    "Projection",
    "Semicircle",
    "descent",
    "follow",
    "require_positive",
]

_ITERATIONS = 60
"""Of Newton's method at one place of a path; it needs about four, and more at a square-root edge."""

_HEIGHTS = np.append(1e3 * 0.5 ** np.arange(50), 0.0)
"""Distances from the end of a path, in units of the law's radius: from where the laws look like their means."""

_TINY = 1e-300
"""Keeps 0/0 out."""

FRACTIONS = np.linspace(0.02, 1.0, 50)
"""Of a path outwards from 0."""


class Law(Protocol):
    """A law on the real line: what the free sum and the free product ask for, and what they give."""

    @property
    def mean(self) -> float:
        """First moment."""

    @property
    def radius(self) -> float:
        """A bound of ``|x|`` on the support."""

    def cauchy(self, z: Complex) -> Complex:
        """Return ``G(z)``, ``Im z >= 0``."""

    def r_transform(self, w: Complex) -> Complex:
        """Return ``R(w)``."""

    def s_transform(self, m: Complex) -> Complex:
        """Return ``S(m)``."""


def follow(
    step: Callable[[tuple[Complex, ...], Complex], tuple[Complex, ...]],
    start: tuple[Complex, ...],
    path: Iterable[Complex],
) -> tuple[Complex, ...]:
    """Follow unknowns along a path of targets; ``step`` gives Newton's corrections.

    Raises
    ------
    InitdiagError
        If Newton's method fails at the path's end.
    """
    unknowns, size = start, np.inf
    for target in path:
        for _ in range(_ITERATIONS):
            with np.errstate(all="ignore"):  # what is not finite is refused below
                corrections = step(unknowns, target)
            unknowns = tuple(u + c for u, c in zip(unknowns, corrections, strict=True))
            size = _relative_size(corrections, unknowns)
            if size < 1e-13:
                break
    if not size < 1e-6:
        raise InitdiagError(
            "a transform could not be inverted: the point lies beyond its domain. Move it towards 0."
        )
    return unknowns


def _relative_size(changes: tuple[Complex, ...], values: tuple[Complex, ...]) -> float:
    return max(
        float(np.max(np.abs(c) / (_TINY + np.abs(v)))) for c, v in zip(changes, values, strict=True)
    )


def descent(z: Complex, radius: float) -> list[Complex]:
    """Return the path from far above down to ``z``."""
    z = np.asarray(z, dtype=np.complex128)
    return [z + 1j * radius * height for height in _HEIGHTS]


def require_positive(value: Any, what: str, high: float = math.inf) -> None:
    """Refuse what is no finite number in ``(0, high]``."""
    if not (isinstance(value, int | float) and 0 < value <= high and math.isfinite(value)):
        bound = "" if high == math.inf else f" and <= {high:g}"
        raise InvalidInput(
            explain(
                expected=f"{what}: a finite number > 0{bound}",
                got=repr(value),
                do=f"Change {what}.",
            )
        )


def _edge_root(z: Complex, low: float, high: float) -> Complex:
    """``sqrt((z - low)(z - high))`` that behaves like ``z`` at infinity: cut on [low, high]; on the cut, from above."""
    z = z + 0.0j
    above = np.where(z.imag == 0, z.real + 0.0j, z)
    return np.asarray(np.sqrt(above - low) * np.sqrt(above - high))


@dataclass(frozen=True, slots=True)
class Projection:
    """``p`` at 1, ``1 - p`` at 0: a Bernoulli gate, ``G = (1 - p)/z + p/(z - 1)``."""

    p: float

    def __post_init__(self) -> None:
        require_positive(self.p, "p", 1.0)

    @property
    def mean(self) -> float:
        """``p``."""
        return self.p

    @property
    def radius(self) -> float:
        """1."""
        return 1.0

    def cauchy(self, z: Complex) -> Complex:
        """Return ``G(z)``."""
        return np.asarray((1 - self.p) / z + self.p / (z - 1))

    def r_transform(self, w: Complex) -> Complex:
        """From ``w z^2 - (1 + w) z + (1 - p) = 0`` for ``z = G^-1(w)``: ``R = (w - 1 + sqrt((1 - w)^2 + 4 p w))/2``."""
        return np.asarray((w - 1 + np.sqrt((1 - w) ** 2 + 4 * self.p * w + 0j)) / 2)

    def s_transform(self, m: Complex) -> Complex:
        """``(1 + m)/(p + m)``."""
        return np.asarray((1 + m) / (self.p + m))


@dataclass(frozen=True, slots=True)
class Semicircle:
    """Wigner's law of the given variance, on ``[-2 sd, 2 sd]``: ``R(w) = variance w^2``."""

    variance: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.variance, "variance")

    @property
    def mean(self) -> float:
        """0."""
        return 0.0

    @property
    def radius(self) -> float:
        """``2 sd``."""
        return 2 * math.sqrt(self.variance)

    def cauchy(self, z: Complex) -> Complex:
        """``(z - sqrt(z^2 - 4 variance))/(2 variance)``."""
        return np.asarray((z - _edge_root(z, -self.radius, self.radius)) / (2 * self.variance))

    def r_transform(self, w: Complex) -> Complex:
        """``variance w^2``."""
        return np.asarray(self.variance * w**2)

    def s_transform(self, m: Complex) -> Complex:
        """Refuse: a law of mean 0 has no S-transform."""
        raise InvalidInput(
            explain(
                expected="a law with a mean that is not 0",
                got="a semicircle",
                do="Multiply by its square instead.",
            )
        )


@dataclass(frozen=True, slots=True)
class MarchenkoPastur:
    """Eigenvalues of ``X^T X``, ``X`` with ``n`` columns, ``ratio n`` rows and entries of variance ``scale/n``.

    ``R(w) = ratio scale w/(1 - scale w)``, ``S(m) = 1/(scale (ratio + m))``, mean ``ratio scale``.
    """

    ratio: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.ratio, "ratio")
        require_positive(self.scale, "scale")

    @property
    def mean(self) -> float:
        """``ratio scale``."""
        return self.ratio * self.scale

    @property
    def edges(self) -> tuple[float, float]:
        """``scale (1 -+ sqrt(ratio))^2``."""
        root = math.sqrt(self.ratio)
        return self.scale * (1 - root) ** 2, self.scale * (1 + root) ** 2

    @property
    def radius(self) -> float:
        """The upper edge."""
        return self.edges[1]

    def cauchy(self, z: Complex) -> Complex:
        """``(z + scale (1 - ratio) - sqrt((z - low)(z - high)))/(2 scale z)``."""
        root = _edge_root(z, *self.edges)
        return np.asarray((z + self.scale * (1 - self.ratio) - root) / (2 * self.scale * z))

    def r_transform(self, w: Complex) -> Complex:
        """``ratio scale w/(1 - scale w)``."""
        return np.asarray(self.ratio * self.scale * w / (1 - self.scale * w))

    def s_transform(self, m: Complex) -> Complex:
        """``1/(scale (ratio + m))``."""
        return np.asarray(1 / (self.scale * (self.ratio + m)))


@dataclass(frozen=True, slots=True)
class FussCatalan:
    """Squared singular values of a product of ``depth`` square Gaussian matrices at unit mean: ``S(m) = (1 + m)^-depth``."""

    depth: int

    def __post_init__(self) -> None:
        if not (isinstance(self.depth, int) and self.depth >= 1):
            raise InvalidInput(
                explain(
                    expected="depth: a positive integer",
                    got=repr(self.depth),
                    do="Give the number of factors.",
                )
            )

    @property
    def mean(self) -> float:
        """1."""
        return 1.0

    @property
    def radius(self) -> float:
        """``(L + 1)^(L + 1)/L^L``."""
        return math.exp(
            (self.depth + 1) * math.log(self.depth + 1) - self.depth * math.log(self.depth)
        )

    def moment(self, k: int) -> int:
        """``C((L + 1) k, k)/(L k + 1)``."""
        return math.comb((self.depth + 1) * k, k) // (self.depth * k + 1)

    def s_transform(self, m: Complex) -> Complex:
        """``(1 + m)^-depth``."""
        return np.asarray((1 + m) ** -float(self.depth))

    def r_transform(self, w: Complex) -> Complex:
        """Solve ``R S(R) = w`` (true of any law), from ``w = 0`` outwards."""
        w = np.asarray(w, dtype=np.complex128)

        def step(unknowns: tuple[Complex, ...], target: Complex) -> tuple[Complex, ...]:
            (r,) = unknowns
            return (
                -(r - target * (1 + r) ** self.depth)
                / (1 - target * self.depth * (1 + r) ** (self.depth - 1)),
            )

        return follow(
            step, (np.asarray(FRACTIONS[0] * w),), [np.asarray(f * w) for f in FRACTIONS]
        )[0]

    def cauchy(self, z: Complex) -> Complex:
        """Return ``(1 + m)/z`` where ``(1 + m)^(L + 1)/m = z``."""

        def step(unknowns: tuple[Complex, ...], target: Complex) -> tuple[Complex, ...]:
            (log_m,) = unknowns
            m = np.exp(log_m)
            residual = (1 + m) ** (self.depth + 1) / (m * target) - 1
            return (-residual / ((1 + residual) * ((self.depth + 1) * m / (1 + m) - 1)),)

        path = descent(z, self.radius)
        (log_m,) = follow(step, (np.log(1 / path[0]),), path)
        return np.asarray((1 + np.exp(log_m)) / path[-1])
