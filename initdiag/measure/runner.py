"""`measure`: chunks of draws through an ensemble, collected into a `Measurement`."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad

from initdiag.architecture import Architecture, positive_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measure import random_numbers
from initdiag.measure.interposer import Ensemble, Interposer, LayerLogs
from initdiag.measure.redraw import Redrawn, Source, reset_parameters
from initdiag.measure.running import RunningMoments
from initdiag.measure.signs import SignFlips
from initdiag.measurement import LayerMeasurement, Measurement
from initdiag.tracing.loan import as_module, copied, own_modes, replica, rng_preserved
from initdiag.tracing.trace import example_rows, trace

__all__ = ["measure", "why_not_signs"]

_BUDGET = 1 << 28
"""Bytes that the tensors of one chunk may take, about."""

_HOMOGENEOUS = ("linear", "relu", "leaky_relu")
_EXAMPLES = 64
"""Random inputs that are dealt out where the user gives none."""


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
        factory = None if isinstance(model, nn.Module) else model
        module = as_module(model)
        arch = architecture or trace(module, example_input, input_size=input_size)
        task = _task(module, arch, example_input, input_size, seed, direction)
        ensembles = _signs(task, draws) if method == "signs" else _redraws(task, draws, factory, init)
        return _collect(task, method, _with_progress(ensembles, draws) if progress else ensembles)


def _with_progress(ensembles: Iterator[tuple[range, Ensemble]], draws: int) -> Iterator[tuple[range, Ensemble]]:
    """Pass the chunks on, and show on stderr how far they are."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=draws)
        for chunk, ensemble in ensembles:
            yield chunk, ensemble
            bar.update(task, completed=chunk.stop)


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidInput(explain(expected="seed: a non-negative int", got=repr(seed), do="Pass e.g. seed=0."))
    return seed


@dataclass(frozen=True, slots=True)
class _Task:
    """What is the same for every chunk: the replica that runs, its inputs, and how rows are kept in range."""

    module: nn.Module
    original: nn.Module
    arch: Architecture
    rows: Tensor
    seed: int
    direction: Tensor | None
    dtype: torch.dtype

    @property
    def is_chain(self) -> bool:
        return not self.arch.gaps

    @property
    def is_homogeneous(self) -> bool:
        return self.is_chain and all(layer.activation.name in _HOMOGENEOUS for layer in self.arch.layers)


def _task(
    module: nn.Module, arch: Architecture, example: Tensor | None, size: Any, seed: int, direction: Tensor | None
) -> _Task:
    """A chain is rescaled as it goes and keeps its dtype (half types in float32); anything else runs in float64."""
    own = next(p.dtype for p in module.parameters() if p.is_floating_point())
    dtype = (own if own in (torch.float32, torch.float64) else torch.float32) if not arch.gaps else torch.float64
    rows = example if example is not None else _random_rows(module, arch, size, seed)
    if any(p.device.type == "meta" for p in module.parameters()):
        raise UnsupportedArchitecture(
            "parameters on the meta device have no values to measure. Use predict on the trace."
        )
    copy = replica(module, lambda t: copied(t).to(dtype) if t.is_floating_point() else copied(t))
    copy.requires_grad_(False)
    return _Task(copy, module, arch, rows.detach().to(dtype), seed, _checked_direction(direction, rows), dtype)


def _random_rows(module: nn.Module, arch: Architecture, size: Any, seed: int) -> Tensor:
    rows = example_rows(module, arch.input_size, _EXAMPLES, seed)
    return rows if size is None else rows.reshape(_EXAMPLES, *tuple(size)[1:])


def _checked_direction(direction: Tensor | None, rows: Tensor) -> Tensor | None:
    if direction is None:
        return None
    norm = float(torch.linalg.vector_norm(direction.detach().double()))
    if direction.shape != rows.shape[1:] or not math.isfinite(norm) or norm == 0:
        raise InvalidInput(
            explain(
                expected=f"direction: a finite non-zero tensor of one row's shape {tuple(rows.shape[1:])}",
                got=f"shape {tuple(direction.shape)}, norm {norm:g}",
                do="Pass a vector in the input's space.",
            )
        )
    return direction.detach().double() / norm


def why_not_signs(arch: Architecture) -> str | None:
    """Return why random signs around the weights would not be draws from their law; None if they are."""
    for layer in arch.layers:
        failed = [name for name in layer.weight.failed if name in ("zero mean", "symmetry")]
        if failed:
            return (
                f"the weights of {layer.name!r} fail {' and '.join(failed)}, so that flipping signs changes their law"
            )
    return None


def _signs(task: _Task, draws: int) -> Iterator[tuple[range, Ensemble]]:
    reason = why_not_signs(task.arch)
    if reason is not None:
        raise UnsupportedArchitecture(f"{reason}. Use method='redraw' with an init or a factory.")
    order = {name: i for i, name in enumerate(dict.fromkeys(layer.name for layer in task.arch.layers))}
    flipped = frozenset(layer.name for layer in task.arch.layers if layer.bias is not None and layer.bias.symmetric)
    if not task.is_chain:
        _require_separate_rows(task, order, flipped)
    for chunk in _chunks(draws, _rows_in_budget(task)):
        yield chunk, SignFlips(task.seed, chunk, order, flipped)


def _redraws(
    task: _Task, draws: int, factory: Callable[[], Any] | None, init: Callable[[nn.Module], Any] | None
) -> Iterator[tuple[range, Ensemble]]:
    if factory is None and init is None:
        _require_default_weights(task.arch)
        init = reset_parameters
    source = Source(task.original, factory, init)
    size = sum(p.numel() for p in task.module.parameters()) * task.dtype.itemsize
    step = max(1, min(_BUDGET // (4 * size), 1024)) if _is_linear_only(task) else 1
    for start in range(0, draws, step):
        chunk = range(start, min(start + step, draws))
        yield chunk, Redrawn(source, chunk, task.seed, task.dtype)


def _require_default_weights(arch: Architecture) -> None:
    other = next((layer for layer in arch.layers if layer.weight.initializer != "torch_default"), None)
    if other is not None:
        raise UnsupportedArchitecture(
            f"the weights of {other.name!r} were not drawn by reset_parameters, so that it is not known how to draw them afresh. "
            "Pass init=, as model.apply takes it, or a factory in place of the model."
        )


def _is_linear_only(task: _Task) -> bool:
    """Whether every parameter belongs to a chain's linear layers, so that draws can be stacked."""
    used = {layer.name for layer in task.arch.layers}
    return task.is_chain and all(p.dim() == 1 or name in used for name, p in task.module.named_parameters())


def _rows_in_budget(task: _Task) -> int:
    widest = max(task.arch.input_size, task.arch.output_size, *(layer.fan_out for layer in task.arch.layers))
    rows = _BUDGET // (32 * widest * task.dtype.itemsize)
    blocks = max(1, min(rows, 2048) // random_numbers.BLOCK)
    return blocks * random_numbers.BLOCK


def _chunks(draws: int, step: int) -> Iterator[range]:
    for start in range(0, draws, step):
        yield range(start, min(start + step, draws))


def _require_separate_rows(task: _Task, order: dict[str, int], flipped: frozenset[str]) -> None:
    """Refuse what mixes the rows of a batch (BatchNorm in train mode): a tangent in row 0 must not reach the others."""
    chunk = range(4)
    u = torch.zeros_like(_inputs(task, chunk))
    u[0] = 1.0
    norms, _ = _log_norms(task, SignFlips(task.seed, chunk, order, flipped), chunk, u)
    if bool(torch.isfinite(norms[1:]).any()):
        raise UnsupportedArchitecture(
            "the rows of a batch are mixed (BatchNorm in train mode?), so that they cannot be separate networks. "
            "Put those layers in eval mode, or measure by method='redraw'."
        )


def _inputs(task: _Task, draws: range) -> Tensor:
    index = torch.arange(draws.start, draws.stop, device=task.rows.device) % len(task.rows)
    return task.rows[index]


def _directions(task: _Task, draws: range, like: Tensor) -> Tensor:
    if task.direction is not None:
        return task.direction.to(like.device, like.dtype).expand_as(like).clone()
    u = random_numbers.directions(task.seed, draws, math.prod(like.shape[1:]))
    return torch.from_numpy(u).reshape(like.shape).to(like.device, like.dtype)


def _log_norms(
    task: _Task, ensemble: Ensemble, draws: range, u: Tensor | None = None
) -> tuple[Tensor, list[LayerLogs]]:
    """``ln||Ju||^2`` of each draw, and the logs of every linear call."""
    _warm_up()
    x = _inputs(task, draws)
    u = _directions(task, draws, x) if u is None else u
    names = {id(p): name for name, p in task.module.named_parameters()}
    interposer = Interposer(names, ensemble, draws, task.seed, task.is_chain, task.is_homogeneous)
    try:
        with torch.no_grad(), forward_ad.dual_level(), interposer:
            out = task.module(forward_ad.make_dual(x, u))
            tangent = forward_ad.unpack_dual(_first_tensor(out)).tangent
    except (InvalidInput, UnsupportedArchitecture):
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise UnsupportedArchitecture(
            f"forward-mode autograd does not pass through this module: {type(error).__name__}: {error}"
        ) from error
    if tangent is None:
        raise UnsupportedArchitecture(
            "the output does not depend differentiably on the input (detach, no_grad, rounding?)."
        )
    return interposer.log_square(tangent), interposer.logs


@functools.cache
def _warm_up() -> None:
    """Torch's first forward-mode call may warn of its own internals, which is not the user's to hear."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1)).relu()


def _first_tensor(out: Any) -> Tensor:
    if isinstance(out, Tensor):
        return out
    values = out.values() if isinstance(out, dict) else out if isinstance(out, list | tuple) else ()
    found = next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)
    if found is None:
        raise UnsupportedArchitecture(f"the forward pass returns {type(out).__name__}, in which no tensor was found.")
    return found


def _collect(task: _Task, method: str, ensembles: Iterator[tuple[range, Ensemble]]) -> Measurement:
    values: list[NDArray[np.float64]] = []
    layers: dict[int, tuple[str, RunningMoments, RunningMoments]] = {}
    for chunk, ensemble in ensembles:
        if isinstance(ensemble, Redrawn) and not _is_linear_only(task):
            _load(task.module, ensemble.parameters(0))
        norms, logs = _log_norms(task, ensemble, chunk)
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
        notes=_notes(task, method),
    )


def _load(module: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[name])


def _notes(task: _Task, method: str) -> tuple[str, ...]:
    if method != "signs":
        return ()
    flipped = {layer.name for layer in task.arch.layers}
    left = [name for name, p in task.module.named_parameters() if p.dim() > 1 and name not in flipped]
    return (f"left as they are, not varied: {', '.join(left)}",) if left else ()
