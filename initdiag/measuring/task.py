"""One measuring task: the replica that runs, its inputs, and what is known of how it
runs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.run import reached
from initdiag.measuring.passes.state import Changes, changed_by
from initdiag.network.architecture import Architecture
from initdiag.tracing.inputs import example_rows
from initdiag.tracing.replica import copied, replica

__all__ = ["Task", "checked_init", "prepared"]

_HOMOGENEOUS = ("linear", "relu", "leaky_relu", "rrelu")
_PROBED = 4
"""Rows that are run to see whether a gradient can flow."""

_EXAMPLES = 64
"""Random inputs that are dealt out where the user gives none."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is the same for every chunk of draws.

    Attributes
    ----------
    module, original : nn.Module
        The replica that runs, and the user's own.
    arch : Architecture
        The architecture as traced.
    rows : Tensor
        Inputs, dealt out over the draws in turn.
    seed : int
        Seed of the measurement.
    direction : Tensor or None
        ``u``, where the user gave one.
    dtype : torch.dtype
        What the replica runs in.
    is_native : bool
        Whether it runs in the model's own arithmetic, range and all.
    is_chain : bool
        Whether it runs as the traced chain does, so that rows may be rescaled on the
        way.
    derivative : "forward" or "reverse"
        What training sees: ``"reverse"`` where the module's backward pass is its own.
    is_random : bool
        Whether the module draws random numbers itself: then each pass is of one draw.
    is_repeatable : bool
        Whether a pass that is made again gives the same.
    changes : "nothing", "attributes" or "weights"
        What a pass changes of the module itself: then each pass starts from what it
        came with.
    """

    module: nn.Module
    original: nn.Module
    arch: Architecture
    rows: Tensor
    seed: int
    direction: Tensor | None
    dtype: torch.dtype
    is_native: bool = False
    is_chain: bool = False
    derivative: Literal["forward", "reverse"] = "forward"
    is_random: bool = False
    is_repeatable: bool = True
    changes: Changes = "nothing"

    def as_it_is(self) -> Task:
        """Return the task in double precision, without anything that the
        trace claims.
        """
        if self.dtype == torch.float64 or self.is_native:
            return dataclasses.replace(self, is_chain=False)
        return dataclasses.replace(
            self,
            module=_replica(self.original, torch.float64),
            rows=self.rows.double(),
            dtype=torch.float64,
            is_chain=False,
        )

    @property
    def has_only_layers(self) -> bool:
        """Whether every matrix is that of a linear layer: networks may be stacked, and
        on a chain they can.
        """
        used = {layer.name for layer in self.arch.layers}
        return all(p.dim() <= 1 or name in used for name, p in self.module.named_parameters())

    @property
    def acts_by_itself(self) -> bool:
        """Whether it draws random numbers, or branches on its weights."""
        return self.is_random or any(gap.kind == "weights" for gap in self.arch.gaps)

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
    """Return the task ready to run. Without a ``dtype`` of its own, a chain is rescaled
    as it goes and keeps its dtype (half types in float32); anything else runs in
    float64.
    """
    dtype = dtype or _dtype(module, bool(arch.gaps), is_native)
    rows = example if example is not None else _random_rows(module, arch, size, seed)
    if any(p.device.type == "meta" for p in module.parameters()):
        raise UnsupportedArchitecture(
            "parameters on the meta device have no values to measure. Use predict on the trace."
        )
    task = Task(
        _replica(module, dtype),
        module,
        arch,
        rows.detach().to(dtype),
        seed,
        _checked_direction(direction, rows),
        dtype,
        is_native,
        is_chain=not arch.gaps,
    )
    changes = changed_by(task.module, lambda: _require_gradient(task))
    return dataclasses.replace(task, changes=changes)


def _replica(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    copy = replica(module, lambda t: copied(t).to(dtype) if t.is_floating_point() else copied(t))
    return copy.requires_grad_(False)


def _require_gradient(task: Task) -> None:
    """Raise where no gradient can flow although tangents do: forward mode does not mind
    ``torch.no_grad``.

    Raises
    ------
    UnsupportedArchitecture
        If the output does not require a gradient of an input that does.
    """
    leaf = task.inputs(range(_PROBED)).requires_grad_()
    if not reached(task, leaf):
        raise UnsupportedArchitecture(
            "the output does not require a gradient: its forward runs under torch.no_grad() or "
            "detaches what it computes. "
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
                do=(
                    "Write e.g. def init(m): isinstance(m, nn.Linear) and "
                    "nn.init.kaiming_normal_(m.weight)."
                ),
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
