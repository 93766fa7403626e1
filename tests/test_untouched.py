"""The user's model, and every random state, leave as they came: after each entry point, also when one raises half-way."""

from __future__ import annotations

import collections
import contextlib
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from support.styles import STYLES, mlp, seeded
from support.untouched import assert_same, random_states, state
from torch import nn

import initdiag
from initdiag import InitdiagError


class Stateful(nn.Module):
    """Writes attributes, mutates its input, uses BatchNorm, dropout and a user's hook."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)
        self.norm, self.drop = nn.BatchNorm1d(12), nn.Dropout(0.5)
        self.count, self.kept = 0, []
        self.drop.eval()
        self.a.register_forward_hook(lambda module, args, out: out + 0)

    def forward(self, x):
        self.count += 1
        self.kept.append(x)
        x.mul_(2)
        random.random()
        np.random.rand()
        return self.b(self.drop(self.norm(self.a(x)).relu_()))


class Raises(Stateful):
    def forward(self, x):
        super().forward(x)
        raise ValueError("half-way")


ENTRIES = {
    "trace": lambda m, x: initdiag.trace(m, x),
    "measure signs": lambda m, x: initdiag.measure(m, x, draws=8),
    "measure redraw": lambda m, x: initdiag.measure(m, x, draws=3, method="redraw"),
    "measure spectrum": lambda m, x: initdiag.measure_spectrum(m, x, draws=2),
    "measure spectrum by products": lambda m, x: initdiag.measure_spectrum(
        m, x, draws=2, method="redraw", dense=False
    ),
    "diagnose": lambda m, x: initdiag.diagnose(m, x, draws=8),
    "check": lambda m, x: initdiag.check(m, x, draws=8),
    "trial": lambda m, x: initdiag.diagnose(
        m, x, method="none", trial=3, optimizer=torch.optim.Adam(m.parameters(), lr=1e-3)
    ),
    "assert_trainable": lambda m, x: initdiag.assert_trainable(m, x, draws=8),
}
MODELS = {
    "chain": lambda: mlp([6, 12, 3]),
    "stateful": Stateful,
    "stateful, eval": lambda: Stateful().eval(),
    "raises": Raises,
    "bfloat16": lambda: mlp([6, 12, 3]).to(torch.bfloat16),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_nothing_changes(entry, build, capsys):
    model = seeded(build)
    x = torch.randn(5, 6, dtype=next(model.parameters()).dtype)
    (model.a(x) if isinstance(model, Stateful) else model(x)).sum().backward()
    before, inputs, states = state(model), x.clone(), random_states()
    with contextlib.suppress(InitdiagError):
        entry(model, x)
    assert_same(before, state(model))
    assert torch.equal(x, inputs)
    assert x._version == 0
    for old, new in zip(states, random_states(), strict=True):
        assert (
            np.array_equal(old, new) if isinstance(old, np.ndarray | torch.Tensor) else old == new
        )
    if isinstance(model, Stateful):
        assert model.count == 0
        assert model.kept == []


def test_an_interrupt_changes_nothing():
    class Interrupted(Stateful):
        def forward(self, x):
            super().forward(x)
            raise KeyboardInterrupt

    model = seeded(Interrupted)
    before, states = state(model), random_states()
    with pytest.raises(KeyboardInterrupt):
        initdiag.check(model, torch.ones(4, 6))
    assert_same(before, state(model))
    assert torch.equal(states[0], torch.get_rng_state())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_any_grad_mode_gives_the_same(mode):
    style = STYLES[0]
    expected = initdiag.measure(seeded(style.build), draws=16).log_norms
    with mode():
        model = seeded(style.build)
        before = [p.clone() for p in model.parameters()]
        found = initdiag.measure(model, draws=16).log_norms
        assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    np.testing.assert_array_equal(found, expected)


def test_two_threads_on_one_model():
    model = seeded(STYLES[1].build)
    expected = initdiag.measure(model, draws=256).log_norms
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(initdiag.measure(model, draws=256).log_norms))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for values in found:
        np.testing.assert_array_equal(values, expected)


def test_a_custom_default_dtype_is_kept():
    model = seeded(lambda: mlp([6, 12, 3]))
    torch.set_default_dtype(torch.float64)
    try:
        assert initdiag.diagnose(model, draws=64).measurement.dead_fraction == 0
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


SHOWN = {
    "str": "str(report)",
    "the rich protocol": "report.__rich__()",
    "html": "report.to_html()",
    "assert_trainable": "try:\n    initdiag.assert_trainable(model, draws=8)\nexcept initdiag.AtRisk:\n    pass",
    "check": "initdiag.check(model, draws=8)",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", SHOWN)
def test_the_first_report_that_is_shown_leaves_pythons_random_numbers(how):
    code = (
        "import random, initdiag\nfrom torch import nn\n"
        "model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(20)])\n"
        "report = initdiag.diagnose(model, draws=8)\n"
        "random.seed(1)\nbefore = random.getstate()\n"
        f"{SHOWN[how]}\nassert random.getstate() == before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


Pair = collections.namedtuple("Pair", "first second")


class Held:
    """An object that holds tensors, and something foreign."""

    def __init__(self, foreign):
        self.tensor, self.many, self.foreign = torch.zeros(6), {"a": [torch.zeros(6)]}, foreign


class Mine(dict):
    """A dict of the user's own, with an attribute."""


class Holder(nn.Module):
    """Tensors in places that no state dict shows, written to in the forward pass; and a layer in a list."""

    def __init__(self):
        super().__init__()
        self.a, self.hidden = nn.Linear(6, 6), [nn.Linear(6, 6)]
        self.pair = Pair(torch.zeros(6), [torch.zeros(6)])
        self.by_name = collections.defaultdict(list, known=[torch.zeros(6)])
        self.recent = collections.deque([torch.zeros(6)], maxlen=2)
        self.mine = Mine(known=torch.zeros(6))
        self.mine.attribute = torch.zeros(6)
        self.held = Held(foreign=threading.Lock())
        self.cycle = [self]
        self.cycle.append(self.cycle)

    def forward(self, x):
        for tensor in self.tensors():
            tensor.add_(1)
        self.by_name["new"].append(x)
        self.recent.append(x)
        assert self.cycle[0] is self
        assert self.cycle[1] is self.cycle
        return self.hidden[0](self.a(x).relu())

    def tensors(self):
        return [
            self.pair.first, self.pair.second[0], self.by_name["known"][0], self.recent[0], self.mine["known"],
            self.mine.attribute, self.held.tensor, self.held.many["a"][0],
        ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:held.foreign")
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_tensors_in_containers_and_objects_are_not_touched(entry, capsys):
    model, x = seeded(Holder), torch.randn(5, 6)
    with contextlib.suppress(InitdiagError):
        entry(model, x)
    assert all(tensor._version == 0 and not tensor.any() for tensor in model.tensors())
    assert set(model.by_name) == {"known"}
    assert len(model.recent) == 1


def test_what_is_foreign_is_shared():
    from initdiag.tracing.replica import copied, replica

    model = seeded(Holder)
    copy = replica(model, copied)
    assert copy.held.foreign is model.held.foreign
    assert type(copy.pair) is Pair
    assert copy.by_name.default_factory is list
    assert copy.recent.maxlen == 2
    assert type(copy.mine) is Mine
    assert copy.hidden[0] is not model.hidden[0]
    assert torch.equal(copy.hidden[0].weight, model.hidden[0].weight)
