"""One candidate's risk, whatever it is: widths, an architecture, a module or
a factory.
"""

from __future__ import annotations

from typing import Any

from initdiag._core.choices import Family, Loss
from initdiag.diagnosing.diagnose import diagnose
from initdiag.diagnosing.risk import failure_risk
from initdiag.errors import UnsupportedArchitecture
from initdiag.law.predict import predict
from initdiag.law.prediction import Prediction
from initdiag.network.architecture import Architecture

__all__ = ["prediction_of", "risk_of"]


def prediction_of(candidate: Any, **options: Any) -> Prediction:
    """Return the prediction for a candidate.

    Parameters
    ----------
    candidate : sequence of int, Architecture, nn.Module or factory
        Widths and architectures are judged by theory alone, without torch; modules are
        traced, and simulated where they are not a chain.
    **options
        With widths as in `Architecture.from_widths`; with a module as in
        `initdiag.diagnose` (``method="none"`` unless given).

    Raises
    ------
    InvalidInput
        As these.
    """
    if isinstance(candidate, Architecture) or not callable(candidate):
        return predict(candidate, **options)
    return diagnose(candidate, **{"method": "none", **options}).prediction


def risk_of(
    candidate: Any,
    *,
    optimizer: Family | None = "sgd",
    lr: float | None = None,
    loss: Loss | None = None,
    **options: Any,
) -> float:
    """Return the calibrated risk that the candidate's training does not start, in [0,
    1].

    Parameters
    ----------
    candidate, **options
        See `prediction_of`.
    optimizer, lr, loss
        See `initdiag.failure_risk`; give the trial's own where they are known.

    Raises
    ------
    UnsupportedArchitecture
        If the candidate can be neither covered nor simulated.
    InvalidInput
        See `initdiag.failure_risk`, `initdiag.diagnose`.
    """
    prediction = prediction_of(candidate, **options)
    if prediction.hidden_drift is None:
        raise UnsupportedArchitecture(f"no risk: {'; '.join(prediction.reasons)}")
    return failure_risk(prediction, optimizer, lr, loss)
