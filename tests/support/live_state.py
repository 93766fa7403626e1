"""Kinds of state that a forward pass may write to, and modules that hold them."""

from __future__ import annotations

import array
import collections
import functools
import itertools
import random
import sys
import types
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Kind:
    """One kind of state: how a module is given it, how its forward pass writes to it, and
    what of it can be compared. ``undo`` takes back what is the process's, after a test.
    """

    give: Callable[[Any], None]
    write: Callable[[Any], object]
    read: Callable[[Any], object]
    undo: Callable[[], object] = lambda: None


class Deque(collections.deque):
    """A subclass, with an attribute."""


class Set(set):
    """A subclass, with an attribute."""


class List(list):
    """A subclass, with an attribute."""


class Slots:
    __slots__ = ("__weakref__", "count", "model")

    def __init__(self, model):
        self.model, self.count = model, 0


class Counter:
    """A plain object whose methods are hooks."""

    def __init__(self, model=None):
        self.count, self.model = 0, model

    def hook(self, module, args, out):
        self.count += 1
        scale(self.model)

    def step(self):
        self.count += 1


class Table:
    """Its state belongs to the class."""

    calls = 0
    seen: list[int] = []  # noqa: RUF012

    @classmethod
    def write(cls):
        cls.calls += 1
        cls.seen.append(cls.calls)


TALLY = {"count": 0}


def scale(model):
    """Change a weight of the model that someone leads to."""
    if model is not None:
        model.first.weight.data.mul_(1.0001)


def _tally(_model):
    global COUNT
    COUNT += 1
    TALLY["count"] += 1


COUNT = 0


def _closure(model):
    count, history = 0, []

    def step():
        nonlocal count
        count += 1
        history.append(count)
        scale(model)
        return count

    model.closure = step
    model.closure_read = lambda: (count, list(history))


def _default(model):
    def step(history=[], *, more={}):  # noqa: B006
        history.append(1)
        more[len(history)] = 1
        return history, more

    model.default = step


def _partial_hook(model):
    def hook(counter, _module, _args, _out):
        counter.count += 1
        scale(counter.model)

    model.hook_counter = Counter(model)
    model.second.register_forward_hook(functools.partial(hook, model.hook_counter))


def _model_hook(model):
    def hook(_module, _args):
        model.hooked += 1

    model.hooked = 0
    model.second.register_forward_pre_hook(hook)


def _weak(model):
    model.weak_target = Counter(model)
    model.weak = weakref.ref(model.weak_target)
    model.proxy = weakref.proxy(model.weak_target)
    model.by_weak = weakref.WeakValueDictionary(one=model.weak_target)


def _use_weak(model):
    model.weak().step()
    model.proxy.step()
    model.by_weak["one"].step()
    scale(model.weak().model)


def _sub(name, value):
    def give(model):
        value_ = value()
        value_.count = 0
        setattr(model, name, value_)

    return give


def _grow(name, method):
    def write(model):
        held = getattr(model, name)
        held.count += 1
        getattr(held, method)(held.count)

    return write


def _content(name):
    return lambda model: (sorted(getattr(model, name)), getattr(model, name).count)


def _fill(name):
    def write(model):
        getattr(model, name)[0] += 1

    return write


def _list_of(name):
    return lambda model: np.asarray(getattr(model, name)).tolist()


def _give(**makers):
    def give(model):
        for name, make in makers.items():
            setattr(model, name, make(model))

    return give


def _object_array(model):
    model.objects = np.empty(1, dtype=object)
    model.objects[0] = Counter(model)


def _deterministic(is_on):
    # the like of torch.use_deterministic_algorithms, which first takes seconds of imports
    torch.set_deterministic_debug_mode("warn" if is_on else "default")
    torch.backends.cudnn.deterministic = is_on


def _setting(get, change, usual):
    return Kind(lambda model: None, lambda model: change(), lambda model: get(), usual)


KINDS: dict[str, Kind] = {
    "plain object that leads to the model": Kind(
        _give(trainer=lambda m: types.SimpleNamespace(model=m, step=0)),
        lambda m: (setattr(m.trainer, "step", m.trainer.step + 1), scale(m.trainer.model)),
        lambda m: m.trainer.step,
    ),
    "objects that lead to each other": Kind(
        _give(outer=lambda m: types.SimpleNamespace(inner=Counter(m))),
        lambda m: (m.outer.inner.step(), scale(m.outer.inner.model)),
        lambda m: m.outer.inner.count,
    ),
    "slots": Kind(
        _give(slots=Slots),
        lambda m: (setattr(m.slots, "count", m.slots.count + 1), scale(m.slots.model)),
        lambda m: m.slots.count,
    ),
    "bound method": Kind(
        _give(bound=lambda m: Counter(m).step), lambda m: m.bound(), lambda m: m.bound.__self__.count
    ),
    "closure": Kind(_closure, lambda m: m.closure(), lambda m: m.closure_read()),
    "defaults of a function": Kind(
        _default, lambda m: m.default(), lambda m: repr((m.default.__defaults__, m.default.__kwdefaults__))
    ),
    "partial hook": Kind(_partial_hook, lambda m: None, lambda m: m.hook_counter.count),
    "hook that holds the model": Kind(_model_hook, lambda m: None, lambda m: m.hooked),
    "weak references": Kind(_weak, _use_weak, lambda m: m.weak_target.count),
    "torch generator": Kind(
        _give(own_torch=lambda m: torch.Generator().manual_seed(1)),
        lambda m: torch.rand(3, generator=m.own_torch),
        lambda m: m.own_torch.get_state().tolist(),
    ),
    "numpy generator": Kind(
        _give(own_numpy=lambda m: np.random.default_rng(1)),
        lambda m: m.own_numpy.normal(),
        lambda m: m.own_numpy.bit_generator.state,
    ),
    "numpy random state": Kind(
        _give(old_numpy=lambda m: np.random.RandomState(1)),
        lambda m: m.old_numpy.normal(),
        lambda m: m.old_numpy.get_state()[1].tolist(),
    ),
    "generators in an object": Kind(
        _give(sampler=lambda m: types.SimpleNamespace(a=torch.Generator(), b=random.Random(1))),
        lambda m: (torch.rand(1, generator=m.sampler.a), m.sampler.b.random()),
        lambda m: (m.sampler.a.get_state().tolist(), m.sampler.b.getstate()),
    ),
    "random": Kind(
        _give(own_random=lambda m: random.Random(1)),
        lambda m: m.own_random.random(),
        lambda m: m.own_random.getstate(),
    ),
    "numpy array": Kind(_give(numbers=lambda m: np.zeros(3)), _fill("numbers"), _list_of("numbers")),
    "numpy array of objects": Kind(
        _object_array, lambda m: m.objects[0].step(), lambda m: m.objects[0].count
    ),
    "bytearray": Kind(
        _give(raw=lambda m: bytearray(3)),
        lambda m: m.raw.__setitem__(0, (m.raw[0] + 1) % 256),
        lambda m: bytes(m.raw),
    ),
    "array": Kind(
        _give(typed=lambda m: array.array("l", [0, 1])), _fill("typed"), lambda m: list(m.typed)
    ),
    "itertools": Kind(
        _give(steps=lambda m: itertools.count()), lambda m: next(m.steps), lambda m: repr(m.steps)
    ),
    "iterator": Kind(
        _give(rest=lambda m: iter(range(10_000))),
        lambda m: next(m.rest),
        lambda m: m.rest.__length_hint__(),
    ),
    "deque of one's own": Kind(_sub("recent", Deque), _grow("recent", "append"), _content("recent")),
    "set of one's own": Kind(_sub("known", Set), _grow("known", "add"), _content("known")),
    "list of one's own": Kind(_sub("rows", List), _grow("rows", "append"), _content("rows")),
    "class attributes": Kind(
        lambda m: setattr(type(m), "forwards", 0),
        lambda m: (setattr(type(m), "forwards", type(m).forwards + 1), Table.write()),
        lambda m: (type(m).forwards, Table.calls, list(Table.seen)),
    ),
    "globals": Kind(lambda m: None, _tally, lambda m: (COUNT, dict(TALLY))),
    "tensor in an object": Kind(
        _give(bank=lambda m: types.SimpleNamespace(rows=torch.zeros(3))),
        lambda m: m.bank.rows.add_(1),
        lambda m: (m.bank.rows.tolist(), m.bank.rows._version),
    ),
    "warnings.filters": _setting(
        lambda: list(warnings.filters),
        lambda: warnings.simplefilter("ignore", UserWarning),
        lambda: None,
    ),
    "default dtype": _setting(
        torch.get_default_dtype,
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "deterministic flags": _setting(
        lambda: (
            torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
        ),
        lambda: _deterministic(True),
        lambda: _deterministic(False),
    ),
    "thread count": _setting(
        torch.get_num_threads,
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        lambda: torch.set_num_threads(1),
    ),
    "recursion limit": _setting(
        sys.getrecursionlimit,
        lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
        lambda: sys.setrecursionlimit(1000),
    ),
}  # fmt: skip


class Fault(Exception):
    """What a forward pass raises on purpose."""


PASSES = [0]
"""Forward passes so far, of all replicas of all modules."""


class Live(nn.Module):
    """A chain whose forward pass writes to what it holds, and fails at one pass."""

    def __init__(self, kinds: dict[str, Kind], fault: int | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.kinds, self.fault = kinds, fault
        for kind in kinds.values():
            kind.give(self)

    def forward(self, x):
        for kind in self.kinds.values():
            kind.write(self)
        PASSES[0] += 1
        if PASSES[0] == self.fault:
            raise Fault
        return self.second(self.first(x).relu())

    def read(self) -> dict[str, object]:
        """Return everything that can be compared, by kind."""
        tensors = {name: (t.tolist(), t._version) for name, t in self.named_parameters()}
        return {name: kind.read(self) for name, kind in self.kinds.items()} | tensors
