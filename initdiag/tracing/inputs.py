"""What is looked at: the user's module or a part of it, with values in its weights, and
inputs that it may take.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initdiag._core.validation import positive_integer
from initdiag.errors import InvalidInput, explain
from initdiag.tracing.replica import as_module, copied, replica

__all__ = [
    "Subject",
    "example_rows",
    "inputs_to_try",
    "is_meta",
    "require_weights",
    "subject_of",
    "unusable_input",
]

_ROWS = 64
"""Random rows that a whole model is given to see what it hands to a part."""

_FROM_NUMPY = (
    "One floating-point torch.Tensor is taken: torch.from_numpy(x), of a list torch.tensor(x)."
)
_ONE_TENSOR = (
    "One tensor is taken: wrap the model in a module whose forward takes one tensor, or name a part by module= "
    "(the whole model is then run on a tuple of arguments, or a dict of them by name)."
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A module to look at, and how to feed it.

    Attributes
    ----------
    module : nn.Module
        The user's own (or, of a lazy one, a copy that has run).
    factory : callable or None
        Makes such a module afresh, where the user gave a factory.
    example, size
        The example batch, or its shape, or neither.
    name : str
        Class name, and the path of the part.
    """

    module: nn.Module
    factory: Callable[[], nn.Module] | None
    example: Any
    size: Any
    name: str


def subject_of(model: Any, example: Any, size: Any, path: str | None) -> Subject:
    """Return what is to be looked at. The caller preserves random state and modes.

    Raises
    ------
    InvalidInput
        If ``model`` is no module, is lazy without an input to run it on, or has no part
        ``path`` that is called once.
    """
    factory = None if isinstance(model, nn.Module) else model
    module = as_module(model)
    size = None if size is None else _checked_size(size)
    name = type(module).__name__
    if any(map(nn.parameter.is_lazy, module.parameters())):
        module = _materialised(module, example, size, path)
    if path is None:
        return Subject(module, factory, example, size, name)
    part = as_module(_part(module, path))
    received = _received(module, path, _inputs_of_whole(module, example, size))
    part_factory = None if factory is None else lambda: as_module(_part(as_module(factory), path))
    return Subject(part, part_factory, received, None, f"{name}.{path}")


def _inputs_of_whole(module: nn.Module, example: Any, size: Any) -> tuple[Any, ...]:
    """What to run a whole model on to see what it hands to a part: any tensor, e.g. of
    tokens; a tuple of arguments; a dict of them by name.
    """
    is_free = isinstance(example, tuple | dict) or (
        isinstance(example, Tensor) and not example.is_floating_point()
    )
    return (
        (example,) if is_free and size is None else inputs_to_try(module, example, size, rows=_ROWS)
    )


def _materialised(module: nn.Module, example: Any, size: Any, path: str | None) -> nn.Module:
    """A copy of a lazy module that has run once, so that its weights have shapes and
    values.
    """
    if example is None and size is None:
        raise InvalidInput(
            explain(
                expected="example_input or input_size for a module with lazy layers",
                got="neither",
                do="Pass a batch that the network takes, or its shape: input_size=(2, 784).",
            )
        )
    module = copy.deepcopy(module)
    torch.default_generator.manual_seed(0)  # the same weights at every look
    with torch.no_grad():
        _run(
            module,
            inputs_to_try(module, example, size)
            if path is None
            else _inputs_of_whole(module, example, size),
        )
    return module


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        names = [name for name, _ in module.named_children()]
        raise InvalidInput(
            explain(
                expected="module: the path of a submodule",
                got=repr(path),
                do=f"The first ones are {names}.",
            )
        ) from error


def _received(module: nn.Module, path: str, inputs: Sequence[Any]) -> Tensor:
    """What the whole model's forward pass hands to the part."""
    whole = replica(module, copied)
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = whole.get_submodule(path).register_forward_pre_hook(
        lambda m, a, k: seen.append((a, k)), with_kwargs=True
    )
    with torch.no_grad():
        _run(whole, inputs)
    hook.remove()
    if (
        len(seen) != 1
        or len(seen[0][0]) != 1
        or seen[0][1]
        or not isinstance(seen[0][0][0], Tensor)
    ):
        times = f"{len(seen)} calls" if len(seen) != 1 else "one call with other arguments"
        raise InvalidInput(
            explain(
                expected=f"a forward pass that calls {path!r} once, with one tensor",
                got=times,
                do="Choose a part that is, or pass it alone with its own example_input.",
            )
        )
    received: Tensor = seen[0][0][0].detach().clone()
    return received


def _run(module: nn.Module, inputs: Sequence[Any]) -> None:
    """Run the first of the inputs that the module takes."""
    failures = []
    for x in inputs:
        try:
            _call(module, x)
        except Exception as error:
            failures.append(error)
        else:
            return
    raise unusable_input(inputs, failures[0]) from failures[0]


def _call(module: nn.Module, x: Any) -> None:
    """Run the module on copies: a tensor, a tuple of arguments, or a dict of them by
    name.
    """
    if isinstance(x, dict):
        module(**{name: _cloned(value) for name, value in x.items()})
    else:
        module(*map(_cloned, x if isinstance(x, tuple) else (x,)))


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def unusable_input(inputs: Sequence[Any], cause: Exception) -> InvalidInput:
    """Return the error for a forward pass that took none of ``inputs``; ``cause`` is
    the first failure.
    """
    shapes = " or ".join(
        f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in inputs
    )
    wants_more = (
        isinstance(cause, TypeError) and "missing" in str(cause) and "argument" in str(cause)
    )
    return InvalidInput(
        explain(
            expected="a forward pass that takes the input",
            got=f"{type(cause).__name__} on a batch of {shapes}: {cause}",
            do=_ONE_TENSOR
            if wants_more
            else "Pass the example_input (or input_size) that the network takes.",
        )
    )


def example_rows(module: nn.Module, architecture_input: int, rows: int, seed: int) -> Tensor:
    """Return ``rows`` standard normal inputs of ``architecture_input`` features on the
    module's device, in its dtype.
    """
    return _normal(module, (rows, architecture_input), seed)


def _normal(module: nn.Module, shape: tuple[int, ...], seed: int) -> Tensor:
    dtype, device = _dtype_and_device(module)
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(
        device, dtype
    )


def is_meta(module: nn.Module) -> bool:
    """Return whether the parameters have shapes but no values."""
    return any(p.is_meta for p in module.parameters())


def require_weights(module: nn.Module) -> None:
    """Refuse what has no weight matrix, or complex ones.

    Raises
    ------
    InvalidInput
        Then.
    """
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
                explain(
                    expected="real parameters",
                    got=f"{name!r} of {parameter.dtype}",
                    do="Use real weights.",
                )
            )


def _dtype_and_device(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    first = next(p for p in module.parameters() if p.is_floating_point())
    return first.dtype, first.device


def inputs_to_try(module: nn.Module, example: Any, size: Any, rows: int = 2) -> tuple[Tensor, ...]:
    """The example itself; a fake of the stated size; or fakes of every linear layer's
    width, first defined first.
    """
    if example is not None and size is not None:
        raise InvalidInput(
            explain(expected="example_input or input_size", got="both", do="Leave one out.")
        )
    if example is not None:
        checked = _checked_example(example, module)
        return (checked.to("meta") if is_meta(module) else checked,)
    if size is not None:
        return (_normal(module, _checked_size(size), seed=0),)
    widths = dict.fromkeys(
        width
        for part in module.modules()
        if isinstance(width := getattr(part, "in_features", None), int) and width > 0
    )
    if not widths:
        raise InvalidInput(
            explain(
                expected="example_input or input_size",
                got=f"{type(module).__name__}, which has no nn.Linear to tell the input's width",
                do="Pass a batch that the network takes, or its shape: input_size=(2, 784).",
            )
        )
    return tuple(_normal(module, (rows, width), seed=0) for width in widths)


def _checked_example(example: Any, module: nn.Module) -> Tensor:
    if not isinstance(example, Tensor) or example.dim() < 2 or example.numel() == 0:
        is_tensor = isinstance(example, Tensor)
        got = f"shape {tuple(example.shape)}" if is_tensor else repr(type(example).__name__)
        other = _ONE_TENSOR if isinstance(example, tuple | dict) else _FROM_NUMPY
        raise InvalidInput(
            explain(
                expected="example_input: a batch tensor, first dimension the rows",
                got=got,
                do="Add the batch dimension, e.g. x[None]." if is_tensor else other,
            )
        )
    if not example.is_floating_point():
        embeds = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules())
        part = f"Name the part after its embedding by module=, one of {[name for name, _ in module.named_children()]}"
        raise InvalidInput(
            explain(
                expected="example_input of a floating-point dtype, which a gradient can flow to",
                got=str(example.dtype),
                do=f"{part}."
                if embeds
                else "Pass x.float(), or name the part after the embedding by module=.",
            )
        )
    if example.device.type != "meta" and not bool(torch.isfinite(example).all()):
        raise InvalidInput(
            explain(expected="a finite example_input", got="NaN or infinity", do="Clean the batch.")
        )
    return example


def _checked_size(size: Any) -> tuple[int, ...]:
    is_scalar = getattr(size, "ndim", None) == 0 or not isinstance(size, Iterable)
    numbers = (size,) if is_scalar else size
    sizes = tuple(positive_integer(n, "input_size") for n in numbers)
    if len(sizes) < 2:
        raise InvalidInput(
            explain(
                expected="input_size with the batch dimension first, e.g. (2, 784)",
                got=repr(size),
                do="Put the number of rows in front.",
            )
        )
    return sizes
