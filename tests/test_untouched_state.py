"""What a forward pass writes to stays as it was, whatever kind of state it is, wherever it is
held, and also where a pass fails half-way; or it is named beforehand.
"""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
from support.live_state import KINDS, PASSES, Fault, Live
from support.untouched import assert_same, random_states, state
from torch import nn

import initdiag
from initdiag import InitdiagError, UnsupportedArchitecture

ENTRIES = {
    "trace": lambda m, x: initdiag.trace(m, x),
    "measure signs": lambda m, x: initdiag.measure(m, x, draws=4, method="signs"),
    "measure redraw": lambda m, x: initdiag.measure(m, x, draws=2, method="redraw"),
    "measure law": lambda m, x: initdiag.measure(m, x, draws=4, method="law"),
    "measure native": lambda m, x: initdiag.measure(m, x, draws=4, precision="native"),
    "measure_spectrum": lambda m, x: initdiag.measure_spectrum(m, x, draws=2),
    "measure_spectrum redraw": lambda m, x: initdiag.measure_spectrum(
        m, x, draws=2, method="redraw", dense=False
    ),
    "diagnose": lambda m, x: initdiag.diagnose(m, x, draws=4, spectrum=True),
    "diagnose redraw": lambda m, x: initdiag.diagnose(m, x, draws=2, method="redraw"),
    "check": lambda m, x: initdiag.check(m, x, draws=4),
    "trial": lambda m, x: initdiag.diagnose(m, x, method="none", trial=3, optimizer=steps_of(m)),
    "trial that fails": lambda m, x: initdiag.diagnose(
        m, x, method="none", trial=3, optimizer=steps_of(m), loss_fn=failing()
    ),
}


def steps_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def failing():
    """A loss of the model that raises at its second step."""
    calls = []

    def loss(model, x):
        calls.append(1)
        if len(calls) > 1:
            raise Fault
        return model(x).square().mean()

    return loss


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """What is loaded on first use, scipy among it, adds warning filters of its own.

    So does what torch loads with the first optimiser.
    """
    steps_of(nn.Linear(1, 1))
    for name in initdiag.__all__:
        getattr(initdiag, name)


def run(entry, kinds, fault):
    is_failing = entry is ENTRIES["trial that fails"]
    """Run an entry point on a module with this state; what it wrote to must be as it was."""
    torch.manual_seed(0)
    model, x = Live(kinds, fault), torch.randn(3, 6)
    try:
        before, held, states = state(model), model.read(), random_states()
        PASSES[0] = 0
        with contextlib.suppress(
            *((InitdiagError, Fault) if fault or is_failing else (UnsupportedArchitecture,))
        ):
            entry(model, x)
        after = model.read()
        assert {name for name in held if held[name] != after[name]} == set()
        assert_same(before, state(model))
        assert torch.equal(states[0], random_states()[0])
        assert states[2] == random_states()[2]
    finally:
        for kind in kinds.values():
            kind.undo()


@pytest.mark.parametrize("fault", [None, 1, 2, 5])
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_all_kinds_at_once(entry, fault, capsys):
    run(entry, KINDS, fault)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_written_to(kind):
    model = Live({kind: KINDS[kind]})
    with warnings.catch_warnings():
        try:
            before = model.read()[kind]
            model(torch.ones(2, 6))
            assert model.read()[kind] != before
        finally:
            KINDS[kind].undo()


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind(kind):
    run(ENTRIES["trace"], {kind: KINDS[kind]}, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_everywhere(kind, capsys):
    for entry in ENTRIES.values():
        for fault in (None, 1, 2, 5):
            run(entry, {kind: KINDS[kind]}, fault)
