"""From records to a verdict: one decision rule, the mode it names, and what it says."""

from __future__ import annotations

import enum
import functools
import math
from dataclasses import dataclass

from initdiag._core.choices import Family
from initdiag._core.validation import probability
from initdiag.diagnosing import findings, remarks, structural
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.basis import Basis, Numbers, basis_of
from initdiag.diagnosing.findings import Finding, Kind
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
    """A verdict, what it rests on, the risks by optimiser, and the findings."""

    verdict: Verdict
    basis: Basis
    risk: dict[str, float]
    findings: tuple[Finding, ...]


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
    """
    numbers, basis = basis_of(architecture, prediction, measurement, agreement)
    beside = remarks.remarks(
        architecture, prediction, measurement, agreement, separation, numbers, basis, not_measured
    )
    of_structure = {
        Verdict.SYMMETRIC: structural.symmetry(architecture),
        Verdict.EXPLODING: structural.not_numbers(shown),
        Verdict.DEAD: structural.cut_off(shown),
    }
    errors = [finding for found in of_structure.values() for finding in found]
    if errors:
        verdict = next(verdict for verdict, found in of_structure.items() if found)
        certain: dict[str, float] = dict.fromkeys(_optimizers(training), 1.0)
        return Judgement(verdict, Basis.STRUCTURE, certain, (*errors, *beside))
    masked = structural.masked(shown)
    if numbers is None or masked:
        return Judgement(Verdict.NO_VERDICT, Basis.NONE, {}, (*masked, *beside))
    risk = _risks(numbers, training)
    if risk[training.optimizer] < thresholds.max_risk:
        return Judgement(Verdict.HEALTHY, basis, risk, beside)
    terms = numbers.terms(training)
    verdict = _mode(numbers, terms, training)
    return Judgement(verdict, basis, risk, (_finding(verdict, numbers, terms, training), *beside))


def _optimizers(training: Training) -> tuple[Family, ...]:
    """Return the optimisers that a report judges: the usual ones, and the
    user's own.
    """
    return tuple(dict.fromkeys((*OPTIMIZERS, training.optimizer)))


def _risks(numbers: Numbers, training: Training) -> dict[str, float]:
    """Return the risk by optimiser; only the user's own has the user's
    learning rate.
    """
    return {
        name: numbers.risk(
            training if name == training.optimizer else Training(name, None, training.loss)
        )
        for name in _optimizers(training)
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


def _finding(verdict: Verdict, numbers: Numbers, terms: RiskTerms, training: Training) -> Finding:
    """Return the error that the verdict stands for."""
    if verdict is Verdict.UNSTABLE and _overshoots(terms):
        return _step_finding(numbers, training)
    texts = {
        Verdict.VANISHING: _vanishing,
        Verdict.EXPLODING: _exploding,
        Verdict.UNSTABLE: _unstable,
        Verdict.DEAD: _dead,
    }
    kind, message, remedy = texts[verdict](numbers)
    return kind.at(None, message, remedy)


_GAIN_ONE = "make each layer's gain 1: He or orthogonal initialisation"


def _vanishing(numbers: Numbers) -> tuple[Kind, str, str]:
    size = f"{_factor(numbers.drift / 2):.2g}"
    message = f"a typical gradient reaches the input {size} times too small"
    return findings.VANISHING, message, _GAIN_ONE


def _exploding(numbers: Numbers) -> tuple[Kind, str, str]:
    size = f"{_factor(numbers.drift / 2):.2g}"
    message = f"a typical gradient reaches the input {size} times too large"
    if numbers.overflows:
        message = "in some draws the values or the gradient overflow: they are not finite numbers"
    return findings.EXPLODING, message, _GAIN_ONE


def _unstable(numbers: Numbers) -> tuple[Kind, str, str]:
    spread = _factor(2 * math.sqrt(numbers.variance))
    message = (
        "from one initialisation to the next the gradient's norm varies by factors of "
        f"{spread:.2g} up and down (two sd)"
    )
    return findings.UNSTABLE, message, "wider layers, fewer layers, or orthogonal initialisation"


def _dead(numbers: Numbers) -> tuple[Kind, str, str]:
    message = f"{numbers.dead:.0%} of initialisations have a gradient of exactly zero"
    return findings.DEAD, message, "widen the narrowest ReLU layers, or use leaky ReLU"


def _step_finding(numbers: Numbers, training: Training) -> Finding:
    rate = (
        "usual learning rates take"
        if training.lr is None
        else f"a learning rate of {training.lr:g} takes"
    )
    message = (
        f"at a depth of {numbers.depth} linear layers {rate} too large a step, "
        "however the weights are drawn"
    )
    remedy = "a lower learning rate, fewer layers, or skip connections"
    return findings.STEP_TOO_LARGE.at(None, message, remedy)


def _factor(log: float) -> float:
    """Return ``exp(|log|)``, as far as a float holds it."""
    return math.exp(min(abs(log), 700.0))
