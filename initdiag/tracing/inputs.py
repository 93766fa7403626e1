"""The module that is looked at: the user's own or a part of it in its adapter, with
values in its weights, and inputs that it may take.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initdiag._core.validation import positive_integer
from initdiag.errors import InvalidInput, explain, shown, text_of
from initdiag.tracing import guard
from initdiag.tracing.adapter import Adapter, Call, Output
from initdiag.tracing.adapting import adapted, run_first
from initdiag.tracing.arguments import Perturbed
from initdiag.tracing.batches import calls_of, needs_reading
from initdiag.tracing.parts import part_of, received
from initdiag.tracing.replica import as_module

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

_LARGEST_BATCH = 1 << 27
"""Numbers in a batch that is made up: 1 GiB in float64, in which they are drawn. A
choice: the largest images and films of one batch have fewer.
"""

_ONE_TENSOR = (
    "Pass the other arguments, too, in a tuple of all, example_args=(...) or example_kwargs={...}."
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A module to look at, and how to feed it.

    Attributes
    ----------
    module : nn.Module
        The adapter of the user's own (or, of a lazy one, of a copy that has run).
    factory : callable or None
        Makes such a module afresh, where the user gave a factory.
    example, size
        The example batch as the adapter takes it, or its shape, or neither.
    name : str
        Class name, and the path of the part.
    said : tuple of str
        What is perturbed and how the example was read, in words.
    target : Any
        What of the example is taken for the targets; None if nothing is.
    """

    module: nn.Module
    factory: Callable[[], nn.Module] | None
    example: Any
    size: Any
    name: str
    said: tuple[str, ...] = ()
    target: Any = None


def subject_of(
    model: Any,
    example: Any,
    size: Any,
    path: str | None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    perturbed: Perturbed = None,
    output: Output = None,
) -> Subject:
    """Return what is to be looked at. The caller preserves random state and modes.

    Parameters
    ----------
    model : nn.Module or factory
        The user's.
    example, args, kwargs
        What forward is called with; the example may be a batch of many kinds.
    size
        The shape of a batch, or of several arguments.
    path : str or None
        Path of the part.
    perturbed : int, str or None
        The argument that is perturbed, where not all that float are.
    output : int, str, callable or None
        The part of the output that is judged.

    Raises
    ------
    InvalidInput
        If ``model`` is no module, is lazy without an input to run it on, or has no part
        ``path`` that is called.
    """
    factory = None if isinstance(model, nn.Module) else model
    module = as_module(model)
    if isinstance(module, Adapter):  # it has been adapted before
        return Subject(module, factory, example, size, type(module.inner).__name__)
    given = _given(module, example, size, args, kwargs)
    name = type(module).__name__
    if any(map(nn.parameter.is_lazy, module.parameters())):
        module = _materialised(module, given)
    if path is not None:
        call = received(module, path, given.calls(module, rows=_ROWS))
        found = adapted(part_of(module, path), (call,), perturbed, output)
        name = f"{name}.{path}"
    elif given.is_plain and perturbed is None:
        adapter = Adapter(module, output=output)
        return Subject(adapter, _remade(factory, adapter, None), example, given.size, name)
    else:
        found = adapted(module, given.calls(module), perturbed, output)
    again = _remade(factory, found.adapter, path)
    rows = _checked_example(found.rows)
    return Subject(found.adapter, again, rows, None, name, found.said, found.target)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the user gave to run the model on."""

    example: Any
    size: tuple[int, ...] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None

    @property
    def is_plain(self) -> bool:
        """Whether it is one floating tensor, its shape, or nothing."""
        return not needs_reading(self.example, self.args, self.kwargs)

    def calls(self, module: nn.Module, rows: int = 2) -> tuple[Call, ...]:
        """Return the calls of forward that it may mean, the likeliest first."""
        if self.example is None and not self.args and not self.kwargs:
            tried = inputs_to_try(module, None, self.size, rows)
            return tuple(Call((x,), {}) for x in tried)
        return calls_of(module, self.example, self.args, self.kwargs)


def _given(module: nn.Module, example: Any, size: Any, args: Sequence[Any], kwargs: Any) -> _Given:
    if size is not None and example is not None:
        raise InvalidInput(
            explain(expected="example_input or input_size", got="both", do="Leave one out.")
        )
    several = size is not None and any(map(_is_shape, _numbers(size)))
    if not several:
        size = None if size is None else _checked_size(size)
        return _Given(example, size, tuple(args), kwargs)
    shapes = [_checked_size(one) for one in size]
    made = (_normal(module, (_ROWS, *shape[1:]), seed) for seed, shape in enumerate(shapes))
    return _Given(None, None, (*made, *args), kwargs)


def _is_shape(one: Any) -> bool:
    return isinstance(one, Iterable) and getattr(one, "ndim", 1) != 0


def _numbers(size: Any) -> Iterable[Any]:
    is_scalar = getattr(size, "ndim", None) == 0 or not isinstance(size, Iterable)
    return (size,) if is_scalar else size


def _remade(factory: Any, adapter: Adapter, path: str | None) -> Callable[[], nn.Module] | None:
    """Return a factory of the module or of its part, behind the same adapter."""
    if factory is None:
        return None
    if path is None:
        return lambda: adapter.around(as_module(factory))
    return lambda: adapter.around(part_of(as_module(factory), path))


def _materialised(module: nn.Module, given: _Given) -> nn.Module:
    """Return a copy of a lazy module that has run once, so that its weights have shapes
    and values.
    """
    if given.is_plain and given.example is None and given.size is None:
        raise InvalidInput(
            explain(
                expected="example_input or input_size for a module with lazy layers",
                got="neither",
                do="Pass a batch that the network takes, or its shape: input_size=(2, 784).",
            )
        )
    module = copy.deepcopy(module)
    guard.seed_generators(0, is_used=True)  # the same weights at every look
    run_first(lambda: module, given.calls(module))
    return module


def unusable_input(inputs: Sequence[Any], cause: Exception) -> InvalidInput:
    """Return the error for a forward pass that took none of ``inputs``; ``cause`` is
    the first failure.
    """
    shapes = " or ".join(
        f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in inputs
    )
    text = text_of(cause)
    wants_more = isinstance(cause, TypeError) and "missing" in text and "argument" in text
    return InvalidInput(
        explain(
            expected="a forward pass that takes the input",
            got=f"{type(cause).__name__} on a batch of {shapes}: {text}",
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
                got=f"{_class_of(module)} without a weight matrix",
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


def _class_of(module: nn.Module) -> str:
    return type(module.inner if isinstance(module, Adapter) else module).__name__


def _dtype_and_device(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    first = next(p for p in module.parameters() if p.is_floating_point())
    return first.dtype, first.device


def inputs_to_try(module: nn.Module, example: Any, size: Any, rows: int = 2) -> tuple[Tensor, ...]:
    """Return the example itself; a fake of the stated size; or fakes of every linear
    layer's width, first defined first.
    """
    if example is not None:
        checked = _checked_example(example)
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
                got=f"{_class_of(module)}, which has no nn.Linear to tell the input's width",
                do="Pass a batch that the network takes, or its shape: input_size=(2, 784).",
            )
        )
    return tuple(_normal(module, (rows, width), seed=0) for width in widths)


def _checked_example(example: Any) -> Tensor:
    if not isinstance(example, Tensor) or example.dim() < 2 or example.numel() == 0:
        is_tensor = isinstance(example, Tensor)
        raise InvalidInput(
            explain(
                expected="example_input: a batch tensor, first dimension the rows",
                got=f"shape {tuple(example.shape)}" if is_tensor else repr(type(example).__name__),
                do="Add the batch dimension, e.g. x[None].",
            )
        )
    if example.device.type != "meta" and not bool(torch.isfinite(example).all()):
        raise InvalidInput(
            explain(expected="a finite example_input", got="NaN or infinity", do="Clean the batch.")
        )
    return example


def _checked_size(size: Any) -> tuple[int, ...]:
    sizes = tuple(positive_integer(n, "input_size") for n in _numbers(size))
    if len(sizes) < 2:
        raise InvalidInput(
            explain(
                expected="input_size with the batch dimension first, e.g. (2, 784)",
                got=repr(size),
                do="Put the number of rows in front.",
            )
        )
    if math.prod(sizes) > _LARGEST_BATCH:
        raise InvalidInput(
            explain(
                expected=f"input_size of at most {_LARGEST_BATCH:,} numbers in all",
                got=shown(sizes),
                do="Give fewer rows, e.g. 2.",
            )
        )
    return sizes
