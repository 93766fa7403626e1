"""From records to a verdict: one decision rule, the mode it names, and what it says."""

from __future__ import annotations

import enum
import functools
import math
from dataclasses import dataclass

from initdiag._core.choices import Family
from initdiag._core.validation import probability
from initdiag.diagnosing import reasons, remarks, structural
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.basis import Basis, Numbers, basis_of
from initdiag.diagnosing.causes import NO_BATCH, Batch, Cause, suspicions, with_suspicions
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.risk import OPTIMIZERS, RiskTerms, Training, risk_terms
from initdiag.law.correlation import Separation
from initdiag.law.prediction import Prediction
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture
from initdiag.network.plain_pass import PlainPass

__all__ = ["Judgement", "Thresholds", "Verdict", "judge"]

_USUAL_VARIANCE = 0.1
"""Log-variance of a healthy wide network, beyond which the fluctuation counts as a
cause: He 20 x 1024 has beta = sum of 5/n = 0.1.
"""


class Verdict(enum.Enum):
    """What a report says of a network; ``NO_VERDICT`` is never a pass."""

    HEALTHY = "HEALTHY"
    VANISHING = "VANISHING"
    EXPLODING = "EXPLODING"
    UNSTABLE = "UNSTABLE"
    DEAD = "DEAD"
    SYMMETRIC = "SYMMETRIC"
    NO_VERDICT = "NO_VERDICT"

    @property
    def is_at_risk(self) -> bool:
        """Whether the network is called at risk."""
        return self not in (Verdict.HEALTHY, Verdict.NO_VERDICT)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the line is drawn.

    Attributes
    ----------
    max_risk : float
        At risk if and only if the risk is at least this.
    agreement_level : float
        Below this p-value prediction and measurement disagree.
    """

    max_risk: float = 0.5
    agreement_level: float = 0.001

    def __post_init__(self) -> None:
        probability(self.max_risk, "max_risk")
        probability(self.agreement_level, "agreement_level")


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, what it rests on, the risks by optimiser, the findings, the cause of a
    risk, and the numbers that it was judged by.
    """

    verdict: Verdict
    basis: Basis
    risk: dict[str, float]
    findings: tuple[Finding, ...]
    cause: Cause | None = None
    numbers: Numbers | None = None


def judge(
    architecture: Architecture,
    prediction: Prediction,
    measurement: Measurement | None,
    agreement: Agreement | None,
    training: Training,
    thresholds: Thresholds,
    not_measured: str | None = None,
    separation: Separation | None = None,
    shown: PlainPass | None = None,
    batch: Batch = NO_BATCH,
) -> Judgement:
    """Judge a network for how it is going to be trained.

    Parameters
    ----------
    architecture : Architecture
        The network as it was read.
    prediction : Prediction
        What theory says of `past_zero_start`.
    measurement : Measurement or None
        What was measured.
    agreement : Agreement or None
        Whether the two agree: see `basis_of` for which of them is judged by.
    training : Training
        A learning rate counts for its own optimiser; the others are judged without.
    thresholds : Thresholds
        At risk if and only if the risk is at least ``max_risk``.
    not_measured : str, optional
        Why there is no measurement, if one was wanted.
    separation : Separation, optional
        How two inputs at right angles leave the last hidden layer, where it is known.
    shown : PlainPass, optional
        What a plain pass of the module shows: where next to no weight gets a gradient,
        or the output is not made of numbers, the risk is 1.
    batch : Batch
        What the user's batch shows beside.
    """
    numbers, basis = basis_of(architecture, prediction, measurement, agreement)
    beside = (
        *reasons.beside(numbers, training, batch.probe),
        *remarks.remarks(
            architecture, prediction, measurement, agreement, separation, numbers, basis,
            not_measured,
        ),
    )  # fmt: skip
    of_structure = {
        Verdict.SYMMETRIC: structural.symmetry(architecture),
        Verdict.EXPLODING: structural.not_numbers(shown),
        Verdict.DEAD: structural.cut_off(shown),
    }
    errors = [finding for found in of_structure.values() for finding in found]
    if errors:
        verdict = next(verdict for verdict, found in of_structure.items() if found)
        certain: dict[str, float] = dict.fromkeys(_optimizers(training), 1.0)
        cause = _CAUSES_OF_STRUCTURE[verdict]
        return Judgement(verdict, Basis.STRUCTURE, certain, (*errors, *beside), cause)
    masked = structural.masked(shown)
    if numbers is None or masked:
        return Judgement(Verdict.NO_VERDICT, Basis.NONE, {}, (*masked, *beside))
    risk = _risks(numbers, training, batch)
    if risk[training.optimizer] < thresholds.max_risk:
        return Judgement(Verdict.HEALTHY, basis, risk, beside)
    verdict, cause, finding = _at_risk(architecture, numbers, training, batch)
    return Judgement(verdict, basis, risk, (finding, *beside), cause, numbers)


def _at_risk(
    architecture: Architecture, numbers: Numbers, training: Training, batch: Batch
) -> tuple[Verdict, Cause, Finding]:
    """Return the mode, the cause and what to say.

    The batch's cause is named where it alone is as likely as not, unless it may be what
    the law's numbers bring about.
    """
    suspect = batch.worst(training)
    if (
        suspect is not None
        and suspect.probability >= _EVEN
        and (suspect.cause in _OF_THEIR_OWN or numbers.risk(training) < _EVEN)
    ):
        finding = reasons.of_batch(suspect.cause, batch.probe, training, architecture)
        return _MODES_OF_BATCH[suspect.cause], suspect.cause, finding
    terms = numbers.terms(training)
    verdict = _mode(numbers, terms, training)
    cause = (
        "step too large" if verdict is Verdict.UNSTABLE and _overshoots(terms) else _CAUSES[verdict]
    )
    return verdict, cause, reasons.of_law(cause, numbers, training, architecture, batch.probe)


_CAUSES_OF_STRUCTURE: dict[Verdict, Cause] = {
    Verdict.SYMMETRIC: "symmetry",
    Verdict.EXPLODING: "gain",
    Verdict.DEAD: "no gradient",
}
"""What an error that stands in the module itself comes from."""

_EVEN = 0.5
_OF_THEIR_OWN: tuple[Cause, ...] = ("input scale", "saturation")
"""Causes that a gain does not bring about; curvature and angles follow the gain."""

_MODES_OF_BATCH: dict[Cause, Verdict] = {
    "input scale": Verdict.UNSTABLE,
    "saturation": Verdict.VANISHING,
    "inputs collapse": Verdict.VANISHING,
    "scrambled input": Verdict.UNSTABLE,
    "gain": Verdict.EXPLODING,
    "step too large": Verdict.UNSTABLE,
    "step too small": Verdict.VANISHING,
}
"""The verdict that a cause stands under."""

_CAUSES: dict[Verdict, Cause] = {
    Verdict.VANISHING: "gain",
    Verdict.EXPLODING: "gain",
    Verdict.UNSTABLE: "depth over width",
    Verdict.DEAD: "dead units",
}
"""What a mode of the law's numbers comes from."""


def _optimizers(training: Training) -> tuple[Family, ...]:
    """Return the optimisers that a report judges: the usual ones, and the
    user's own.
    """
    return tuple(dict.fromkeys((*OPTIMIZERS, training.optimizer)))


def _risks(numbers: Numbers, training: Training, batch: Batch) -> dict[str, float]:
    """Return the risk by optimiser; only the user's own has the user's
    learning rate.
    """
    trainings = (
        training if name == training.optimizer else Training(name, None, training.loss)
        for name in _optimizers(training)
    )
    return {
        one.optimizer: with_suspicions(numbers.risk(one), suspicions(batch.probe, one))
        for one in trainings
    }


def _mode(numbers: Numbers, terms: RiskTerms, training: Training) -> Verdict:
    """Return the mode that adds most to the risk, beyond what a healthy wide network
    has.
    """
    if numbers.dead >= 0.5:
        return Verdict.DEAD
    if numbers.overflows:
        return Verdict.EXPLODING
    if _overshoots(terms):
        return Verdict.UNSTABLE
    shares = {
        Verdict.UNSTABLE: terms.fluctuation - _usual_fluctuation(training),
        Verdict.EXPLODING: terms.upward,
        Verdict.VANISHING: terms.downward - _own_drift(numbers, training),
    }
    return max(shares, key=lambda mode: shares[mode])


@functools.lru_cache(maxsize=256)
def _usual_fluctuation(training: Training) -> float:
    """Return the fluctuation's term of a healthy wide network, whatever its depth."""
    return risk_terms(0.0, _USUAL_VARIANCE, 0.0, None, training).fluctuation


def _overshoots(terms: RiskTerms) -> bool:
    """Return whether too large a step makes the risk, more than the gradient's own
    size.
    """
    return terms.step_probability > 0.5 * (1 + math.tanh(terms.signal / 2))


def _own_drift(numbers: Numbers, training: Training) -> float:
    """Return what of the downward drift is the fluctuation's own.

    At unit mean gain the log-mean is minus half the log-variance.
    """
    return risk_terms(-numbers.variance / 2, 1.0, 0.0, numbers.depth, training).downward
