"""Further kinds of state that a forward pass may write to, as `support.live_state` has them: stranger
holders, settings of the process that are seldom touched, and what nothing can copy.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import decimal
import enum
import functools
import hashlib
import io
import itertools
import logging
import socket
import sqlite3
import sys
import threading
import types
import weakref
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from support.live_state import Counter, Kind, _give, _setting


class Mode(enum.Enum):
    """Its members hold what changes."""

    A = "a"


class Meta(type):
    calls = 0


class Made(metaclass=Meta):
    """Its state belongs to its class's class."""


class Registered:
    """A descriptor that keeps values by weak keys, outside of the objects."""

    values: ClassVar[Any] = weakref.WeakKeyDictionary()

    def __get__(self, owner, kind=None):
        return self.values.get(owner, 0)

    def __set__(self, owner, value):
        self.values[owner] = value


class Owner:
    step = Registered()


class Hidden:
    """Slots beside a ``__dict__``, one of a mangled name."""

    __slots__ = ("__count", "__dict__")

    def __init__(self):
        self.__count, self.more = 0, 0

    def step(self):
        self.__count += 1
        self.more += 1
        return self.__count

    def read(self):
        return self.__count, self.more


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    rows: list[int]


class Pair(collections.namedtuple("Pair", "a b")):
    """A tuple with attributes."""


class NoCopies:
    """Refuses every kind of copy."""

    def __init__(self):
        self.count = 0

    def __deepcopy__(self, memo):
        raise RuntimeError("not copied")

    def __reduce_ex__(self, protocol):
        raise RuntimeError("not pickled")


def counted(function):
    """A decorator that counts in its closure and in an attribute of its function."""
    count = 0

    @functools.wraps(function)
    def run(*args):
        nonlocal count
        count += 1
        run.calls += 1
        return function(*args)

    run.calls = 0
    run.count = lambda: count
    return run


@counted
def decorated(x):
    return x


@functools.lru_cache
def cached(number):
    return [number]


def _hooked(counter, gradient):
    counter.count += 1


def _attribute(m):
    m.first.weight.steps = m.first.weight.steps + 1
    m.first.weight.owner.append(1)


def _optimizer(m):
    loss = m.first(torch.ones(1, 6)).sum()
    loss.backward()
    m.opt.step()


LOG = logging.getLogger("a user's own")
HERE = types.ModuleType("a users own module")
HERE.step = 0
ROWS = torch.zeros(2)
ITEMS = {"own": torch.Generator().manual_seed(3)}


def _step(name, method="step"):
    return lambda m: getattr(getattr(m, name), method)()


def _take(name):
    return lambda m: next(getattr(m, name))


def _own_class(m):
    class Other(type(m)):
        pass

    m.__class__ = Other


def _print_options(value):
    np.set_printoptions(precision=value)


STRANGE: dict[str, Kind] = {
    "attribute of a parameter": Kind(
        lambda m: (setattr(m.first.weight, "steps", 0), setattr(m.first.weight, "owner", [m])),
        _attribute,
        lambda m: (m.first.weight.steps, m.first.weight.owner[0] is m, len(m.first.weight.owner)),
    ),
    "module object": Kind(
        _give(config=lambda m: HERE), lambda m: setattr(m.config, "step", m.config.step + 1), lambda m: HERE.step
    ),
    "member of an enumeration": Kind(
        lambda m: setattr(Mode.A, "count", 0),
        lambda m: setattr(Mode.A, "count", Mode.A.count + 1),
        lambda m: Mode.A.count,
    ),
    "metaclass": Kind(
        lambda m: None, lambda m: setattr(Meta, "calls", Meta.calls + 1), lambda m: Meta.calls
    ),
    "descriptor with weak keys": Kind(
        _give(owner=lambda m: Owner()),
        lambda m: setattr(m.owner, "step", m.owner.step + 1),
        lambda m: (m.owner.step, len(Registered.values) > 5),
    ),
    "slots and a dict": Kind(_give(hidden=lambda m: Hidden()), _step("hidden"), lambda m: m.hidden.read()),
    "frozen record of a list": Kind(
        _give(frozen=lambda m: Frozen([])), lambda m: m.frozen.rows.append(1), lambda m: len(m.frozen.rows)
    ),
    "tuple with attributes": Kind(
        lambda m: (setattr(m, "pair", Pair([], 1)), setattr(m.pair, "n", 0)),
        lambda m: (m.pair.a.append(1), setattr(m.pair, "n", m.pair.n + 1)),
        lambda m: (len(m.pair.a), m.pair.n),
    ),
    "object that refuses copies": Kind(
        _give(stubborn=lambda m: NoCopies()),
        lambda m: setattr(m.stubborn, "count", m.stubborn.count + 1),
        lambda m: m.stubborn.count,
    ),
    "decorated function": Kind(
        lambda m: None, lambda m: decorated(1), lambda m: (decorated.calls, decorated.count())
    ),
    "function's own attribute, held": Kind(
        _give(held_function=lambda m: counted(lambda x: x)),
        lambda m: m.held_function(1),
        lambda m: (m.held_function.calls, m.held_function.count()),
    ),
    "cache of a held function": Kind(
        _give(table=lambda m: functools.lru_cache(lambda n: [n])),
        lambda m: m.table(next(NUMBERS)).append(1),
        lambda m: m.table.cache_info().currsize,
    ),
    "logger": Kind(
        lambda m: None,
        lambda m: (LOG.setLevel(LOG.level + 1), LOG.filters.append(1)),
        lambda m: (LOG.level, len(LOG.filters)),
    ),
    "counter and chain of dicts": Kind(
        _give(tally=lambda m: collections.Counter(), chained=lambda m: collections.ChainMap({}, {"a": 1})),
        lambda m: (m.tally.update("ab"), m.chained.__setitem__(len(m.chained), 1)),
        lambda m: (dict(m.tally), dict(m.chained)),
    ),
    "ordered dict and user's dict": Kind(
        _give(order=lambda m: collections.OrderedDict(a=1, b=2), user=lambda m: collections.UserDict()),
        lambda m: (m.order.move_to_end("a"), m.order.__setitem__(len(m.order), 1), m.user.__setitem__("n", len(m.order))),
        lambda m: (list(m.order), dict(m.user)),
    ),
    "keys that are parameters": Kind(
        _give(by_weight=lambda m: {m.first.weight: 0}, seen=lambda m: {m.first}),
        lambda m: (m.by_weight.__setitem__(m.first.weight, m.by_weight[m.first.weight] + 1), m.seen.add(Counter())),
        lambda m: (list(m.by_weight.values()), len(m.seen)),
    ),
    "weak set and weak keys": Kind(
        _give(kept=lambda m: Counter(), weak_set=lambda m: weakref.WeakSet(), weak_keys=lambda m: weakref.WeakKeyDictionary()),
        lambda m: (m.weak_set.add(m.kept), m.weak_keys.__setitem__(m.kept, m.weak_keys.get(m.kept, 0) + 1)),
        lambda m: (len(m.weak_set), list(m.weak_keys.values())),
    ),
    "iterators of iterators": Kind(
        _give(
            zipped=lambda m: zip(itertools.count(), iter(range(9999)), strict=False),
            numbered=lambda m: enumerate(itertools.cycle([1, 2])),
            backwards=lambda m: reversed(list(range(9999))),
        ),
        lambda m: (next(m.zipped), next(m.numbered), next(m.backwards)),
        lambda m: m.backwards.__length_hint__(),
    ),
    "text and bytes in memory": Kind(
        _give(lines=lambda m: io.StringIO(), raw_bytes=lambda m: io.BytesIO()),
        lambda m: (m.lines.write("x"), m.raw_bytes.write(b"x")),
        lambda m: (m.lines.getvalue(), m.raw_bytes.getvalue(), m.lines.tell()),
    ),
    "optimiser of its own": Kind(
        lambda m: object.__setattr__(m, "opt", torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)),
        _optimizer,
        lambda m: (len(m.opt.state), m.opt.param_groups[0]["params"][0] is m.first.weight),
    ),
    "module that is not registered": Kind(
        _give(others=lambda m: [nn.BatchNorm1d(6)]),
        lambda m: m.others[0](torch.randn(4, 6)),
        lambda m: (m.others[0].running_mean.tolist(), m.others[0].num_batches_tracked.item()),
    ),
    "hooks added in a pass": Kind(
        lambda m: None,
        lambda m: m.second.register_forward_hook(lambda *a: None),
        lambda m: len(m.second._forward_hooks),
    ),
    "hooks of all modules": Kind(
        lambda m: None,
        lambda m: nn.modules.module.register_module_forward_pre_hook(lambda *a: None),
        lambda m: len(nn.modules.module._global_forward_pre_hooks),
        lambda: nn.modules.module._global_forward_pre_hooks.clear(),
    ),
    "attribute that comes and goes": Kind(
        _give(gone=lambda m: 1),
        lambda m: (m.__dict__.pop("gone", None), setattr(m, "came", 1)),
        lambda m: (hasattr(m, "gone"), hasattr(m, "came")),
    ),
    "class of the module": Kind(lambda m: None, _own_class, lambda m: type(m).__name__),
    "buffer added in a pass": Kind(
        lambda m: None,
        lambda m: m.register_buffer(f"b{len(m._buffers)}", torch.zeros(1)),
        lambda m: len(m._buffers),
    ),
    "two names of one list": Kind(
        lambda m: (setattr(m, "one", []), setattr(m, "two", m.one)),
        lambda m: m.one.append(len(m.two)),
        lambda m: (list(m.one), m.one is m.two),
    ),
    "numpy's bit generator": Kind(
        _give(bits=lambda m: np.random.PCG64(1)), lambda m: m.bits.random_raw(), lambda m: m.bits.state
    ),
    "structured and masked arrays": Kind(
        _give(
            table_of=lambda m: np.zeros(2, dtype=[("a", "i4")]),
            masked=lambda m: np.ma.masked_array(np.zeros(2), [True, False]),
        ),
        lambda m: (m.table_of["a"].__iadd__(1), m.masked.__setitem__(1, m.masked[1] + 1)),
        lambda m: (m.table_of.tolist(), m.masked.tolist()),
    ),
    "tensor and generator of a global": Kind(
        lambda m: None,
        lambda m: (ROWS.add_(1), torch.rand(1, generator=ITEMS["own"])),
        lambda m: (ROWS.tolist(), ITEMS["own"].get_state().tolist()),
    ),
    "tensor of a class": Kind(
        lambda m: setattr(type(m), "bank_of_class", torch.zeros(2)) if not hasattr(type(m), "bank_of_class") else None,
        lambda m: type(m).bank_of_class.add_(1),
        lambda m: type(m).bank_of_class.tolist(),
    ),
    "tensor hooks": Kind(
        lambda m: (setattr(m, "hook_of", Counter()), m.second.weight.register_hook(functools.partial(_hooked, m.hook_of))),
        lambda m: next(iter(m.second.weight._backward_hooks.values()))(None),
        lambda m: m.hook_of.count,
    ),
    "errors that were kept": Kind(
        _give(errors=lambda m: []), lambda m: m.errors.append(ValueError(m)), lambda m: len(m.errors)
    ),
    "numpy's print options": _setting(
        lambda: np.get_printoptions()["precision"],
        lambda: _print_options(3),
        lambda: _print_options(8),
    ),
    "torch's print options": _setting(
        lambda: torch._tensor_str.PRINT_OPTS.precision,
        lambda: torch.set_printoptions(precision=7),
        lambda: torch.set_printoptions(profile="default"),
    ),
    "grad mode": _setting(
        torch.is_grad_enabled, lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)
    ),
    "decimal context": _setting(
        lambda: decimal.getcontext().prec,
        lambda: setattr(decimal.getcontext(), "prec", 9),
        lambda: setattr(decimal.getcontext(), "prec", 28),
    ),
    "sys.path": _setting(lambda: list(sys.path), lambda: sys.path.append("/nowhere"), lambda: sys.path.remove("/nowhere") if "/nowhere" in sys.path else None),
    "tf32 and mkldnn": _setting(
        lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.mkldnn.enabled),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", False),
    ),
}  # fmt: skip
"""What has to be as it was."""

NUMBERS = itertools.count()

FOREIGN: dict[str, tuple[str, Kind]] = {
    "generator of Python's": ("stream", Kind(_give(stream=lambda m: (i for i in range(10**9))), _take("stream"), lambda m: m.stream.gi_frame.f_locals.get("i"))),
    "socket": ("sockets", Kind(_give(sockets=lambda m: socket.socketpair()), lambda m: m.sockets[0].send(b"x"), lambda m: None)),
    "database": ("database", Kind(_give(database=lambda m: sqlite3.connect(":memory:")), lambda m: m.database.execute("select 1"), lambda m: m.database.total_changes)),
    "hash": ("digest", Kind(_give(digest=lambda m: hashlib.md5()), lambda m: m.digest.update(b"x"), lambda m: m.digest.hexdigest())),
    "lock": ("lock", Kind(_give(lock=lambda m: threading.Lock()), lambda m: m.lock.acquire(blocking=False), lambda m: m.lock.locked())),
    "writer of a text in memory": ("rows_of", Kind(
        lambda m: (setattr(m, "text", io.StringIO()), setattr(m, "rows_of", csv.writer(m.text))),
        lambda m: m.rows_of.writerow([1]), lambda m: m.text.getvalue(),
    )),
    "memory view": ("view", Kind(
        lambda m: (setattr(m, "bytes_of", bytearray(2)), setattr(m, "view", memoryview(m.bytes_of))),
        lambda m: m.view.__setitem__(0, (m.view[0] + 1) % 256), lambda m: bytes(m.bytes_of),
    )),
    "thread's own": ("local", Kind(
        lambda m: (setattr(m, "local", threading.local()), setattr(m.local, "n", 0)),
        lambda m: setattr(m.local, "n", getattr(m.local, "n", 0) + 1), lambda m: m.local.n,
    )),
    "file": ("file", Kind(_give(file=lambda m: open("/dev/null", "w")), lambda m: m.file.write("x"), lambda m: m.file.closed)),  # noqa: SIM115
}  # fmt: skip
"""What can be neither copied nor put back: the attribute that has to be named, and its kind."""
