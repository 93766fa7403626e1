"""Optuna: a trial's risk becomes a constraint, which tells the sampler how far from
feasible it is; a trial at risk is pruned.
"""

from __future__ import annotations

from typing import Any

from initdiag._core.choices import Family
from initdiag._core.validation import probability
from initdiag.errors import InitdiagError
from initdiag.integrations.candidates import risk_of

try:
    import optuna
except ImportError as error:
    raise InitdiagError(
        "expected optuna, got none. Install it: pip install 'initdiag[optuna]'"
    ) from error

__all__ = ["constraints_func", "prune_at_risk"]

_KEY = "initdiag_risk"


def prune_at_risk(
    trial: optuna.Trial,
    candidate: Any,
    *,
    optimizer: Family | None = "sgd",
    max_risk: float = 0.5,
    **options: Any,
) -> float:
    """Return a candidate's risk; prune the trial if it is ``max_risk`` or more.

    Call it before training.

    On Optuna 5 the constraint ``risk - max_risk`` is set on the trial. On Optuna 4 give
    the sampler `constraints_func` to the same end. The risk is the trial's user
    attribute ``initdiag_risk``.

    Parameters
    ----------
    trial : optuna.Trial
        The trial in whose objective this is called.
    candidate, optimizer, **options
        See `initdiag.integrations.candidates.risk_of`; ``lr=`` and ``loss=`` are best
        the trial's own.
    max_risk : float
        Trials of this risk or more are pruned.

    Raises
    ------
    optuna.TrialPruned
        If the risk is ``max_risk`` or more.
    InvalidInput, UnsupportedArchitecture
        See `risk_of`.
    """
    max_risk = probability(max_risk, "max_risk")
    risk = risk_of(candidate, optimizer=optimizer, **options)
    trial.set_user_attr(_KEY, risk)
    trial.set_user_attr(f"{_KEY}_limit", max_risk)
    if hasattr(trial, "set_constraint"):
        trial.set_constraint(_KEY, risk - max_risk)
    if risk >= max_risk:
        raise optuna.TrialPruned(
            f"risk {risk:.2g} that training does not start: at least {max_risk:.2g}"
        )
    return risk


def constraints_func(trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
    """Return the constraint of a trial: for a sampler of Optuna 4,
    ``TPESampler(constraints_func=constraints_func)``.

    Trials that were never judged (0) are feasible.
    """
    attributes = trial.user_attrs
    return (attributes[_KEY] - attributes[f"{_KEY}_limit"],) if _KEY in attributes else (0.0,)
