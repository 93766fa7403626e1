"""While an entry point works, the process is as its user left it afterwards: random
generators, settings, and what the model shares with its replica.

What can be neither copied nor put back is known before anything runs (`foreign`).
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from initdiag.errors import InvalidInput, explain
from initdiag.tracing import process
from initdiag.tracing.copies import Copies
from initdiag.tracing.keeper import Keeper
from initdiag.tracing.objects import fingerprint

__all__ = [
    "draws_at_random", "foreign", "look_at", "seed_generators", "seen_to_draw", "untouched",
    "watched",
]  # fmt: skip

T = TypeVar("T")

_ONE_AT_A_TIME = threading.RLock()

_IT_IS_SHARED = (
    "it can be neither copied nor put back, so that the forward passes that are run share it"
)
_IT_CHANGED = "it is too large to be copied, and the forward passes that were run have changed it"


class _Session:
    """What one entry point has to leave as it was."""

    def __init__(self, strict: bool, quiet: bool) -> None:
        self.foreign: dict[str, None] = {}
        self.is_random = threading.active_count() == 1
        self._strict, self._quiet = strict, quiet
        self._keeper = Keeper()
        self._data: list[tuple[str, Any, int]] = []
        self._kinds: set[type] = set()
        self._put_back_settings = process.as_it_is()
        self._random = process.random_states()

    def look_at(self, module: nn.Module) -> None:
        """Remember what a module shares with its replicas."""
        known = self._kinds.intersection(map(type, (module, module._modules.get("inner"))))
        if known:
            return  # a factory builds one after the other, and an adapter is around one
        self._kinds.add(type(module))
        copies = Copies(lambda tensor: tensor)
        copies.of(module)
        self._keeper.keep(
            *copies.classes.values(), *copies.functions.values(), *copies.alike.values()
        )
        self._data += [(_words(at), data, fingerprint(data)) for at, data in copies.data.items()]
        found = dict.fromkeys(map(_words, copies.foreign))
        self.foreign |= found
        if found and self._strict:
            raise InvalidInput(
                explain(
                    expected="a module that can be copied whole (strict)",
                    got=_few(found),
                    do="Set it aside while initdiag looks at the module.",
                )
            )
        if found and not self._quiet:
            warnings.warn(f"{_few(found)}: {_IT_IS_SHARED}", stacklevel=2)

    def changed(self) -> dict[str, None]:
        """Return the paths of what is shared for its size, and was written to."""
        return {at: None for at, data, was in self._data if fingerprint(data) != was}

    def put_back(self) -> None:
        """Leave all as it was."""
        self._keeper.put_back()
        self._put_back_settings()
        if self.is_random:
            process.set_random_states(self._random)
        if not self._quiet and (found := self.changed()):
            warnings.warn(f"{_few(found)}: {_IT_CHANGED}", stacklevel=2)


_INNER = re.compile(
    r"\._(?:modules|parameters|buffers)(?=\.)|\.(?:<closure>|__self__|__defaults__)"
)


def _words(path: str) -> str:
    """Return a path as the user would write it."""
    return _INNER.sub("", path).lstrip(".") or "the module itself"


def _few(found: dict[str, None]) -> str:
    names = ", ".join(list(found)[:3])
    return f"{names} and {len(found) - 3} more" if len(found) > 3 else names


_SESSION: ContextVar[_Session | None] = ContextVar("session", default=None)


@contextmanager
def untouched(*, strict: bool = False, quiet: bool = False) -> Iterator[None]:
    """Leave the process, and what models share with it, as they were.

    One thread at a time: random states, compilation stance and forward-mode levels
    belong to the process. Inside another one it does nothing.

    Parameters
    ----------
    strict : bool
        Refuse a module that leads to what can be neither copied nor put back.
    quiet : bool
        Do not warn of it: the caller says it.
    """
    with _ONE_AT_A_TIME:
        if _SESSION.get() is not None:
            yield
            return
        session = _Session(strict, quiet)
        token = _SESSION.set(session)
        try:
            yield
        finally:
            _SESSION.reset(token)
            session.put_back()


def look_at(module: nn.Module) -> None:
    """Remember what a module shares, before it runs.

    Raises
    ------
    InvalidInput
        If it leads to what is foreign, and the session is strict.
    """
    if (session := _SESSION.get()) is not None:
        session.look_at(module)


def foreign() -> tuple[str, ...]:
    """Return the paths of what can be neither copied nor put back, and of what is too
    large to be copied and has changed.
    """
    session = _SESSION.get()
    return () if session is None else tuple(session.foreign | session.changed())


def draws_at_random() -> None:
    """Say that what runs now draws from the generators of the process.

    Other threads may draw from them, too. So they are seeded and put back only where
    no other thread ran at the start, or where the user's code draws from them itself.
    """
    if (session := _SESSION.get()) is not None:
        session.is_random = True


def seed_generators(seed: int, *, is_used: bool = False) -> None:
    """Seed what the user's code draws from, where it does so; it is put back later."""
    if is_used:
        draws_at_random()
    if _may_seed():
        process.seed(seed)


def seen_to_draw(run: Callable[[], T]) -> tuple[T, bool]:
    """Run, and say whether that draws from the process's generators.

    Another thread may draw from them meanwhile. So what moved them is run again, and
    draws itself only if they move again.
    """
    if not _may_seed():
        return run(), _may_seed()  # it draws if it was seen to (`watched`)
    states = process.random_states()
    before = process.comparable(states)
    result = run()
    if process.comparable(process.random_states()) == before:
        return result, False
    process.set_random_states(states)
    return run(), process.comparable(process.random_states()) != before


def _may_seed() -> bool:
    session = _SESSION.get()
    return session is None or session.is_random


@contextmanager
def watched() -> Iterator[None]:
    """See whether a forward pass in this thread draws from the process's generators."""
    if _may_seed():
        yield
        return
    before = process.comparable(process.random_states())[1:]
    draws: Any = _Draws()  # type: ignore[no-untyped-call]
    with draws:
        yield
    if draws.found or process.comparable(process.random_states())[1:] != before:
        draws_at_random()


class _Draws(TorchDispatchMode):
    """Sees whether this thread draws without a generator of its own."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and given.get("generator") is None:
            self.found = True
        return func(*args, **given)
