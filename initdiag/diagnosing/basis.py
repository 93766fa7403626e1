"""What a network is judged by: the law's numbers, the measurement's, or none.

A prediction that the measurement refutes is not judged by. An output layer that starts
at zero, which is a usual start, is predicted as if its gain were 1 (`past_zero_start`).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass

from initdiag.diagnosing.agreement import Agreement, signs_hide_variance
from initdiag.diagnosing.risk import RiskTerms, Training, risk_of_moments, risk_terms
from initdiag.law.prediction import Prediction
from initdiag.measuring.judged import judged_moments
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture
from initdiag.network.weights import WeightLaw

__all__ = ["Basis", "Numbers", "basis_of", "past_zero_start", "starts_at_zero"]


class Basis(enum.StrEnum):
    """What a verdict rests on."""

    LAW = "law"
    MEASUREMENT = "measurement"
    STRUCTURE = "structure"
    """What was read of the module: weights that are equal, or that none can learn."""
    TRIAL = "trial"
    """Real steps on a replica, which the law does not explain."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that risk and verdict judge; none of them is NaN.

    Attributes
    ----------
    drift, variance : float
        Mean and variance of the log of the squared gain, without a linear output's draw
        (natural log). The drift is infinite where draws overflow, minus infinite where
        all are dead; there is no log-variance then, and it is 0.
    dead : float
        Share of dead networks.
    depth : int or None
        Linear layers; None where there are none to count.
    """

    drift: float
    variance: float
    dead: float
    depth: int | None

    @classmethod
    def of(
        cls, drift: float, variance: float, dead: float, depth: int | None, overflows: bool
    ) -> Numbers | None:
        """Return the numbers; None where too few draws are alive to tell them."""
        if dead == 1.0:
            return cls(-math.inf, 0.0, 1.0, depth)
        if overflows:
            return cls(math.inf, 0.0, dead, depth)
        return None if math.isnan(drift + variance + dead) else cls(drift, variance, dead, depth)

    @property
    def overflows(self) -> bool:
        """Whether the gradient of some draws is infinite."""
        return self.drift == math.inf

    @property
    def is_dead(self) -> bool:
        """Whether every draw is dead."""
        return self.dead == 1.0

    def risk(self, training: Training) -> float:
        """Return the risk that training does not start."""
        return risk_of_moments(self.drift, self.variance, self.dead, self.depth, training)

    def terms(self, training: Training) -> RiskTerms:
        """Return what the risk comes from."""
        return risk_terms(self.drift, self.variance, self.dead, self.depth, training)


def starts_at_zero(architecture: Architecture) -> bool:
    """Return whether the last of several layers is all zeros.

    This is a usual start: at the first step that layer alone has a gradient, from then
    on every layer trains.
    """
    layers = architecture.layers
    return len(layers) > 1 and layers[-1].weight.variance == 0


def past_zero_start(architecture: Architecture) -> Architecture:
    """Return the network with an output layer of gain 1 in place of one of zeros."""
    if not starts_at_zero(architecture):
        return architecture
    *hidden, output = architecture.layers
    weight = WeightLaw.from_initializer("lecun_normal", output.fan_in, output.fan_out)
    layers = (*hidden, dataclasses.replace(output, weight=weight, bias=None))
    return dataclasses.replace(architecture, layers=layers)


def basis_of(
    architecture: Architecture,
    prediction: Prediction,
    measurement: Measurement | None,
    agreement: Agreement | None,
) -> tuple[Numbers | None, Basis]:
    """Return the numbers to judge by, and whose they are.

    They are the law's where it covers the network and the measurement does not refute
    it; else the measurement's; else there are none. ``prediction`` is that of
    `past_zero_start`.
    """
    is_refuted = agreement is not None and not agreement.agrees
    numbers = None if is_refuted else _of_law(architecture, prediction)
    if numbers is not None:
        return numbers, Basis.LAW
    numbers = None if measurement is None else _of_measurement(architecture, measurement)
    if numbers is None or (numbers.is_dead and starts_at_zero(architecture)):
        return None, Basis.NONE
    assert measurement is not None
    if is_refuted and measurement.method == "signs" and signs_hide_variance(architecture):
        # Such signs show the drift, not how it varies: there the larger variance
        # counts.
        variance = max(numbers.variance, prediction.hidden_log_variance or 0.0)
        numbers = dataclasses.replace(numbers, variance=variance)
    return numbers, Basis.MEASUREMENT


def _of_law(architecture: Architecture, prediction: Prediction) -> Numbers | None:
    drift, variance = prediction.hidden_drift, prediction.hidden_log_variance
    dead = prediction.hidden_dead_probability
    if drift is None or variance is None or dead is None:
        return None
    overflows = prediction.log_mean == math.inf
    return Numbers.of(drift, variance, dead, _depth(architecture), overflows)


def _of_measurement(architecture: Architecture, measurement: Measurement) -> Numbers | None:
    depth, dead = _depth(architecture), measurement.dead_fraction
    if dead == 1.0 or measurement.overflow_fraction:
        overflows = measurement.overflow_fraction > 0
        return Numbers.of(math.nan, math.nan, dead, depth, overflows)
    return Numbers.of(*judged_moments(measurement, architecture), depth, overflows=False)


def _depth(architecture: Architecture) -> int | None:
    return architecture.depth if architecture.layers else None
