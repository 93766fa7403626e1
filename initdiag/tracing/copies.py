"""Copies of everything that a module leads to: objects, containers, closures, hooks,
random generators, whatever they are held by.

Three kinds of things are shared instead, and the attributes of `Copies` tell which were
met. Classes, functions and the like are what they are by identity. What cannot be
copied (a lock, a socket, an object of C) is foreign. And what is too large, and leads
nowhere to the module, is data, such as a trainer's data set.
"""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from initdiag.tracing.objects import ATOMS, hides_state, is_shared, leads_to, rebuilt, state_of
from initdiag.tracing.special_copies import WAYS
from initdiag.tracing.wrappers import Unwrapped, inner_of

__all__ = ["ROOM", "Copies"]

ROOM = 1 << 28
"""Bytes that a replica may take for what the module does not hold itself, but plain
objects that it leads to. A choice: 256 MiB are small beside a process with torch.
"""

_OBJECT = 64
"""Bytes that an object or an item of a container takes at least, about."""

_BASES: tuple[Any, ...] = (OrderedDict, defaultdict, dict, list, set, deque, object)
"""What an empty instance of a class is made by: the first base that it has."""


class Copies:
    """What was made of each object that has been met.

    Parameters
    ----------
    convert : callable
        What becomes of each tensor.

    Attributes
    ----------
    foreign, data : dict
        What is shared although it may change, by its path from the first object: for it
        cannot be copied, or is too large.
    classes, functions, alike : dict
        Classes, functions, and objects without attributes that were met and are shared,
        by their identities.
    held : list
        Copies that the original holds by weak references only.
    """

    def __init__(self, convert: Callable[[Tensor], Tensor]) -> None:
        self._convert = convert
        self._memo: dict[int, Any] = {}
        self._originals: list[Any] = []
        self._waiting: list[tuple[bool, Callable[[], None]]] = []
        self._last: list[tuple[bool, Callable[[], None]]] = []
        self._is_beyond = False
        self._room = ROOM
        self._root: Any = None
        self.foreign: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.classes: dict[int, type] = {}
        self.functions: dict[int, Any] = {}
        self.alike: dict[int, Any] = {}
        self.held: list[Any] = []

    def of(self, module: nn.Module) -> Any:
        """Return the copy of a module, with everything that it leads to."""
        self._root = module
        return self._whole(module, "")

    def _whole(self, value: Any, where: str) -> Any:
        new = self.part(value, where)
        while self._waiting or self._last:
            self._is_beyond, fill = (self._waiting or self._last).pop()
            fill()
        return new

    def part(self, value: Any, where: str) -> Any:
        """Return the copy of a value, which may be filled only later."""
        kind = type(value)
        if kind in ATOMS:
            return value
        if id(value) in self._memo:
            return self._memo[id(value)]
        if is_shared(kind):
            shared = self.classes if issubclass(kind, type) else self.alike
            shared.setdefault(id(value), value)
            return value
        if self._is_beyond and self._is_data(value):
            self.data[where] = value
            return self.kept(value, value)
        self.classes.setdefault(id(kind), kind)
        way = next((way for of, way in _WAYS if issubclass(kind, of)), Copies._object)
        return self.kept(value, way(self, value, where))

    def kept(self, value: Any, new: Any) -> Any:
        """Note ``new`` as the copy of ``value``, and return it."""
        if id(value) not in self._memo:
            self._originals.append(value)
        self._memo[id(value)] = new
        return new

    def later(self, fill: Callable[[], None], *, is_last: bool = False) -> None:
        """Do this when the objects at hand have been made; or after all others."""
        (self._last if is_last else self._waiting).append((self._is_beyond, fill))

    def _is_data(self, value: Any) -> bool:
        """Whether there is no room for a value any more, and it leads nowhere to the
        module.
        """
        if isinstance(value, Tensor | np.ndarray):
            self._room -= int(value.nbytes)
        elif isinstance(value, dict | list | tuple | set | frozenset | deque | bytearray):
            self._room -= _OBJECT * len(value)
        else:
            self._room -= _OBJECT
        return self._room < 0 and not leads_to(value, self._goals)

    @functools.cached_property
    def _goals(self) -> set[int]:
        """Identities of what the module is made of."""
        root: nn.Module = self._root
        return set(map(id, (*root.modules(), *root.parameters(), *root.buffers())))

    def _tensor(self, value: Tensor, where: str) -> Tensor:
        """What ``convert`` makes of a tensor; a parameter keeps its gradient hooks."""
        tensor = self._convert(value)
        if not isinstance(value, nn.Parameter):
            return self._attributed(value, tensor, where)
        hooks = [self.part(hook, where) for hook in (value._backward_hooks or {}).values()]
        done = getattr(value, "_post_accumulate_grad_hooks", None) or {}
        after = [self.part(hook, where) for hook in done.values()]
        if tensor is value:
            return self._attributed(value, value, where)
        wants = value.requires_grad and tensor.is_floating_point()
        parameter = nn.Parameter(tensor, requires_grad=wants)
        for hook in hooks if wants else ():
            parameter.register_hook(hook)
        for hook in after if wants else ():
            parameter.register_post_accumulate_grad_hook(hook)
        return self._attributed(value, parameter, where)

    def _attributed(self, value: Tensor, new: Tensor, where: str) -> Tensor:
        """The copy of a tensor, with what the user has hung on the tensor."""
        for name in vars(value):
            self.later(functools.partial(self._hang, value, new, name, f"{where}.{name}"))
        return new

    def _hang(self, value: Tensor, new: Tensor, name: str, where: str) -> None:
        part = self.part(vars(value)[name], where)
        if new is not value:
            vars(new)[name] = part

    def _module(self, value: nn.Module, where: str) -> Any:
        inner = inner_of(value)
        if inner is None:
            return self._object(value, where)
        new: Any = self.kept(value, Unwrapped.__new__(Unwrapped))
        state = {**nn.Module().__dict__, "training": value.training, "inner_name": inner}
        new.__dict__.update(state)
        new.__dict__["_modules"] = self.part(value._modules, where)
        return new

    def _object(self, value: Any, where: str) -> Any:
        """An object of attributes and slots, and what it holds as the container that it
        may be.
        """
        kind = type(value)
        base = next(base for base in _BASES if issubclass(kind, base))
        try:
            new = base.__new__(kind)
        except TypeError:
            return self.rebuilt(value, where)
        if base is object and next(state_of(value), None) is None:
            if hides_state(kind):
                return self.rebuilt(value, where)
            self.alike[id(value)] = value  # it is what it is by identity
            return value
        self.kept(value, new)
        was_beyond = self._is_beyond
        self._is_beyond = not isinstance(value, nn.Module) and (was_beyond or base is object)
        self.later(lambda: self._fill(value, new, base, where))
        self._is_beyond = was_beyond
        return new

    def _fill(self, value: Any, new: Any, base: Any, where: str) -> None:
        for name, item, put in state_of(value):
            # of module.compile(): it would run the original
            is_compiled = name == "_compiled_call_impl" and isinstance(value, nn.Module)
            put(new, None if is_compiled else self.part(item, f"{where}.{name}"))
        if base is defaultdict:
            new.default_factory = self.part(value.default_factory, f"{where}.default_factory")
        if base in (list, deque):
            self._items(value, new, base, where)
        elif base is not object:
            hashed = base.keys(value) if issubclass(base, dict) else value
            is_plain = all(type(key) in ATOMS for key in hashed)
            # what is hashed by its content must have it first
            fill = functools.partial(self._hashed, value, new, base, where)
            self.later(fill, is_last=not is_plain)

    def _items(self, value: Any, new: Any, base: Any, where: str) -> None:
        items = [self.part(item, f"{where}[{i}]") for i, item in enumerate(base.__iter__(value))]
        if base is deque and value.maxlen is not None:
            deque.__init__(new, items, value.maxlen)
        else:
            base.extend(new, items)

    def _hashed(self, value: Any, new: Any, base: Any, where: str) -> None:
        if base is set:
            for item in set.__iter__(value):
                set.add(new, self.part(item, where))
            return
        for key, item in base.items(value):
            at = f"{where}.{key}" if isinstance(key, str) else f"{where}[...]"
            base.__setitem__(new, self.part(key, where), self.part(item, at))

    def _frozen(self, value: Any, where: str) -> Any:
        """A tuple or a frozen set: shared if nothing in it changes."""
        base = tuple if isinstance(value, tuple) else frozenset
        items = [self.part(item, f"{where}[{i}]") for i, item in enumerate(base.__iter__(value))]
        if all(new is old for new, old in zip(items, base.__iter__(value), strict=True)):
            return value
        try:
            new = base.__new__(type(value), items)
        except TypeError:
            return self.rebuilt(value, where)
        for name, item, put in state_of(value):
            put(new, self.part(item, f"{where}.{name}"))
        return new

    def rebuilt(self, value: Any, where: str) -> Any:
        """Return an object that is made anew as pickle does it; or the object itself:
        then it is foreign.
        """

        def kept(new: Any) -> Any:
            return self.kept(value, new)

        try:
            return rebuilt(value, lambda part: self._at_once(part, where), kept)
        except Exception:
            self.foreign.setdefault(where, value)
            return value

    def _at_once(self, value: Any, where: str) -> Any:
        """Return a copy that is whole already: who is given it looks into it."""
        waiting, last, is_beyond = self._waiting, self._last, self._is_beyond
        self._waiting, self._last = [], []
        new = self._whole(value, where)
        self._waiting, self._last, self._is_beyond = waiting, last, is_beyond
        return new


_WAYS: tuple[tuple[Any, Callable[[Copies, Any, str], Any]], ...] = (
    (Tensor, Copies._tensor),
    (nn.Module, Copies._module),
    ((tuple, frozenset), Copies._frozen),
    *WAYS,
)
"""How each kind of object is copied, the more special first; others by `_object`."""
