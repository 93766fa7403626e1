"""The records of what was measured on the user's own module: log-norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from initdiag._core.choices import Ensemble, Stopped
from initdiag._core.serialization import Record
from initdiag._core.summary import Summarised, number, with_error
from initdiag.network.log_moments import LogMoments

__all__ = ["LayerMeasurement", "LogSummary", "Measurement"]

_LEVELS = (0.05, 0.5, 0.95)
"""Levels of a summary's quantiles."""


@dataclass(frozen=True, slots=True)
class LogSummary:
    """A squared norm over the draws in which it is not 0 (natural log).

    Attributes
    ----------
    log_mean, log_variance : float
        Moments of its logarithm.
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
        """Return the summary of those among ``log_squares`` that are not -inf; NaN
        where there are none; an overflow, inf or NaN, makes the mean infinite.
        """
        alive = np.nan_to_num(log_squares[~np.isneginf(log_squares)], nan=np.inf, posinf=np.inf)
        if not len(alive):
            return cls(*[math.nan] * 5)
        if np.isposinf(alive).any():
            return cls(
                math.inf,
                math.nan,
                *(float(q) for q in np.quantile(alive, _LEVELS, method="inverted_cdf")),
            )
        variance = float(np.var(alive, ddof=1)) if len(alive) > 1 else math.nan
        return cls(float(alive.mean()), variance, *(float(q) for q in np.quantile(alive, _LEVELS)))


@dataclass(frozen=True, slots=True)
class LayerMeasurement:
    """What one linear layer's inputs and tangents look like over the draws (natural
    log, per layer).

    Attributes
    ----------
    name : str
        The weight's name in the module.
    activation_log_mean, activation_log_variance : float
        Moments of ``ln(||a||^2/fan_in)`` for the layer's input ``a``.
    tangent_log_mean, tangent_log_variance : float
        Moments of ``ln||W t||^2`` for the tangent ``t`` that enters the layer, so
        before its activation.
    activation, weight_gradient, bias_gradient : LogSummary or None
        Summaries of ``||a||^2/fan_in``, ``||dL/dW||^2`` and ``||dL/db||^2`` over the
        first draws, from a backward pass: ``L`` is ``v . f(x)`` for a random unit
        ``v``, or the user's loss. None where it was not taken, or there is no bias.
    """

    name: str
    activation_log_mean: float
    activation_log_variance: float
    tangent_log_mean: float
    tangent_log_variance: float
    activation: LogSummary | None = None
    weight_gradient: LogSummary | None = None
    bias_gradient: LogSummary | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Measurement(Summarised, Record):
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
        ``ln||Ju||^2`` with ``||u|| = 1`` (natural log); -inf for a truly dead draw
        only, +inf for one in which the forward pass itself overflows. In native
        precision -inf is what the model's own arithmetic rounds to 0, and +inf what
        overflows it.
    log_mean, log_mean_se, log_variance, log_variance_se : float
        Over the draws that are not dead, with standard errors: of the number of draws
        and, for signs, of what these very weights leave fixed. The mean is infinite,
        the rest NaN, where a draw overflows.
    dead_fraction : float
        Share of draws whose gradient is exactly 0.
    input_size, output_size : int
        Features a row of input and output has.
    layers : tuple of LayerMeasurement
        In the order of execution.
    notes : tuple of str
        What the ensemble did not cover, e.g. weights that it left as they are.
    stopped : str
        Why there are no more draws: ``"draws"`` (as many as asked for), ``"precision"``
        (the log-variance is known well enough), ``"time"`` (the time budget was spent),
        ``"interrupted"`` (by the user: partial).
    fixed : tuple of str
        Names of the parameters that were drawn once and did not vary over the draws:
        dead share and variance are those given their present values.
    """

    method: Ensemble
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
    stopped: Stopped = "draws"
    fixed: tuple[str, ...] = ()

    def _summary(self) -> dict[str, str]:
        return {
            "draws": f"{self.draws} by {self.method}",
            "log-mean": with_error(self.log_mean, self.log_mean_se),
            "log-variance": with_error(self.log_variance, self.log_variance_se),
            "dead": number(self.dead_fraction),
        }

    @classmethod
    def of(
        cls,
        log_norms: NDArray[np.float64],
        *,
        method: Ensemble,
        seed: int,
        input_size: int,
        output_size: int,
        layers: tuple[LayerMeasurement, ...] = (),
        notes: tuple[str, ...] = (),
        stopped: Stopped = "draws",
        fixed: tuple[str, ...] = (),
    ) -> Measurement:
        """Return the record of ``log_norms``, its statistics computed."""
        values = np.ascontiguousarray(log_norms, dtype=np.float64)
        values.setflags(write=False)
        m = LogMoments.of(values)
        return cls(
            method, len(values), seed, values, m.mean, m.mean_se, m.variance, m.variance_se,
            m.dead_fraction,
            input_size, output_size, layers, notes, stopped, fixed,
        )  # fmt: skip

    @property
    def sampling_log_mean_se(self) -> float:
        """The part of ``log_mean_se`` that the number of draws leaves."""
        return LogMoments.of(self.log_norms).mean_se

    @property
    def sampling_log_variance_se(self) -> float:
        """The part of ``log_variance_se`` that the number of draws leaves."""
        return LogMoments.of(self.log_norms).variance_se

    @property
    def overflow_fraction(self) -> float:
        """Share of draws whose norm is not a finite number: something overflowed."""
        return float(np.mean(np.isposinf(self.log_norms))) if len(self.log_norms) else 0.0

    def from_first_layer(self, variance: float, fan_in: int, fan_out: int) -> tuple[float, float]:
        """Return mean and variance of the log of the squared RMS gain from the first
        layer's input on.

        What comes before it is taken off by the tangent that leaves it, ``||W t||^2``:
        entries of ``variance`` make ``v fan_out ||t||^2`` of the tangent that enters,
        up to a chi-square of ``fan_out`` degrees of freedom, taken as independent of
        the rest.
        """
        first = self.layers[0]
        mean = (
            self.log_mean
            - first.tangent_log_mean
            + math.log(variance * fan_out)
            + math.log(fan_in / self.output_size)
        )
        return mean, max(self.log_variance - first.tangent_log_variance, 0.0) + 2 / fan_out

    @property
    def rms_gain_log_mean(self) -> float:
        """``log_mean + ln(n_0/n_L)``: the log of the squared RMS gain (natural log)."""
        return self.log_mean + math.log(self.input_size / self.output_size)
