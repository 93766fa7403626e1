"""`trace`: one watched forward pass over the user's module, and the `Architecture` that two witnesses agree on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from initdiag.architecture import Activation, Architecture, Gap, Layer, positive_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.tracing import chain, weights
from initdiag.tracing.autograd_walk import Branching, steps_to_input
from initdiag.tracing.dataflow import Call, Recorder, modules_named
from initdiag.tracing.loan import as_module, copied, own_modes, replica, rng_preserved

__all__ = ["example_rows", "trace"]

_LARGE = 1 << 28
"""Bytes of parameters above which a copy is not made just to look at the dataflow."""


def trace(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Tensor | None = None,
    *,
    input_size: Sequence[int] | None = None,
) -> Architecture:
    """Read a module's layers, widths, gates and weights from one forward pass over a replica of it.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit. Judged in the modes (train or eval) that it is in.
    example_input : Tensor, optional
        A batch, first dimension the rows.
    input_size : sequence of int, optional
        The shape of such a batch (torchinfo's convention). Without either, the first linear layer's width is tried.

    Returns
    -------
    Architecture
        Without gaps only if the record of calls and the autograd graph agree on a plain chain.

    Raises
    ------
    InvalidInput
        Not a module, no weights, NaN weights, a wrong input, a forward pass that raises (its cause is chained).
    UnsupportedArchitecture
        If no linear layer is reached at all.
    """
    with rng_preserved(), own_modes():
        module = as_module(model)
        _require_weights(module)
        sighting = _watch(module, _inputs_to_try(module, example_input, input_size))
        return _architecture(module, sighting)


def example_rows(module: nn.Module, architecture_input: int, rows: int, seed: int) -> Tensor:
    """Return ``rows`` standard normal inputs of ``architecture_input`` features on the module's device, in its dtype."""
    generator = torch.Generator().manual_seed(seed)
    dtype, device = _dtype_and_device(module)
    return torch.randn(rows, architecture_input, generator=generator, dtype=torch.float64).to(dtype).to(device)


def _require_weights(module: nn.Module) -> None:
    lazy = next((n for n, p in module.named_parameters() if nn.parameter.is_lazy(p)), None)
    if lazy is not None:
        raise InvalidInput(
            explain(expected="initialised parameters", got=f"lazy {lazy!r}", do="Run the module once on a batch first.")
        )
    if all(p.dim() < 2 for p in module.parameters()):
        raise InvalidInput(
            explain(
                expected="a module with at least one linear layer",
                got=f"{type(module).__name__} without a weight matrix",
                do="Pass the network itself, not its activation or loss.",
            )
        )
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise InvalidInput(
                explain(expected="real parameters", got=f"{name!r} of {parameter.dtype}", do="Use real weights.")
            )


def _dtype_and_device(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    first = next(p for p in module.parameters() if p.is_floating_point())
    return first.dtype, first.device


def _inputs_to_try(module: nn.Module, example: Any, size: Any) -> tuple[Tensor, ...]:
    """The example itself; a fake of the stated size; or fakes of every linear layer's width, first defined first."""
    if example is not None and size is not None:
        raise InvalidInput(explain(expected="example_input or input_size", got="both", do="Leave one out."))
    if example is not None:
        return (_checked_example(example),)
    dtype, device = _dtype_and_device(module)
    if size is not None:
        return (torch.empty(_checked_size(size), dtype=dtype, device=device).normal_(),)
    widths = dict.fromkeys(
        width for part in module.modules() if isinstance(width := getattr(part, "in_features", None), int) and width > 0
    )
    if not widths:
        raise InvalidInput(
            explain(
                expected="example_input or input_size",
                got=f"{type(module).__name__}, which has no nn.Linear to tell the input's width",
                do="Pass a batch that the network takes, or its shape: input_size=(2, 784).",
            )
        )
    return tuple(torch.empty(2, width, dtype=dtype, device=device).normal_() for width in widths)


def _checked_example(example: Any) -> Tensor:
    if not isinstance(example, Tensor) or example.dim() < 2 or example.numel() == 0:
        got = f"shape {tuple(example.shape)}" if isinstance(example, Tensor) else repr(type(example).__name__)
        raise InvalidInput(
            explain(
                expected="example_input: a batch tensor, first dimension the rows",
                got=got,
                do="Add the batch dimension, e.g. x[None].",
            )
        )
    if not example.is_floating_point():
        raise InvalidInput(
            explain(
                expected="example_input of a floating-point dtype, which a gradient can flow to",
                got=str(example.dtype),
                do="Pass x.float(), or the part of the model after its embedding.",
            )
        )
    if example.device.type != "meta" and not bool(torch.isfinite(example).all()):
        raise InvalidInput(explain(expected="a finite example_input", got="NaN or infinity", do="Clean the batch."))
    return example


def _checked_size(size: Any) -> tuple[int, ...]:
    sizes = tuple(positive_integer(n, "input_size") for n in (size if isinstance(size, Sequence) else (size,)))
    if len(sizes) < 2:
        raise InvalidInput(
            explain(
                expected="input_size with the batch dimension first, e.g. (2, 784)",
                got=repr(size),
                do="Put the number of rows in front.",
            )
        )
    return sizes


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What one watched forward pass showed: the calls, the call that made the output, and the autograd steps."""

    calls: tuple[Call, ...]
    last: int | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    steps: tuple[str, ...] | str


def _watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> _Sighting:
    """Run the first input that the forward pass accepts: with copies, or with fake tensors where copies are dear."""
    failures: list[tuple[Tensor, Exception]] = []
    failure: tuple[Tensor, Exception]
    runs = (_run_fake, _run_real) if _is_large(module) else (_run_real,)
    for x in inputs:
        for run in runs:
            try:
                return run(module, x)
            except (InvalidInput, UnsupportedArchitecture):
                raise
            except Exception as error:
                failure = (x, error)
        failures.append(failure)
    cause = failures[0][1]
    shapes = " or ".join(str(tuple(x.shape)) for x, _ in failures)
    raise InvalidInput(
        explain(
            expected="a forward pass that takes the input",
            got=f"{type(cause).__name__} on a batch of shape {shapes}: {cause}",
            do="Pass the example_input (or input_size) that the network takes.",
        )
    ) from cause


def _is_large(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    size = sum(p.numel() * p.element_size() for p in parameters)
    return size > _LARGE or any(p.device.type == "meta" for p in parameters)


def _run_fake(module: nn.Module, x: Tensor) -> _Sighting:
    """No arithmetic and no memory: shapes only. Its first use costs a second of imports, so it is kept for large models."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _run(module, x, _hollow)


def _run_real(module: nn.Module, x: Tensor) -> _Sighting:
    """On copies, which also takes control flow that looks at values."""
    return _run(module, x, copied)


def _hollow(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _run(module: nn.Module, x: Tensor, convert: Callable[[Tensor], Tensor]) -> _Sighting:
    copy = replica(module, convert)
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    names = {id(p): name for name, p in copy.named_parameters()}
    leaf = convert(x).requires_grad_()
    recorder = Recorder(names, leaf.clone())
    with modules_named(copy, recorder.stack), recorder:
        out = copy(recorder.x)
    if not isinstance(out, Tensor):
        return _Sighting(tuple(recorder.calls), None, tuple(x.shape), (), f"the output is a {type(out).__name__}")
    try:
        steps: tuple[str, ...] | str = steps_to_input(out, leaf, names)
    except Branching as branching:
        steps = str(branching)
    return _Sighting(tuple(recorder.calls), recorder.source_of(out), tuple(x.shape), tuple(out.shape), steps)


def _architecture(module: nn.Module, sighting: _Sighting) -> Architecture:
    flow = chain.Flow(sighting.calls, sighting.last, sighting.input_shape)
    if not flow.linear_calls:
        raise UnsupportedArchitecture(
            f"{type(module).__name__} reaches no linear layer between input and output, which is what the theory is about. "
            "Measure it with method='redraw', or check the fully connected part of it."
        )
    gaps = flow.gaps() or tuple(_disagreement(flow.steps(), sighting.steps))
    layers = _layers(module, flow)
    used = {call.weight for call in flow.linear_calls}
    return Architecture(
        layers=layers,
        input_size=math.prod(sighting.input_shape[1:]),
        output_size=max(1, math.prod(sighting.output_shape[1:])),
        gaps=gaps,
        unused=tuple(n for n, p in module.named_parameters() if p.dim() == 2 and n not in used and not gaps),
        source=type(module).__name__,
        training=module.training,
    )


def _disagreement(recorded: tuple[str, ...], walked: tuple[str, ...] | str) -> Iterator[Gap]:
    """Exact is earned: a chain only where the record of calls and the autograd graph tell the same."""
    if isinstance(walked, str):
        yield Gap("output", "dataflow", walked)
    elif recorded != chain.without_dropout(walked):
        yield Gap("output", "dataflow", f"the calls show {recorded}, the autograd graph shows {walked}")


def _layers(module: nn.Module, flow: chain.Flow) -> tuple[Layer, ...]:
    parameters = dict(module.named_parameters())
    matrices = []
    for call in flow.linear_calls:
        assert call.weight is not None
        weight = parameters[call.weight]
        matrices.append((call.weight, weight.T if call.is_transposed else weight))
    is_meta = any(w.device.type == "meta" for _, w in matrices)
    if is_meta:
        raise UnsupportedArchitecture("weights on the meta device have no values to read.")
    laws = weights.weight_laws(matrices)
    return tuple(
        Layer(
            name=name,
            fan_in=matrix.shape[1],
            fan_out=matrix.shape[0],
            weight=law,
            activation=flow.activation_after(call) or Activation("linear"),
            bias=_bias(flow.bias_of(call), parameters, matrix.shape[1]),
        )
        for call, (name, matrix), law in zip(flow.linear_calls, matrices, laws, strict=True)
    )


def _bias(name: str | None, parameters: dict[str, nn.Parameter], fan_in: int) -> Any:
    return None if name is None else weights.bias_law(name, parameters[name], fan_in)
