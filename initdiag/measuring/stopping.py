"""When a measurement has draws enough, and the ranges of draws until then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag._core.choices import Stopped
from initdiag._core.validation import positive_integer, positive_number
from initdiag.errors import InvalidInput, explain
from initdiag.network.log_moments import LogMoments

__all__ = ["USUAL", "Clock", "Stopping", "chunks"]

_AUTO_STEP = 256
"""Draws between two looks at the precision."""

USUAL = 1024
"""Draws where none are asked for: the standard error of a log-variance is then 4.4 % of
it, ``sqrt(2/1024)`` for a normal law.
"""

_FEWEST = 32
"""Draws that are made however slow they are: 25 % of a log-variance."""

_PATIENCE = 5.0
"""Seconds of processor time after which a measurement of draws that nobody asked for
comes to its end: half of what a diagnosis of an ordinary module may take.
"""


class Clock:
    """What has gone by since it was made, in seconds."""

    def __init__(self) -> None:
        self._begin, self._processor = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """The clock on the wall has gone on by."""
        return time.perf_counter() - self._begin

    @property
    def processor_time(self) -> float:
        """The processor has spent on this process, all threads together."""
        return time.process_time() - self._processor


@dataclass(frozen=True, slots=True)
class Stopping:
    """When to stop.

    Attributes
    ----------
    draws : int or None
        After so many; None: when the log-variance is precise enough, or time is up.
    patience : float
        Seconds of processor time after which fewer draws than that are enough.
    relative_error : float
        The standard error of the log-variance that is precise enough, relative to it.
    time_budget : float
        Seconds.
    """

    draws: int | None
    relative_error: float
    time_budget: float
    patience: float = math.inf

    @classmethod
    def of(cls, draws: Any, relative_error: float, time_budget: float) -> Stopping:
        """Return the rule that ``measure(draws=...)`` asks for.

        Raises
        ------
        InvalidInput
            Unless ``draws`` is a positive integer, ``"auto"`` or None, and the limits
            are positive.
        """
        for name, value in (("relative_error", relative_error), ("time_budget", time_budget)):
            positive_number(value, name, "Pass e.g. 0.05 and 60.0.")
        if draws is None:
            return cls(USUAL, relative_error, time_budget, _PATIENCE)
        if isinstance(draws, str) and draws != "auto":
            raise InvalidInput(
                explain(
                    expected='draws: a positive integer or "auto"',
                    got=repr(draws),
                    do="Pass e.g. 1024.",
                )
            )
        return cls(
            None if draws == "auto" else positive_integer(draws, "draws"),
            relative_error,
            time_budget,
        )

    @property
    def most(self) -> int:
        """The most draws that may be asked for."""
        return sys.maxsize if self.draws is None else self.draws

    def reason(self, values: list[NDArray[np.float64]], clock: Clock) -> Stopped | None:
        """Return why to stop after these log-norms, other than their count. None means
        to go on.
        """
        count = sum(map(len, values))
        if self.draws is not None:
            is_short = _FEWEST <= count < self.draws
            return "time" if is_short and clock.processor_time >= self.patience else None
        if count % _AUTO_STEP == 0:
            moments = LogMoments.of(np.concatenate(values))
            if moments.variance_se <= self.relative_error * moments.variance:
                return "precision"
        return "time" if clock.seconds >= self.time_budget else None


def chunks(stopping: Stopping, step: int) -> Iterator[range]:
    """Cut the draws into ranges of ``step``, of few draws where precision or time
    decide.
    """
    is_fixed = stopping.draws is not None and stopping.patience == math.inf
    size, start, clock = step if is_fixed else min(step, _AUTO_STEP), 0, Clock()
    while start < stopping.most:
        yield range(start, min(start + size, stopping.most))
        start += size
        spent = clock.processor_time
        if stopping.draws is not None and spent / start * stopping.draws < stopping.patience:
            size = step
