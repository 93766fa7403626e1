"""The record of what was measured of a module's Jacobian: singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from initdiag._core.choices import WeightEnsemble
from initdiag._core.serialization import Record
from initdiag._core.summary import Summarised, number
from initdiag.errors import InvalidInput, explain

__all__ = ["SpectralMeasurement"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SpectralMeasurement(Summarised, Record):
    """Squared singular values of the Jacobian of a module at initialisation:
    eigenvalues of ``J^T J`` (``n_0 x n_0``).

    One row a draw. Dense: every singular value. At large width: the nodes and weights
    of a Gauss quadrature for the draw's eigenvalue distribution, by stochastic Lanczos
    quadrature; the standard errors over draws hold the spread of its random probes.

    Attributes
    ----------
    method : str
        ``"signs"`` or ``"redraw"``: the ensemble the draws come from.
    draws, seed : int
        How many, and what gives exactly these again.
    input_size, output_size : int
        ``n_0`` and ``n_L``.
    log_nodes : float64 array of shape (draws, r)
        ``ln lambda`` (natural log), descending in each row, -inf for 0. Dense: ``r =
        min(n_0, n_L)``.
    weights : float64 array of shape (draws, r) or None
        Shares of the ``n_0`` eigenvalues that the nodes stand for; None if dense
        (``1/n_0`` each). What is missing to 1 in a row is the share of eigenvalues that
        are 0 because ``n_L < n_0``.
    log_largest, log_smallest : float64 array
        ``ln`` of the largest and of the ``min(n_0, n_L)``-th eigenvalue, a draw each;
        -inf for what cannot be told from 0. At large width of the first draws only, to
        1e-4 of the draw's largest eigenvalue; NaN where the iteration did not converge.
    log_resolution : float
        What is smaller than ``exp(log_resolution)`` times the draw's largest eigenvalue
        cannot be told from 0, and counts as 0 in ``zero_mass``: rounding if dense, else
        the reach of the quadrature.
    notes : tuple of str
        What the ensemble did not cover.
    """

    method: WeightEnsemble
    draws: int
    seed: int
    input_size: int
    output_size: int
    log_nodes: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    log_largest: NDArray[np.float64]
    log_smallest: NDArray[np.float64]
    log_resolution: float
    notes: tuple[str, ...] = ()

    def _summary(self) -> dict[str, str]:
        known = self.log_largest[np.isfinite(self.log_largest)]
        return {
            "draws": f"{self.draws} by {self.method}",
            "eigenvalues of J^T J": str(self.input_size),
            "mean log of the largest": number(float(known.mean()) if len(known) else None),
        }

    def __post_init__(self) -> None:
        rank = min(self.input_size, self.output_size)
        shape = (self.draws, rank if self.weights is None else np.shape(self.log_nodes)[-1])
        others = () if self.weights is None else (self.weights.shape,)
        if {self.log_nodes.shape, *others} != {shape}:
            raise InvalidInput(
                explain(
                    expected=f"log_nodes (and weights) of shape {shape}",
                    got=f"{[self.log_nodes.shape, *others]}",
                    do="Take the record from measure_spectrum.",
                )
            )
        for array in (self.log_nodes, self.weights, self.log_largest, self.log_smallest):
            if array is not None:
                array.setflags(write=False)

    @property
    def is_dense(self) -> bool:
        """Whether every singular value is known."""
        return self.weights is None

    @property
    def squared_singular_values(self) -> NDArray[np.float64] | None:
        """``sigma^2``, shape ``(draws, min(n_0, n_L))``, descending in each row; None
        where only a density was measured.
        """
        return np.exp(self.log_nodes) if self.is_dense else None

    @property
    def zero_mass(self) -> float:
        """Share of eigenvalues that are 0, or too small to be told from 0: see
        ``log_resolution``.
        """
        return max(0.0, 1.0 - float(np.sum(self._shares * self._is_resolved, axis=1).mean()))

    @property
    def zero_mass_se(self) -> float:
        """Its standard error over draws; NaN for a single one."""
        return float(_standard_error(np.sum(self._shares * self._is_resolved, axis=1)))

    def moments(self, k: int = 4) -> NDArray[np.float64]:
        """Return ``m_1, ..., m_k``, ``m_j = E tr (J^T J)^j/n_0`` (zeros included), as
        `SpectralLaw.moments`.
        """
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.log_moments(k)))

    def moments_se(self, k: int = 4) -> NDArray[np.float64]:
        """Return the standard errors of ``moments(k)`` over draws; NaN for a single
        one.
        """
        scale = self._log_scale
        scaled, orders = self._scaled_moments(k), np.arange(1, k + 1)
        with np.errstate(over="ignore"):
            return np.asarray(_standard_error(scaled) * np.exp(orders * scale))

    def log_moments(self, k: int = 4) -> NDArray[np.float64]:
        """Return ``ln m_1, ..., ln m_k``: no overflow or underflow at any depth."""
        with np.errstate(divide="ignore"):
            return np.asarray(
                np.log(self._scaled_moments(k).mean(axis=0)) + np.arange(1, k + 1) * self._log_scale
            )

    def cdf(self, log_lambda: ArrayLike) -> NDArray[np.float64]:
        """Return the share of eigenvalues with ``ln lambda <= log_lambda``, zeros
        included, per draw: shape ``(draws, ...)``.

        What is not resolved counts as 0. Between the nodes of a quadrature the share is
        interpolated linearly in ``ln lambda``, half a node's weight on either side of
        it.
        """
        x = np.asarray(log_lambda, dtype=np.float64)
        return np.stack([self._row_cdf(row, x) for row in range(self.draws)])

    def density(self, edges: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean density of ``ln lambda`` in each cell between ``edges``, and
        its standard error over draws.

        Parameters
        ----------
        edges : array_like of shape (cells + 1,)
            Ascending, natural log of the eigenvalue.

        Returns
        -------
        density, standard_error : ndarray of shape (cells,)
            Compare with `SpectralLaw.density`: both integrate to the share of
            eigenvalues that are not 0.
        """
        points = np.asarray(edges, dtype=np.float64)
        if points.ndim != 1 or len(points) < 2 or not np.all(np.diff(points) > 0):
            raise InvalidInput(
                explain(
                    expected="at least two ascending edges", got=repr(edges), do="Use np.linspace."
                )
            )
        shares = np.diff(self.cdf(points), axis=1) / np.diff(points)
        return shares.mean(axis=0), _standard_error(shares)

    @property
    def _shares(self) -> NDArray[np.float64]:
        return (
            np.full(self.log_nodes.shape, 1.0 / self.input_size)
            if self.weights is None
            else self.weights
        )

    @property
    def _is_resolved(self) -> NDArray[np.bool_]:
        return self.log_nodes > self.log_nodes[:, :1] + self.log_resolution

    @property
    def _log_scale(self) -> float:
        largest = float(self.log_nodes.max(initial=-math.inf))
        return largest if math.isfinite(largest) else 0.0

    def _scaled_moments(self, k: int) -> NDArray[np.float64]:
        """Return the moments of ``lambda/exp(_log_scale)``, one row a draw."""
        nodes = np.exp(self.log_nodes - self._log_scale)
        return np.stack([np.sum(self._shares * nodes**j, axis=1) for j in range(1, k + 1)], axis=1)

    def _row_cdf(self, row: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = self._is_resolved[row] & (self._shares[row] > 0)
        nodes, shares = self.log_nodes[row, kept][::-1], self._shares[row, kept][::-1]
        if self.weights is None or not len(nodes):
            below = np.searchsorted(nodes, x, side="right")
            return np.asarray(1.0 - (len(nodes) - below) / self.input_size)
        start = 1.0 - shares.sum()
        middle = start + np.cumsum(shares) - shares / 2
        return np.asarray(np.interp(x, nodes, middle, left=start, right=1.0))


def _standard_error(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard error of the mean over the first axis; NaN for one row."""
    if len(rows) < 2:
        return np.full(rows.shape[1:], math.nan)
    return np.asarray(rows.std(axis=0, ddof=1) / math.sqrt(len(rows)))
