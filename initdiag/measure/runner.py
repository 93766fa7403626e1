"""`measure`: chunks of draws through an ensemble, collected into a `Measurement`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from initdiag.architecture import Architecture, positive_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measure import random_numbers
from initdiag.measure.interposer import Ensemble
from initdiag.measure.redraw import Redrawn, Source, reset_parameters, values_of
from initdiag.measure.running import RunningMoments
from initdiag.measure.signs import SignFlips
from initdiag.measure.task import Task, log_norms, prepared
from initdiag.measurement import LayerMeasurement, Measurement
from initdiag.tracing.loan import own_modes, rng_preserved
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.subject import subject_of
from initdiag.tracing.trace import trace_subject

__all__ = ["measure"]

_BUDGET = 1 << 28
"""Bytes that the tensors of one chunk may take, about."""


def measure(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Tensor | None = None,
    *,
    input_size: Sequence[int] | None = None,
    draws: int = 1024,
    method: str = "signs",
    init: Callable[[nn.Module], Any] | None = None,
    seed: int = 0,
    direction: Tensor | None = None,
    architecture: Architecture | None = None,
    progress: bool = False,
    module: str | None = None,
) -> Measurement:
    """Measure ``ln||Ju||^2`` over an ensemble of initialisations of the user's own module, by forward-mode autograd.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit.
    example_input, input_size
        As in `trace`. Rows are dealt out over the draws in turn; random normal rows where none are given.
    draws : int
        How many.
    method : str
        ``"signs"``: random signs around the real weights (theory in `initdiag.measure.signs`). ``"redraw"``: parameters drawn
        afresh, by the factory, by ``init``, or by ``reset_parameters`` where the weights look like it.
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
    draws, seed = positive_integer(draws, "draws"), _checked_seed(seed)
    if method not in ("signs", "redraw"):
        raise InvalidInput(explain(expected='method "signs" or "redraw"', got=repr(method), do="Choose one of these."))
    with rng_preserved(), own_modes():
        subject = subject_of(model, example_input, input_size, module)
        arch = architecture or trace_subject(subject)
        task = prepared(subject.module, arch, subject.example, subject.size, seed, direction)
        plan = _signs(task, draws) if method == "signs" else _redraws(task, draws, subject.factory, init)
        return _collect(task, method, plan, draws, progress)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Chunks of draws, each with the ensemble that applies its layers; and what to note when they are done."""

    chunks: Iterator[tuple[range, Ensemble]]
    notes: Callable[[], tuple[str, ...]]


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


def _signs(task: Task, draws: int) -> _Plan:
    reason = _why_not_signs(task.arch)
    if reason is not None:
        raise UnsupportedArchitecture(f"{reason}. Use method='redraw' with an init or a factory.")
    order = {name: i for i, name in enumerate(dict.fromkeys(layer.name for layer in task.arch.layers))}
    flipped = frozenset(layer.name for layer in task.arch.layers if layer.bias is not None and layer.bias.symmetric)

    def flips(chunk: range) -> SignFlips:
        return SignFlips(task.seed, chunk, order, flipped)

    if not task.is_chain:
        _require_separate_rows(task, flips(range(4)))
    matrices = [name for name, p in task.module.named_parameters() if p.dim() > 1]
    left = [name for name in matrices if not any(goes_into(name, weight) for weight in order)]
    note = (f"left as they are, not varied: {', '.join(left)}",) if left else ()
    chunks = ((chunk, flips(chunk)) for chunk in _chunks(draws, _rows_in_budget(task)))
    return _Plan(chunks, lambda: note)


def _redraws(
    task: Task, draws: int, factory: Callable[[], Any] | None, init: Callable[[nn.Module], Any] | None
) -> _Plan:
    if factory is None and init is None:
        _require_default_weights(task.arch)
        init = reset_parameters
    source = Source(task.original, {layer.name for layer in task.arch.layers}, factory, init)
    size = sum(p.numel() for p in task.module.parameters()) * task.dtype.itemsize
    step = max(1, min(_BUDGET // (4 * size), 1024)) if task.is_linear_only else 1
    chunks = ((chunk, Redrawn(source, chunk, task.seed, task.dtype)) for chunk in _chunks(draws, step))
    return _Plan(chunks, lambda: (f"not drawn afresh: {', '.join(source.left)}",) if source.left else ())


def _require_default_weights(arch: Architecture) -> None:
    other = next((layer for layer in arch.layers if layer.weight.initializer != "torch_default"), None)
    if other is not None:
        raise UnsupportedArchitecture(
            f"the weights of {other.name!r} were not drawn by reset_parameters, so that it is not known how to draw them afresh. "
            "Pass init=, as model.apply takes it, or a factory in place of the model."
        )


def _rows_in_budget(task: Task) -> int:
    widest = max(task.arch.input_size, task.arch.output_size, *(layer.fan_out for layer in task.arch.layers))
    rows = _BUDGET // (32 * widest * task.dtype.itemsize)
    blocks = max(1, min(rows, 2048) // random_numbers.BLOCK)
    return blocks * random_numbers.BLOCK


def _chunks(draws: int, step: int) -> Iterator[range]:
    for start in range(0, draws, step):
        yield range(start, min(start + step, draws))


def _require_separate_rows(task: Task, ensemble: SignFlips) -> None:
    """Refuse what mixes the rows of a batch (BatchNorm in train mode): a tangent in row 0 must not reach the others."""
    chunk = range(4)
    u = torch.zeros_like(task.inputs(chunk))
    u[0] = 1.0
    norms, _ = log_norms(task, ensemble, chunk, u)
    if bool(torch.isfinite(norms[1:]).any()):
        raise UnsupportedArchitecture(
            "the rows of a batch are mixed (BatchNorm in train mode?), so that they cannot be separate networks. "
            "Put those layers in eval mode, or measure by method='redraw'."
        )


def _collect(task: Task, method: str, plan: _Plan, draws: int, progress: bool) -> Measurement:
    values: list[NDArray[np.float64]] = []
    layers: dict[int, tuple[str, RunningMoments, RunningMoments]] = {}
    for chunk, ensemble in _with_progress(plan.chunks, draws) if progress else plan.chunks:
        if isinstance(ensemble, Redrawn) and not task.is_linear_only:
            _load(task.module, ensemble.parameters(0))
        norms, logs = log_norms(task, ensemble, chunk)
        values.append(norms.cpu().numpy())
        for index, log in enumerate(logs):
            _, activation, tangent = layers.setdefault(index, (log.name, RunningMoments(), RunningMoments()))
            activation.add(log.activation.cpu().numpy())
            tangent.add(log.tangent.cpu().numpy())
    return Measurement.of(
        np.concatenate(values),
        method=method,
        seed=task.seed,
        input_size=task.arch.input_size,
        output_size=task.arch.output_size,
        layers=tuple(LayerMeasurement(name, a.mean, a.variance, t.mean, t.variance) for name, a, t in layers.values()),
        notes=plan.notes(),
    )


def _load(module: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, own in values_of(module).items():
            if name in values:
                own.copy_(values[name])


def _with_progress(chunks: Iterator[tuple[range, Ensemble]], draws: int) -> Iterator[tuple[range, Ensemble]]:
    """Pass the chunks on, and show on stderr how far they are."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=draws)
        for chunk, ensemble in chunks:
            yield chunk, ensemble
            bar.update(task, completed=chunk.stop)
