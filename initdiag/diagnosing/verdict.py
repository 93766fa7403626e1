"""From records to a verdict: one decision rule, the mode it names, and the findings behind it."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from initdiag._core.validation import probability
from initdiag.diagnosing import findings
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.coverage import uncovered
from initdiag.diagnosing.findings import Finding, Severity
from initdiag.diagnosing.risk import OPTIMIZERS, Training, risk_of_moments, risk_terms
from initdiag.law.correlation import Separation
from initdiag.law.predict import predict
from initdiag.law.prediction import Prediction
from initdiag.measuring.judged import judged_moments
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture
from initdiag.network.weights import INDEPENDENT_OF, WeightLaw

__all__ = ["Judgement", "Thresholds", "Verdict", "judge"]


_CLEAR = 3.0
"""Standard errors from which a part of a disagreement is named."""

LEAST_LOG_SINE = 2 * math.log(1e-3)
"""Two inputs at right angles that end up closer than 1e-3 (``ln sin^2`` of the angle) count as one: half the bits of a single-precision float are gone."""


class Verdict(enum.Enum):
    """What a report says of a network; ``NO_VERDICT`` is never a pass."""

    HEALTHY = "HEALTHY"
    VANISHING = "VANISHING"
    EXPLODING = "EXPLODING"
    UNSTABLE = "UNSTABLE"
    DEAD = "DEAD"
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
    """Verdict, what it rests on (``basis``: ``"law"``, ``"measurement"`` or ``"none"``), risks by optimiser, findings."""

    verdict: Verdict
    basis: str
    risk: dict[str, float]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Numbers:
    drift: float
    variance: float
    dead: float
    depth: int | None

    @property
    def overflows(self) -> bool:
        """Whether the gradient of some draws is infinite: then there is no variance."""
        return self.drift == math.inf

    def risk(self, training: Training) -> float:
        return risk_of_moments(self.drift, self.variance, self.dead, self.depth, training)


def judge(
    architecture: Architecture,
    prediction: Prediction,
    measurement: Measurement | None,
    agreement: Agreement | None,
    training: Training,
    thresholds: Thresholds,
    not_measured: str | None = None,
    separation: Separation | None = None,
) -> Judgement:
    """Judge a network for how it is going to be trained; a learning rate is that of its optimiser, others are judged without.

    From the law where it covers the network, else from the measurement, else there is no verdict. ``not_measured`` says why
    there is no measurement, if one was wanted; ``separation`` says how two inputs at right angles leave the last hidden layer, None where it is not known.
    """
    numbers, basis = _numbers(architecture, prediction, measurement)
    if _contradicts_life(measurement, agreement) and not _starts_at_zero(architecture):
        numbers, basis = _Numbers(-math.inf, 0.0, 1.0, len(architecture.layers)), "measurement"
    unknown = () if numbers is None else tuple(_unknown_findings(architecture, numbers))
    if unknown:
        numbers, basis = None, "none"
    how = (
        "judged from measurement"
        if basis == "measurement"
        else _GAP_REMEDIES.get(prediction.coverage, "")
    )
    found = [
        *unknown,
        *_structure_findings(architecture, how),
        *_coverage_findings(architecture, prediction, how),
    ]
    found += _agreement_findings(agreement)
    found += _separation_findings(separation)
    if not_measured is not None:
        remedy = "do what the reason says, or pass a function that builds the network"
        message = f"not measured: {not_measured.rstrip('.')}"
        reason = findings.NOT_MEASURED.at(None, message, remedy)
        found.insert(0 if numbers is None else len(found), reason)
    if numbers is None:
        return Judgement(Verdict.NO_VERDICT, "none", {}, tuple(found))
    judged = dict.fromkeys((*OPTIMIZERS, training.optimizer))
    risk: dict[str, float] = {
        name: numbers.risk(
            training if name == training.optimizer else Training(name, None, training.loss)
        )
        for name in judged
    }
    is_healthy = risk[training.optimizer] < thresholds.max_risk
    verdict = Verdict.HEALTHY if is_healthy else _mode(numbers, training)
    if verdict.is_at_risk:
        found.insert(0, _mode_finding(verdict, numbers, training))
    return Judgement(verdict, basis, risk, tuple(found))


def _contradicts_life(measurement: Measurement | None, agreement: Agreement | None) -> bool:
    """Whether every measured draw is dead, which the law calls impossible: so it is for the user's own input, whatever the law says of others."""
    if measurement is None or agreement is None or agreement.dead_p_value is None:
        return False
    return measurement.dead_fraction == 1.0 and agreement.dead_p_value < agreement.level


def _unknown_findings(architecture: Architecture, numbers: _Numbers) -> Iterator[Finding]:
    """Why the numbers say nothing of how training goes; none where they do."""
    if numbers.dead == 1 and _starts_at_zero(architecture):
        name, remedy = architecture.layers[-1].name, "judge the part before it: module="
        yield findings.ZERO_START.at(name, _ZERO_OUTPUT, remedy, Severity.WARNING)
    elif numbers.dead < 1 and not numbers.overflows and math.isnan(numbers.variance):
        message = "too few draws have a gradient for a log-variance"
        yield findings.NOT_MEASURED.at(None, message, "ask for more draws, e.g. draws=1024")


_ZERO_OUTPUT = "its weights start at zero: at the first step it alone has a gradient, from then on the others have one, too"


def _starts_at_zero(architecture: Architecture) -> bool:
    """Whether the output layer, and it alone, is all zeros: a usual start, after which every layer trains."""
    zero = [layer.weight.variance == 0 for layer in architecture.layers]
    return len(zero) > 1 and zero[-1] and not any(zero[:-1])


def _with_output(architecture: Architecture) -> Architecture:
    """The chain with an output layer of gain 1 in place of one that starts at zero."""
    *hidden, output = architecture.layers
    weight = WeightLaw.from_initializer("lecun_normal", output.fan_in, output.fan_out)
    return replace(architecture, layers=(*hidden, replace(output, weight=weight, bias=None)))


def _coverage_findings(
    architecture: Architecture, prediction: Prediction, how: str
) -> Iterator[Finding]:
    """Why the law of a chain is refused (a gap is a finding of its own)."""
    for reason in (
        prediction.reasons if prediction.coverage == "none" and not architecture.gaps else ()
    ):
        yield findings.NOT_COVERED.at(None, f"not covered by the theory: {reason}", how)


_GAP_REMEDIES = {
    "simulated": "judged from a simulation through the module's own forward",
    "none": "not judged: measure it, or check the fully connected part of it with module=",
}
"""What becomes of a network with gaps that is not judged from its measurement, by the prediction's coverage."""


def _numbers(
    architecture: Architecture, prediction: Prediction, measurement: Measurement | None
) -> tuple[_Numbers | None, str]:
    if not architecture.gaps and _starts_at_zero(architecture):
        prediction = predict(_with_output(architecture))
    drift, variance, dead = (
        prediction.hidden_drift,
        prediction.hidden_log_variance,
        prediction.hidden_dead_probability,
    )
    depth = architecture.depth if architecture.layers else None
    if dead == 1:
        return _Numbers(-math.inf, 0.0, 1.0, depth), "law"
    if drift is not None and variance is not None and dead is not None:
        return _Numbers(drift, variance, dead, depth), "law"
    if measurement is None:
        return None, "none"
    if measurement.dead_fraction == 1.0:
        return _Numbers(-math.inf, 0.0, 1.0, depth), "measurement"
    return _Numbers(*judged_moments(measurement, architecture), depth), "measurement"


def _mode(numbers: _Numbers, training: Training) -> Verdict:
    """The mode that contributes most to the risk, beyond what a healthy wide network has (log-variance 0.1)."""
    if numbers.dead >= 0.5:
        return Verdict.DEAD
    if numbers.overflows:
        return Verdict.EXPLODING
    if _overshoots(numbers, training):
        return Verdict.UNSTABLE
    terms = risk_terms(numbers.drift, numbers.variance, numbers.dead, numbers.depth, training)
    usual = risk_terms(0.0, 0.1, 0.0, numbers.depth, training)
    shares = {
        Verdict.UNSTABLE: terms.fluctuation - usual.fluctuation,
        Verdict.EXPLODING: terms.upward,
        Verdict.VANISHING: terms.downward - _own_drift(numbers, training),
    }
    return max(shares, key=lambda mode: shares[mode])


def _overshoots(numbers: _Numbers, training: Training) -> bool:
    """Whether the risk comes from too large a step for the depth, more than from the gradient's own size."""
    terms = risk_terms(numbers.drift, numbers.variance, numbers.dead, numbers.depth, training)
    return terms.step_probability > 0.5 * (1 + math.tanh(terms.signal / 2))


def _own_drift(numbers: _Numbers, training: Training) -> float:
    """What of the downward drift is the fluctuation's own: at unit mean gain the log-mean is minus half the log-variance."""
    return risk_terms(-numbers.variance / 2, 1.0, 0.0, numbers.depth, training).downward


def _mode_finding(verdict: Verdict, numbers: _Numbers, training: Training) -> Finding:
    if verdict is Verdict.UNSTABLE and _overshoots(numbers, training):
        rate = (
            "usual learning rates take"
            if training.lr is None
            else f"a learning rate of {training.lr:g} takes"
        )
        message = f"at a depth of {numbers.depth} linear layers {rate} too large a step, however the weights are drawn"
        remedy = "a lower learning rate, fewer layers, or skip connections"
        return findings.STEP_TOO_LARGE.at(None, message, remedy)
    gain = math.exp(min(abs(numbers.drift) / 2, 700.0))
    spread = math.exp(min(2 * math.sqrt(numbers.variance), 700.0))
    texts = {
        Verdict.VANISHING: (
            findings.VANISHING,
            f"a typical gradient reaches the input {gain:.2g} times too small",
            "make each layer's gain 1: He or orthogonal initialisation",
        ),
        Verdict.EXPLODING: (
            findings.EXPLODING,
            f"a typical gradient reaches the input {gain:.2g} times too large",
            "make each layer's gain 1: He or orthogonal initialisation",
        ),
        Verdict.UNSTABLE: (
            findings.UNSTABLE,
            f"from one initialisation to the next the gradient's norm varies by factors of {spread:.2g} up and down (two sd)",
            "wider layers, fewer layers, or orthogonal initialisation",
        ),
        Verdict.DEAD: (
            findings.DEAD,
            f"{numbers.dead:.0%} of initialisations have a gradient of exactly zero",
            "widen the narrowest ReLU layers, or use leaky ReLU",
        ),
    }
    kind, message, remedy = texts[verdict]
    return kind.at(None, message, remedy)


def _structure_findings(architecture: Architecture, how: str) -> Iterator[Finding]:
    """``how``: how a network with gaps is judged."""
    for part in uncovered(architecture.gaps):
        yield findings.NOT_COVERED.at(part.path, part.message, how)
    for layer in architecture.layers:
        if layer.weight.variance == 0 and _starts_at_zero(architecture):
            if not architecture.gaps:
                remedy = "judged as if its gain were 1"
                yield findings.ZERO_START.at(layer.name, _ZERO_OUTPUT, remedy)
        elif layer.weight.variance == 0:
            message = "every weight is zero, so that no gradient passes"
            remedy = "initialise it, or check the part before it alone"
            yield findings.ZERO_WEIGHTS.at(layer.name, message, remedy)
        if layer.weight.failed:
            message = f"its weights fail: {', '.join(layer.weight.failed)}"
            is_copy = any(name.startswith(INDEPENDENT_OF) for name in layer.weight.failed)
            checkpoint = (
                "a trained checkpoint is no initialisation; otherwise see how it is initialised"
            )
            remedy = (
                "it is a copy (copy.deepcopy?): initialise each layer afresh"
                if is_copy
                else checkpoint
            )
            yield findings.WEIGHTS_FAIL.at(layer.name, message, remedy)
        if layer.bias is not None and not layer.bias.symmetric:
            message = "its bias is constant or skewed, so that gates are not fair coins"
            remedy = "zero biases, for the theory to cover it"
            yield findings.SKEWED_BIAS.at(layer.name, message, remedy)
    if architecture.source != "widths" and any(
        layer.weight.sample_variance is None for layer in architecture.layers
    ):
        message = "some weights were assumed, not read (meta device, or a what-if)"
        yield findings.ASSUMED.at(None, message, "give the weights values, to have them tested")
    for name in architecture.unused:
        message = "the forward pass never reaches it"
        yield findings.UNUSED.at(name, message, "remove it, or use it")


def _separation_findings(separation: Separation | None) -> list[Finding]:
    if separation is None:
        return []
    if separation.parallel > 0.5:
        message = f"two inputs at right angles leave it parallel in {separation.parallel:.0%} of networks: they differ in size alone"
        remedy = "widen the narrowest layers"
        return [findings.INPUTS_COLLAPSE.at(separation.name, message, remedy)]
    if not separation.log_sine < LEAST_LOG_SINE:
        return []
    sine = math.exp(max(separation.log_sine / 2, -700.0))
    message = f"two inputs at right angles leave it about {sine:.1g} radians apart: the network cannot tell its inputs from one another"
    remedy = "weights of gain 1 with zero biases; fewer layers"
    return [findings.INPUTS_COLLAPSE.at(separation.name, message, remedy)]


def _agreement_findings(agreement: Agreement | None) -> list[Finding]:
    if agreement is None or agreement.agrees:
        return []
    parts = []
    if agreement.moments_p_value is not None:
        parts.append(
            f"mean {agreement.mean_z:+.1f}, variance {agreement.variance_z:+.1f} standard errors off"
        )
    if agreement.dead_p_value is not None and agreement.dead_p_value < agreement.level:
        parts.append("another share of draws is dead")
    message = (
        f"prediction and measurement disagree (p = {agreement.p_value:.2g}): {'; '.join(parts)}"
    )
    remedy = f"likely causes: {'; '.join(_likely_causes(agreement))}"
    return [findings.REFUTED.at(None, message, remedy)]


def _likely_causes(agreement: Agreement) -> list[str]:
    """What is usually behind each part of a disagreement."""
    causes = []
    if abs(agreement.mean_z) >= _CLEAR:
        causes.append("a gain or an activation other than the trace took it for")
    if abs(agreement.variance_z) >= _CLEAR:
        causes.append(
            "weights that are not independent (trained, tied, low rank), or inputs that are exactly 0"
        )
    if agreement.shape_p_value is not None and agreement.shape_p_value < agreement.level:
        causes.append(
            "a few outsized or skewed weights, or a layer narrower than it looks (low rank, sparse)"
        )
    if agreement.dead_p_value is not None and agreement.dead_p_value < agreement.level:
        causes.append(
            "gates that are not open half of the time (skewed weights, a constant bias, inputs that are exactly 0)"
        )
    return causes or [
        "weights that are not iid (trained, tied, sparse, low rank), or an operation that the trace took for another"
    ]
