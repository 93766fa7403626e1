"""What a forward pass writes to stays as it was, whatever kind of state it is, wherever it is
held, and also where a pass fails half-way; or it is named beforehand.
"""

from __future__ import annotations

import contextlib
import gc
import re
import warnings

import pytest
import torch
from support.live_state import KINDS, PASSES, Fault, Live
from support.strange_state import FOREIGN, STRANGE
from support.untouched import assert_same, random_states, state
from torch import nn

import initdiag
from initdiag import InitdiagError, InvalidInput, UnsupportedArchitecture

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
    "diagnose signs": lambda m, x: initdiag.diagnose(m, x, draws=4, method="signs"),
    "diagnose law": lambda m, x: initdiag.diagnose(m, x, draws=4, method="law"),
    "diagnose none": lambda m, x: initdiag.diagnose(m, x, method="none"),
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


ALL = {**KINDS, **STRANGE}


@pytest.mark.parametrize("kind", ALL)
def test_each_kind_is_written_to(kind):
    model = Live({kind: ALL[kind]})
    with warnings.catch_warnings():
        try:
            before = model.read()[kind]
            model(torch.ones(2, 6))
            assert model.read()[kind] != before
        finally:
            ALL[kind].undo()
            torch.set_grad_enabled(True)


@pytest.mark.parametrize("kind", ALL)
def test_one_kind(kind):
    run(ENTRIES["trace"], {kind: ALL[kind]}, None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # left open
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_can_be_neither_copied_nor_put_back_is_named_or_refused(kind):
    attribute, state_of_it = FOREIGN[kind]
    model, x = Live({kind: state_of_it}), torch.randn(3, 6)
    report = initdiag.diagnose(model, x, draws=4)
    (finding,) = [found for found in report.findings if found.code == "IND018"]
    assert re.search(rf"shared it: {attribute}\b", finding.message)
    with pytest.warns(UserWarning, match=rf"^{attribute}\b.*can be neither copied nor put back"):
        initdiag.trace(model, x)
    passes = PASSES[0]
    with pytest.raises(InvalidInput, match=rf"copied whole \(strict\), got {attribute}\b"):
        initdiag.diagnose(model, x, draws=4, strict=True)
    assert PASSES[0] == passes
    del model, report, finding
    gc.collect()  # what was left open is told of here


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_one_kind_everywhere(kind, capsys):
    for entry in ENTRIES.values():
        for fault in (None, 1, 2, 5):
            run(entry, {kind: ALL[kind]}, fault)
