"""What the user's batch adds to the risk, and the cause that it names.

Each number of a `BatchProbe` that tells failures on left-out families has a rising
curve of its own, and the ways to fail are taken as independent::

    risk = 1 - (1 - risk by the law's numbers) prod (1 - s(slope (x - middle)))

The study is ``tests/evidence/causes``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from initdiag._core.choices import LOSSES, Loss
from initdiag.diagnosing.calibration import FAMILIES, Training, calibration
from initdiag.measuring.probe_record import BatchProbe

__all__ = [
    "LEARNT",
    "NO_BATCH",
    "OF_BATCH",
    "Batch",
    "Cause",
    "Suspicion",
    "safe_rate",
    "suspicions",
    "with_suspicions",
]

Cause = Literal[
    "gain", "depth over width", "dead units", "no gradient", "symmetry", "input scale",
    "saturation", "inputs collapse", "scrambled input", "step too large", "step too small",
]  # fmt: skip
"""Why training does not start. The first three are read off the law's numbers, the next
two off the module itself, the others off the user's batch.
"""

OF_BATCH: tuple[Cause, ...] = (
    "input scale", "saturation", "inputs collapse", "scrambled input", "step too small",
)  # fmt: skip
"""Causes that the first finding tells better than the gradient's size does."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The probability that training does not start by one cause, beside all others."""

    cause: Cause
    probability: float


@dataclass(frozen=True, slots=True)
class _Rise:
    """A logistic curve: 1/2 at ``middle``."""

    middle: float
    slope: float

    def at(self, x: float) -> float:
        """Return the probability at ``x``."""
        return 0.5 * (1 + math.tanh(self.slope * (x - self.middle) / 2))


@dataclass(frozen=True, slots=True)
class Batch:
    """What the user's batch showed, and what it would show with mean 0 and variance 1;
    None where that was not looked at.
    """

    probe: BatchProbe | None = None
    standardised: BatchProbe | None = None

    def worst(self, training: Training) -> Suspicion | None:
        """Return what is suspected most; the inputs' scale if standardised ones are
        under half as suspect.
        """
        found = suspicions(self.probe, training)
        if not found:
            return None
        together = with_suspicions(0.0, found)
        cured = with_suspicions(0.0, suspicions(self.standardised, training))
        if self.standardised is not None and cured < together / 2:
            return Suspicion("input scale", together)
        return found[0]


NO_BATCH = Batch()

_STEPS = 400
"""Steps within which the calibration study wants training to start."""

_MOST_STEP = {"sgd": 2.0, "momentum": 3.8}
"""Learning rate times curvature at which a quadratic valley is left: 2 for gradient
descent, 2 (1 + 0.9) with momentum 0.9 (Polyak 1964).
"""

LEARNT = "what the batch adds: on 500 runs of ten families (tests/evidence/causes)"
"""Where the curves of a batch come from, for a report."""

_RISES = {
    "step, classification": _Rise(6.0, 2.0),
    "step, regression": _Rise(2.5, 2.0),
    "step, regression, curving up": _Rise(1.1, 3.0),
    "sign step": _Rise(5.5, 2.0),
    "slow": _Rise(2.0, 2.0),
    "saturated output": _Rise(0.5, 20.0),
    "torn": _Rise(0.6, 20.0),
    "collapse": _Rise(21.5, 4.0),
    "first loss": _Rise(23.5, 4.0),
}
"""By number, its curve (natural logs): the constants of ``tests/evidence/causes``,
``RESULTS.md``, on its grid, but for two that set in later.

Torn neighbours: no run of the study lies between 0.42, which starts, and 0.57, which
does not, and Fourier features that train are known at 0.55. Squared errors of networks
whose curvature grows (`BatchProbe.curves_up`) diverge at 3 in place of 12 times the
valley's rate: ``overshoot.txt``, 648 runs. Saturated outputs: the
study has six networks with any, so that half of them is asked for.
"""


def suspicions(probe: BatchProbe | None, training: Training) -> tuple[Suspicion, ...]:
    """Return what a batch makes one suspect, the worst first."""
    if probe is None:
        return ()
    large, small = _steps(probe, training)
    found = [
        Suspicion("step too large", large),
        Suspicion("step too small", small),
        Suspicion("saturation", _saturation(probe)),
        Suspicion("inputs collapse", _collapse(probe, training)),
        Suspicion("scrambled input" if probe.has_sines else "gain", _torn(probe)),
        Suspicion("gain", _far_out(probe)),
    ]
    return tuple(sorted(found, key=lambda suspicion: -suspicion.probability))


def with_suspicions(risk: float, found: tuple[Suspicion, ...]) -> float:
    """Return the risk by the law's numbers and all that is suspected beside."""
    return 1 - (1 - risk) * math.prod(1 - suspicion.probability for suspicion in found)


def _steps(probe: BatchProbe, training: Training) -> tuple[float, float]:
    """Return the probabilities that steps are too large and too small, as a mean over
    the losses that it may be. Of the usual learning rates, where none is told, it is
    the best that counts: the others are not chosen yet.
    """
    losses = LOSSES if training.loss is None else (training.loss,)
    large = small = 0.0
    for loss in losses:
        usual = (lr for lr, _ in calibration().rates[training.optimizer, loss])
        rates = usual if training.lr is None else (training.lr,)
        pairs = (
            (_overshoot(probe, training, lr, loss), _slow(probe, training, lr, loss))
            for lr in rates
        )
        best = max(pairs, key=lambda pair: (1 - pair[0]) * (1 - pair[1]))
        large, small = large + best[0] / len(losses), small + best[1] / len(losses)
    return large, small


def _is_adaptive(training: Training) -> bool:
    return FAMILIES[training.optimizer][0] == "adam"


def safe_rate(probe: BatchProbe | None, training: Training) -> float | None:
    """Return the largest learning rate, of one digit, whose steps are too large in one
    network of twenty; None where the curvature is not known, or out of range.
    """
    limits = [0.0] if probe is None else list(_limits(probe, training))
    if not limits or not 0 < min(limits) < math.inf:
        return None
    unit = 10.0 ** math.floor(math.log10(min(limits)))
    return float(f"{math.floor(min(limits) / unit * (1 + 1e-9)) * unit:.1g}")


def _limits(probe: BatchProbe, training: Training) -> Iterator[float]:
    """Yield, for each loss that it may be, the largest learning rate."""
    if _is_adaptive(training):
        if probe.sign_step:
            yield _one_in_twenty(_RISES["sign step"]) / probe.sign_step
        return
    for loss in LOSSES if training.loss is None else (training.loss,):
        if sharpness := probe.sharpness.get(loss):
            most = _one_in_twenty(_rise(probe, loss)) * _MOST_STEP[training.optimizer]
            yield most / sharpness


def _one_in_twenty(rise: _Rise) -> float:
    return math.exp(rise.middle - math.log(19) / rise.slope)


def _overshoot(probe: BatchProbe, training: Training, lr: float, loss: Loss) -> float:
    """Return the probability that the first steps overshoot."""
    if _is_adaptive(training):
        step = probe.sign_step
        return _RISES["sign step"].at(math.log(lr * step)) if step else 0.0
    sharpness = probe.sharpness.get(loss)
    step = lr * sharpness / _MOST_STEP[training.optimizer] if sharpness else 0.0
    return _rise(probe, loss).at(math.log(step)) if step else 0.0


def _rise(probe: BatchProbe, loss: Loss) -> _Rise:
    up = ", curving up" if loss == "regression" and probe.curves_up else ""
    return _RISES[f"step, {loss}{up}"]


def _slow(probe: BatchProbe, training: Training, lr: float, loss: Loss) -> float:
    """Return the probability that the steps are too small to get anywhere."""
    contrast = probe.contrast.get(loss)
    if _is_adaptive(training) or contrast is None:
        return 0.0
    pace = lr * FAMILIES[training.optimizer][1] * contrast * _STEPS
    return _RISES["slow"].at(-math.log(pace)) if pace > 0 else 1.0


def _saturation(probe: BatchProbe) -> float:
    """Return the probability that outputs stand at the flat ends of their gate.

    Hidden gates may: half of the study's networks with 90 % of a layer there start.
    """
    gate = probe.output_gate
    return _risen("saturated output", None if gate is None else gate.saturated)


def _collapse(probe: BatchProbe, training: Training) -> float:
    """Return the probability that Adam can no longer tell rows apart; what plain
    gradient descent learns then is `_slow`.
    """
    if probe.collapse is None or not _is_adaptive(training):
        return 0.0
    return _risen("collapse", -math.log(max(1 - probe.collapse, 1e-16)))


def _torn(probe: BatchProbe) -> float:
    """Return the probability that neighbours are torn apart, by sines that turn too
    fast or by gains far above 1 of gates with flat ends. Piecewise linear gates do not
    fold: one of the study's 400 networks without sines is above 0.45.
    """
    if not (probe.has_sines or probe.has_flat_ends):
        return 0.0
    return _risen("torn", probe.torn)


def _far_out(probe: BatchProbe) -> float:
    """Return the probability that outputs start too far from any usual target."""
    rms = probe.output_rms
    return _risen("first loss", None if rms is None else 2 * math.log(math.hypot(1.0, rms)))


def _risen(name: str, x: float | None) -> float:
    return 0.0 if x is None else _RISES[name].at(x)
