"""The risk that training does not start, as a curve of the law's numbers.

**Provisional.** The coefficients are a logistic fit to a pilot study: 600 random architectures trained on the scikit-learn
digits (plan, runs and fit in ``tests/evidence/pilot``). One task, one batch size: read a risk as an ordering with a rough scale.

"Did not start" means: test accuracy under chance plus a tenth of what a healthy network gains over chance with the same task,
optimiser, learning rate and budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.prediction import Prediction

__all__ = ["OPTIMIZERS", "PROVENANCE", "RiskTerms", "failure_risk", "risk_of_moments", "risk_terms"]

PROVENANCE = "provisional: a pilot of 600 training runs on digits (tests/evidence/pilot)"

OPTIMIZERS = ("sgd", "adam")

LEAST_VARIANCE = 1e-4
"""Below this a log-variance counts as this: the fit has seen none smaller."""


@dataclass(frozen=True, slots=True)
class _Curve:
    intercept: float
    fluctuation: float
    upward: float
    downward: float


# python tests/evidence/pilot/study.py tests/evidence/pilot/runs.csv --fit
_CURVES = {
    "sgd": _Curve(intercept=-6.803, fluctuation=0.944, upward=3.156, downward=2.681),
    "adam": _Curve(intercept=-15.157, fluctuation=1.054, upward=5.032, downward=3.708),
}


@dataclass(frozen=True, slots=True)
class RiskTerms:
    """The terms of the logistic curve's argument, by what they come from, and the probability of a dead network."""

    intercept: float
    fluctuation: float
    upward: float
    downward: float
    dead_probability: float

    @property
    def risk(self) -> float:
        """The probability, in [0, 1]: a dead network does not start, any other by the curve."""
        total = self.intercept + self.fluctuation + self.upward + self.downward
        curve = 1.0 if math.isnan(total) else 0.5 * (1 + math.tanh(total / 2))
        return self.dead_probability + (1 - self.dead_probability) * curve


def risk_terms(hidden_drift: float, hidden_log_variance: float, dead_probability: float, optimizer: str) -> RiskTerms:
    """Return the terms of the risk: from fluctuation, drift up, drift down, and dead networks.

    Parameters
    ----------
    hidden_drift, hidden_log_variance : float
        Drift and fluctuation of ``ln[(n_0/n_L) ||Ju||^2]`` without the draw of a linear output layer (natural log); see `Prediction`.
    dead_probability : float
        In [0, 1].
    optimizer : str
        ``"sgd"`` (plain) or ``"adam"``.

    Raises
    ------
    InvalidInput
        For another optimiser.
    """
    if optimizer not in _CURVES:
        raise InvalidInput(
            explain(
                expected=f"optimizer: one of {', '.join(OPTIMIZERS)}",
                got=repr(optimizer),
                do="Momentum behaves like sgd, AdamW like adam.",
            )
        )
    curve = _CURVES[optimizer]
    return RiskTerms(
        curve.intercept,
        curve.fluctuation * math.log(max(hidden_log_variance, LEAST_VARIANCE)),
        curve.upward * math.log1p(max(hidden_drift, 0.0)),
        curve.downward * math.log1p(max(-hidden_drift, 0.0)),
        dead_probability,
    )


def risk_of_moments(hidden_drift: float, hidden_log_variance: float, dead_probability: float, optimizer: str) -> float:
    """Return the risk from the law's numbers themselves; see `failure_risk` and `risk_terms`."""
    return risk_terms(hidden_drift, hidden_log_variance, dead_probability, optimizer).risk


def failure_risk(
    prediction: Prediction, optimizer: str = "sgd", lr: float | None = None, loss: str | None = None
) -> float:
    """Return the probability that training does not start where healthy networks do (provisional).

    The reference population: fully connected ReLU nets of 3 to 45 hidden layers and widths 8 to 256, six initialisations, on the
    scikit-learn digits; plain SGD at learning rates 0.1 and 0.01 together, Adam at 1e-3.

    Parameters
    ----------
    prediction : Prediction
        With coverage.
    optimizer : str
        ``"sgd"`` or ``"adam"``.
    lr : float, optional
        The provisional curve does not tell learning rates apart: the risk is that of the population's.
    loss : str, optional
        ``"classification"`` or ``"regression"``. The pilot knows classification only and answers for it.

    Raises
    ------
    InvalidInput
        For an unknown optimiser or loss, or a learning rate that is not positive.
    UnsupportedArchitecture
        Without coverage there is nothing to judge.
    """
    if loss not in (None, "classification", "regression"):
        raise InvalidInput(
            explain(expected='loss "classification" or "regression"', got=repr(loss), do="Or leave it out.")
        )
    if lr is not None and not lr > 0:
        raise InvalidInput(explain(expected="lr: a positive number", got=repr(lr), do="Or leave it out."))
    drift, variance, dead = prediction.hidden_drift, prediction.hidden_log_variance, prediction.dead_probability
    if drift is None or variance is None or dead is None:
        raise UnsupportedArchitecture(f"no coverage, so no risk: {'; '.join(prediction.reasons)}. Measure it instead.")
    return risk_of_moments(drift, variance, dead, optimizer)
