"""The record of what theory says about a network, layer by layer and in all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from initdiag._core.serialization import FLAT, Record
from initdiag._core.summary import Summarised, number, with_error
from initdiag.errors import UnsupportedArchitecture
from initdiag.network.architecture import Architecture, Gate
from initdiag.network.log_moments import LogMoments

if TYPE_CHECKING:
    from initdiag.law.layer import LayerMoments
    from initdiag.measuring.record import Measurement

__all__ = [
    "Coverage",
    "LayerPrediction",
    "PredictedMoments",
    "Prediction",
    "without_output_draw",
    "without_output_mask",
]

Coverage = Literal["exact", "first-order", "simulated", "none"]
"""How a prediction knows what it says: see `Prediction`."""


def without_output_draw(
    drift: float, log_variance: float, draw: LayerMoments
) -> tuple[float, float]:
    """Return drift and log-variance without the output's own draw.

    ``draw`` is what `initdiag.law.output.output_draw` returns; it is independent of the
    rest, so that means and variances of the logs are subtracted.
    """
    return drift - draw.mean, max(log_variance - draw.variance, 0.0)


def without_output_mask(dead: float, gate: Gate, outputs: int) -> float:
    """Return the probability of a dead network given that the output's gate is not all
    closed.

    The mask of a linear output is independent of the rest, so that with the probability
    ``m`` that it closes all outputs the result is ``1 - (1 - dead)/(1 - m)``.
    """
    mask = gate.closed_probability**outputs
    if mask == 0.0 or dead == 1.0:
        return dead
    return max(-math.expm1(math.log1p(-dead) - math.log1p(-mask)), 0.0)


@dataclass(frozen=True, slots=True)
class LayerPrediction:
    """One layer's share of the law of ``ln||Ju||^2``; the shares of independent layers
    add.

    Attributes
    ----------
    name, fan_in, fan_out
        As in the architecture.
    gate : Gate or None
        The discrete law of the activation's derivative; None where it has none (tanh,
        GELU ...).
    gain : float
        RMS gain of a perturbation, ``sqrt(v fan_in E d^2)``: 1 is healthy. Of a
        simulated layer, ``exp`` of half its share of the drift.
    log_mean, log_variance : float
        Share of the mean and of the variance of ``ln||Ju||^2`` (natural log), given not
        dead. Of a simulated layer, what it adds to both: its share of the variance may
        be negative, for simulated layers are not independent.
    beta : float or None
        Share of Hanin and Nica's log-variance; None without a discrete gate.
    dead_probability : float
        P(every gate of the layer is closed).
    weight_variance : float
        Variance of an entry of the weight matrix.
    haar : bool
        Whether the weight matrix is orthogonal (Haar), not iid.
    kurtosis : float
        Kurtosis ``E w^4/(E w^2)^2`` of an entry of the weight matrix: 3 if Gaussian.
    """

    name: str
    fan_in: int
    fan_out: int
    gate: Gate | None
    gain: float
    log_mean: float
    log_variance: float
    beta: float | None
    dead_probability: float
    weight_variance: float
    haar: bool
    kurtosis: float = 3.0

    @property
    def rms_gain_log_mean(self) -> float:
        """Share of the drift: ``log_mean + ln(fan_in/fan_out)`` (natural log)."""
        return self.log_mean + math.log(self.fan_in / self.fan_out)


@dataclass(frozen=True, slots=True)
class PredictedMoments:
    """Mean and variance of ``ln||Ju||^2`` (natural log, given not dead), whole or not
    there.

    Attributes
    ----------
    log_mean, log_variance : float
        Drift and fluctuation of ``ln||Ju||^2``.
    log_mean_se, log_variance_se : float
        0 unless simulated.
    rms_gain_log_mean : float
        ``log_mean + ln(n_0/n_L)``: the log of the squared RMS gain, 0 if healthy.
    hidden_drift, hidden_log_variance : float
        Drift and fluctuation without the draw of a linear output layer's own weights,
        its mean-square gain kept: the log-variance is that of every weight's gradient,
        in which the mask of a dropout behind the output remains. Risk and verdict judge
        these: with one output ``(g.u)^2`` varies by ``psi'(1/2) = 4.9`` with the
        direction ``u`` alone.
    dead_probability : float
        P(some layer has every gate closed), so that the gradient is exactly 0.
    log_mean_error, log_variance_error : float
        How far off the formula itself may be, one standard deviation
        (`initdiag.law.kurtosis.corrections`), and the scales of the weights, where they
        are estimated or in doubt (`WeightLaw.scale_error`). The scales separate these
        weights from a redraw, not from random signs around them.
    """

    log_mean: float
    log_variance: float
    log_mean_se: float
    log_variance_se: float
    rms_gain_log_mean: float
    hidden_drift: float
    hidden_log_variance: float
    dead_probability: float
    log_mean_error: float = 0.0
    log_variance_error: float = 0.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prediction(Summarised, Record):
    """The law of ``ln||Ju||^2``, ``||u|| = 1``, of a network at initialisation.

    Attributes
    ----------
    coverage : Coverage
        ``"exact"``; ``"first-order"`` (exact to first order in the excess kurtosis of
        non-Gaussian weights, and close beyond: the errors say how close);
        ``"simulated"`` (the standard errors say how well); ``"none"`` (there are no
        numbers).
    reasons : tuple of str
        Why the coverage is not exact.
    moments : PredictedMoments or None
        The numbers; None under coverage "none". Each is an attribute of the prediction
        as well (``prediction.log_mean``), None there.
    beta : float or None
        Hanin and Nica's log-variance for the actual gates (arXiv 1812.05994).
    layers : tuple of LayerPrediction
        The shares; empty without coverage, and for a simulation through a module's own
        forward.
    samples : float64 array or None
        The simulated draws of ``ln||Ju||^2``, -inf where dead, under coverage
        "simulated"; else None.
    u_fourth : float or None
        ``||u||_4^4`` where it was given; None for a uniform unit vector.
    depth : int or None
        Linear layers, which the risk takes into account; None where it is not known.
    """

    coverage: Coverage
    reasons: tuple[str, ...]
    moments: PredictedMoments | None = field(metadata=FLAT)
    beta: float | None
    layers: tuple[LayerPrediction, ...]
    samples: NDArray[np.float64] | None = None
    u_fourth: float | None = None
    depth: int | None = None

    def _summary(self) -> dict[str, str]:
        m = self.moments
        if m is None:
            return {"coverage": self.coverage, "why": "; ".join(self.reasons)}
        return {
            "coverage": self.coverage,
            "log-mean": with_error(m.log_mean, m.log_mean_se),
            "log-variance": with_error(m.log_variance, m.log_variance_se),
            "beta": number(self.beta),
            "dead": number(m.dead_probability),
        }

    @property
    def known(self) -> PredictedMoments:
        """The moments of a network that is covered.

        Raises
        ------
        UnsupportedArchitecture
            Without coverage there are none.
        """
        if self.moments is None:
            self._refuse("a mean and a variance")
        return self.moments

    @classmethod
    def from_simulation(cls, architecture: Architecture, measurement: Measurement) -> Prediction:
        """Return what a measurement with ``method="law"`` predicts: coverage
        "simulated", with its standard errors.

        Parameters
        ----------
        architecture : Architecture
            The architecture that was simulated, gaps and all.
        measurement : Measurement
            The measurement by ``method="law"``: every linear layer of the module
            replaced by its law, inside the module's own forward.

        Raises
        ------
        InvalidInput
            For a measurement by another method, which does not simulate the law.
        """
        from initdiag.measuring.judged import prediction_of

        return prediction_of(architecture, measurement)

    @classmethod
    def simulated(
        cls,
        samples: NDArray[np.float64],
        reasons: tuple[str, ...],
        input_size: int,
        output_size: int,
        output_draw: LayerMoments,
        depth: int,
        layers: tuple[LayerPrediction, ...] = (),
    ) -> Prediction:
        """Return the prediction that simulated draws of ``ln||Ju||^2`` make.

        ``output_draw`` is what the draws hold of a linear output's own weights, and
        what `hidden_drift` and ``hidden_log_variance`` leave out.
        """
        m = LogMoments.of(samples)
        rms_gain = m.mean + math.log(input_size / output_size)
        hidden = without_output_draw(rms_gain, m.variance, output_draw)
        moments = PredictedMoments(
            m.mean, m.variance, m.mean_se, m.variance_se, rms_gain, *hidden, m.dead_fraction
        )
        return cls("simulated", reasons, moments, None, layers, samples, depth=depth)

    @property
    def log_mean(self) -> float | None:
        """Mean of ``ln||Ju||^2`` (natural log); None without coverage."""
        return None if self.moments is None else self.moments.log_mean

    @property
    def log_variance(self) -> float | None:
        """Variance of ``ln||Ju||^2``; None without coverage."""
        return None if self.moments is None else self.moments.log_variance

    @property
    def log_mean_se(self) -> float | None:
        """Standard error of ``log_mean``: 0 unless simulated."""
        return None if self.moments is None else self.moments.log_mean_se

    @property
    def log_variance_se(self) -> float | None:
        """Standard error of ``log_variance``: 0 unless simulated."""
        return None if self.moments is None else self.moments.log_variance_se

    @property
    def rms_gain_log_mean(self) -> float | None:
        """The log of the squared RMS gain, 0 if healthy."""
        return None if self.moments is None else self.moments.rms_gain_log_mean

    @property
    def hidden_drift(self) -> float | None:
        """Drift without a linear output's own draw: `PredictedMoments`."""
        return None if self.moments is None else self.moments.hidden_drift

    @property
    def hidden_log_variance(self) -> float | None:
        """Log-variance without a linear output's own draw: `PredictedMoments`."""
        return None if self.moments is None else self.moments.hidden_log_variance

    @property
    def dead_probability(self) -> float | None:
        """P(some layer has every gate closed)."""
        return None if self.moments is None else self.moments.dead_probability

    @property
    def log_mean_error(self) -> float | None:
        """How far off the formula of ``log_mean`` may be, one standard deviation."""
        return None if self.moments is None else self.moments.log_mean_error

    @property
    def log_variance_error(self) -> float | None:
        """How far off the formula of ``log_variance`` may be."""
        return None if self.moments is None else self.moments.log_variance_error

    @property
    def hidden_dead_probability(self) -> float | None:
        """Probability that some layer is dead, without the mask of a linear output's
        dropout.

        A mask that closes every output is gone in the next step, and in the next row of
        the batch: a network whose output it closes is not dead. Risk and verdict judge
        this one. Equal to ``dead_probability`` without such a dropout.
        """
        gate = self.layers[-1].gate if self.layers else None
        if self.dead_probability is None or gate is None or not gate.is_linear:
            return self.dead_probability
        return without_output_mask(self.dead_probability, gate, self.layers[-1].fan_out)

    @property
    def known_beta(self) -> float:
        """``beta`` of a chain with discrete gates.

        Raises
        ------
        UnsupportedArchitecture
            Without coverage, or where it is a simulation.
        """
        self._require_layers("beta")
        if self.beta is None:
            raise UnsupportedArchitecture(
                "Hanin and Nica's law holds for discrete gates only: this network was "
                "simulated. Use law.log_moment(1)."
            )
        return self.beta

    @property
    def log_second_moment(self) -> float:
        """``ln E||Ju||^2`` from the layers' gains, dead draws counting 0: ``2 sum ln
        gain + ln(n_L/n_0)``.

        Raises
        ------
        UnsupportedArchitecture
            Without coverage, or where it is a simulation.
        """
        self._require_layers("ln E||Ju||^2")
        _ = self.known_beta
        if any(layer.gain == 0 for layer in self.layers):
            return -math.inf
        ratio = self.layers[-1].fan_out / self.layers[0].fan_in
        return 2 * math.fsum(math.log(layer.gain) for layer in self.layers) + math.log(ratio)

    @property
    def law(self) -> Any:
        """The distribution of ``ln||Ju||^2`` given not dead, as a ``scipy.stats``
        distribution.

        Raises
        ------
        UnsupportedArchitecture
            Without coverage there is no law.
        """
        if self.samples is not None:
            from initdiag.law.distributions.empirical import EmpiricalLaw

            return EmpiricalLaw(self.samples)
        self._require_layers("a law")
        from initdiag.law.distributions.chain import ChainLaw

        return ChainLaw.of(self)

    @property
    def asymptotic_law(self) -> Any:
        """Hanin and Nica's log-normal limit: a frozen ``scipy.stats.norm(drift -
        beta/2, sqrt(beta))``.

        Raises
        ------
        UnsupportedArchitecture
            Without coverage there is no law.
        """
        from scipy import stats

        drift, beta = self.log_second_moment, self.known_beta
        return stats.norm(drift - beta / 2, math.sqrt(beta))

    def _require_layers(self, what: str) -> None:
        if not self.layers:
            self._refuse(what)

    def _refuse(self, what: str) -> NoReturn:
        reason = "; ".join(self.reasons) or "no layer"
        raise UnsupportedArchitecture(
            f"the theory does not cover this network, so that there is no {what}: {reason}. "
            "Measure it instead: initdiag.measure(model)."
        )
