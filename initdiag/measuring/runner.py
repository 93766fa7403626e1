"""`measure`: chunks of draws through an ensemble, collected into a `Measurement`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.architecture import Architecture
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measurement import Measurement
from initdiag.measuring import random_numbers
from initdiag.measuring.collection import Chunk, Plan, Stopping, chunks, collected
from initdiag.measuring.gaussian import GaussianLayers
from initdiag.measuring.gradients import Gradients, Loss
from initdiag.measuring.interposer import Ensemble
from initdiag.measuring.redraw import Loaded, Redrawn, Source, reset_parameters, values_of
from initdiag.measuring.signs import SignFlips
from initdiag.measuring.tape import fast_log_norms, taped
from initdiag.measuring.task import Task, log_norms, log_norms_in_batch, prepared
from initdiag.tracing.loan import own_modes, rng_preserved
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.subject import subject_of
from initdiag.tracing.trace import trace_subject

__all__ = ["measure"]

METHODS = ("signs", "redraw", "law")
PRECISIONS = ("auto", "native")

_LOGGED = 4096
"""Draws of a plain chain whose layers are looked at one by one: more would cost more than they tell."""

_BUDGET = 1 << 28
"""Bytes that the tensors of one chunk may take, about."""


def measure(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Tensor | None = None,
    *,
    input_size: Sequence[int] | None = None,
    draws: int | str = 1024,
    method: str = "signs",
    init: Callable[[nn.Module], Any] | None = None,
    seed: int = 0,
    direction: Tensor | None = None,
    architecture: Architecture | None = None,
    progress: bool = False,
    module: str | None = None,
    relative_error: float = 0.05,
    time_budget: float = 60.0,
    precision: str = "auto",
    gradients: bool = True,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    target: Tensor | None = None,
) -> Measurement:
    """Measure ``ln||Ju||^2`` over an ensemble of initialisations of the user's own module, by forward-mode autograd.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit.
    example_input, input_size
        As in `trace`. Rows are dealt out over the draws in turn; random normal rows where none are given.
    draws : int or "auto"
        How many. ``"auto"``: until ``relative_error`` is met or ``time_budget`` is spent; the record says which. Ctrl-C returns what there
        is by then, labelled so.
    method : str
        ``"signs"``: random signs around the real weights (theory in `initdiag.measuring.signs`). ``"redraw"``: parameters drawn
        afresh, by the factory, by ``init``, or by ``reset_parameters`` where the weights look like it. ``"law"``: every linear layer
        replaced by its Gaussian law (`initdiag.measuring.gaussian`), a simulation of the initialisation at the cost of the widths.
    init : callable, optional
        As ``model.apply`` takes it; for redraws.
    seed : int
        Draw ``i`` depends on nothing but the seed and ``i``.
    direction : Tensor, optional
        The direction ``u``, of one input row's shape; a fresh uniform unit vector a draw if not given.
    architecture : Architecture, optional
        What `trace` returned for this model, to spare a second look.
    progress : bool
        Show a progress bar on a terminal, if it takes long enough to see.
    module : str, optional
        Path of a part that is measured alone, as in `trace`.
    relative_error : float
        For ``draws="auto"``: the standard error of the log-variance, relative to it, that is small enough.
    time_budget : float
        For ``draws="auto"``: seconds.
    precision : str
        ``"auto"``: kept in range, half types in float32, what is no chain in float64. ``"native"``: in the model's own arithmetic, as training
        will run it: a norm that leaves its range counts as 0 or as infinite.
    gradients : bool
        Whether a backward pass looks at the layers' weight and bias gradients over the first 512 draws (not by ``"law"``, which has no weights).
    loss_fn, target : callable and Tensor, optional
        The gradients' loss: ``loss_fn(output, target)`` on a batch of one; ``target`` has a row for each of ``example_input``. By default the
        output's product with a random unit vector.

    Returns
    -------
    Measurement
        With ``||u|| = 1``, natural logs, standard errors.

    Raises
    ------
    InvalidInput
        As `trace`; an unknown method; an ``init`` that raises.
    UnsupportedArchitecture
        If the ensemble does not exist for this module; the message says why and what to do.
    """
    stopping, seed = Stopping.of(draws, relative_error, time_budget), _checked_seed(seed)
    if method not in METHODS:
        raise InvalidInput(
            explain(expected=f"method: one of {', '.join(METHODS)}", got=repr(method), do="Choose one of these.")
        )
    if precision not in PRECISIONS:
        raise InvalidInput(
            explain(
                expected=f"precision: one of {', '.join(PRECISIONS)}", got=repr(precision), do="Choose one of these."
            )
        )
    is_native = precision == "native"
    with rng_preserved(), own_modes():
        subject = subject_of(model, example_input, input_size, module)
        arch = architecture or trace_subject(subject)
        task = prepared(subject.module, arch, subject.example, subject.size, seed, direction, is_native=is_native)
        wanted = Gradients(task, gradients, Loss.of(loss_fn, target, len(task.rows)))
        if method == "redraw":
            plan = _redraws(task, stopping, wanted, subject.factory, init)
        else:
            plan = _signs(task, stopping, wanted) if method == "signs" else _laws(task, stopping)
        found = collected(plan, arch, method, seed, stopping, progress)
    if is_native:
        note = f"in the arithmetic of {str(task.dtype).removeprefix('torch.')}: a norm that leaves its range counts as 0 or infinite"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    return found


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidInput(explain(expected="seed: a non-negative int", got=repr(seed), do="Pass e.g. seed=0."))
    return seed


def _why_not_signs(arch: Architecture) -> str | None:
    """Why random signs around the weights would not be draws from their law; None if they are."""
    for layer in arch.layers:
        failed = [name for name in layer.weight.failed if name in ("zero mean", "symmetry")]
        if failed:
            return (
                f"the weights of {layer.name!r} fail {' and '.join(failed)}, so that flipping signs changes their law"
            )
    return None


def _signs(task: Task, stopping: Stopping, gradients: Gradients) -> Plan:
    reason = _why_not_signs(task.arch)
    if reason is not None:
        raise UnsupportedArchitecture(f"{reason}. Use method='redraw' with an init or a factory.")
    order = {name: i for i, name in enumerate(dict.fromkeys(layer.name for layer in task.arch.layers))}
    flipped = frozenset(layer.name for layer in task.arch.layers if layer.bias is not None and layer.bias.symmetric)

    def flips(chunk: range) -> SignFlips:
        return SignFlips(task.seed, chunk, order, flipped)

    if not task.is_chain and _mixes_rows(task, flips(range(4))):
        raise _mixed_rows()
    left = _not_varied(task)
    note = (f"left as they are, not varied: {', '.join(left)}",) if left else ()
    steps = taped(task)

    def found(chunk: range) -> Chunk:
        if steps is None:
            norms, logs = log_norms(task, flips(chunk), chunk)
        else:
            norms, logs = fast_log_norms(steps, task, flips(chunk), chunk, with_layers=chunk.start < _LOGGED)
        return Chunk(chunk, norms, logs, gradients(flips, chunk))

    return Plan(map(found, chunks(stopping, _rows_in_budget(task))), lambda: (*note, *gradients.notes))


def _not_varied(task: Task) -> list[str]:
    """Names of the matrices and kernels that go into no layer: an ensemble of layers leaves them as they are."""
    matrices = [name for name, p in task.module.named_parameters() if p.dim() > 1]
    return [name for name in matrices if not any(goes_into(name, layer.name) for layer in task.arch.layers)]


def _laws(task: Task, stopping: Stopping) -> Plan:
    for layer in task.arch.layers:
        if layer.weight.failed or layer.weight.family == "haar":
            what = f"fail {' and '.join(layer.weight.failed)}" if layer.weight.failed else "are orthogonal"
            raise UnsupportedArchitecture(
                f"the weights of {layer.name!r} {what}: no Gaussian law stands for them. Use method='signs' or 'redraw'."
            )
    layers = {layer.name: layer for layer in task.arch.layers}
    if not task.is_chain and _mixes_rows(task, GaussianLayers(task.seed, range(4), layers)):
        raise _mixed_rows()
    left = _not_varied(task)
    others = sorted({layer.weight.family for layer in task.arch.layers} - {"normal"})
    notes = [f"{family} weights: taken for Gaussian ones of their variance" for family in others]
    notes += [f"left as they are, not varied: {', '.join(left)}"] if left else []
    found = (
        Chunk(chunk, *log_norms(task, GaussianLayers(task.seed, chunk, layers), chunk))
        for chunk in chunks(stopping, _rows_in_budget(task, most=1024))
    )
    return Plan(found, lambda: tuple(notes))


def _mixed_rows() -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        "the rows of a batch are mixed (BatchNorm in train mode?), so that they cannot be separate networks. "
        "Put those layers in eval mode, or measure by method='redraw'."
    )


def _redraws(
    task: Task,
    stopping: Stopping,
    gradients: Gradients,
    factory: Callable[[], Any] | None,
    init: Callable[[nn.Module], Any] | None,
) -> Plan:
    if factory is None and init is None:
        _require_default_weights(task.arch)
        init = reset_parameters
    source = Source(task.original, {layer.name for layer in task.arch.layers}, factory, init)

    def notes() -> tuple[str, ...]:
        left = (f"not drawn afresh: {', '.join(source.left)}",) if source.left else ()
        return (*left, *gradients.notes)

    if not task.is_linear_only:
        return Plan(_one_by_one(task, source, stopping.most, gradients), notes)
    size = sum(p.numel() for p in task.module.parameters()) * task.dtype.itemsize
    step = max(1, min(_BUDGET // (4 * size), 1024))

    def found(chunk: range) -> Chunk:
        drawn = Redrawn(source, chunk, task.seed, task.dtype)
        return Chunk(chunk, *log_norms(task, drawn, chunk), gradients.at_once(drawn, chunk))

    return Plan(map(found, chunks(stopping, step)), notes)


def _one_by_one(task: Task, source: Source, draws: int, gradients: Gradients) -> Iterator[Chunk]:
    """What cannot be stacked is loaded into the replica draw by draw; a network that mixes rows is run on the whole batch."""
    own = values_of(task.module)
    loaded = Loaded()
    mixes = None
    for draw in range(draws):
        with torch.no_grad():
            for name, value in source.draw(random_numbers.draw_seed(task.seed, draw)).items():
                own[name].copy_(value)
        mixes = _mixes_rows(task, loaded) if mixes is None else mixes
        chunk = range(draw, draw + 1)
        if mixes:
            yield Chunk(chunk, *log_norms_in_batch(task, loaded, draw))
        else:
            yield Chunk(chunk, *log_norms(task, loaded, chunk), gradients.at_once(loaded, chunk))


def _require_default_weights(arch: Architecture) -> None:
    other = next((layer for layer in arch.layers if layer.weight.initializer != "torch_default"), None)
    if other is not None:
        raise UnsupportedArchitecture(
            f"the weights of {other.name!r} were not drawn by reset_parameters, so that it is not known how to draw them afresh. "
            "Pass init=, as model.apply takes it, or a factory in place of the model."
        )


def _rows_in_budget(task: Task, most: int = 2048) -> int:
    widest = max(task.arch.input_size, task.arch.output_size, *(layer.fan_out for layer in task.arch.layers))
    rows = _BUDGET // (32 * widest * task.dtype.itemsize)
    blocks = max(1, min(rows, most) // random_numbers.BLOCK)
    return blocks * random_numbers.BLOCK


def _mixes_rows(task: Task, ensemble: Ensemble) -> bool:
    """Whether the rows of a batch are mixed (BatchNorm in train mode): a tangent in row 0 reaches the others."""
    chunk = range(4)
    u = torch.zeros_like(task.inputs(chunk))
    u[0] = 1.0
    norms, _ = log_norms(task, ensemble, chunk, u)
    return not bool(torch.isneginf(norms[1:]).all())
