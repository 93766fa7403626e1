"""How functions, weak references, arrays and random generators are copied."""

from __future__ import annotations

import functools
import random
import types
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from initdiag.tracing.objects import ATOMS, SHARED

__all__ = ["WAYS", "Copier"]


class Copier(Protocol):
    """What `initdiag.tracing.copies.Copies` offers to the functions of this file."""

    functions: dict[int, types.FunctionType]
    held: list[Any]

    def part(self, value: Any, where: str) -> Any:
        """Return the copy of a part, which may be filled only later."""

    def kept(self, value: Any, new: Any) -> Any:
        """Note ``new`` as the copy of ``value``, and return it."""

    def later(self, fill: Callable[[], None]) -> None:
        """Do this when the objects at hand have been made."""

    def rebuilt(self, value: Any, where: str) -> Any:
        """Return an object that is made anew as pickle does it, or the object."""


def _function(copies: Copier, value: types.FunctionType, where: str) -> Any:
    """A function whose closure or defaults lead to what changes; others are shared."""
    copies.functions.setdefault(id(value), value)
    if not _changes(value, set()):
        return value
    cells = tuple(copies.part(cell, where) for cell in value.__closure__ or ())
    new = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, cells or None)
    copies.kept(value, new)
    new.__qualname__, new.__module__ = value.__qualname__, value.__module__
    new.__annotations__, new.__doc__ = value.__annotations__, value.__doc__
    new.__defaults__ = copies.part(value.__defaults__, f"{where}.__defaults__")
    new.__kwdefaults__ = copies.part(value.__kwdefaults__, f"{where}.__kwdefaults__")
    for name, item in value.__dict__.items():
        new.__dict__[name] = copies.part(item, f"{where}.{name}")
    return new


def _changes(value: Any, seen: set[int]) -> bool:
    """Whether a function, or what it is made of, leads to anything that may change."""
    if id(value) in seen or type(value) in ATOMS or isinstance(value, SHARED):
        return False
    seen.add(id(value))
    if isinstance(value, types.CellType):
        return _changes(_content(value), seen)
    if isinstance(value, tuple | frozenset):
        return any(_changes(item, seen) for item in value)
    if isinstance(value, types.FunctionType):
        by_name = tuple((value.__kwdefaults__ or {}).values())
        parts = (value.__closure__, value.__defaults__, by_name, tuple(value.__dict__.values()))
        return _changes(parts, seen)
    is_of_c = isinstance(value, types.BuiltinFunctionType)
    return not (is_of_c and isinstance(value.__self__, types.ModuleType | type(None) | type))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _cell(copies: Copier, value: types.CellType, where: str) -> types.CellType:
    new: types.CellType = copies.kept(value, types.CellType())

    def fill() -> None:
        if value != types.CellType():  # it is not empty
            new.cell_contents = copies.part(value.cell_contents, f"{where}.<closure>")

    copies.later(fill)
    return new


def _method(copies: Copier, value: types.MethodType, where: str) -> Any:
    owner = copies.part(value.__self__, f"{where}.__self__")
    function = copies.part(value.__func__, where)
    is_same = owner is value.__self__ and function is value.__func__
    return value if is_same else types.MethodType(function, owner)


def _builtin(copies: Copier, value: Any, where: str) -> Any:
    """A method of C, such as a list's ``append``, or a function of C."""
    owner = copies.part(value.__self__, f"{where}.__self__")
    return value if owner is value.__self__ else getattr(owner, value.__name__)


def _partial(copies: Copier, value: Any, where: str) -> Any:
    kind = type(value)
    new = copies.kept(value, kind.__new__(kind, print))

    def fill() -> None:
        state = (value.func, value.args, dict(value.keywords), dict(value.__dict__))
        new.__setstate__(tuple(copies.part(part, where) for part in state))

    copies.later(fill)
    return new


def _cached(copies: Copier, value: Any, where: str) -> Any:
    """A function with a cache of results: the copy begins with an empty one."""
    function = copies.part(value.__wrapped__, where)
    return functools.lru_cache(**value.cache_parameters())(function)


def _weak(copies: Copier, value: Any, where: str) -> Any:
    """A weak reference to the copy, which the copies hold in its owner's place."""
    kind = type(value)
    try:
        target = value() if issubclass(kind, weakref.ref) else value.__repr__.__self__
    except ReferenceError:
        return value
    new = copies.part(target, where)
    if new is target:
        return value
    copies.held.append(new)
    if kind is weakref.KeyedRef:
        return weakref.KeyedRef(new, lambda gone: None, value.key)
    usual = weakref.ref if issubclass(kind, weakref.ref) else weakref.proxy
    return (weakref.WeakMethod if kind is weakref.WeakMethod else usual)(new)


def _array(copies: Copier, value: Any, where: str) -> Any:
    new = copies.kept(value, np.array(value, copy=True, subok=True))
    if value.dtype.hasobject and value.dtype.names is None:
        for place in np.ndindex(value.shape):
            new[place] = copies.part(value[place], where)
    return new


def _torch_generator(copies: Copier, value: torch.Generator, where: str) -> torch.Generator:
    if value is torch.default_generator:
        return value
    return torch.Generator(device=value.device).set_state(value.get_state())


def _random(copies: Copier, value: Any, where: str) -> Any:
    """A generator of Python's or NumPy's, other than the process's own."""
    is_global = value in (getattr(random, "_inst", None), np.random.mtrand._rand)
    return value if is_global else copies.rebuilt(value, where)


def _proxy(copies: Copier, value: Any, where: str) -> Any:
    return types.MappingProxyType(copies.part(dict(value), where))


WAYS: tuple[tuple[Any, Callable[[Copier, Any, str], Any]], ...] = (
    (types.FunctionType, _function),
    (types.CellType, _cell),
    (types.MethodType, _method),
    (types.BuiltinFunctionType, _builtin),
    (functools.partial, _partial),
    (functools._lru_cache_wrapper, _cached),
    ((weakref.ref, weakref.ProxyType, weakref.CallableProxyType), _weak),
    (np.ndarray, _array),
    (torch.Generator, _torch_generator),
    ((random.Random, np.random.Generator, np.random.RandomState), _random),
    (types.MappingProxyType, _proxy),
)
"""Classes, and the function that copies one of their objects at a path."""
