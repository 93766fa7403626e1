"""What an object holds, whatever its class does about attributes; which objects never
change; and how an object is made anew that has no attributes.
"""

from __future__ import annotations

import enum
import functools
import gc
import logging
import re
import types
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "ATOMS", "SHARED", "fingerprint", "hides_state", "is_shared", "leads_to", "rebuilt", "slots_in", "state_of",
]  # fmt: skip

ATOMS: tuple[Any, ...] = (
    type(None), bool, int, float, complex, str, bytes, range, slice, type(...), re.Pattern,
    type(NotImplemented), types.CodeType, np.dtype, torch.dtype, torch.device,
    torch.Size, torch.memory_format, torch.layout, staticmethod, classmethod, property, object,
)  # fmt: skip
"""Classes, themselves, whose instances never change."""

SHARED = (type, enum.Enum, types.ModuleType, logging.Logger, np.generic)
"""Classes, with their subclasses, whose instances are what they are by identity."""

_OF_CODE = ("torch.fx", "torch._ops", "torch._dynamo", "torch.jit", "typing")
"""Modules whose objects describe code rather than hold a network's state."""


def is_shared(kind: type) -> bool:
    """Whether the objects of a class are what they are by identity."""
    if issubclass(kind, nn.Module):
        return False
    return issubclass(kind, SHARED) or str(kind.__module__).startswith(_OF_CODE)


def hides_state(kind: type) -> bool:
    """Whether the objects of a class have room for what is no attribute and no slot: a
    class of C, such as a database's connection.
    """
    named = {"__dict__", "__slots__", "__weakref__"}
    return any(
        base.__base__ is not None
        and base.__basicsize__ > base.__base__.__basicsize__
        and named.isdisjoint(vars(base))
        for base in kind.__mro__
    )


def slots_in(kind: type) -> Iterator[Any]:
    """Yield the descriptors of a class's own and inherited slots."""
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            yield from (d for d in vars(base).values() if isinstance(d, types.MemberDescriptorType))


def state_of(value: Any) -> Iterator[tuple[str, Any, Callable[[Any, Any], None]]]:
    """Yield the name and value of each attribute and slot, and how another object is
    given it; what a class does about attributes is passed by.
    """
    for slot in slots_in(type(value)):
        try:
            yield slot.__name__, slot.__get__(value), slot.__set__
        except AttributeError:  # it is empty
            continue
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return
    for name, item in list(attributes.items()):
        yield name, item, functools.partial(_put, name)


def _put(name: str, other: Any, item: Any) -> None:
    object.__getattribute__(other, "__dict__")[name] = item


def rebuilt(value: Any, copied: Callable[[Any], Any], kept: Callable[[Any], Any]) -> Any:
    """Return an object made anew, as pickle does it, from copies of its parts.

    Parameters
    ----------
    value : object
        What is to be made anew, such as an iterator of C.
    copied : callable
        Returns the copy of a part.
    kept : callable
        Is given the new object before its parts are put in, and returns it.

    Raises
    ------
    Exception
        Whatever the object raises that cannot be made anew.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the iterators' way is deprecated
        parts = value.__reduce_ex__(4)
    if isinstance(parts, str):
        return value  # the name of a global
    make, given, state, items, pairs = (*parts, *[None] * (5 - len(parts)))[:5]
    new = kept(make(*(copied(one) for one in given)))
    if state is not None:
        _set_state(new, copied(state))
    for item in items or ():
        new.append(copied(item))
    for key, item in pairs or ():
        new[copied(key)] = copied(item)
    return new


def _set_state(new: Any, state: Any) -> None:
    if hasattr(new, "__setstate__"):
        new.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    new.__dict__.update(attributes or {})
    for name, item in (slots or {}).items():
        object.__setattr__(new, name, item)


def leads_to(value: Any, goals: set[int]) -> bool:
    """Whether a value leads to one of the objects with these identities."""
    return any(id(one) in goals for one in _reached(value))


def fingerprint(value: Any) -> int:
    """Return a number that changes with the objects that a value leads to, or with the
    bytes that they hold.
    """
    return sum(zlib.crc32(_bytes(one)) for one in _reached(value) if type(one) is not dict)


def _bytes(value: Any) -> Any:
    """What an object holds, as bytes; what it is, where it holds no bytes."""
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta:
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return np.ascontiguousarray(value).view(np.uint8)
    return value if isinstance(value, bytearray) else repr(id(value)).encode()


def _reached(value: Any) -> Iterator[Any]:
    """Yield a value and what it leads to, other than through classes and the globals of
    functions.
    """
    yield value
    seen, waiting = {id(value)}, [value]
    while waiting:
        for one in _parts(waiting.pop()):
            if id(one) not in seen:
                seen.add(id(one))
                yield one
                if type(one) not in ATOMS and not isinstance(one, SHARED):
                    waiting.append(one)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, types.FunctionType):
        return (value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__)
    return gc.get_referents(value)
