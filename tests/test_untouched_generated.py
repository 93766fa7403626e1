"""Modules, made at random of what a forward pass may write to, by every entry point: nothing of
them is touched, whether they run or fail at the first, second or fifth pass.

The whole (150 modules x every entry point x 4 faults): ``pytest -m evidence tests/test_untouched_generated.py``.
"""

from __future__ import annotations

import contextlib
import random

import pytest
import torch
from support.live_state import KINDS, PASSES, Fault, Live
from support.strange_state import STRANGE
from support.untouched import assert_same, random_states, state
from test_untouched_state import ENTRIES, steps_of
from torch import nn

import initdiag
from initdiag import InitdiagError

ALL = {**KINDS, **STRANGE}
REPAIRS = {
    f"repair {method}": lambda m, x, method=method: initdiag.repair(
        m, method, seed=1, example_input=x
    )
    for method in ("he_normal", "orthogonal", "rescale")
}
EVERY = {**ENTRIES, **REPAIRS}
FAULTS = (None, 1, 2, 5)
COUNT, SOME = 150, 120
"""Modules in all, and in the test that is not evidence."""


class Around(nn.Module):
    """A live module inside another, between layers, and hidden in a plain container, too."""

    def __init__(self, live: Live, is_residual: bool, is_twice: bool) -> None:
        super().__init__()
        self.before, self.live, self.after = nn.Linear(6, 6), live, nn.Linear(6, 6)
        self.hidden = {"live": [live]}
        self.is_residual, self.is_twice = is_residual, is_twice

    def forward(self, x):
        h = self.live(self.before(x))
        if self.is_twice:
            h = self.hidden["live"][0](h)
        return self.after(h + x if self.is_residual else h)


def generated(seed: int, fault: int | None) -> tuple[nn.Module, Live]:
    """A module and the live one in it: one to four kinds of state, in one of six places."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kinds = {name: ALL[name] for name in rng.sample(sorted(ALL), rng.randint(1, 4))}
    live = Live(kinds, fault)
    place = rng.choice(("alone", "list", "around", "residual", "twice", "norm"))
    model: nn.Module = live
    if place == "list":
        model = nn.Sequential(live, nn.ReLU(), nn.Linear(6, 3))
    elif place == "norm":
        model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), live, nn.Dropout(0.3))
    elif place != "alone":
        model = Around(live, place == "residual", place == "twice")
    if rng.random() < 0.3:
        model.eval()
    if rng.random() < 0.2:
        model.requires_grad_(False)
        model.get_parameter(next(iter(dict(model.named_parameters())))).requires_grad_()
    if rng.random() < 0.3:
        next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    return model, live


def touched(seed: int, entry: str, fault: int | None) -> list[str]:
    """Return what an entry point has changed of a generated module, or of the process."""
    model, live = generated(seed, fault)
    x = torch.randn(3, 6)
    before, held, states = state(model), live.read(), random_states()
    PASSES[0] = 0
    is_done = False
    try:
        with contextlib.suppress(InitdiagError, Fault):
            EVERY[entry](model, x)
            is_done = True
        after = live.read()
        if entry.startswith("repair") and is_done:
            names = {name for name, _ in live.named_parameters()}
            held, after = (
                {n: v for n, v in one.items() if n not in names} for one in (held, after)
            )
        else:
            assert_same(before, state(model))
        assert torch.equal(states[0], random_states()[0])
        assert states[2] == random_states()[2]
        return [name for name in held if held[name] != after[name]]
    except (AssertionError, RuntimeError) as error:
        return [f"{type(error).__name__}: {error}"]
    finally:
        for kind in live.kinds.values():
            kind.undo()
        torch.set_grad_enabled(True)


def cases() -> list[tuple[int, str, int | None]]:
    """Return some of the modules, each with one entry point and one fault; each pair comes once or more."""
    pairs = [(entry, fault) for entry in EVERY for fault in FAULTS]
    random.Random(1).shuffle(pairs)
    return [(seed, *pairs[seed % len(pairs)]) for seed in range(SOME)]


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """What is loaded on first use adds warning filters of its own."""
    steps_of(nn.Linear(1, 1))
    for name in initdiag.__all__:
        getattr(initdiag, name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_generated_modules_are_not_touched(capsys):
    wrong = {(seed, entry, fault): found for seed, entry, fault in cases()
             if (found := touched(seed, entry, fault))}  # fmt: skip
    assert wrong == {}


@pytest.mark.evidence
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", EVERY)
def test_every_module_by_every_entry_point_with_every_fault(entry, capsys):
    wrong = {(seed, fault): found for seed in range(COUNT) for fault in FAULTS
             if (found := touched(seed, entry, fault))}  # fmt: skip
    assert wrong == {}
