"""The risk that training does not start: curves of the law's numbers, calibrated on
training runs.

"Did not start" means: after 400 steps the score's gain over chance (accuracy, or R^2)
is under a tenth of what healthy networks gain with the same task, optimiser, learning
rate and batch size, or the training loss is not below its first value. There are three
ways to fail, taken as independent: a dead network; no signal, by the law's drift and
fluctuation; and too large a step, by learning rate and depth. The gradient with respect
to all weights has one share a layer, so that a learning rate that starts ten layers
overshoots with forty, however well they are initialised. For each optimiser family and
kind of loss::

    risk   = 1 - (1 - dead) (1 - s(signal)) (1 - s(step)),   s(z) = 1/(1 + exp(-z))
    signal = intercept + fluctuation ln(log-variance)
             + upward U + upward_linear (drift up)/10
             + downward D + downward_linear (drift down)/10
             + x (rate + rate_square x + rate_upward U + rate_downward D)
    step   = step + step_rate x + step_depth ln(linear layers/12)
    U = ln(1 + drift up),  D = ln(1 + drift down),  x = ln(learning rate) - centre

It rises with every number of the law, and with depth, at every learning rate. The
coefficients are in `initdiag.diagnosing.calibration`; the plan, the runs and how far to
trust them are in ``tests/evidence/calibration``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from initdiag._core.choices import LOSSES, Family, Loss
from initdiag.diagnosing.calibration import (
    MIDDLE_DEPTH,
    PROVENANCE,
    Training,
    mixture_of,
    row_of,
)
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law.prediction import Prediction

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "PROVENANCE",
    "RiskTerms",
    "Training",
    "failure_risk",
    "log_odds",
    "risk_of_moments",
    "risk_terms",
    "risks",
]

OPTIMIZERS: tuple[Family, ...] = ("sgd", "adam")
"""Those that a report judges."""

LEAST_VARIANCE = 0.086
"""Below this a log-variance counts as this, the least of the study's networks.

Carried on down to 1e-4, the term ``fluctuation ln(log-variance)`` outweighed any drift
under Adam: on 480 runs of networks that hardly fluctuate
(``tests/evidence/low_fluctuation``) its Brier score is .145 so, and .115 with this.
"""

_FAR = 1e9
"""A drift of networks that are all dead, which is infinite, counts as this."""


@dataclass(frozen=True, slots=True)
class RiskTerms:
    """Where a risk comes from, averaged as the risk is.

    Attributes
    ----------
    intercept, fluctuation, upward, downward : float
        Terms of the signal's curve, whose sum is its argument.
    step_probability : float
        Probability of too large a step.
    dead_probability : float
        Probability of a dead network.
    """

    intercept: float
    fluctuation: float
    upward: float
    downward: float
    step_probability: float
    dead_probability: float

    @property
    def signal(self) -> float:
        """The argument of the signal's curve."""
        return self.intercept + self.fluctuation + self.upward + self.downward


def _features(drift: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the signal's curve is linear in, six rows.

    They are 1, ln(log-variance), U, drift up, D, drift down. Where the drift is
    infinite (networks that are dead, or that overflow) there is no log-variance, and it
    counts as the least: the drift alone makes the risk 1.
    """
    if np.isinf(drift).any():
        variance = np.where(np.isinf(drift), LEAST_VARIANCE, variance)
        drift = np.clip(drift, -_FAR, _FAR)
    log_drift = np.log(1 + np.abs(drift))  # twice as fast as log1p
    found = np.empty((6, len(drift)))
    found[0] = 1.0
    found[1] = np.log(np.maximum(variance, LEAST_VARIANCE))
    found[2], found[3] = log_drift * (drift > 0), np.maximum(drift, 0.0)
    found[4], found[5] = log_drift - found[2], found[3] - drift
    return found


def risks(
    hidden_drift: ArrayLike,
    hidden_log_variance: ArrayLike,
    dead_probability: ArrayLike,
    depth: ArrayLike,
    training: Training,
) -> NDArray[np.float64]:
    """Return the risk of many networks at once; see `failure_risk`.

    Parameters
    ----------
    hidden_drift, hidden_log_variance : array_like
        Drift and fluctuation of ``ln[(n_0/n_L) ||Ju||^2]`` without the draw of a linear
        output layer (natural log); see `Prediction`.
    dead_probability : array_like
        In [0, 1].
    depth : array_like
        Linear layers.
    training : Training
        How they are going to be trained.

    Returns
    -------
    float64 array
        Risks, in the shape to which the arguments broadcast.
    """
    numbers = np.broadcast_arrays(hidden_drift, hidden_log_variance, dead_probability, depth)
    drift, variance, dead, layers = (np.asarray(a, dtype=float).ravel() for a in numbers)
    return _risks(drift, variance, dead, layers, training).reshape(numbers[0].shape)


def _risks(
    drift: NDArray[np.float64],
    variance: NDArray[np.float64],
    dead: NDArray[np.float64] | float,
    depth: NDArray[np.float64] | int,
    training: Training,
) -> NDArray[np.float64]:
    """Return the risks of a row of networks: the one place where the curve is drawn."""
    mixture = mixture_of(training)
    odds = mixture.signal @ _features(drift, variance)
    with np.errstate(over="ignore"):
        np.exp(odds, out=odds)
    odds += 1
    starts = mixture.fitting_steps.take(np.atleast_1d(row_of(depth)), axis=1) / odds
    return np.asarray(1 - (1 - dead) * starts.sum(axis=0))


def risk_of_moments(
    hidden_drift: float,
    hidden_log_variance: float,
    dead_probability: float,
    depth: int | None,
    training: Training,
) -> float:
    """Return the risk from the law's numbers themselves; see `failure_risk` and
    `risks`.

    A depth of None is not known and counts as the study's middle.
    """
    drift, variance = np.array([hidden_drift]), np.array([hidden_log_variance])
    return float(_risks(drift, variance, dead_probability, depth or MIDDLE_DEPTH, training)[0])


def log_odds(
    hidden_drift: float,
    hidden_log_variance: float,
    dead_probability: float,
    depth: int | None,
    training: Training,
) -> float:
    """Return ``ln((1 - risk)/risk)`` without saturation (natural log).

    It is minus infinity where every network is dead. Arguments as in `risk_of_moments`.
    """
    if dead_probability == 1:
        return -math.inf
    mixture = mixture_of(training)
    signal = mixture.signal @ _features(np.array([hidden_drift]), np.array([hidden_log_variance]))
    step = mixture.step[:, row_of(depth or MIDDLE_DEPTH)]
    log_starts = math.log1p(-dead_probability) - np.logaddexp(0, signal[:, 0])
    log_starts -= np.logaddexp(0, step)
    log_fails = np.log(-np.expm1(log_starts))
    starts, fails = (special.logsumexp(logs, b=mixture.shares) for logs in (log_starts, log_fails))
    return float(starts - fails)


def risk_terms(
    hidden_drift: float,
    hidden_log_variance: float,
    dead_probability: float,
    depth: int | None,
    training: Training,
) -> RiskTerms:
    """Return what the risk comes from; arguments as in `risk_of_moments`."""
    mixture = mixture_of(training)
    features = _features(np.array([hidden_drift]), np.array([hidden_log_variance]))[:, 0]
    one, fluctuation, *slopes = (mixture.shares @ mixture.signal * features).tolist()
    step = float(mixture.shares @ special.expit(mixture.step[:, row_of(depth or MIDDLE_DEPTH)]))
    return RiskTerms(one, fluctuation, sum(slopes[:2]), sum(slopes[2:]), step, dead_probability)


def failure_risk(
    prediction: Prediction,
    optimizer: Family | None = "sgd",
    lr: float | None = None,
    loss: Loss | None = None,
) -> float:
    """Return the calibrated probability that training does not start where healthy
    networks' does.

    The reference population: fully connected ReLU networks with a linear output, 3 to
    45 hidden layers of 8 to 128 units (constant, random, alternating, bottlenecks,
    pyramids), eight initialisations (He, PyTorch's default, Xavier, LeCun, orthogonal,
    He times 0.67 and 1.5), 400 steps at batch sizes 16 and 64, on three classifications
    and two regressions of 2 to 64 inputs. "Did not start": under a tenth of the gain
    over chance that shallow He and orthogonal networks reach with the same task,
    optimiser, learning rate and batch size.

    Parameters
    ----------
    prediction : Prediction
        With coverage. Its depth counts beside the law's numbers.
    optimizer : str
        ``"sgd"`` (plain), ``"momentum"`` (0.9), ``"adam"`` or ``"adamw"``; None is
        plain SGD.
    lr : float, optional
        Learning rate; outside the study's range it counts as the nearest in it. Left
        out: averaged over the study's (SGD 0.01 to 0.3 for classification and 0.001 to
        0.03 for regression, momentum a third of it and less, Adam and AdamW 0.0003 to
        0.01).
    loss : str, optional
        ``"classification"`` (cross entropy) or ``"regression"`` (squared error). Left
        out: averaged over both.

    Raises
    ------
    InvalidInput
        For an unknown optimiser or loss, or a learning rate that is not positive.
    UnsupportedArchitecture
        Without coverage there is nothing to judge.
    """
    training = Training.of(optimizer, lr, loss)
    if not isinstance(prediction, Prediction):
        got = type(prediction).__name__
        raise InvalidInput(
            explain(
                expected="a Prediction",
                got=got,
                do="Pass initdiag.predict(widths), or the prediction of a trace.",
            )
        )
    drift, variance, dead = (
        prediction.hidden_drift,
        prediction.hidden_log_variance,
        prediction.hidden_dead_probability,
    )
    if drift is None or variance is None or dead is None:
        raise UnsupportedArchitecture(
            "the theory does not cover this network, so that there is no risk: "
            f"{'; '.join(prediction.reasons)}. Measure it instead."
        )
    depth = prediction.depth or len(prediction.layers)
    risk = risk_of_moments(drift, variance, dead, depth, training)
    if math.isnan(risk):
        raise UnsupportedArchitecture(
            "no risk: too few simulated draws have a gradient for a log-variance. Simulate more."
        )
    return risk
