"""One measuring task: the replica that runs, its inputs, and one pass of a chunk of draws through it."""

from __future__ import annotations

import functools
import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.attention import attention_by_formula
from initdiag.measuring.passes.interposer import Ensemble, Interposer, LayerLogs, flat
from initdiag.measuring.passes.underflow import Logs, rescued
from initdiag.network.architecture import Architecture
from initdiag.tracing.inputs import example_rows
from initdiag.tracing.provenance import Provenance
from initdiag.tracing.replica import copied, replica

__all__ = [
    "Task",
    "brief",
    "checked_init",
    "dual_forward",
    "graph_forward",
    "log_norms",
    "log_norms_in_batch",
    "prepared",
]

_HOMOGENEOUS = ("linear", "relu", "leaky_relu", "rrelu")
_PROBED = 4
"""Rows that are run to see whether a gradient can flow."""

_EXAMPLES = 64
"""Random inputs that are dealt out where the user gives none."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is the same for every chunk: the replica that runs, its inputs, and how rows are kept in range."""

    module: nn.Module
    original: nn.Module
    arch: Architecture
    rows: Tensor
    seed: int
    direction: Tensor | None
    dtype: torch.dtype
    is_native: bool = False
    """Whether it runs in the model's own arithmetic, range and all."""

    @property
    def is_chain(self) -> bool:
        """Whether the theory's chain is proved, so that rows may be rescaled in mid-network."""
        return not self.arch.gaps

    @property
    def has_only_layers(self) -> bool:
        """Whether every matrix is that of a linear layer: networks may be stacked, and on a chain they can."""
        used = {layer.name for layer in self.arch.layers}
        return all(p.dim() <= 1 or name in used for name, p in self.module.named_parameters())

    @property
    def rescales_tangent(self) -> bool:
        """Whether tangents are kept in range."""
        return self.is_chain and not self.is_native

    @property
    def rescales_primal(self) -> bool:
        """Whether values are too: where scaling them scales every value after."""
        is_homogeneous = all(layer.activation.name in _HOMOGENEOUS for layer in self.arch.layers)
        return self.rescales_tangent and is_homogeneous

    def inputs(self, draws: range) -> Tensor:
        """Return the rows dealt out to these draws."""
        index = torch.arange(draws.start, draws.stop, device=self.rows.device) % len(self.rows)
        return self.rows[index]

    def directions(self, draws: range, like: Tensor) -> Tensor:
        """Return the draws' unit vectors ``u``, shaped like their inputs."""
        if self.direction is not None:
            return self.direction.to(like.device, like.dtype).expand_as(like).clone()
        u = random_numbers.directions(self.seed, draws, math.prod(like.shape[1:]))
        return u.reshape(like.shape).to(like.device, like.dtype)


def prepared(
    module: nn.Module,
    arch: Architecture,
    example: Tensor | None,
    size: Any,
    seed: int,
    direction: Any,
    dtype: torch.dtype | None = None,
    *,
    is_native: bool = False,
) -> Task:
    """Without a ``dtype`` of its own, a chain is rescaled as it goes and keeps its dtype (half types in float32); anything else runs in float64."""
    dtype = dtype or _dtype(module, bool(arch.gaps), is_native)
    rows = example if example is not None else _random_rows(module, arch, size, seed)
    if any(p.device.type == "meta" for p in module.parameters()):
        raise UnsupportedArchitecture(
            "parameters on the meta device have no values to measure. Use predict on the trace."
        )
    copy = replica(module, lambda t: copied(t).to(dtype) if t.is_floating_point() else copied(t))
    copy.requires_grad_(False)
    task = Task(
        copy,
        module,
        arch,
        rows.detach().to(dtype),
        seed,
        _checked_direction(direction, rows),
        dtype,
        is_native,
    )
    _require_gradient(task)
    return task


def _require_gradient(task: Task) -> None:
    """Raise where no gradient can flow although tangents do: forward mode does not mind ``torch.no_grad``.

    Raises
    ------
    UnsupportedArchitecture
        If the output does not require a gradient of an input that does.
    """
    leaf = task.inputs(range(_PROBED)).requires_grad_()
    if not graph_forward(task, nullcontext(), leaf).requires_grad:
        raise UnsupportedArchitecture(
            "the output does not require a gradient: its forward runs under torch.no_grad() or detaches what it computes. "
            "Call the module without that: it cannot be trained as it is."
        )


def checked_init(init: Any) -> Any:
    """Return ``init`` if it can be called, or is None.

    Raises
    ------
    InvalidInput
        If not.
    """
    if init is not None and not callable(init):
        raise InvalidInput(
            explain(
                expected="init: a function of a module, as model.apply takes it",
                got=repr(init),
                do="Write e.g. def init(m): isinstance(m, nn.Linear) and nn.init.kaiming_normal_(m.weight).",
            )
        )
    return init


def _dtype(module: nn.Module, has_gaps: bool, is_native: bool) -> torch.dtype:
    own = next(p.dtype for p in module.parameters() if p.is_floating_point())
    if is_native:
        return own
    if has_gaps:
        return torch.float64
    return own if own in (torch.float32, torch.float64) else torch.float32


def _random_rows(module: nn.Module, arch: Architecture, size: Any, seed: int) -> Tensor:
    rows = example_rows(module, arch.input_size, _EXAMPLES, seed)
    return rows if size is None else rows.reshape(_EXAMPLES, *tuple(size)[1:])


def _checked_direction(direction: Any, rows: Tensor) -> Tensor | None:
    if direction is None:
        return None
    expected = f"direction: a finite non-zero tensor of one row's shape {tuple(rows.shape[1:])}"
    try:
        u = torch.as_tensor(direction).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        got = type(direction).__name__
        raise InvalidInput(
            explain(expected=expected, got=got, do="Pass a tensor or an array of numbers.")
        ) from error
    norm = float(torch.linalg.vector_norm(u))
    if u.shape != rows.shape[1:] or not math.isfinite(norm) or norm == 0:
        got = f"shape {tuple(u.shape)}, norm {norm:g}"
        raise InvalidInput(
            explain(expected=expected, got=got, do="Pass a vector in the input's space.")
        )
    return u / norm


def log_norms(task: Task, ensemble: Ensemble, draws: range, u: Tensor | None = None) -> Logs:
    """Return ``ln||Ju||^2`` of each draw (float64), and the logs of every linear call, over rows that are separate networks."""
    x = task.inputs(draws)
    return _pass(task, ensemble, draws, x, task.directions(draws, x) if u is None else u)


def log_norms_in_batch(task: Task, ensemble: Ensemble, draws: range) -> Logs:
    """Return the same for draws whose networks mix the rows of a batch: one row's output to its own input, in the whole batch."""
    rows = len(task.rows)
    own = torch.tensor(
        [index * rows + draw % rows for index, draw in enumerate(draws)], device=task.rows.device
    )
    x = task.rows.repeat(len(draws), *[1] * (task.rows.dim() - 1))
    u = torch.zeros_like(x)
    u[own] = task.directions(draws, x[own])
    norms, logs = _pass(
        task, ensemble, range(draws.start * rows, draws.stop * rows), x, u, batch=rows
    )
    return norms[own], [LayerLogs(g.name, g.activation[own], g.tangent[own]) for g in logs]


def _pass(
    task: Task, ensemble: Ensemble, draws: range, x: Tensor, u: Tensor, batch: int = 1
) -> Logs:
    """Pass, and pass again where tangents that cannot be rescaled on the way underflow."""

    def run(of_input: float, scale: float) -> Logs:
        return _single_pass(task, ensemble.again(), draws, x * of_input, u * scale, batch)

    found = _single_pass(task, ensemble, draws, x, u, batch)
    return found if task.rescales_tangent or task.is_native else rescued(found, run, flat(u).any(1))


def _single_pass(
    task: Task, ensemble: Ensemble, draws: range, x: Tensor, u: Tensor, batch: int
) -> Logs:
    origins = Provenance(dict(task.module.named_parameters()))
    layers = frozenset(layer.name for layer in task.arch.layers)
    interposer = Interposer(
        origins,
        layers,
        ensemble,
        draws,
        task.seed,
        task.rescales_tangent,
        task.rescales_primal,
        batch,
    )
    _, tangent = dual_forward(task, interposer, x, u)
    return interposer.log_square(tangent), interposer.logs


def dual_forward(task: Task, interposer: Interposer, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return output and tangent of one pass of the replica at ``x`` along ``u``; buffers are put back."""
    _warm_up()
    with torch.no_grad(), forward_ad.dual_level():
        out = _run(task, interposer, forward_ad.make_dual(x, u), "forward")
        primal, tangent = forward_ad.unpack_dual(out)
    if tangent is None:
        raise UnsupportedArchitecture(
            "the output does not depend differentiably on the input (detach, no_grad, rounding?)."
        )
    return _by_rows(primal, len(x)), _by_rows(tangent, len(x))


def graph_forward(task: Task, interposer: AbstractContextManager[Any], leaf: Tensor) -> Tensor:
    """Return the output of one pass of the replica at ``leaf``, with the graph for backward passes; buffers are put back.

    Without tangents: PyTorch's forward-mode rule of attention's softmax overwrites what the backward pass needs.
    """
    with torch.enable_grad():
        out = _run(
            task, interposer, leaf.clone(), "reverse"
        )  # a leaf may not be changed in place, as a ReLU may do
    return _by_rows(out, len(leaf))


def _run(task: Task, interposer: AbstractContextManager[Any], x: Tensor, mode: str) -> Tensor:
    """The first tensor that the replica returns; its buffers are put back, so that no chunk depends on the ones before it."""
    buffers = [(b, b.clone(), b._version) for b in task.module.buffers()]
    try:
        with attention_by_formula(), interposer:
            return _first_tensor(task.module(x))
    except (InvalidInput, UnsupportedArchitecture):
        raise
    except Exception as error:
        raise UnsupportedArchitecture(
            f"the module does not run on {len(x)} rows under {mode}-mode autograd: {brief(error)}"
        ) from error
    finally:
        for buffer, before, version in buffers:
            if buffer._version != version:
                buffer.detach().copy_(before)


def brief(error: Exception) -> str:
    """Return kind and first line of an error, without what PyTorch says of its own debugging."""
    line = next(iter(str(error).splitlines()), "").partition(" Hint: ")[0]
    return f"{type(error).__name__}: {line.rstrip('.')}"


def _by_rows(out: Tensor, rows: int) -> Tensor:
    """Output with the batch as its first dimension; of a batch of one, all of it is that row's."""
    if out.shape[:1] == (rows,):
        return out
    if rows == 1:
        return out[None]
    raise UnsupportedArchitecture(
        f"the output has shape {tuple(out.shape)} for a batch of {rows} rows: it mixes the rows (a loss, or a mean over the batch?), "
        "so that no row has a gradient of its own. Return one output a row, the batch dimension first."
    )


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
        raise UnsupportedArchitecture(
            f"the forward pass returns {type(out).__name__}, in which no tensor was found."
        )
    return found
