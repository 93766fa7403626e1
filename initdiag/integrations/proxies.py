"""A score for zero-cost-proxy frameworks: signed, on a log scale, higher is better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from initdiag.errors import UnsupportedArchitecture
from initdiag.integrations.candidates import prediction_of
from initdiag.risk import Training, risk_terms

__all__ = ["score"]


def score(candidate: Any, *, optimizer: str = "sgd", **options: Any) -> float:
    """Return the log-odds ``ln(p / (1 - p))``, natural log, that training starts.

    Positive: more likely than not. It does not saturate as the risk does, so that a search can climb out of a region where
    nothing trains. From the curve's argument averaged over the calibration's learning rates, where `initdiag.failure_risk` averages
    the curve: near even odds the two may differ by a little.

    Parameters
    ----------
    candidate, **options
        As in `initdiag.integrations.candidates.prediction_of`: widths, an architecture, a module or a factory.
    optimizer : str
        As in `initdiag.failure_risk`.

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
    drift, variance, dead = prediction.hidden_drift, prediction.hidden_log_variance, prediction.dead_probability
    if drift is None or variance is None or dead is None:
        raise UnsupportedArchitecture(f"no score: {'; '.join(prediction.reasons)}")
    if dead == 1:
        return -math.inf
    terms = risk_terms(drift, variance, dead, prediction.depth, Training(optimizer))
    log_alive, log_signal = math.log1p(-dead), -float(np.logaddexp(0, terms.signal))
    log_starts = log_alive + log_signal + math.log1p(-terms.step_probability)
    log_no_signal = log_alive - float(np.logaddexp(0, -terms.signal))
    log_overshoots = log_alive + log_signal + math.log(terms.step_probability)
    log_fails = float(np.logaddexp(log_no_signal, log_overshoots))
    return log_starts - float(np.logaddexp(math.log(dead), log_fails) if dead > 0 else log_fails)
