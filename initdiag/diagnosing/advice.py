"""What to do about a network at risk: remedies by its cause, each judged again as it
would be built and trained, the best first.

A remedy is judged by the law, and on the user's batch where there is one: the chain is
built with the remedy (`initdiag.measuring.built`), and what the batch shows of it
counts as it does for the network itself. What is then still at risk is not advised.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from initdiag.diagnosing.basis import Numbers
from initdiag.diagnosing.calibration import Training
from initdiag.diagnosing.case import Case, of_training, together
from initdiag.diagnosing.remedies import (
    Remedy,
    at_output,
    gated,
    initialisers,
    moments_of,
    repaired,
    slower,
)
from initdiag.diagnosing.shapes import reshaped
from initdiag.law.predict import predict
from initdiag.law.prediction import Prediction
from initdiag.measuring.probe_record import BatchProbe
from initdiag.network.architecture import Architecture

__all__ = ["Advice", "advise", "advise_case"]

_LEAST_GAIN = 0.9
"""Share of the risk that a remedy must leave at most to be worth a line: a choice."""

_LOOKS = 8
"""Remedies that are built and shown the batch at most: a choice, for each costs as much
as the network's own look.
"""


@dataclass(frozen=True, slots=True)
class Advice:
    """One remedy: what to do, code to paste, and the law before and after (natural log;
    risk for the judged optimiser).

    The code of an initialiser speaks of one layer's weight ``w`` and bias ``b``; that
    of a shape sets ``widths`` first, that of a learning rate ``lr``, then it does the
    same. ``script`` is Python that runs as it stands, with the network as ``model``
    and the batch as ``x``; empty where the network itself has to be written otherwise.
    """

    action: str
    code: str
    drift_before: float
    drift_after: float
    log_variance_before: float
    log_variance_after: float
    risk_before: float
    risk_after: float
    script: str = ""

    @property
    def is_snippet(self) -> bool:
        """Whether the action itself is code, not words."""
        return bool(self.code) and self.action.startswith(("nn.init.", "initdiag."))

    @property
    def is_by_layer(self) -> bool:
        """Whether the code speaks of one layer's weight and bias."""
        return bool(self.code) and (not self.script or "nn.init." in self.code)


def advise(
    architecture: Architecture, prediction: Prediction, training: Training, max_risk: float
) -> tuple[Advice, ...]:
    """Return remedies for a chain that lower the risk by the law alone: first those
    that lower it enough, each kind by what it gains over what it costs.

    Enough is half the highest risk that passes. Where an initialiser alone is not
    enough, changes of shape are added, each with the best initialiser. Empty where the
    network is not a chain: an effect that cannot be predicted is not promised.
    """
    if prediction.coverage == "none" or architecture.gaps:
        return ()
    drift, variance, dead = moments_of(prediction)
    numbers = Numbers(drift, variance, dead, prediction.depth or len(prediction.layers))
    case = Case(numbers, training, max_risk, numbers.risk(training), None, architecture)
    return advise_case(case, prediction)


def advise_case(case: Case, prediction: Prediction | None = None) -> tuple[Advice, ...]:
    """Return the remedies that belong to a cause, those that are enough first.

    Parameters
    ----------
    case : Case
        What is known of the network.
    prediction : Prediction, optional
        The law's, of the case's chain.
    """
    found = [*of_training(case), *_of_chain(case)]
    judged = _judged(case, found)
    worth = [(risk, remedy) for remedy, risk in judged if risk < _LEAST_GAIN * case.risk]
    if case.cause is not None:
        worth = [(risk, remedy) for risk, remedy in worth if risk < case.max_risk]
    named: dict[str, tuple[float, Remedy]] = {}
    for risk, remedy in worth:
        named.setdefault(remedy.action, (risk, remedy))
    worth = list(named.values())
    worth.sort(
        key=lambda one: (one[0] > case.target, -round((case.risk - one[0]) / one[1].cost, 1))
    )  # the listed order decides between equals
    return tuple(_advice(remedy, risk, case, prediction) for risk, remedy in worth)


def _of_chain(case: Case) -> Iterator[Remedy]:
    """Yield what is changed in a chain. Where no initialiser is enough by the law, it
    is joined to a lower learning rate, another shape, or skip connections.
    """
    kinds, chain, training = case.kinds, case.chain, case.training
    if chain is None or not {"weights", "gates", "output", "shape"} & set(kinds):
        return
    if "output" in kinds:
        yield from at_output(chain, training)
    if "gates" in kinds:
        yield from gated(chain, training)
    weights = list(initialisers(chain, training))
    best = _best(weights, chain)
    if best.risk() > case.target and case.cause is not None:
        weights += repaired(chain, training)
    if "weights" in kinds:
        yield from weights
    if best.risk() > case.target and "shape" in kinds:
        yield from _beyond(best, chain, case.target)


def _beyond(best: Remedy, chain: Architecture, target: float) -> Iterator[Remedy]:
    """Yield what to change on top of the best initialiser."""
    assert best.architecture is not None
    lower = slower(best, target, best.risk)
    if lower is not None:
        yield lower
    also = "" if _same_weights(best.architecture, chain) else f", with {best.action}"
    for remedy in reshaped(best, target):
        if remedy.risk() < _LEAST_GAIN * best.risk():
            yield dataclasses.replace(remedy, action=remedy.action + also)


def _best(found: Sequence[Remedy], architecture: Architecture) -> Remedy:
    """Return the initialiser of the least risk. The network's own stays unless another
    is clearly better.
    """
    best = min(found, key=lambda remedy: remedy.risk())
    own = (
        r
        for r in found
        if r.architecture is not None
        and _same_weights(r.architecture, architecture)
        and best.risk() >= _LEAST_GAIN * r.risk()
    )
    return next(own, best)


def _same_weights(one: Architecture, other: Architecture) -> bool:
    """Return whether every weight has the same law up to rounding. The initialiser then
    needs no mention.
    """
    pairs = zip(one.layers, other.layers, strict=True)
    return all(
        a.weight.family == b.weight.family
        and math.isclose(a.weight.variance, b.weight.variance, rel_tol=1e-6)
        for a, b in pairs
    )


def _judged(case: Case, found: Sequence[Remedy]) -> Iterator[tuple[Remedy, float]]:
    """Yield each remedy with the risk that it leaves, by the law and on the batch, at a
    lower learning rate where it needs one; no more than so many are looked at.
    """
    looks = 0
    for remedy in sorted(found, key=lambda one: (one.risk() > case.target, one.cost)):
        if remedy.architecture is None:
            scaled = remedy.action.startswith("scale the inputs")
            probe = case.batch.standardised if scaled else case.batch.probe
            yield remedy, together(remedy.risk(), probe, remedy.training)
            continue
        if case.look is None:
            yield remedy, remedy.risk()
            continue
        hopeless = remedy.risk() > case.target and slower(remedy, case.target, remedy.risk) is None
        if looks == _LOOKS or (hopeless and remedy.risk() >= case.max_risk):
            continue
        looks += 1
        yield _on_batch(remedy, case.look(remedy.architecture, remedy.skip), case.target)


def _on_batch(remedy: Remedy, probe: BatchProbe | None, target: float) -> tuple[Remedy, float]:
    def risk(training: Training) -> float:
        return together(remedy.risk(training), probe, training)

    now = risk(remedy.training)
    lower = slower(remedy, target, risk) if now > target and "lr = " not in remedy.code else None
    return (remedy, now) if lower is None else (lower, risk(lower.training))


def _advice(remedy: Remedy, risk: float, case: Case, before: Prediction | None) -> Advice:
    """Return the record: without another chain the numbers stay as they are."""
    own = (
        (case.numbers.drift, case.numbers.variance)
        if before is None
        else (before.known.rms_gain_log_mean, before.known.log_variance)
    )
    then = own
    if remedy.architecture is not None:
        after = (remedy.after or predict(remedy.architecture)).known
        then = after.rms_gain_log_mean, after.log_variance
    return Advice(
        remedy.action, remedy.code, own[0], then[0], own[1], then[1], case.risk, risk,
        remedy.script,
    )  # fmt: skip
