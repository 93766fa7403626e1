"""The records of what was measured on the user's own module: log-norms, and singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from initdiag.errors import InvalidInput, explain
from initdiag.serialization import Record

__all__ = ["LayerMeasurement", "LogMoments", "LogSummary", "Measurement", "SpectralMeasurement"]

_LEVELS = (0.05, 0.5, 0.95)
"""Of a summary's quantiles."""


@dataclass(frozen=True, slots=True)
class LogMoments:
    """Mean and variance of the log-norms that are not dead, with standard errors and count of the finite ones.

    The variance is the headline of this package, so it carries its own standard error, from the fourth moment:
    ``sqrt((m4 - s^4 (n-3)/(n-1)) / n)``. NaN where there are too few draws. With an infinite log-norm, an overflow, the mean is infinite and the
    rest NaN: what is left without it would pass for the whole.
    """

    mean: float
    mean_se: float
    variance: float
    variance_se: float
    third_moment: float
    dead_fraction: float
    count: int

    @classmethod
    def of(cls, log_norms: NDArray[np.float64]) -> LogMoments:
        """Return the moments of ``log_norms`` (natural log); -inf counts as dead, +inf as overflow."""
        alive = log_norms[np.isfinite(log_norms)]
        n = len(alive)
        dead = float(np.mean(np.isneginf(log_norms))) if len(log_norms) else math.nan
        if n == 0 or np.isposinf(log_norms).any():
            mean = math.inf if np.isposinf(log_norms).any() else math.nan
            return cls(mean, math.nan, math.nan, math.nan, math.nan, dead, n)
        mean = float(alive.mean())
        if n < 4:
            return cls(mean, math.nan, math.nan, math.nan, math.nan, dead, n)
        centred = alive - mean
        variance = float(centred @ centred) / (n - 1)
        fourth = float(np.mean(centred**4))
        variance_se = math.sqrt(max(fourth - variance * variance * (n - 3) / (n - 1), 0.0) / n)
        third = float(np.mean(centred**3))
        return cls(mean, math.sqrt(variance / n), variance, variance_se, third, dead, n)


@dataclass(frozen=True, slots=True)
class LogSummary:
    """A squared norm over the draws in which it is not 0 (natural log).

    Attributes
    ----------
    log_mean, log_variance : float
        Of its logarithm.
    low, median, high : float
        Its 5, 50 and 95 % quantiles.
    """

    log_mean: float
    log_variance: float
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, log_squares: NDArray[np.float64]) -> LogSummary:
        """Return the summary of those among ``log_squares`` that are not -inf; NaN where there are none; an overflow, inf or NaN, makes the mean infinite."""
        alive = np.nan_to_num(log_squares[~np.isneginf(log_squares)], nan=np.inf, posinf=np.inf)
        if not len(alive):
            return cls(*[math.nan] * 5)
        if np.isposinf(alive).any():
            return cls(math.inf, math.nan, *(float(q) for q in np.quantile(alive, _LEVELS, method="inverted_cdf")))
        variance = float(np.var(alive, ddof=1)) if len(alive) > 1 else math.nan
        return cls(float(alive.mean()), variance, *(float(q) for q in np.quantile(alive, _LEVELS)))


@dataclass(frozen=True, slots=True)
class LayerMeasurement:
    """What one linear layer's inputs and tangents look like over the draws (natural log, per layer).

    Attributes
    ----------
    name : str
        The weight's name in the module.
    activation_log_mean, activation_log_variance : float
        Of ``ln(||a||^2/fan_in)``, ``a`` the layer's input.
    tangent_log_mean, tangent_log_variance : float
        Of ``ln||W t||^2``, ``t`` the tangent that enters the layer (so: before its activation).
    activation, weight_gradient, bias_gradient : LogSummary or None
        Of ``||a||^2/fan_in``, ``||dL/dW||^2`` and ``||dL/db||^2`` over the first draws, from a backward pass: ``L`` is ``v . f(x)`` for a random
        unit ``v``, or the user's loss. None where it was not taken, or there is no bias.
    """

    name: str
    activation_log_mean: float
    activation_log_variance: float
    tangent_log_mean: float
    tangent_log_variance: float
    activation: LogSummary | None = None
    weight_gradient: LogSummary | None = None
    bias_gradient: LogSummary | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Measurement(Record):
    """Log-norms of the Jacobian-vector products of a module at initialisation.

    Attributes
    ----------
    method : str
        ``"signs"``, ``"redraw"`` or ``"law"``: the ensemble the draws come from.
    draws : int
        How many.
    seed : int
        That gives exactly these draws again.
    log_norms : float64 array of shape (draws,)
        ``ln||Ju||^2`` with ``||u|| = 1`` (natural log); -inf for a truly dead draw only, +inf for one in which the forward pass itself
        overflows. In native precision -inf is what the model's own arithmetic rounds to 0, and +inf what overflows it.
    log_mean, log_mean_se, log_variance, log_variance_se : float
        Over the draws that are not dead, with standard errors. The mean is infinite, the rest NaN, where a draw overflows.
    dead_fraction : float
        Share of draws whose gradient is exactly 0.
    input_size, output_size : int
        Features a row of input and output has.
    layers : tuple of LayerMeasurement
        In the order of execution.
    notes : tuple of str
        What the ensemble did not cover, e.g. weights that it left as they are.
    stopped : str
        Why there are no more draws: ``"draws"`` (as many as asked for), ``"precision"`` (the log-variance is known well enough),
        ``"time"`` (the time budget was spent), ``"interrupted"`` (by the user: partial).
    """

    method: str
    draws: int
    seed: int
    log_norms: NDArray[np.float64]
    log_mean: float
    log_mean_se: float
    log_variance: float
    log_variance_se: float
    dead_fraction: float
    input_size: int
    output_size: int
    layers: tuple[LayerMeasurement, ...]
    notes: tuple[str, ...] = ()
    stopped: str = "draws"

    @classmethod
    def of(
        cls,
        log_norms: NDArray[np.float64],
        *,
        method: str,
        seed: int,
        input_size: int,
        output_size: int,
        layers: tuple[LayerMeasurement, ...] = (),
        notes: tuple[str, ...] = (),
        stopped: str = "draws",
    ) -> Measurement:
        """Return the record of ``log_norms``, its statistics computed."""
        values = np.ascontiguousarray(log_norms, dtype=np.float64)
        values.setflags(write=False)
        m = LogMoments.of(values)
        return cls(
            method, len(values), seed, values, m.mean, m.mean_se, m.variance, m.variance_se, m.dead_fraction,
            input_size, output_size, layers, notes, stopped,
        )  # fmt: skip

    @property
    def overflow_fraction(self) -> float:
        """Share of draws whose norm is not a finite number: something overflowed."""
        return float(np.mean(np.isposinf(self.log_norms))) if len(self.log_norms) else 0.0

    @property
    def rms_gain_log_mean(self) -> float:
        """``log_mean + ln(n_0/n_L)``: the log of the squared RMS gain (natural log)."""
        return self.log_mean + math.log(self.input_size / self.output_size)


@dataclass(frozen=True, slots=True, eq=False)
class SpectralMeasurement(Record):
    """Squared singular values of the Jacobian of a module at initialisation: eigenvalues of ``J^T J`` (``n_0 x n_0``).

    One row a draw. Dense: every singular value. At large width: the nodes and weights of a Gauss quadrature for the
    draw's eigenvalue distribution, by stochastic Lanczos quadrature; the standard errors over draws hold the spread of
    its random probes.

    Attributes
    ----------
    method : str
        ``"signs"`` or ``"redraw"``: the ensemble the draws come from.
    draws, seed : int
        How many, and what gives exactly these again.
    input_size, output_size : int
        ``n_0`` and ``n_L``.
    log_nodes : float64 array of shape (draws, r)
        ``ln lambda`` (natural log), descending in each row, -inf for 0. Dense: ``r = min(n_0, n_L)``.
    weights : float64 array of shape (draws, r) or None
        Shares of the ``n_0`` eigenvalues that the nodes stand for; None if dense (``1/n_0`` each). What is missing to 1 in a row is the
        share of eigenvalues that are 0 because ``n_L < n_0``.
    log_largest, log_smallest : float64 array
        ``ln`` of the largest and of the ``min(n_0, n_L)``-th eigenvalue, a draw each; -inf for what cannot be told from 0. At large width of
        the first draws only, to 1e-4 of the draw's largest eigenvalue; NaN where the iteration did not converge.
    log_resolution : float
        What is smaller than ``exp(log_resolution)`` times the draw's largest eigenvalue cannot be told from 0, and counts as 0 in
        ``zero_mass``: rounding if dense, else the reach of the quadrature.
    notes : tuple of str
        What the ensemble did not cover.
    """

    method: str
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
        """``sigma^2``, shape ``(draws, min(n_0, n_L))``, descending in each row; None where only a density was measured."""
        return np.exp(self.log_nodes) if self.is_dense else None

    @property
    def zero_mass(self) -> float:
        """Share of eigenvalues that are 0, or too small to be told from 0: see ``log_resolution``."""
        return max(0.0, 1.0 - float(np.sum(self._shares * self._is_resolved, axis=1).mean()))

    @property
    def zero_mass_se(self) -> float:
        """Its standard error over draws; NaN for a single one."""
        return float(_standard_error(np.sum(self._shares * self._is_resolved, axis=1)))

    def moments(self, k: int = 4) -> NDArray[np.float64]:
        """Return ``m_1, ..., m_k``, ``m_j = E tr (J^T J)^j/n_0`` (zeros included), as `SpectralLaw.moments`."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.log_moments(k)))

    def moments_se(self, k: int = 4) -> NDArray[np.float64]:
        """Return the standard errors of ``moments(k)`` over draws; NaN for a single one."""
        scale = self._log_scale
        scaled, orders = self._scaled_moments(k), np.arange(1, k + 1)
        with np.errstate(over="ignore"):
            return np.asarray(_standard_error(scaled) * np.exp(orders * scale))

    def log_moments(self, k: int = 4) -> NDArray[np.float64]:
        """Return ``ln m_1, ..., ln m_k``: no overflow or underflow at any depth."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self._scaled_moments(k).mean(axis=0)) + np.arange(1, k + 1) * self._log_scale)

    def cdf(self, log_lambda: ArrayLike) -> NDArray[np.float64]:
        """Return the share of eigenvalues with ``ln lambda <= log_lambda``, zeros included, per draw: shape ``(draws, ...)``.

        What is not resolved counts as 0. Between the nodes of a quadrature the share is interpolated linearly in ``ln lambda``, half a node's weight on either side of it.
        """
        x = np.asarray(log_lambda, dtype=np.float64)
        return np.stack([self._row_cdf(row, x) for row in range(self.draws)])

    def density(self, edges: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean density of ``ln lambda`` in each cell between ``edges``, and its standard error over draws.

        Parameters
        ----------
        edges : array_like of shape (cells + 1,)
            Ascending, natural log of the eigenvalue.

        Returns
        -------
        density, standard_error : ndarray of shape (cells,)
            Compare with `SpectralLaw.density`: both integrate to the share of eigenvalues that are not 0.
        """
        points = np.asarray(edges, dtype=np.float64)
        if points.ndim != 1 or len(points) < 2 or not np.all(np.diff(points) > 0):
            raise InvalidInput(explain(expected="at least two ascending edges", got=repr(edges), do="Use np.linspace."))
        shares = np.diff(self.cdf(points), axis=1) / np.diff(points)
        return shares.mean(axis=0), _standard_error(shares)

    @property
    def _shares(self) -> NDArray[np.float64]:
        return np.full(self.log_nodes.shape, 1.0 / self.input_size) if self.weights is None else self.weights

    @property
    def _is_resolved(self) -> NDArray[np.bool_]:
        return self.log_nodes > self.log_nodes[:, :1] + self.log_resolution

    @property
    def _log_scale(self) -> float:
        largest = float(self.log_nodes.max(initial=-math.inf))
        return largest if math.isfinite(largest) else 0.0

    def _scaled_moments(self, k: int) -> NDArray[np.float64]:
        """Moments of ``lambda/exp(_log_scale)``, a row a draw."""
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
    """Of the mean over the first axis; NaN for one row."""
    if len(rows) < 2:
        return np.full(rows.shape[1:], math.nan)
    return np.asarray(rows.std(axis=0, ddof=1) / math.sqrt(len(rows)))
