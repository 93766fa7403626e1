"""The record of a trial: what some real steps of training did to a replica."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from initdiag._core.serialization import Record

__all__ = [
    "FEWEST_STEPS",
    "LEAST_FALL",
    "LossTerm",
    "Trial",
    "TrialLayer",
    "TrialStopped",
    "fall_of",
]

TrialStopped = Literal["steps", "clear", "not finite", "time", "interrupted"]
"""Why a trial ended: after as many steps as asked for, because it was clear that the
loss falls, because a number was not finite, or because time was up."""

LEAST_FALL = 0.1
"""A draw has started if its loss has fallen by this share of the best constant guess's.

The share is chosen in ``tests/evidence/trial``, where it is compared with 400 steps.
"""

FEWEST_STEPS = 50
"""Steps from which on a loss that has not fallen tells something: the study's."""

_LAST = 5
"""Losses at the end whose mean is judged: a choice, by which one noisy step is not."""

_TELLING = 1e-2
"""A constant guess whose loss is a smaller share of the first loss tells nothing: the
targets are all alike."""


@dataclass(frozen=True, slots=True, eq=False)
class TrialLayer(Record):
    """What one weight matrix met (natural log; medians over the draws).

    Attributes
    ----------
    name : str
        The weight's name in the module.
    log_gradients : float64 array of shape (steps,)
        ``ln||dL/dW||^2`` by step; -inf where there was no gradient.
    log_updates : float64 array of shape (steps,)
        ``ln(||W_after - W_before|| / ||W_before||)`` by step.
    low, high : float
        The predicted band of the first step's ``ln||dL/dW||^2``: from the law's 5 %
        quantile, if the rows' gradients are at right angles, to its 95 % quantile, if
        they are alike. NaN where the law is not known.
    dead_before, dead_after : float
        Share of the matrix's rows that got no gradient at the first and the last step.
    """

    name: str
    log_gradients: NDArray[np.float64]
    log_updates: NDArray[np.float64]
    low: float = math.nan
    high: float = math.nan
    dead_before: float = math.nan
    dead_after: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class LossTerm(Record):
    """One named term of a loss.

    Attributes
    ----------
    name : str
        Its key in what the loss function returned.
    first, last : float
        Its value before the first step and at the end of the first draw.
    log_gradient : float
        ``ln||dterm/dtheta||^2`` over all weights before the first step (natural log).
    layers : float64 array
        The part of each of the trial's layers in it, in their order.
    """

    name: str
    first: float
    last: float
    log_gradient: float
    layers: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Trial(Record):
    """Some real steps of training, made on replicas of the module.

    Attributes
    ----------
    wanted, steps : int
        Steps that were asked for, and the most that a draw has made.
    losses : tuple of float64 arrays
        The loss of each draw, before every step and, unless it was cut off, after the
        last.
    constant_loss : float
        The loss of the best guess that does not look at the input; NaN if unknown.
    started : tuple of bool
        Whether each draw has started: see `fall_of` and `LEAST_FALL`.
    is_cut : bool
        Whether time was up, or the user interrupted, before the first draw was done:
        then a loss that has not fallen yet tells nothing.
    stopped : str
        Why the first draw ended.
    nonfinite_step : int or None
        The first step, in any draw, at which a loss or a gradient was not finite.
    layers : tuple of TrialLayer
        In the order of the module's parameters.
    terms : tuple of LossTerm
        The loss's own terms, where it returns several by name.
    optimizer, loss : str
        How it was trained, in words.
    made_up : tuple of str
        What was not the user's own, in words: targets, inputs, a learning rate.
    notes : tuple of str
        What else there is to say of how it was run.
    rows : int
        Rows of the batch that every step was made on.
    seconds : float
        That it took.
    """

    wanted: int
    steps: int
    losses: tuple[NDArray[np.float64], ...]
    constant_loss: float
    started: tuple[bool, ...]
    is_cut: bool
    stopped: TrialStopped
    nonfinite_step: int | None
    layers: tuple[TrialLayer, ...]
    terms: tuple[LossTerm, ...]
    optimizer: str
    loss: str
    made_up: tuple[str, ...]
    notes: tuple[str, ...]
    rows: int
    seconds: float

    @property
    def draws(self) -> int:
        """How many networks were trained."""
        return len(self.losses)

    @property
    def share(self) -> float:
        """Share of the draws that have started."""
        return sum(self.started) / len(self.started)

    @property
    def risk(self) -> float:
        """The probability that another draw does not start, by this trial alone.

        The mean of the posterior of Jeffreys' prior: one draw that starts leaves 1/4,
        eight leave 1/18.
        """
        return 1 - (sum(self.started) + 0.5) / (len(self.started) + 1)

    @property
    def share_se(self) -> float:
        """Standard error of ``share``: binomial, at Jeffreys' mean, so that it is not 0
        where all draws do the same.
        """
        return math.sqrt(self.risk * (1 - self.risk) / len(self.started))

    @property
    def is_own(self) -> bool:
        """Whether the setting was the user's own: nothing was made up."""
        return not self.made_up

    @property
    def is_dead(self) -> bool:
        """Whether no weight matrix got any gradient at the first step."""
        return bool(self.layers) and all(
            np.isneginf(layer.log_gradients[0]) for layer in self.layers
        )

    @property
    def typical(self) -> NDArray[np.float64]:
        """The losses of the first draw that has done what half of the draws or more
        did.
        """
        wanted = self.share >= 0.5
        return self.losses[self.started.index(wanted)]

    def sentence(self) -> str:
        """Return what happened, with its numbers, in words."""
        losses, how = self.typical, f"{self.optimizer} on {self.loss}"
        if self.nonfinite_step is not None and not self.starts:
            what = f"a loss or a gradient is not finite at step {self.nonfinite_step}"
            return f"{self._fate()}: {what} ({how})"
        guess = (
            "" if math.isnan(self.constant_loss) else f", constant guess {self.constant_loss:.3g}"
        )
        moved = f"loss {losses[0]:.3g} -> {losses[-1]:.3g} in {len(losses) - 1} steps"
        return f"{self._fate()}: {moved}{guess} ({how})"

    def _fate(self) -> str:
        if self.starts is None:
            return "too few steps to tell whether training starts"
        of = f" in {sum(self.started)} of {self.draws} draws" if self.draws > 1 else ""
        return f"training starts{of}" if self.starts or of else "training does not start"

    @property
    def starts(self) -> bool | None:
        """Whether training starts in half of the draws or more.

        None where that is not clear: the trial was cut short, or asked for fewer steps
        than the rule was compared with, and the loss has not fallen yet.
        """
        if self.share >= 0.5:
            return True
        if self.nonfinite_step is not None:
            return False
        return None if self.is_cut or self.wanted < FEWEST_STEPS else False


def fall_of(losses: NDArray[np.float64], constant_loss: float) -> float:
    """Return by which share of the loss to beat a draw's loss has fallen below it.

    The loss to beat is that of the best constant guess, or the first loss where that is
    lower, or where all targets are alike. Minus infinity if a loss is not finite.
    """
    if len(losses) < 2 or not np.isfinite(losses).all():
        return -math.inf
    first, last = float(losses[0]), float(losses[1:][-_LAST:].mean())
    is_telling = constant_loss > _TELLING * abs(first)
    beaten = min(constant_loss, first) if is_telling else first
    return (beaten - last) / abs(beaten) if beaten else -math.inf
