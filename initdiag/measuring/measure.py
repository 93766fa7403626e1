"""`measure`: chunks of draws through an ensemble, collected into a `Measurement`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn

from initdiag._core.choices import ENSEMBLES, PRECISIONS, DrawCount, Ensemble, Precision
from initdiag._core.validation import choice, seed_integer
from initdiag.measuring import survey
from initdiag.measuring.between_weights import with_weights_error
from initdiag.measuring.collect import Chunk, Plan, collected
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.networks import (
    Laws,
    Redraws,
    Signs,
    can_be_stacked,
    mixes_rows,
    refuse_mixed_rows,
)
from initdiag.measuring.passes.gradients import Gradients, Loss
from initdiag.measuring.passes.interposer import Ensemble as Networks
from initdiag.measuring.passes.log_norms import log_norms, log_norms_in_batch
from initdiag.measuring.passes.sign_chain import fast_log_norms
from initdiag.measuring.record import Measurement
from initdiag.measuring.stopping import Stopping, chunks
from initdiag.measuring.task import Task, checked_init, prepared
from initdiag.network.architecture import Architecture
from initdiag.tracing.adapter import Output
from initdiag.tracing.guard import untouched
from initdiag.tracing.inputs import subject_of
from initdiag.tracing.replica import own_modes
from initdiag.tracing.trace import trace_subject

__all__ = ["measure"]

_LOGGED = 4096
"""Draws of a plain chain whose layers are looked at one by one: more would cost more
than they tell.
"""

_WORTH_STACKING = 8
"""Draws from which on it is tried."""

_CACHED = 1 << 24
"""Bytes of the parameters of networks that share a pass off a chain: more of them are
slower to allocate than they save.
"""

_BUDGET = 1 << 28
"""Bytes that the tensors of one chunk may take, about."""


def measure(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Any = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    input: int | str | None = None,
    output: Output = None,
    draws: DrawCount = 1024,
    method: Ensemble = "signs",
    init: Callable[[nn.Module], Any] | None = None,
    seed: int = 0,
    direction: Tensor | ArrayLike | None = None,
    architecture: Architecture | None = None,
    progress: bool = False,
    module: str | None = None,
    relative_error: float = 0.05,
    time_budget: float = 60.0,
    precision: Precision = "auto",
    gradients: bool = True,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    target: Tensor | None = None,
) -> Measurement:
    """Measure ``ln||Ju||^2`` over an ensemble of initialisations of the user's own
    module, by forward-mode autograd.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit.
    example_input, example_args, example_kwargs, input_size, input, output
        See `trace`. Rows are dealt out over the draws in turn; random normal rows
        where none are given.
    draws : int, "auto" or None
        How many. ``"auto"``: until ``relative_error`` or ``time_budget`` is met; None:
        1,024, or those of five seconds of processor time, 32 at least.
    method : str
        ``"signs"``: random signs around the real weights (theory in
        `initdiag.measuring.ensembles.signs`). ``"redraw"``: parameters drawn afresh, by
        the factory, by ``init``, or by ``reset_parameters`` and recognised initialisers
        (`initdiag.measuring.ensembles.resetting`). ``"law"``: every linear layer
        replaced by its Gaussian law (`initdiag.measuring.ensembles.gaussian`), a
        simulation of the initialisation at the cost of the widths.
    init : callable, optional
        An initialiser that ``model.apply`` takes, for redraws.
    seed : int
        Draw ``i`` depends on nothing but the seed and ``i``.
    direction : Tensor or array_like, optional
        The direction ``u``, shaped as an input row; by default uniform, one a draw.
    architecture : Architecture, optional
        What `trace` returned for this model, to spare a second look.
    progress : bool
        Show a progress bar on a terminal, if it takes long enough to see.
    module : str, optional
        Path of a part that is measured alone, as in `trace`.
    relative_error : float
        For ``draws="auto"``: the standard error of the log-variance, relative to it,
        that is small enough.
    time_budget : float
        For ``draws="auto"``: seconds.
    precision : str
        ``"auto"``: kept in range, half types in float32, and in float64 off chains.
        ``"native"``: in the model's own arithmetic, as training will run it: a norm
        that leaves its range counts as 0 or as infinite.
    gradients : bool
        Whether a backward pass looks at the layers' weight and bias gradients over the
        first 512 draws (not by ``"law"``, which has no weights).
    loss_fn, target : callable and Tensor, optional
        The gradients' loss: ``loss_fn(output, target)`` on a batch of one; ``target``
        has a row for each of ``example_input``. By default the output's product with a
        random unit vector.

    Returns
    -------
    Measurement
        With ``||u|| = 1``, natural logs, standard errors.

    Raises
    ------
    InvalidInput
        As `trace`, for an unknown method, and for an ``init`` that raises.
    UnsupportedArchitecture
        If the ensemble does not exist for this module; the message says why and what to
        do.
    """
    stopping, seed = Stopping.of(draws, relative_error, time_budget), seed_integer(seed)
    init = checked_init(init)
    choice(method, "method", ENSEMBLES)
    choice(precision, "precision", PRECISIONS)
    is_native = precision == "native"
    with untouched(), own_modes():
        subject = subject_of(
            model, example_input, input_size, module, args=example_args, kwargs=example_kwargs,
            perturbed=input, output=output,
        )  # fmt: skip
        arch = architecture or trace_subject(subject)
        task = prepared(
            subject.module, arch, subject.example, subject.size, seed, direction,
            is_native=is_native,
        )  # fmt: skip
        task = survey.surveyed(task)
        wanted = Gradients(task, gradients, Loss.of(loss_fn, target, len(task.rows)))
        if method == "redraw":
            plan = _redraws(task, stopping, wanted, Redraws.of_task(task, subject.factory, init))
        else:
            plan = _signs(task, stopping, wanted) if method == "signs" else _laws(task, stopping)
        found = collected(plan, arch, method, seed, stopping, progress)
        if method == "signs":
            found = with_weights_error(found, arch.layers)
    if is_native:
        note = f"in the arithmetic of {str(task.dtype).removeprefix('torch.')}: a norm that leaves its range counts as 0 or infinite"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    return found


def _signs(task: Task, stopping: Stopping, gradients: Gradients) -> Plan:
    networks = Signs(task)
    refuse_mixed_rows(task, networks.of(range(4)))
    is_loaded = not survey.signs_are_the_modules(task)
    if task.is_random or is_loaded:
        own = task.as_it_is()
        drawn = Signs(own)

        def network(draws: range) -> Networks:
            return drawn.loaded(draws.start) if is_loaded else drawn.of(draws)

        gradients = gradients.on(own)
        found = _one_by_one(own, stopping, gradients, network, mixes=False)
        return _plan(networks, gradients, found)
    steps = survey.trusted_steps(task)

    def rows(chunk: range) -> Chunk:
        if steps is None:
            norms, logs = log_norms(task, networks.of(chunk), chunk)
        else:
            with_layers = chunk.start < _LOGGED
            norms, logs = fast_log_norms(
                steps, task, networks.of(chunk), chunk, with_layers=with_layers
            )
        return Chunk(chunk, norms, logs, gradients(networks.of, chunk))

    return _plan(networks, gradients, map(rows, chunks(stopping, _rows_in_budget(task))))


def _plan(
    networks: Signs | Laws | Redraws,
    gradients: Gradients | None,
    drawn: Iterator[Chunk],
    how: tuple[str, ...] = (),
) -> Plan:
    """Return the plan; what is to be noted is asked for when the draws are done."""
    return Plan(
        drawn,
        lambda: (*networks.notes(), *how, *(gradients.notes if gradients else ())),
        networks.fixed,
        networks.log_mean_error,
    )


def _laws(task: Task, stopping: Stopping) -> Plan:
    networks = Laws(task)
    refuse_mixed_rows(task, networks.of(range(4)))
    survey.refuse_weights_that_act_elsewhere(task)

    def found(chunk: range) -> Chunk:
        return Chunk(chunk, *log_norms(task, networks.of(chunk), chunk))

    step = 1 if task.is_random else _rows_in_budget(task, most=1024)
    return _plan(networks, None, map(found, chunks(stopping, step)))


def _redraws(task: Task, stopping: Stopping, gradients: Gradients, networks: Redraws) -> Plan:
    """Stack many networks where that gives what they give one by one."""
    mixes = not task.is_chain and mixes_rows(task, networks.of(range(1)))
    is_worth_it = stopping.most >= _WORTH_STACKING or task.is_chain
    is_possible = task.has_only_layers and not task.acts_by_itself and is_worth_it
    if is_possible and can_be_stacked(task, networks, mixes, _stack_in_budget(task, mixes)):
        return _plan(networks, gradients, _stacks(task, stopping, gradients, networks, mixes))
    # it is no such chain
    own = task.as_it_is() if is_possible and task.is_chain else task
    gradients = gradients.on(own)
    network = Redraws(own, networks.source).of
    drawn = _one_by_one(own, stopping, gradients, network, mixes)
    how = (_SINGLY,) if stopping.most >= _WORTH_STACKING else ()
    return _plan(networks, gradients, drawn, how)


_SINGLY = "drawn one by one: more than linear layers and batch normalisation cannot be stacked"


def _stacks(
    task: Task, stopping: Stopping, gradients: Gradients, networks: Redraws, mixes: bool
) -> Iterator[Chunk]:
    """Run many networks at once."""
    room: dict[str, Tensor] = {}
    for chunk in chunks(stopping, _stack_in_budget(task, mixes)):
        drawn = networks.stacked(chunk, len(task.rows) if mixes else 1, room)
        if mixes:
            yield Chunk(chunk, *log_norms_in_batch(task, drawn, chunk))
        else:
            yield Chunk(chunk, *log_norms(task, drawn, chunk), gradients.at_once(drawn, chunk))


def _one_by_one(
    task: Task,
    stopping: Stopping,
    gradients: Gradients,
    network: Callable[[range], Networks],
    mixes: bool,
) -> Iterator[Chunk]:
    """Run each draw's network by itself."""
    for one in chunks(stopping, 1):
        drawn = network(one)
        if mixes:
            yield Chunk(one, *log_norms_in_batch(task, drawn, one))
        else:
            yield Chunk(one, *log_norms(task, drawn, one), gradients.at_once(drawn, one))


def _stack_in_budget(task: Task, mixes: bool) -> int:
    """Return how many networks fit, by parameters and, off a chain, values."""
    size = sum(p.numel() for p in task.module.parameters()) * task.dtype.itemsize
    if task.is_chain:
        return max(1, min(_BUDGET // (4 * size), 1024))
    widest = max(layer.fan_out for layer in task.arch.layers)
    positions = task.rows[0].numel() // task.rows.shape[-1]
    values = (
        max(task.rows[0].numel(), widest * positions)
        * (len(task.rows) if mixes else 1)
        * task.dtype.itemsize
    )
    return max(1, min(_CACHED // size, _BUDGET // (32 * values), 1024))


def _rows_in_budget(task: Task, most: int = 2048) -> int:
    widest = max(
        task.arch.input_size, task.arch.output_size, *(layer.fan_out for layer in task.arch.layers)
    )
    rows = _BUDGET // (32 * widest * task.dtype.itemsize)
    blocks = max(1, min(rows, most) // random_numbers.BLOCK)
    return blocks * random_numbers.BLOCK
