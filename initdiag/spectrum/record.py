"""The record of a predicted spectrum: the eigenvalues of ``J^T J`` of a chain, in the
limit of large width.

It is plain data. Whatever must be computed (law, density, moments) is delegated by a
method of one line to `distribution` and `moments`, which import this file: the method
imports them when it is called, so that a saved record loads without scipy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from initdiag._core.serialization import Record
from initdiag._core.summary import Summarised, number

__all__ = ["Atom", "SpectralFactor", "SpectralLaw"]

_UNTRUSTWORTHY = 1.1
"""Ratio of the exact to the limiting second moment from which `SpectralLaw.caveat`
speaks: about depth/width = 1/20.
"""


@dataclass(frozen=True, slots=True)
class SpectralFactor:
    """One layer as the spectrum sees it.

    Attributes
    ----------
    name, fan_in, fan_out
        As in the architecture.
    haar : bool
        Whether the weight matrix is orthogonal (Haar), not iid.
    variance : float
        Variance of a weight entry; a Haar matrix is ``sqrt(variance * max(fan_in,
        fan_out))`` times an isometry or its transpose.
    kurtosis : float
        ``E w^4/(E w^2)^2`` of an entry; the limit does not depend on it, the
        finite-width moments do.
    squared_gates, probabilities : tuple of float
        The law of the squared derivative ``d^2``, ascending: discrete gates exactly,
        smooth ones by quadrature.
    discrete : bool
        Whether that law is exact at every width (sign symmetry); otherwise it is the
        mean-field limit.
    """

    name: str
    fan_in: int
    fan_out: int
    haar: bool
    variance: float
    kurtosis: float
    squared_gates: tuple[float, ...]
    probabilities: tuple[float, ...]
    discrete: bool = True

    def gate_moment(self, order: int) -> float:
        """Return ``E d^(2 order)``."""
        return math.fsum(
            p * d2**order for d2, p in zip(self.squared_gates, self.probabilities, strict=True)
        )

    @property
    def open_count(self) -> float:
        """``K``, the mean number of gates that are not closed: the layer's rank."""
        return self.fan_out * math.fsum(
            p for d2, p in zip(self.squared_gates, self.probabilities, strict=True) if d2 > 0
        )

    @property
    def larger_width(self) -> int:
        """``N = max(fan_in, fan_out)``."""
        return max(self.fan_in, self.fan_out)


@dataclass(frozen=True, slots=True)
class Atom:
    """A share ``mass`` of all eigenvalues, every one equal to ``exp(log_eigenvalue)``
    (orthogonal chains only).
    """

    log_eigenvalue: float
    mass: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SpectralLaw(Summarised, Record):
    """The limiting distribution of the eigenvalues of ``J^T J`` (``n_0 x n_0``): the
    squared singular values of ``J``.

    The limit takes the widths to infinity in fixed proportion, at fixed depth.
    `finite_width_moments` says how far the widths at hand are from it, and `caveat`
    says it in words where it matters.

    Attributes
    ----------
    input_size : int
        ``n_0``.
    factors : tuple of SpectralFactor
        The layers in order.
    zero_mass : float
        Share of eigenvalues that are 0: ``1 - min(n_0, min_l K_l)/n_0``.
    log_lower_edge, log_upper_edge : float
        Natural log of the smallest and largest eigenvalue given ``lambda > 0``
        (``-inf`` where the support reaches 0).
    log_mean_eigenvalue : float
        Natural log of ``mean = E tr(J^T J)/n_0``.
    atoms : tuple of Atom
        Ascending; the part of the law that has no density.
    """

    input_size: int
    factors: tuple[SpectralFactor, ...]
    zero_mass: float
    log_lower_edge: float
    log_upper_edge: float
    log_mean_eigenvalue: float
    atoms: tuple[Atom, ...] = ()

    def _summary(self) -> dict[str, str]:
        return {
            "layers": str(len(self.factors)),
            "eigenvalues of J^T J": str(self.input_size),
            "share that is 0": number(self.zero_mass),
            "support": f"{number(self.lower_edge)} to {number(self.upper_edge)}",
            "mean": number(self.mean),
        }

    @property
    def lower_edge(self) -> float:
        """Smallest eigenvalue given ``lambda > 0``; 0 where the support reaches 0."""
        return _exp(self.log_lower_edge)

    @property
    def upper_edge(self) -> float:
        """Largest eigenvalue (an atom, where there is one at the top)."""
        return _exp(self.log_upper_edge)

    @property
    def mean(self) -> float:
        """``E tr(J^T J)/n_0``, zeros included."""
        return _exp(self.log_mean_eigenvalue)

    @property
    def law(self) -> Any:
        """The distribution of ``ln lambda`` given ``lambda > 0``: a ``scipy.stats``
        distribution (``rv_continuous``).

        Atoms count in ``cdf``, ``sf``, ``ppf``, ``rvs`` and the moments; ``pdf`` is the
        density of the rest.
        """
        from initdiag.spectrum.distribution import law_of

        return law_of(self)

    def density(self, log_lambda: ArrayLike) -> NDArray[np.float64]:
        """Return the density of ``ln lambda``; it integrates to ``1 - zero_mass``, less
        the mass of the atoms.

        Parameters
        ----------
        log_lambda : array_like
            Natural log of the eigenvalue, any shape.

        Returns
        -------
        ndarray
            Values, in the shape of the argument.
        """
        from initdiag.spectrum.distribution import density_of

        return density_of(self, np.asarray(log_lambda, dtype=np.float64))

    def moments(self, k: int) -> NDArray[np.float64]:
        """Return ``m_1, ..., m_k``, ``m_j = E tr (J^T J)^j/n_0`` (zeros included), in
        the limit of large width.
        """
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.log_moments(k)))

    def log_moments(self, k: int) -> NDArray[np.float64]:
        """Return ``ln m_1, ..., ln m_k``: no overflow at any depth."""
        from initdiag.spectrum.moments import log_free_moments

        return log_free_moments(self, k)

    def finite_width_moments(self) -> NDArray[np.float64]:
        """Return the exact ``E tr (J^T J)/n_0`` and ``E tr (J^T J)^2/n_0`` at these
        very widths: compare with ``moments(2)``.

        Raises
        ------
        UnsupportedArchitecture
            With an activation whose derivative is not discrete: its gates depend on the
            weights at finite width.
        """
        from initdiag.spectrum.moments import log_finite_width_moments

        with np.errstate(over="ignore"):
            return np.asarray(np.exp(log_finite_width_moments(self)))

    @property
    def second_moment_ratio(self) -> float | None:
        """Exact second moment over the limiting one: 1 where the limit is right; None
        where the exact one is not known.
        """
        if not all(factor.discrete for factor in self.factors):
            return None
        from initdiag.spectrum.moments import log_finite_width_moments

        return _exp(float(log_finite_width_moments(self)[1] - self.log_moments(2)[1]))

    @property
    def caveat(self) -> str | None:
        """What the widths at hand do to the limit, in words; None where it is within 10
        % in the second moment.
        """
        ratio = self.second_moment_ratio
        if ratio is None or 1 / _UNTRUSTWORTHY < ratio < _UNTRUSTWORTHY:
            return None
        return (
            "the spectrum is the limit of large width at fixed depth; at these widths and depth "
            f"{len(self.factors)} the exact "
            f"second moment is {ratio:.3g} times the limit's, so that the upper tail is not to "
            "be trusted"
        )


def _exp(log: float) -> float:
    return math.exp(log) if log < 709.0 else math.inf
