"""Chunks of draws, collected into a `Measurement`, until there are enough or the user
interrupts.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from initdiag._core.choices import Ensemble
from initdiag.measuring.passes.gradients import GradientLogs
from initdiag.measuring.passes.rows import LayerLogs
from initdiag.measuring.record import LayerMeasurement, LogSummary, Measurement
from initdiag.measuring.stopping import Clock, Stopping
from initdiag.network.architecture import Architecture

__all__ = ["Chunk", "Plan", "collected"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was measured on some draws: log-norms, and the logs of layers and gradients
    where they were looked at.
    """

    draws: range
    log_norms: Tensor
    layers: Sequence[LayerLogs]
    gradients: Sequence[GradientLogs] = ()


_UNSEEN = 1.0
"""Seconds of work before a progress bar is worth showing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Chunks of draws with what was measured on each, made as they are asked for; and
    what to note when they are done.

    ``log_mean_error`` is what the mean over all draws may be off by, however many.
    """

    chunks: Iterator[Chunk]
    notes: Callable[[], tuple[str, ...]]
    fixed: tuple[str, ...] = ()
    log_mean_error: float = 0.0


def collected(
    plan: Plan, arch: Architecture, method: Ensemble, seed: int, stopping: Stopping, progress: bool
) -> Measurement:
    """Run the plan, and return what it measured.

    An interrupt returns what there is, labelled, once there is anything.
    """
    values: list[NDArray[np.float64]] = []
    layers: dict[int, tuple[str, RunningMoments, RunningMoments]] = {}
    gradients: dict[str, list[GradientLogs]] = {}
    stopped, clock = None, Clock()
    try:
        for chunk in _with_progress(plan.chunks, stopping.draws) if progress else plan.chunks:
            values.append(chunk.log_norms.cpu().numpy())
            _add(layers, chunk.layers)
            for logs in chunk.gradients:
                gradients.setdefault(logs.name, []).append(logs)
            stopped = stopping.reason(values, clock)
            if stopped is not None:
                break
    except KeyboardInterrupt:
        if not values:
            raise
        stopped = "interrupted"
    found = Measurement.of(
        np.concatenate(values),
        method=method,
        seed=seed,
        input_size=arch.input_size,
        output_size=arch.output_size,
        layers=tuple(
            LayerMeasurement(
                name,
                a.mean,
                a.variance,
                t.mean,
                t.variance,
                *_summaries(arch, name, gradients.get(name)),
            )
            for name, a, t in layers.values()
        ),
        notes=(*plan.notes(), *_overflows(values)),
        stopped=stopped or "draws",
        fixed=plan.fixed,
    )
    error = math.hypot(found.log_mean_se, plan.log_mean_error)
    return dataclasses.replace(found, log_mean_se=error) if plan.log_mean_error else found


def _overflows(values: Sequence[NDArray[np.float64]]) -> tuple[str, ...]:
    draws, count = sum(map(len, values)), sum(int(np.isposinf(part).sum()) for part in values)
    return (
        (f"{count} of {draws} draws overflow: their norms are infinite, and so is the mean",)
        if count
        else ()
    )


def _add(
    layers: dict[int, tuple[str, RunningMoments, RunningMoments]], logs: Sequence[LayerLogs]
) -> None:
    for index, log in enumerate(logs):
        _, activation, tangent = layers.setdefault(
            index, (log.name, RunningMoments(), RunningMoments())
        )
        activation.add(log.activation.cpu().numpy())
        tangent.add(log.tangent.cpu().numpy())


def _summaries(
    arch: Architecture, name: str, logs: list[GradientLogs] | None
) -> tuple[LogSummary | None, ...]:
    """Return the summaries of the activations, weight gradients and bias gradients of
    one matrix.
    """
    if not logs:
        return None, None, None
    columns = [
        [log.activation for log in logs],
        [log.weight for log in logs],
        [log.bias for log in logs],
    ]
    activation, weight, bias = (
        LogSummary.of(torch.cat(column).cpu().numpy()) for column in columns
    )
    has_bias = any(layer.bias is not None for layer in arch.layers if layer.name == name)
    return activation, weight, bias if has_bias else None


def _with_progress(chunks: Iterator[Chunk], draws: int | None) -> Iterator[Chunk]:
    """Pass the chunks on, and show on a terminal's stderr how far they are, once it has
    taken a moment.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("measuring", total=draws)
    begin = time.perf_counter()
    try:
        for chunk in chunks:
            yield chunk
            bar.update(task, completed=chunk.draws.stop)
            if not bar.live.is_started and time.perf_counter() - begin > _UNSEEN:
                bar.start()
    finally:
        bar.stop()


class RunningMoments:
    """Chan, Golub and LeVeque's pairwise update (1979). -inf (a dead draw) is left out;
    with an overflow, inf or NaN, the mean is infinite.
    """

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, math.nan, 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in one chunk of values."""
        finite = values[np.isfinite(values)]
        if np.any(np.isnan(values) | np.isposinf(values)):
            self.mean, self._squares = math.inf, math.nan
        if not len(finite) or self.mean == math.inf:
            self.count += len(finite)
            return
        mean, count = float(finite.mean()), len(finite)
        previous = mean if self.count == 0 else self.mean
        total = self.count + count
        self._squares += (
            float(np.sum((finite - mean) ** 2))
            + (mean - previous) ** 2 * self.count * count / total
        )
        self.mean = previous + (mean - previous) * count / total
        self.count = total

    @property
    def variance(self) -> float:
        """Sample variance; NaN for fewer than two values."""
        return self._squares / (self.count - 1) if self.count > 1 else math.nan
