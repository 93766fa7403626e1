"""One watched forward pass over a replica of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from initdiag.errors import InvalidInput, UnsupportedArchitecture
from initdiag.tracing.adapter import Adapter
from initdiag.tracing.autograd_walk import Branching, steps_to_input
from initdiag.tracing.guard import watched
from initdiag.tracing.inputs import is_meta, unusable_input
from initdiag.tracing.provenance import Origin, Provenance
from initdiag.tracing.recorder import Call, Recorder, modules_named
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.structures import tensors_in

__all__ = ["Sighting", "paired", "watch"]

_LARGE = 1 << 28
"""Bytes of parameters above which a copy is not made just to look at the dataflow."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one watched forward pass showed.

    Attributes
    ----------
    calls : tuple of Call
        Every call that depends on the input.
    last : int or None
        The one that made the output; None where the output is not one tensor.
    x : Tensor
        The batch that was run.
    output_shape : tuple of int
        Shape of the output, or of the first tensor in it.
    steps : tuple of str, or str
        What the autograd graph shows between input and output, or why this is not
        a chain.
    computed : mapping
        Weights that are computed from parameters.
    products : int
        How many linear maps were called, on whatever.
    taken : str or None
        Which part of the output is judged, where it is one of several.
    """

    calls: tuple[Call, ...]
    last: int | None
    x: Tensor
    output_shape: tuple[int, ...]
    steps: tuple[str, ...] | str
    computed: Mapping[str, Origin]
    products: int
    taken: str | None = None


def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> Sighting:
    """Return what the first input shows that the forward pass accepts.

    Copies of the parameters run, or fake tensors where copies are dear.

    Raises
    ------
    InvalidInput
        If the forward pass takes none of the inputs.
    """
    failures: list[Exception] = []
    runs = (_run_fake, _run_real) if _is_large(module) and not is_meta(module) else (_run_real,)
    for x in inputs:
        for run in runs:
            try:
                sighting = run(module, x)
                if run is _run_fake and sighting.computed:
                    continue  # the values of computed weights are wanted
                return sighting
            except (InvalidInput, UnsupportedArchitecture):
                raise
            except Exception as error:
                failures.append(error)
    raise unusable_input(inputs, failures[0]) from failures[0]


def _is_large(module: nn.Module) -> bool:
    return sum(p.numel() * p.element_size() for p in module.parameters()) > _LARGE


def _run_fake(module: nn.Module, x: Tensor) -> Sighting:
    """Run on shapes only, without arithmetic and memory.

    Its first use costs a second of imports, so that it is kept for large models.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _run(module, x, _hollow)


def _run_real(module: nn.Module, x: Tensor) -> Sighting:
    """Run on copies, which control flow may look at; on the meta device they are
    empty.
    """
    return _run(module, x, copied)


def _hollow(tensor: Tensor) -> Tensor:
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def _run(module: nn.Module, x: Tensor, convert: Callable[[Tensor], Tensor]) -> Sighting:
    copy = replica(module, convert)
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    parameters = dict(copy.named_parameters())
    leaf = convert(x).requires_grad_()
    recorder = Recorder(Provenance(parameters), dict(module.named_parameters()), leaf.clone())
    with watched(), modules_named(copy, recorder.stack), recorder:
        out = copy(recorder.x)
    calls, last, steps = tuple(recorder.calls), None, _not_a_tensor(out)
    first = next(tensors_in(out), None)
    if isinstance(out, Tensor):
        last = recorder.source_of(out)
        steps = _steps(out, leaf, {id(p): name for name, p in parameters.items()})
    shape = () if first is None else tuple(first.shape)
    taken = copy.taken if isinstance(copy, Adapter) else None
    return Sighting(calls, last, x, shape, steps, recorder.computed, recorder.products, taken)


def _not_a_tensor(out: Any) -> str | tuple[str, ...]:
    return f"the output is a {type(out).__name__} without a floating tensor"


def _steps(out: Tensor, leaf: Tensor, names: dict[int, str]) -> tuple[str, ...] | str:
    """Return what the autograd graph shows between input and output, or why not."""
    try:
        return steps_to_input(out, leaf, names)
    except Branching as branching:
        return str(branching)


def paired(output: Tensor, cotangent: Tensor) -> Tensor:
    """Return ``<output, cotangent>``, whose gradient is the cotangent pulled back.

    Torch loads sympy, which takes 0.8 s, where autograd is handed the cotangent itself.
    """
    return (output * cotangent).sum()
