"""The first finding of a network at risk: its cause in a sentence, and the remedy that
belongs to the cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from initdiag.diagnosing import findings
from initdiag.diagnosing.basis import Numbers
from initdiag.diagnosing.calibration import Training
from initdiag.diagnosing.causes import Cause, safe_rate
from initdiag.diagnosing.findings import Finding, Kind, Severity
from initdiag.diagnosing.mismatch import gain_remedy, mismatch
from initdiag.measuring.probe_record import BatchProbe
from initdiag.network.architecture import Architecture

__all__ = ["beside", "of_batch", "of_law"]


def of_law(
    cause: Cause,
    numbers: Numbers,
    training: Training,
    architecture: Architecture,
    probe: BatchProbe | None = None,
) -> Finding:
    """Return what a cause that the law's numbers show is, and its remedy."""
    if cause == "step too large":
        return _depth_step(numbers, training)
    if cause == "dead units":
        return _dead(numbers, probe)
    if cause == "depth over width":
        return _unstable(numbers)
    return _gain(numbers, architecture, probe)


def _gain(numbers: Numbers, architecture: Architecture, probe: BatchProbe | None) -> Finding:
    is_sine = probe is not None and probe.has_sines
    remedy = _SINE_GAIN if is_sine else gain_remedy(architecture)
    size = f"{_factor(numbers.drift / 2):.2g}"
    if numbers.overflows:
        message = "in some draws the values or the gradient overflow: they are not finite numbers"
        return findings.EXPLODING.at(None, message, remedy)
    kind, word = (
        (findings.EXPLODING, "large") if numbers.drift > 0 else (findings.VANISHING, "small")
    )
    message = f"a typical gradient reaches the input {size} times too {word}"
    if why := mismatch(architecture, numbers.drift):
        message = f"{message}: {why}"
    return kind.at(None, message, remedy)


_SINE_GAIN = (
    "initdiag.repair(model): it finds the scale of the weights for sines, which He's and "
    "orthogonal weights miss"
)


def _unstable(numbers: Numbers) -> Finding:
    spread = _factor(2 * math.sqrt(numbers.variance))
    message = (
        "from one initialisation to the next the gradient's norm varies by factors of "
        f"{spread:.2g} up and down (two sd)"
    )
    remedy = "wider layers, fewer layers, or orthogonal initialisation"
    return findings.UNSTABLE.at(None, message, remedy)


def _dead(numbers: Numbers, probe: BatchProbe | None) -> Finding:
    message = f"{numbers.dead:.0%} of initialisations have a gradient of exactly zero"
    remedy = "widen the narrowest ReLU layers, or use leaky ReLU"
    gate = None if probe is None else probe.output_gate
    if gate is not None and gate.dead_units is not None:
        remedy = "a linear output, or softplus in place of the ReLU behind the last layer"
    return findings.DEAD.at(None, message, remedy)


def beside(
    numbers: Numbers | None, training: Training, probe: BatchProbe | None
) -> Iterator[Finding]:
    """Yield what does not decide: a share of dead networks, a softmax before a loss."""
    if numbers is not None and _SOME_DEAD <= numbers.dead < _MOSTLY_DEAD:
        dead = _dead(numbers, probe)
        yield findings.DEAD.at(None, dead.message, dead.remedy, Severity.WARNING)
    gate = None if probe is None else probe.output_gate
    if gate is not None and gate.function == "softmax" and training.loss == "classification":
        message = "a softmax comes before the loss, whose cross entropy has one of its own"
        remedy = "leave the softmax out: nn.CrossEntropyLoss takes logits"
        yield findings.SOFTMAX_BEFORE_LOSS.at(gate.layer or None, message, remedy)


_SOME_DEAD, _MOSTLY_DEAD = 0.1, 0.5
"""Shares of dead networks that are worth a warning, and that are the verdict."""


def _depth_step(numbers: Numbers, training: Training) -> Finding:
    message = (
        f"at a depth of {numbers.depth} linear layers {_rate(training)} too large a step, "
        "however the weights are drawn"
    )
    remedy = "a lower learning rate, fewer layers, or skip connections"
    return findings.STEP_TOO_LARGE.at(None, message, remedy)


def of_batch(
    cause: Cause, probe: BatchProbe | None, training: Training, architecture: Architecture
) -> Finding:
    """Return what a cause that the user's batch shows is, and its remedy."""
    assert probe is not None
    texts = {
        "input scale": _input_scale,
        "saturation": _saturation,
        "inputs collapse": _collapse,
        "scrambled input": _scrambled,
        "gain": _batch_gain,
        "step too large": _step,
        "step too small": _slow,
    }
    kind, layer, message, remedy = texts[cause](probe, training)
    if cause == "gain" and (why := mismatch(architecture, math.inf)):
        message = f"{message}: {why}"
    return kind.at(layer, message, remedy, Severity.ERROR)


_Text = tuple[Kind, str | None, str, str]


def _input_scale(probe: BatchProbe, training: Training) -> _Text:
    mean, std = f"{probe.input_mean:.4g}", f"{probe.input_std:.4g}"
    message = (
        f"the inputs have mean {mean} and standard deviation {std}: with 0 and 1 nothing "
        "that this batch shows would be in the way"
    )
    shift = f"x {'-' if probe.input_mean >= 0 else '+'} {abs(probe.input_mean):.4g}"
    return findings.INPUT_SCALE, None, message, f"scale the inputs: ({shift}) / {std}"


def _saturation(probe: BatchProbe, training: Training) -> _Text:
    gate = probe.output_gate
    assert gate is not None
    assert gate.saturated is not None
    message = f"{gate.saturated:.0%} of the outputs stand at the flat ends of the {gate.function}"
    remedy = "a linear output with a loss that takes it, or smaller weights in the last layer"
    return findings.SATURATED, gate.layer or None, message, remedy


def _collapse(probe: BatchProbe, training: Training) -> _Text:
    assert probe.collapse is not None
    message = (
        "the rows of the batch reach the last hidden layer all but parallel (1 - cosine is "
        f"{max(1 - probe.collapse, 1e-16):.1g}): it cannot tell them apart"
    )
    remedy = "a gate that is centred at 0 (tanh, or ReLU with He's weights), fewer layers, or norms"
    return findings.INPUTS_COLLAPSE, None, message, remedy


def _scrambled(probe: BatchProbe, training: Training) -> _Text:
    message = (
        f"a short way from one row to another goes {probe.torn:.0%} of the way in the last hidden "
        "layer: neighbours are torn apart, and what is learnt of one says nothing of the other"
    )
    remedy = "a lower frequency of the first sine, or a smaller bandwidth of the Fourier features"
    return findings.SCRAMBLED, None, message, remedy


def _batch_gain(probe: BatchProbe, training: Training) -> _Text:
    message = (
        f"a short way from one row to another goes {probe.torn or 0.0:.0%} of the way in the last "
        "hidden layer: the weights' gain is too large for the gates, and neighbours are torn apart"
    )
    if probe.output_rms is not None and probe.output_rms > _FAR_OUT:
        message = f"the outputs start at {probe.output_rms:.2g}, far from any usual target"
    return findings.EXPLODING, None, message, "weights of gain 1: initdiag.repair(model)"


_FAR_OUT = 1e4
"""Outputs of this size are what is said first: their curve stands at 1e5."""


def _step(probe: BatchProbe, training: Training) -> _Text:
    safe = safe_rate(probe, training)
    message = f"{_rate(training)} too large a step for the curvature of the loss on this batch"
    remedy = "a lower learning rate" if safe is None else f"a learning rate of at most {safe:g}"
    return findings.STEP_TOO_LARGE, None, message, remedy


def _slow(probe: BatchProbe, training: Training) -> _Text:
    safe = safe_rate(probe, training)
    message = f"{_rate(training)} too small a step: in 400 of them next to nothing is learnt"
    larger = safe is not None and (training.lr or 0.0) < safe <= _USUAL_RATE
    rate = f"a learning rate of {safe:g}, or " if larger else ""
    return findings.STEP_TOO_SMALL, None, message, f"{rate}Adam at 0.001"


_USUAL_RATE = 1.0
"""A larger learning rate is no advice: it is the weights that are too small then."""


def _rate(training: Training) -> str:
    if training.lr is None:
        return "usual learning rates take"
    return f"a learning rate of {training.lr:g} takes"


def _factor(log: float) -> float:
    """Return ``exp(|log|)``, as far as a float holds it."""
    return math.exp(min(abs(log), 700.0))
