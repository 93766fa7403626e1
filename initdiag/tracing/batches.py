"""From what a user hands in as an example to the calls of forward that it may mean."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from initdiag.errors import InvalidInput, explain
from initdiag.tracing.adapter import Call
from initdiag.tracing.structures import mapped

__all__ = ["calls_of", "needs_reading"]


def needs_reading(example: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> bool:
    """Return whether the example is anything but one floating tensor, or none."""
    is_plain = example is None or (isinstance(example, Tensor) and example.is_floating_point())
    return not is_plain or bool(args) or bool(kwargs)


def calls_of(
    module: nn.Module, example: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[Call, ...]:
    """Return the calls that the example may mean, the likeliest first.

    A tuple is one of arguments, or a batch whose rest are targets; a list is a batch
    first; a mapping holds arguments by name, or is one argument. With ``args`` or
    ``kwargs`` nothing is left to be read.
    """
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    example = _as_tensors(example, dtype)
    if args or kwargs:
        first = () if example is None else (example,)
        further, by_name = _as_tensors((tuple(args), dict(kwargs or {})), dtype)
        return (Call((*first, *further), by_name),)
    if isinstance(example, DataLoader):
        batch = _as_tensors(_first_batch(example), dtype)
        found = calls_of(module, batch, (), None)
        return tuple(
            Call(c.args, c.kwargs, ("the DataLoader's first batch", *c.said), c.rest) for c in found
        )
    if isinstance(example, Mapping):
        return _of_mapping(module, example)
    if isinstance(example, tuple | list):
        return _of_sequence(module, example)
    return (Call((example,), {}),)


def _as_tensors(value: Any, dtype: torch.dtype | None) -> Any:
    """Return the value with tensors for NumPy's arrays, floating ones in that dtype."""

    def tensor(_: Any, array: Any) -> Any:
        if array.dtype.kind not in "fiub":
            raise InvalidInput(
                explain(
                    expected="arrays of numbers",
                    got=f"an array of {array.dtype}",
                    do="Convert it to numbers first.",
                )
            )
        found = torch.as_tensor(array)
        return found.to(dtype) if dtype is not None and found.is_floating_point() else found

    return mapped(value, tensor, (np.ndarray,))


def _parameters(module: nn.Module) -> tuple[list[str], list[str], bool]:
    """Return the names of forward's arguments, those that are required, and whether it
    takes any number of them.
    """
    try:
        found = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return [], [], True
    plain = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in plain if p.default is p.empty]
    is_open = any(p.kind is p.VAR_POSITIONAL for p in found)
    named = [p.name for p in found if p.kind is p.KEYWORD_ONLY]
    return [p.name for p in plain] + named, required, is_open


def _of_mapping(module: nn.Module, example: Mapping[str, Any]) -> tuple[Call, ...]:
    names, required, _ = _parameters(module)
    known = {key: value for key, value in example.items() if key in names}
    left = [str(key) for key in example if key not in known]
    said = (f"left out, for forward takes no such arguments: {', '.join(left)}",) if left else ()
    by_name = Call((), known, said)
    whole = Call((example,), {})
    everything = Call((), dict(example))
    if known and set(required) <= set(known):
        return (by_name, whole)
    return (whole, everything)


def _of_sequence(module: nn.Module, example: Sequence[Any]) -> tuple[Call, ...]:
    names, required, is_open = _parameters(module)
    whole, arguments = Call((example,), {}), Call(tuple(example), {})
    count = max(1, len(required))
    said = (
        f"forward takes the first {count if count > 1 else 'entry'} of the batch's {len(example)}"
    )
    first = Call(
        tuple(example[:count]),
        {},
        (f"{said}; the rest are taken for targets",),
        tuple(example[count:]),
    )
    if len(example) == count:
        return (arguments, whole)
    can_take_all = is_open or len(example) <= len(names)
    if isinstance(example, tuple) and can_take_all:
        return (arguments, first, whole)
    return (first, arguments, whole)


def _first_batch(loader: DataLoader[Any]) -> Any:
    """Return the first batch, made in this process; the loader's generators are put
    back.
    """
    dataset = loader.dataset
    with _generators_kept(loader):
        if not isinstance(dataset, IterableDataset):
            # as an iterator of the loader does for its workers, before it samples
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
            sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
            picked = next(iter(sampler), None)
            if picked is None:
                raise _empty()
            chosen = picked if loader.batch_sampler is not None else None
            items = dataset[picked] if chosen is None else [dataset[i] for i in chosen]
            return loader.collate_fn(items)
        rows: Any = iter(dataset)
        if rows is dataset:
            raise InvalidInput(
                explain(
                    expected="a DataLoader that can be read without using it up",
                    got="one whose data set is its own iterator",
                    do="Pass a batch of it.",
                )
            )
        if loader.batch_size is None:
            return loader.collate_fn(next(rows))
        items = list(islice(rows, loader.batch_size))
        if not items:
            raise _empty()
        return loader.collate_fn(items)


def _empty() -> InvalidInput:
    return InvalidInput(
        explain(expected="a DataLoader with a batch", got="an empty one", do="Pass a batch.")
    )


@contextmanager
def _generators_kept(loader: DataLoader[Any]) -> Iterator[None]:
    """Put back the state of every generator that the loader and its samplers hold."""
    holders = (loader, loader.sampler, loader.batch_sampler, loader.dataset)
    held = [value for one in holders for value in getattr(one, "__dict__", {}).values()]
    found = [(g, g.get_state()) for g in held if isinstance(g, torch.Generator)]
    numpy = [(g, g.bit_generator.state) for g in held if isinstance(g, np.random.Generator)]
    try:
        yield
    finally:
        for generator, state in found:
            generator.set_state(state)
        for drawn, before in numpy:
            drawn.bit_generator.state = before
