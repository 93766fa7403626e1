"""What the proof costs a trace: ``pytest tests/benchmarks/bench_trace.py -m benchmark -s``.

Prints processor times in one run, in turn; never fails for being slow.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from support.styles import mlp, seeded

import initdiag
from initdiag.tracing import trace as trace_module
from initdiag.tracing import weights as weights_module

pytestmark = pytest.mark.benchmark

WIDTHS = {
    "8 x 64": [64] * 9,
    "20 x 256": [256] * 21,
    "50 x 32": [32] * 51,
    "6 x 1024": [1024] * 7,
}


def seconds(run) -> float:
    """Median processor time of seven runs, after one that warms up."""
    run()
    found = []
    for _ in range(7):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return statistics.median(found)


@pytest.mark.parametrize("name", WIDTHS)
def test_the_cost_of_the_proof(name, monkeypatch):
    model = seeded(lambda: mlp(WIDTHS[name], init="he_normal"))
    x = torch.randn(16, WIDTHS[name][0], generator=torch.Generator().manual_seed(0))
    whole = seconds(lambda: initdiag.trace(model, x))
    monkeypatch.setattr(weights_module, "dependences", lambda names, *rest: [{} for _ in names])
    untested = seconds(lambda: initdiag.trace(model, x))
    monkeypatch.setattr(trace_module, "disproof", lambda *arguments: None)
    unproved = seconds(lambda: initdiag.trace(model, x))
    proof, tests = untested - unproved, whole - untested
    print(
        f"\n{name}: trace {1e3 * whole:.0f} ms; without the proof and the tests of dependence "
        f"{1e3 * unproved:.0f} ms: {whole / unproved:.2f} times (proof {1e3 * proof:.0f} ms, "
        f"tests {1e3 * tests:.0f} ms)"
    )
