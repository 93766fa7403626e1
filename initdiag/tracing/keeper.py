"""What the user's code shares with its replica, put back as it was: class attributes,
globals, and what they lead to.
"""

from __future__ import annotations

import dis
import enum
import functools
import logging
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from initdiag.tracing.contents import CONTENTS
from initdiag.tracing.objects import ATOMS, is_shared, slots_in

__all__ = ["Keeper"]

_NOT_THE_USERS = sys.stdlib_module_names - {"__main__"} | {"torch", "numpy", "initdiag"}
"""Packages whose classes and globals no forward pass of a user changes."""


class _Missing:
    """The value of a name that stands for nothing."""


_MISSING = _Missing()

_PLACES = (_Missing, types.ModuleType)
"""What a name may stand for that is not looked into: nothing, or a module, of which the
names are looked at that a function uses.
"""


class Keeper:
    """Remembers objects as they are, and puts back those that have changed.

    Attributes are read and written past what the objects' classes do about them.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, Any] = {}
        self._waiting: list[Any] = []

    def keep(self, *values: Any) -> None:
        """Remember values, with all that they lead to."""
        self._waiting += values
        while self._waiting:
            value = self._waiting.pop()
            if type(value) not in ATOMS and id(value) not in self._seen:
                self._seen[id(value)] = value
                self._look_at(value)

    def put_back(self) -> None:
        """Put back what has changed, the last one that was remembered first."""
        for undo in reversed(self._undo):
            undo()

    def _look_at(self, value: Any) -> None:
        if isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, staticmethod | classmethod):
            self._waiting.append(value.__func__)
        elif isinstance(value, types.MethodType):
            self._waiting += [value.__func__, value.__self__]
        elif isinstance(value, types.BuiltinFunctionType):
            self._waiting.append(value.__self__)
        elif isinstance(value, property):
            self._waiting += [value.fget, value.fset, value.fdel]
        elif isinstance(value, types.CellType):
            self._cell(value)
        elif isinstance(value, types.ModuleType):
            if _is_users(value.__name__):
                self._bindings(vars(value), tuple(vars(value)))
        elif isinstance(value, logging.Logger):
            self._logger(value)
        elif isinstance(value, enum.Enum) or not is_shared(type(value)):
            self._state(value)

    def _class(self, kind: type) -> None:
        """Its attributes, and those of the classes that it is made of."""
        for base in kind.__mro__:
            if _is_users(base.__module__) and (base is kind or id(base) not in self._seen):
                self._seen[id(base)] = base
                saved = dict(vars(base))
                self._undo.append(functools.partial(_put_back_class, base, saved))
                self._waiting += [v for name, v in saved.items() if name not in _OF_CLASSES]

    def _function(self, function: types.FunctionType) -> None:
        """What its closure and its defaults hold, and the globals that it names."""
        self._waiting += [*(function.__closure__ or ()), function.__defaults__]
        self._waiting += [function.__kwdefaults__, function.__dict__]
        if _is_users(function.__module__):
            names = _globals_of(function.__code__)
            self._bindings(function.__globals__, names)
            for name in names:
                value = function.__globals__.get(name)
                if isinstance(value, types.ModuleType) and _is_users(value.__name__):
                    self._bindings(vars(value), function.__code__.co_names)

    def _logger(self, logger: logging.Logger) -> None:
        """Its own settings: what it leads to belongs to the whole process."""
        saved = logger.level, logger.disabled, logger.propagate
        lists = [(one, list(one)) for one in (logger.handlers, logger.filters)]
        self._undo.append(functools.partial(_put_back_logger, logger, saved, lists))

    def _bindings(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        saved = {name: namespace.get(name, _MISSING) for name in names}
        self._undo.append(functools.partial(_put_back_names, namespace, saved))
        self._waiting += [value for value in saved.values() if not isinstance(value, _PLACES)]

    def _cell(self, cell: types.CellType) -> None:
        try:
            saved = cell.cell_contents
        except ValueError:  # it is empty
            return
        self._undo.append(functools.partial(setattr, cell, "cell_contents", saved))
        self._waiting.append(saved)

    def _state(self, value: Any) -> None:
        """Content, attributes and slots of an object."""
        for of, way in CONTENTS:
            if isinstance(value, of):
                if (undo := way(value)) is not None:
                    self._undo.append(undo)
                break
        if isinstance(value, dict):
            self._waiting += [*dict.keys(value), *dict.values(value)]
        elif isinstance(value, list | tuple | set | frozenset | deque):
            self._waiting += list(value)
        elif isinstance(value, functools.partial):
            self._waiting += [value.func, value.args, value.keywords]
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            self._waiting += value.ravel().tolist()
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except AttributeError:
            attributes = None
        if type(attributes) is dict:
            self._waiting.append(attributes)
        for slot in slots_in(type(value)):
            saved = _slot(slot, value)
            self._undo.append(functools.partial(_put_back_slot, slot, value, saved))
            self._waiting += [] if saved is _MISSING else [saved]
        self._waiting.append(type(value))


_OF_CLASSES = ("__dict__", "__weakref__", "__annotations__", "__doc__", "__module__", "_abc_impl")
"""Attributes of a class that are no state of the user's."""


def _is_users(module: str | None) -> bool:
    """Whether a module is of no installed package, nor of Python's own."""
    root = str(module).partition(".")[0]
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    is_installed = "site-packages" in file or "dist-packages" in file
    return root not in _NOT_THE_USERS and not is_installed


@functools.lru_cache(maxsize=4096)
def _globals_of(code: types.CodeType) -> frozenset[str]:
    """Names of globals that a function, or one inside it, looks up or stores."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname.endswith(_GLOBAL)}
    inner = (_globals_of(one) for one in code.co_consts if isinstance(one, types.CodeType))
    return frozenset(found.union(*inner))


_GLOBAL = ("_GLOBAL", "_NAME")
"""Endings of the operations that look up or store a global."""


def _put_back_class(kind: type, saved: dict[str, Any]) -> None:
    now = dict(vars(kind))
    for name in {*now, *saved}.difference(_OF_CLASSES):
        if name not in saved:
            type.__delattr__(kind, name)
        elif now.get(name, _MISSING) is not saved[name]:
            type.__setattr__(kind, name, saved[name])


def _put_back_names(namespace: dict[str, Any], saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        if value is _MISSING:
            namespace.pop(name, None)
        elif namespace.get(name, _MISSING) is not value:
            namespace[name] = value


def _put_back_logger(logger: logging.Logger, saved: Any, lists: Any) -> None:
    level, logger.disabled, logger.propagate = saved
    if logger.level != level:
        logger.setLevel(level)  # and forget what it knew of its level
    for one, items in lists:
        one[:] = items


def _slot(slot: Any, value: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:
        return _MISSING


def _put_back_slot(slot: Any, value: Any, saved: Any) -> None:
    if _slot(slot, value) is saved:
        return
    slot.__delete__(value) if saved is _MISSING else slot.__set__(value, saved)
