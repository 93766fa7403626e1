"""How the content of each kind of object is remembered, and put back if it changed."""

from __future__ import annotations

import array
import functools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["CONTENTS", "is_same", "set_version"]


def is_same(tensor: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same bits."""
    if tensor.shape != other.shape or tensor.dtype != other.dtype:
        return False
    tensor, other = tensor.detach(), other.detach()
    if torch.equal(tensor, other):
        return True
    both_nan = tensor.isnan() & other.isnan()
    return bool(((tensor == other) | both_nan).all())


def set_version(tensor: Tensor, version: int) -> None:
    """Set the version counter by which autograd sees that a tensor was written to."""
    setter: Any = torch._C._autograd._unsafe_set_version_counter
    try:
        setter((tensor,), (version,))
    except TypeError:  # before torch 2.7
        setter(tensor, version)


def _of_dict(value: dict[Any, Any]) -> Callable[[], Any]:
    saved = list(dict.items(value))

    def undo() -> None:
        now = list(dict.items(value))
        if len(now) != len(saved) or any(
            k is not key or v is not item for (k, v), (key, item) in zip(now, saved, strict=True)
        ):
            dict.clear(value)
            for key, item in saved:
                dict.__setitem__(value, key, item)

    return undo


def _of_list(value: list[Any]) -> Callable[[], Any]:
    return functools.partial(list.__setitem__, value, slice(None), list(list.__iter__(value)))


def _of_bytes(value: Any) -> Callable[[], Any]:
    return functools.partial(type(value).__setitem__, value, slice(None), value[:])


def _of_deque(value: deque[Any]) -> Callable[[], Any]:
    saved = list(value)

    def undo() -> None:
        deque.clear(value)
        deque.extend(value, saved)

    return undo


def _of_set(value: set[Any]) -> Callable[[], Any]:
    saved = list(set.__iter__(value))

    def undo() -> None:
        set.clear(value)
        set.update(value, saved)

    return undo


def _of_array(value: Any) -> Callable[[], Any] | None:
    if not value.flags.writeable:
        return None
    saved = np.array(value, copy=True)

    def undo() -> None:
        if value.dtype.hasobject or value.tobytes() != saved.tobytes():
            value[...] = saved

    return undo


def _of_tensor(value: Tensor) -> Callable[[], Any] | None:
    """Values, version and gradient."""
    if value.is_meta or value.layout is not torch.strided or value.is_inference():
        return None
    saved, version = value.detach().clone(), value._version
    gradient = value.grad if value.is_leaf else None

    def undo() -> None:
        if value.is_leaf and value.grad is not gradient:
            value.grad = gradient
        if not is_same(value, saved):
            value.data.copy_(saved)
        if value._version != version:
            set_version(value, version)

    return undo


def _of_torch_generator(value: torch.Generator) -> Callable[[], Any] | None:
    if value is torch.default_generator:
        return None  # the process's own: see `initdiag.tracing.guard`
    state = value.get_state()
    return functools.partial(value.set_state, state)


def _of_random(value: Any) -> Callable[[], Any] | None:
    if value is random._inst:
        return None
    return functools.partial(value.setstate, value.getstate())


def _of_numpy_random(value: Any) -> Callable[[], Any] | None:
    if value is np.random.mtrand._rand:
        return None
    bits = value.bit_generator if isinstance(value, np.random.Generator) else value._bit_generator
    return functools.partial(setattr, bits, "state", bits.state)


CONTENTS: tuple[tuple[Any, Callable[[Any], Callable[[], Any] | None]], ...] = (
    (dict, _of_dict),
    (list, _of_list),
    (set, _of_set),
    (deque, _of_deque),
    (bytearray | array.array, _of_bytes),
    (np.ndarray, _of_array),
    (Tensor, _of_tensor),
    (torch.Generator, _of_torch_generator),
    (random.Random, _of_random),
    (np.random.Generator | np.random.RandomState, _of_numpy_random),
)
"""Classes with a content of their own, and what remembers it: it returns the function
that puts the content back.
"""
