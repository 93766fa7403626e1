"""What a verdict costs: ``pytest tests/benchmarks/bench_parallel.py -m benchmark -s``. Prints; never fails for being slow.

Processor time of one thread, the best of three passes over the same networks, after one that builds the tables.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import initdiag
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.diagnosing.parallel import check_many

pytestmark = pytest.mark.benchmark


def random_widths(count, narrowest=4):
    """1 to 12 hidden layers of up to 256 units, as in tests/evidence/fleet."""
    rng = np.random.default_rng(0)
    return [
        [16, *rng.integers(narrowest, 257, rng.integers(1, 13)).tolist(), 10] for _ in range(count)
    ]


def milliseconds(function, items, repeats=3):
    """Per item."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        for item in items:
            function(item)
        times.append(time.process_time() - start)
    return min(times[1:]) / len(items) * 1e3


CHAINS = {
    "He, 1 to 12 hidden layers of 4 to 256": [
        initdiag.Architecture.from_widths(w, init="he_normal") for w in random_widths(300)
    ],
    "orthogonal, 40 hidden layers of 128": [
        initdiag.Architecture.from_widths([64, *[128] * 40, 10], init="orthogonal")
    ] * 20,
    "PyTorch's default, 3 hidden layers of 256": [initdiag.Architecture.from_widths([64, 256, 256, 256, 10])] * 20,
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_a_verdict_beyond_its_prediction(name):
    chains = CHAINS[name]
    for chain in chains[:100]:  # the oracle: what the report says is what its parts say
        report = diagnose_architecture(chain)
        assert report.prediction == initdiag.predict(chain)
        assert report.risk["sgd"] == initdiag.failure_risk(report.prediction)
        assert report.ok
    predicted, diagnosed = (
        milliseconds(initdiag.predict, chains),
        milliseconds(diagnose_architecture, chains),
    )
    print(f"\n{name}, all healthy: ms each")
    print(
        f"  prediction {predicted:.3f}, prediction and verdict {diagnosed:.3f}: a factor {diagnosed / predicted:.1f}"
    )
    print(
        f"  the verdict alone (risk, findings, report) {diagnosed - predicted:.3f} (aim: under 1)"
    )
    each = [
        milliseconds(diagnose_architecture, [c], 8) - milliseconds(initdiag.predict, [c], 8)
        for c in chains[:200]
    ]
    print(f"  the dearest of {len(each)}: {max(each):.3f}")


def test_many_candidates():
    widths = random_widths(1000)

    def run(items):
        return list(check_many(items, assumptions={"init": "he_normal"}))

    records = run(widths)
    assert all(
        r.report.prediction == initdiag.predict(w, init="he_normal")
        for r, w in zip(records, widths, strict=True)
    )
    each = milliseconds(run, [widths]) / len(widths)
    predicted = milliseconds(lambda w: initdiag.predict(w, init="he_normal"), widths)
    print(
        f"\ncheck_many, {len(widths)} candidates: {each:.3f} ms each, {each / predicted:.1f} times `predict` (aim: under 0.5 ms)"
    )
