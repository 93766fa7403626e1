"""One candidate's diagnosis, wherever it is run: what `initdiag.diagnosing.parallel`
hands to workers, and what comes back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from initdiag._core.validation import seed_integer
from initdiag.diagnosing.diagnose import diagnose, diagnose_architecture
from initdiag.diagnosing.report import Report
from initdiag.errors import InitdiagError, text_of
from initdiag.measuring.stopping import USUAL
from initdiag.network.architecture import Architecture

__all__ = ["OF_WIDTHS", "Checked", "Task", "candidate_seed", "run"]

OF_WIDTHS = ("optimizer", "lr", "loss", "thresholds", "spectrum", "target")
"""Options of `diagnose` that mean something without a module."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One candidate's result.

    Attributes
    ----------
    index : int
        Its place among the candidates, from 0.
    report : Report or None
        None where the diagnosis raised.
    error : str or None
        The error's type and message.
    """

    index: int
    report: Report | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the candidate was judged, and called healthy."""
        return self.report is not None and self.report.ok


@dataclass(frozen=True, slots=True)
class Task:
    """Consecutive candidates, the first of which has index ``start``, and how to
    diagnose them.
    """

    start: int
    candidates: tuple[Any, ...]
    seed: int
    options: Mapping[str, Any]
    assumptions: Mapping[str, Any]

    @property
    def indices(self) -> range:
        """The indices of its candidates."""
        return range(self.start, self.start + len(self.candidates))

    def parts(self) -> Iterator[Task]:
        """Return tasks of one candidate each."""
        for index, candidate in zip(self.indices, self.candidates, strict=True):
            yield Task(index, (candidate,), self.seed, self.options, self.assumptions)


def candidate_seed(seed: int, index: int) -> int:
    """Return the seed, of 63 bits, of candidate ``index``.

    Raises
    ------
    InvalidInput
        If ``seed`` is not a non-negative int.
    """
    state = np.random.SeedSequence((seed_integer(seed), index)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def run(task: Task) -> tuple[Checked, ...]:
    """Diagnose a task's candidates: what runs on a worker."""
    return tuple(
        _checked(candidate, index, task)
        for index, candidate in zip(task.indices, task.candidates, strict=True)
    )


def _checked(candidate: Any, index: int, task: Task) -> Checked:
    try:
        if callable(candidate):
            report = _measured(candidate, candidate_seed(task.seed, index), task.options)
        else:
            report = _judged(candidate, task)
    except InitdiagError as error:
        return Checked(index, None, f"{type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:
        return Checked(index, None, f"unexpected {type(error).__name__}: {text_of(error)}")
    return Checked(index, report)


def _judged(candidate: Any, task: Task) -> Report:
    is_architecture = isinstance(candidate, Architecture)
    architecture = (
        candidate if is_architecture else Architecture.from_widths(candidate, **task.assumptions)
    )
    return diagnose_architecture(
        architecture, **{k: task.options[k] for k in OF_WIDTHS if k in task.options}
    )


def _measured(candidate: Any, seed: int, options: Mapping[str, Any]) -> Report:
    """Diagnose a factory's module, whose weights are drawn from ``seed``, on one
    thread: with the usual draws, however slow, for no record depends on a clock.
    """
    import torch

    from initdiag.tracing.guard import draws_at_random, untouched

    with untouched(quiet=True):
        draws_at_random()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            return diagnose(candidate, seed=seed, **{"draws": USUAL, **options})
        finally:
            torch.set_num_threads(threads)
