"""The second witness: what a trial adds to a judgement, and which of the two is
believed.

The rule is fixed, and its risks are shares of ``tests/evidence/trial``, where trials of
50 steps are compared with 400 steps of training. A trial that did not start raises the
risk: to its own where numbers are not finite or nothing else is known, to one half
where the law expected a start. One that started, in a setting of which nothing was made
up, takes the place of a law that says otherwise, and of none. A trial in a made-up
setting never lowers a risk.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from initdiag.diagnosing import findings
from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.calibration import Training
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.verdict import Judgement, Thresholds, Verdict
from initdiag.measuring.trial_record import Trial

__all__ = ["heard"]

_IMBALANCED = 100.0
"""Factor between the gradients (not squared) of two terms of a loss from which on the
smaller counts as lost: a choice. With equal weights its direction is 1 % of a step."""

_STUCK = 0.5
"""Risk of a network that the law calls healthy, and that is stuck: of 17 in
``tests/evidence/trial``, 8 did not start in 400 steps either, and 9 did later."""

_AGAINST_LAW = 0.35
"""Least risk of a network that started against the law: 3 of 9 did not start in 400
steps (Jeffreys' mean)."""

_GROWTH = 2.0
"""Factor by which the loss has grown where steps count as too large, not too small."""


def heard(
    judgement: Judgement,
    trial: Trial | None,
    training: Training,
    thresholds: Thresholds,
    not_tried: str | None = None,
) -> Judgement:
    """Return the judgement after the trial has been heard.

    At risk if and only if the risk is at least ``max_risk``: the trial enters the risk
    of the judged optimiser. A verdict from the structure, which is certain, stays.
    ``not_tried`` says why there is no trial, if one was wanted.
    """
    if trial is None:
        said = (*judgement.findings, *_not_tried(not_tried))
        return dataclasses.replace(judgement, findings=said)
    beside = (*judgement.findings, *_terms(trial), *_setting(trial))
    law = judgement.risk.get(training.optimizer)
    if trial.starts is None or judgement.basis is Basis.STRUCTURE:
        return dataclasses.replace(judgement, findings=beside)
    if not trial.starts:
        return _not_started(judgement, trial, law, training, thresholds, beside)
    if law is not None and law < thresholds.max_risk:
        return dataclasses.replace(judgement, findings=beside)
    if not trial.is_own:
        message = f"not believed, for its setting was made up: {trial.sentence()}"
        return dataclasses.replace(judgement, findings=(*beside, *_differ(message, law, trial)))
    return _started(judgement, trial, law, training, thresholds, beside)


def _not_started(
    judgement: Judgement,
    trial: Trial,
    law: float | None,
    training: Training,
    thresholds: Thresholds,
    beside: tuple[Finding, ...],
) -> Judgement:
    is_sure = law is None or trial.nonfinite_step is not None
    risk = max(law or 0.0, trial.risk if is_sure else _STUCK)
    risks = {**judgement.risk, training.optimizer: risk}
    message, remedy = trial.sentence(), _remedy(trial)
    if judgement.verdict.is_at_risk or risk < thresholds.max_risk:
        said = findings.TRIAL_FAILED.at(None, message, remedy, findings.Severity.WARNING)
        risks = judgement.risk if law is None else risks
        return dataclasses.replace(judgement, risk=risks, findings=(*beside, said))
    failed = findings.TRIAL_FAILED.at(None, message, remedy)
    differ = _differ("the trial did not start, and is heard", law, trial)
    return Judgement(_mode(trial), Basis.TRIAL, risks, (failed, *differ, *beside))


def _started(
    judgement: Judgement,
    trial: Trial,
    law: float | None,
    training: Training,
    thresholds: Thresholds,
    beside: tuple[Finding, ...],
) -> Judgement:
    """Judge by a trial that started where the law says otherwise, or nothing."""
    risk = trial.risk if law is None else max(trial.risk, _AGAINST_LAW)
    risks = {**judgement.risk, training.optimizer: risk}
    is_at_risk = risk >= thresholds.max_risk
    verdict = Verdict.UNSTABLE if is_at_risk else Verdict.HEALTHY
    message = f"the trial is believed, for it is the real training's own: {trial.sentence()}"
    kept = tuple(
        dataclasses.replace(one, severity=findings.Severity.WARNING)
        if one.severity is findings.Severity.ERROR
        else one
        for one in beside
    )
    return Judgement(verdict, Basis.TRIAL, risks, (*_differ(message, law, trial), *kept))


def _differ(message: str, law: float | None, trial: Trial) -> Iterator[Finding]:
    """Say that the witnesses differ, and which is believed."""
    known = (
        "nothing else judges this network" if law is None else f"without it the risk is {law:.0%}"
    )
    remedy = "look at the trial's losses, and at what each layer met"
    if not trial.is_own:
        remedy = "give the trial the real targets, loss and optimiser"
    elif trial.draws == 1:
        remedy = "give a function that builds the network, so that several draws are tried"
    yield findings.WITNESSES_DIFFER.at(None, f"{message}; {known}", remedy)


def _mode(trial: Trial) -> Verdict:
    """Return the mode of a network that the trial alone calls at risk."""
    losses = trial.typical
    if trial.is_dead:
        return Verdict.DEAD
    if trial.nonfinite_step is not None or losses.max() > _GROWTH * abs(losses[0]):
        return Verdict.EXPLODING
    return Verdict.VANISHING


def _remedy(trial: Trial) -> str:
    verdict = _mode(trial)
    if verdict is Verdict.EXPLODING:
        return "a lower learning rate, or inputs and targets of mean square 1"
    if verdict is Verdict.DEAD:
        return "look for gates that are closed for the whole batch, or an output that is constant"
    return (
        "trial=400 tells a slow start from none; look at the layers' gradients and updates for "
        "saturation, or too low a learning rate"
    )


def _terms(trial: Trial) -> Iterator[Finding]:
    """Say that a term of the loss is lost beside another."""
    if len(trial.terms) < 2:
        return
    ordered = sorted(trial.terms, key=lambda term: term.log_gradient)
    least, most = ordered[0], ordered[-1]
    size = math.exp(min((most.log_gradient - least.log_gradient) / 2, 700.0))
    if size < _IMBALANCED:
        return
    message = (
        f"the gradient of the loss's term {most.name!r} is {size:.2g} times that of {least.name!r}"
    )
    remedy = f"weight {least.name!r} up, or {most.name!r} down, by about that factor"
    yield findings.TERMS_IMBALANCED.at(None, message, remedy)


def _setting(trial: Trial) -> Iterator[Finding]:
    """Say what was made up, and what was left aside."""
    parts = [f"made up: {', '.join(trial.made_up)}"] if trial.made_up else []
    parts += trial.notes
    if parts:
        message = f"trial: {'; '.join(parts)}"
        remedy = "pass target=, loss_fn= and the optimiser that it will be trained with"
        yield findings.TRIAL_SETTING.at(None, message, remedy)


def _not_tried(reason: str | None) -> Iterator[Finding]:
    """Say why there is no trial, where one was asked for."""
    if reason is not None:
        message = f"no trial: {reason.rstrip('.')}"
        yield findings.NO_TRIAL.at(None, message, "do what the reason says")
