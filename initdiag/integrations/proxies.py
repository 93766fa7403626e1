"""A score for zero-cost-proxy frameworks: signed, on a log scale, higher is better."""

from __future__ import annotations

from typing import Any

from initdiag._core.choices import Family
from initdiag.diagnosing.risk import Training, log_odds
from initdiag.errors import UnsupportedArchitecture
from initdiag.integrations.candidates import prediction_of

__all__ = ["score"]


def score(candidate: Any, *, optimizer: Family | None = "sgd", **options: Any) -> float:
    """Return the log-odds ``ln(p / (1 - p))``, natural log, that training starts.

    Positive: more likely than not. The log-odds of `initdiag.failure_risk`, worked out
    on the log scale: it does not saturate as the risk does, so that a search can climb
    out of a region where nothing trains.

    Parameters
    ----------
    candidate, **options
        Widths, an architecture, a module or a factory: see
        `initdiag.integrations.candidates.prediction_of`.
    optimizer : str
        See `initdiag.failure_risk`.

    Returns
    -------
    float
        Finite, but for minus infinity where every initialisation is dead.

    Raises
    ------
    UnsupportedArchitecture
        If the candidate can be neither covered nor simulated.

    Examples
    --------
    >>> score([64] * 5) > 0 > score([64] * 40) > score([64] * 400)
    True
    """
    prediction = prediction_of(candidate, **options)
    drift, variance, dead = (
        prediction.hidden_drift,
        prediction.hidden_log_variance,
        prediction.hidden_dead_probability,
    )
    if drift is None or variance is None or dead is None:
        raise UnsupportedArchitecture(f"no score: {'; '.join(prediction.reasons)}")
    return log_odds(drift, variance, dead, prediction.depth, Training.of(optimizer))
