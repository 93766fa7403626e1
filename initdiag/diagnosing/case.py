"""What advice starts from, which remedies belong to which cause, and those that leave
the network as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from initdiag.diagnosing.basis import Numbers
from initdiag.diagnosing.calibration import FAMILIES, Training
from initdiag.diagnosing.causes import (
    NO_BATCH,
    Batch,
    Cause,
    safe_rate,
    suspicions,
    with_suspicions,
)
from initdiag.diagnosing.remedies import Remedy, moments_of
from initdiag.law.predict import predict
from initdiag.measuring.probe_record import BatchProbe
from initdiag.network.architecture import Architecture

__all__ = ["KINDS", "Case", "Kind", "Look", "of_training", "together"]

Look = Callable[[Architecture, float | None], BatchProbe | None]
"""What the user's batch shows of a chain, built with skip connections of a factor."""

_TARGET = 0.5
"""A remedy is enough if the risk is then at most this share of the highest risk that
passes: a choice, so that what passes does so by more than the risk's own error.
"""

_USUAL_ADAM = 1e-3
"""Adam's learning rate in PyTorch, and where the second study's networks start most."""

Kind = Literal["inputs", "rate", "optimizer", "weights", "gates", "output", "shape"]

KINDS: dict[Cause | None, tuple[Kind, ...]] = {
    None: ("weights", "shape"),
    "gain": ("weights", "gates", "rate", "optimizer", "shape"),
    "depth over width": ("weights", "rate", "shape"),
    "dead units": ("output", "weights", "shape"),
    "step too large": ("rate", "weights", "shape"),
    "step too small": ("rate", "optimizer", "weights"),
    "inputs collapse": ("gates", "weights", "shape"),
    "input scale": ("inputs",),
    "saturation": ("output", "weights"),
}
"""The remedies that belong to a cause. A sine's frequency, equal units and a gradient
that is cut off are mended where the network is written: the finding says how.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What advice starts from.

    Attributes
    ----------
    numbers : Numbers
        What the network was judged by.
    training : Training
        How it is going to be trained.
    max_risk, risk : float
        The highest risk that passes, and the network's own.
    cause : str or None
        Why it is at risk; None for a chain that is judged by the law alone.
    chain : Architecture or None
        The chain that the law speaks of; None where there is none.
    batch : Batch
        What the user's batch shows.
    look : callable or None
        Shows that batch to another chain.
    """

    numbers: Numbers
    training: Training
    max_risk: float
    risk: float
    cause: Cause | None = None
    chain: Architecture | None = None
    batch: Batch = NO_BATCH
    look: Look | None = None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The remedies that belong to the cause."""
        return KINDS.get(self.cause, ())

    @property
    def target(self) -> float:
        """The risk that is low enough."""
        return _TARGET * self.max_risk


def of_training(case: Case) -> Iterator[Remedy]:
    """Yield what changes nothing of the network: the inputs' scale, the rate, Adam."""
    drift, variance, dead, depth = dataclasses.astuple(case.numbers)
    moments = drift, variance, dead, depth or 0
    own = Remedy("", "", case.training, 1.0, moments)
    probe = case.batch.probe
    if "inputs" in case.kinds and probe is not None:
        shift = f"x {'-' if probe.input_mean >= 0 else '+'} {abs(probe.input_mean):.6g}"
        code = f"x = ({shift}) / {probe.input_std:.6g}"
        action = f"scale the inputs: {code.removeprefix('x = ')}"
        if case.chain is not None:
            scaled = dataclasses.replace(case.chain, input_rms=1.0)
            moments = (*moments_of(predict(scaled)), depth or 0)
        yield dataclasses.replace(
            own, moments=moments, action=action, code=code, script=f"{code}\n", cost=0.5
        )
    if "rate" in case.kinds:
        yield from _rates(case, own)
    if "optimizer" in case.kinds and FAMILIES[case.training.optimizer][0] != "adam":
        adam = Training("adam", _USUAL_ADAM, case.training.loss)
        yield dataclasses.replace(
            own, training=adam, cost=1.5, code=f"optimizer = Adam(lr={_USUAL_ADAM:g})",
            action=f"Adam at a learning rate of {_USUAL_ADAM:g}",
            script=(
                "import torch\n\n"
                f"optimizer = torch.optim.Adam(model.parameters(), lr={_USUAL_ADAM:g})\n"
            ),
        )  # fmt: skip


def _rates(case: Case, own: Remedy) -> Iterator[Remedy]:
    """Yield the learning rate nearest to the user's that is enough: the largest safe
    one where steps are too large, a larger one where they are too small.
    """
    now = case.training.lr
    safe = safe_rate(case.batch.probe, case.training)
    if now is None:
        return
    halves = [float(f"{now * 10 ** (k / 2):.1g}") for k in (-1, -2, -3, -4)]
    if case.cause == "step too small":
        rates = [float(f"{now * 10 ** (k / 2):.1g}") for k in (1, 2, 3, 4)]
        rates = [rate for rate in rates if rate <= 1 and (safe is None or rate <= safe)]
    else:
        rates = sorted({*halves, *([safe] if safe is not None and safe < now else [])})[::-1]
    for rate in rates:
        training = dataclasses.replace(case.training, lr=rate)
        if together(own.risk(training), case.batch.probe, training) <= case.target:
            word = "lower" if rate < now else "raise"
            action = f"{word} the learning rate: {now:g} -> {rate:g}"
            code = f"lr = {rate:g}"
            yield dataclasses.replace(
                own, training=training, action=action, code=code, script=f"{code}\n"
            )
            return


def together(risk: float, probe: BatchProbe | None, training: Training) -> float:
    """Return the risk by the law and by what a batch shows."""
    return with_suspicions(risk, suspicions(probe, training))
