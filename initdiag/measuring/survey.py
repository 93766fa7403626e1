"""What a module shows of itself before it is measured, by running it.

A fast way of measuring stands in for the module's own passes only after it has equalled
them, in this very call, on some of the draws that it stands in for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.networks import Signs, sizes
from initdiag.measuring.ensembles.redraw import Loaded
from initdiag.measuring.passes.log_norms import log_norms, product
from initdiag.measuring.passes.push_pull import Pull
from initdiag.measuring.passes.rows import Rows, Scales, flat
from initdiag.measuring.passes.sign_chain import Step, fast_log_norms, taped
from initdiag.measuring.passes.underflow import LOWEST
from initdiag.measuring.task import Task
from initdiag.tracing.guard import seed_generators, seen_to_draw

__all__ = [
    "equal_draws",
    "refuse_weights_that_act_elsewhere",
    "signs_are_the_modules",
    "surveyed",
    "trusted_steps",
]

_SAMPLE = 16
"""Rows, or draws, that are compared: a fair coin that is tossed once a draw shows in
all but one run of 2^15."""

_ALIKE = 1e-6
"""Logs in double precision that differ by less are the same but for rounding, also in
networks of hundreds of layers."""


_SENT = (1.0, 2.0**20, 2.0**-20)
"""Sizes of what is sent back that are compared; clipping happens between them."""


_FAINT = 1e-280
"""Smaller products may have lost digits: doubles have all of theirs above 1e-308."""


def surveyed(task: Task) -> Task:
    """Return the task with what running the module shows of it.

    It is not a chain if rescaled rows do not give what the plain module gives; its
    gradients are measured in reverse mode where the backward pass is not the transpose
    of the tangent map (hooks, custom functions); draws are run one by one where it is
    random itself.
    """
    plain = task.as_it_is()
    sample, ensemble = range(_SAMPLE), Loaded()
    try:
        once, is_random, is_repeatable = _run_twice(plain)
    except UnsupportedArchitecture:
        return _in_reverse(task) if task.arch.gaps else task
    found = dataclasses.replace(task, is_random=is_random, is_repeatable=is_repeatable)
    is_transpose, draws = seen_to_draw(lambda: _is_transpose(plain))
    has_random_backward = draws and not found.is_random
    if not is_transpose and not has_random_backward:
        _require_linear(plain)
    if has_random_backward or not is_transpose:
        return dataclasses.replace(
            plain,
            derivative="reverse",
            is_random=found.is_random or has_random_backward,
            is_repeatable=is_repeatable,
        )
    if task.is_chain and not task.is_native:
        rescaled = dataclasses.replace(plain, is_chain=True)
        try:
            alike = _equal(log_norms(rescaled, ensemble, sample)[0], once)
        except UnsupportedArchitecture:
            alike = False
        if found.is_random or not alike:
            return dataclasses.replace(
                plain, is_random=found.is_random, is_repeatable=is_repeatable
            )
    return found


def _run_twice(plain: Task) -> tuple[Tensor, bool, bool]:
    """Return the log-norms of a pass, whether passes are random, and whether one that
    is made again is the same.
    """
    seed_generators(random_numbers.draw_seed(plain.seed, 0, "own noise"))
    (once, _), is_random = seen_to_draw(lambda: log_norms(plain, Loaded(), range(_SAMPLE)))
    again, _ = log_norms(plain, Loaded(), range(_SAMPLE))
    is_repeatable = torch.equal(once, again)
    return once, is_random or not is_repeatable, is_repeatable


def _in_reverse(task: Task) -> Task:
    """Return the task measured by backward passes, where those run; a custom function
    may have no derivative in forward mode.

    What is out of range, or not in double precision, the measurement will say.
    """
    plain = dataclasses.replace(task.as_it_is(), derivative="reverse")
    try:
        _, is_random, is_repeatable = _run_twice(plain)
    except UnsupportedArchitecture:
        return task
    _require_linear(plain)
    return dataclasses.replace(plain, is_random=is_random, is_repeatable=is_repeatable)


def _require_linear(task: Task) -> None:
    """Raise unless what comes back is in proportion to what is sent back.

    Raises
    ------
    UnsupportedArchitecture
        Where it is not: a hook clips gradients, say. Then there is no Jacobian.
    """
    sample = range(_SAMPLE)
    x = task.inputs(sample)
    pull = Pull(task, Loaded(), sample, x)
    size = sizes(task)[1]
    v = random_numbers.directions(task.seed, sample, size, "cotangent")
    v = v.to(x.device, task.dtype)
    results, draws = seen_to_draw(lambda: [pull(v * scale)[0].double() / scale for scale in _SENT])
    if draws:  # a backward pass that is random differs anyway
        return
    norm = float(torch.linalg.vector_norm(results[0]))
    tolerance = _ALIKE if task.dtype == torch.float64 else 1e-2
    if any(float((r - results[0]).norm()) > tolerance * norm for r in results[1:]):
        raise UnsupportedArchitecture(
            "the backward pass is not linear in what is sent back (a hook that clips?), so that "
            "its gradients depend on the size of the loss. Measure it without the hook."
        )


def _is_transpose(task: Task) -> bool:
    """Return whether tangents and gradients agree: ``<v, J u> = <J^T v, u>``.

    True also where nothing can be compared: no backward pass, or products out of range.
    """
    sample = range(_SAMPLE)
    x = task.inputs(sample)
    u = task.directions(sample, x)
    scales = Scales(of_tangents=False, of_primals=False)
    tangent, _ = product(task, Loaded(), Rows(sample, len(x), task.seed), scales, x.clone(), u)
    tangent = flat(tangent).double()
    v = random_numbers.directions(task.seed, sample, tangent.shape[1], "cotangent")
    v = v.to(tangent.device, tangent.dtype)
    try:
        back, _ = Pull(task, Loaded(), sample, x)(v.to(task.dtype))
    except UnsupportedArchitecture:
        return True
    error = ((v * tangent).sum(1) - (back.double() * flat(u)).sum(1)).sum()
    size = torch.linalg.vector_norm(tangent) + torch.linalg.vector_norm(back.double())
    tolerance = _ALIKE if task.dtype == torch.float64 else 1e-2
    is_seen = bool(size.isfinite()) and float(size) > _FAINT
    return not is_seen or bool(error.abs() <= tolerance * size)


def _equal(logs: Tensor, others: Tensor) -> bool:
    """Return whether log-norms are the same, where they are in range.

    Plain numbers may fade to 0 where ``logs`` are below their range.
    """
    is_faint = logs.isfinite() & (logs < LOWEST)
    is_seen = (others > LOWEST) & (others < -LOWEST) | others.isneginf() & ~is_faint
    a, b = logs[is_seen], others[is_seen]
    return bool(((a == b) | ((a - b).abs() < _ALIKE)).all())


def equal_draws(found: Tensor, one: Callable[[int], Tensor], draws: range) -> bool:
    """Return whether log-norms are those of the module's passes one by one."""
    try:
        return _equal(found, torch.cat([one(draw) for draw in draws]))
    except UnsupportedArchitecture:
        return False


def signs_are_the_modules(task: Task) -> bool:
    """Return whether signs around what a layer uses are signs around its parameters.

    Some draws are run with parameters ``R W S`` in the module itself. Weights that are
    computed, and branches on them, differ there.
    """
    plain = dataclasses.replace(task.as_it_is(), is_random=task.is_random)
    networks, sample = Signs(plain), range(_SAMPLE)

    def one(draw: int) -> Tensor:
        return log_norms(plain, networks.loaded(draw), range(draw, draw + 1))[0]

    try:
        found, _ = log_norms(plain, networks.of(sample), sample)
    except UnsupportedArchitecture:
        return True  # its range is not that of plain numbers: nothing can be compared
    return equal_draws(found, one, sample)


def refuse_weights_that_act_elsewhere(task: Task) -> None:
    """Raise where weights act by more than the linear maps that multiply by them.

    A branch on a weight, a norm of it: what puts other vectors in the place of linear
    maps does not see them. Nothing is known where signs of weights cannot be turned.
    """
    try:
        Signs(task.as_it_is()).loaded(0)
    except UnsupportedArchitecture:
        return
    if not signs_are_the_modules(task):
        raise UnsupportedArchitecture(
            "the module looks at its weights beside multiplying by them (a branch, a norm), which "
            "their laws alone do not show. Use method='signs' or 'redraw'."
        )


def trusted_steps(task: Task) -> tuple[Step, ...] | None:
    """Return the fast path's steps, if its draws are those of plain passes."""
    steps = taped(task)
    if steps is None or task.is_native:
        return steps
    plain, sample = task.as_it_is(), range(_SAMPLE)
    networks = Signs(plain)
    exact = taped(dataclasses.replace(plain, is_chain=True))
    if exact is None:
        return None
    fast, _ = fast_log_norms(exact, plain, networks.of(sample), sample, with_layers=False)
    try:
        general, _ = log_norms(plain, networks.of(sample), sample)
    except UnsupportedArchitecture:
        general, _ = log_norms(
            dataclasses.replace(plain, is_chain=True), networks.of(sample), sample
        )
    return steps if _equal(fast, general) else None
