"""A trial: the first steps of the real training, made on replicas, and judged.

The user's module, optimiser and generators stay as they are: a replica is trained, by
an optimiser of the same class and options, on the user's batch and loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.law.gradients import parameter_gradients
from initdiag.measuring.ensembles.random_numbers import draw_seed
from initdiag.measuring.training.objective import Objective, objective_of
from initdiag.measuring.training.optimizers import Recipe, recipe_of
from initdiag.measuring.training.steps import Run, matrices, run
from initdiag.measuring.trial_plan import TrialPlan
from initdiag.measuring.trial_record import LEAST_FALL, Trial, TrialLayer
from initdiag.network.architecture import Architecture
from initdiag.tracing.adapter import Adapter
from initdiag.tracing.guard import seed_generators
from initdiag.tracing.inputs import Subject, example_rows, is_meta
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.structures import mapped

__all__ = ["tried"]

BUDGET = 30.0
"""Seconds that a trial may take: a choice. The first draw may use them all; another is
begun while it would fit, by the time that the slowest so far took."""

_DRAWS, _SMALL, _FEWER = 8, 1_000_000, 3
"""Networks that are trained where a factory can make them: fewer from so many
parameters on. A choice."""

_ROWS = 64
"""Random inputs where the user gives none."""

_BAND_DRAWS = 512
"""Draws of a law of gradients that has to be simulated: its quantiles are drawn as a
band."""


def tried(
    plan: TrialPlan, subject: Subject, arch: Architecture, seed: int, progress: bool = False
) -> Trial:
    """Train replicas for some steps, and say whether training starts.

    The caller preserves random states and modes.

    Raises
    ------
    InvalidInput
        If the loss function raises, or the targets do not fit the batch.
    UnsupportedArchitecture
        If nothing can be trained: no values, no loss, no gradient.
    """
    began = time.perf_counter()
    if is_meta(subject.module):
        raise UnsupportedArchitecture(
            "parameters on the meta device have no values to train. Give them values."
        )
    if not any(p.requires_grad for p in subject.module.parameters()):
        raise UnsupportedArchitecture("no parameter is trained: none requires a gradient.")
    x = _rows(subject, arch, seed)
    target = plan.target if plan.target is not None else subject.target
    target = mapped(target, lambda _, array: torch.as_tensor(array), (np.ndarray,))
    seed_generators(draw_seed(seed, 0, "trial"), is_used=True)
    first = _copy(subject.module)
    objective = objective_of(first, x, target, plan.loss_fn, plan.loss, seed)
    recipe = recipe_of(plan.optimizer, plan.lr, objective.kind, subject.module)
    with _shown(plan.steps, progress) as on_step:
        runs = list(_runs(plan.steps, subject, x, objective, recipe, seed, began, on_step))
    return _record(plan, subject, arch, x, objective, recipe, runs, began)


def _rows(subject: Subject, arch: Architecture, seed: int) -> Tensor:
    """Return the rows that every step is made on."""
    if subject.example is not None:
        rows: Tensor = subject.example
        return rows.detach()
    rows = example_rows(subject.module, arch.input_size, _ROWS, seed)
    size = subject.size
    return rows if size is None else rows.reshape(_ROWS, *tuple(size)[1:])


def _copy(module: nn.Module) -> Adapter:
    found = replica(module, copied)
    assert isinstance(found, Adapter)
    return found


def _runs(
    steps: int,
    subject: Subject,
    x: Tensor,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    began: float,
    on_step: Callable[[], None],
) -> Iterator[Run]:
    """Train the module as it is, or draws of its factory as long as there is time."""
    deadline, slowest = began + BUDGET, 0.0
    for draw in range(_draws(subject)):
        start = time.perf_counter()
        if draw and start + slowest > deadline:
            return
        seed_generators(draw_seed(seed, draw, "trial"), is_used=True)
        adapter = _copy(subject.module if subject.factory is None else subject.factory())
        found = run(adapter, x, objective, recipe.make(adapter), steps, deadline, on_step)
        if draw and found.is_cut:
            return  # it tells less than the others, and would count as much
        yield found
        if found.is_cut:
            return
        slowest = max(slowest, time.perf_counter() - start)


def _draws(subject: Subject) -> int:
    if subject.factory is None:
        return 1
    size = sum(p.numel() for p in subject.module.parameters())
    return _DRAWS if size <= _SMALL else _FEWER


@contextmanager
def _shown(steps: int, progress: bool) -> Iterator[Callable[[], None]]:
    """Show on a terminal's stderr how many steps have been made."""
    if not progress:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("trial", total=None)
        yield lambda: bar.advance(task)


def _record(
    plan: TrialPlan,
    subject: Subject,
    arch: Architecture,
    x: Tensor,
    objective: Objective,
    recipe: Recipe,
    runs: Sequence[Run],
    began: float,
) -> Trial:
    of_inputs = () if subject.example is not None else ("random inputs",)
    nonfinite = [one.nonfinite for one in runs if one.nonfinite is not None]
    return Trial(
        wanted=plan.steps,
        steps=max(len(one.gradients) for one in runs),
        losses=tuple(one.array for one in runs),
        constant_loss=objective.constant,
        started=tuple(one.fall(objective.constant) >= LEAST_FALL for one in runs),
        is_cut=runs[0].is_cut,
        stopped=runs[0].stopped,
        nonfinite_step=min(nonfinite, default=None),
        layers=_layers(subject.module, arch, runs, len(x)),
        terms=runs[0].terms,
        optimizer=recipe.text,
        loss=objective.text,
        made_up=(*of_inputs, *objective.made_up, *recipe.made_up),
        notes=recipe.notes,
        rows=len(x),
        seconds=time.perf_counter() - began,
    )


def _layers(
    module: nn.Module, arch: Architecture, runs: Sequence[Run], rows: int
) -> tuple[TrialLayer, ...]:
    cotangent = float(np.median([one.cotangent for one in runs]))
    bands = _bands(arch, cotangent, rows)
    unknown = (math.nan, math.nan)
    return tuple(
        TrialLayer(
            name,
            _medians([[step[place] for step in one.gradients] for one in runs]),
            _medians([[step[place] for step in one.updates] for one in runs]),
            *bands.get(name, unknown),
            float(np.median([one.dead[0][place] for one in runs])),
            float(np.median([one.dead[-1][place] for one in runs])),
        )
        for place, name in enumerate(matrices(module))
    )


def _medians(draws: Sequence[Sequence[float]]) -> Any:
    """Return the median over the draws at each step that any of them has made."""
    longest = max(map(len, draws))
    return np.array(
        [
            float(np.median([one[step] for one in draws if step < len(one)]))
            for step in range(longest)
        ]
    )


def _bands(arch: Architecture, cotangent: float, rows: int) -> dict[str, tuple[float, float]]:
    """Return the band of each matrix's first ``ln||dL/dW||^2``, where its law is known.

    The gradient of a mean over rows is the rows' mean: its squared norm is at most the
    mean of theirs, and at right angles one ``rows``-th of that.
    """
    if arch.gaps or not math.isfinite(cotangent) or cotangent <= 0:
        return {}
    try:
        laws = parameter_gradients(arch, draws=_BAND_DRAWS).layers
    except UnsupportedArchitecture:
        return {}
    size = math.log(cotangent)
    found = {}
    for layer in laws:
        low, high = (float(q) for q in layer.weight_gradient.law.ppf([0.05, 0.95]))
        found[layer.name] = (low + size - math.log(rows), high + size)
    return found
