"""Tensors inside what a forward pass takes or returns: containers of any usual kind."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Attribute", "Path", "are_equal", "floating", "leaves", "mapped", "tensors_in"]

Path = tuple[str | int, ...]
"""The keys, indices and attributes that lead to a leaf."""


class Attribute(str):
    """The name of an attribute in a path, where a text is a key."""

    __slots__ = ()


def mapped(
    value: Any,
    replace: Callable[[Path, Any], Any],
    kinds: tuple[type, ...] = (Tensor,),
    path: Path = (),
) -> Any:
    """Return a copy of a structure in which each leaf of ``kinds`` is replaced.

    Mappings, tuples (named or not), lists and dataclasses of any class are copied;
    anything else is shared.

    Parameters
    ----------
    value : Any
        The structure, or a leaf.
    replace : callable
        Takes the path and the leaf, returns what stands in its place.
    kinds : tuple of type
        What counts as a leaf.
    path : tuple
        The path to ``value``.
    """
    if isinstance(value, kinds):
        return replace(path, value)
    items = [(key, item, mapped(item, replace, kinds, (*path, key))) for key, item in _items(value)]
    if all(new is old for _, old, new in items) and not isinstance(value, dict | list):
        return value
    if isinstance(value, tuple):
        return tuple.__new__(type(value), [new for _, _, new in items])
    fresh = copy.copy(value)
    for key, _, new in items:
        if isinstance(value, Mapping | list):
            fresh[key] = new
        else:
            object.__setattr__(fresh, str(key), new)
    return fresh


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the keys of a container and what is under each, if it is one."""
    if isinstance(value, Mapping):
        yield from list(value.items())
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        yield from zip(names, value, strict=True)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                yield Attribute(field.name), getattr(value, field.name)


def leaves(value: Any, kinds: tuple[type, ...] = (Tensor,), path: Path = ()) -> Iterator[Any]:
    """Yield the path of each leaf of ``kinds`` and the leaf, in order."""
    if isinstance(value, kinds):
        yield path, value
        return
    for key, item in _items(value):
        yield from leaves(item, kinds, (*path, key))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a structure, in order."""
    if isinstance(value, Tensor):
        yield value
        return
    for _, item in _items(value):
        yield from tensors_in(item)


def floating(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield the floating tensors of what a forward pass returns, each with its path.

    A distribution (anything that is drawn from by ``rsample`` or ``sample`` and has a
    ``mean``) stands for its mean; where it has none, for its logits, or its location.
    """
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value
        return
    if hasattr(type(value), "log_prob") and hasattr(type(value), "mean"):
        yield from _of_distribution(value, path)
        return
    for key, item in _items(value):
        yield from floating(item, (*path, key))


def _of_distribution(value: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """Yield the first of its parameters of location that is a number."""
    for name in ("mean", "logits", "loc"):
        try:
            found = getattr(value, name)
        except (AttributeError, NotImplementedError):
            continue
        # the mean of a categorical distribution is NaN
        if isinstance(found, Tensor) and not bool(found.isnan().all()):
            yield (*path, Attribute(name)), found
            return


def are_equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have the same values; NaN equals NaN."""
    return first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
