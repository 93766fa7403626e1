"""What screening costs: ``pytest tests/benchmarks/bench_search.py -m benchmark -s``. Prints; never fails for being slow.

Processor time of one thread, the best of three calls, after one that builds the tables.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

import initdiag

pytestmark = pytest.mark.benchmark

COUNT = 1_000_000


def ragged(count=COUNT, seed=0):
    """Architectures of 3 to 18 layers, 10.5 on average, of 8 to 1,024 units."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 19, count) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return generator.integers(8, 1025, int(offsets[-1])), offsets


def seconds(function, repeats=3):
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def peak_over_input(architectures, **assumptions):
    """Peak of what `screen` allocates beyond its input, results included, over the input's size."""
    tracemalloc.start()
    try:
        initdiag.screen(architectures, **assumptions)
        return tracemalloc.get_traced_memory()[1] / sum(a.nbytes for a in architectures)
    finally:
        tracemalloc.stop()


def assert_equal_to_predict(architectures, tolerance, **assumptions):
    """The oracle: 200 of the same call's results against `predict` and `failure_risk`."""
    flat, offsets = architectures
    found = initdiag.screen(architectures, **assumptions)
    for index in np.random.default_rng(1).integers(0, len(found), 200):
        prediction = initdiag.predict(
            flat[offsets[index] : offsets[index + 1]].tolist(), **assumptions
        )
        for name in ("beta", "log_mean", "rms_gain_log_mean", "log_variance", "dead_probability"):
            assert getattr(found, name)[index] == pytest.approx(
                getattr(prediction, name), rel=tolerance, abs=tolerance
            )
        assert found.risk[index] == pytest.approx(
            initdiag.failure_risk(prediction), rel=tolerance, abs=tolerance
        )


@pytest.mark.parametrize(
    ("init", "tolerance"),
    [
        ("he_normal", 1e-12),
        ("xavier_normal", 1e-12),
        ("orthogonal", 1e-12),
        ("torch_default", 1e-11),
        ("he_uniform", 1e-11),
    ],
)
def test_a_million_architectures(init, tolerance):
    architectures = ragged()
    flat, offsets = architectures
    layers = np.random.default_rng(2).random(len(flat))
    one_sum = seconds(lambda: np.add.reduceat(layers, offsets[:-1]))
    cost = seconds(lambda: initdiag.screen(architectures, init=init))
    print(
        f"\n{init}: {COUNT:,} architectures, {(len(flat) - COUNT) / 1e6:.1f} million layers: {cost:.3f} s, "
        f"{COUNT / cost / 1e6:.2f} million a second, {cost / one_sum:.1f} times one np.add.reduceat ({one_sum:.3f} s), "
        f"peak memory {peak_over_input(architectures, init=init):.2f} times the input",
        end="",
    )
    told = seconds(lambda: initdiag.screen(architectures, init=init, lr=0.1, loss="classification"))
    print(
        f"; told learning rate and loss {COUNT / told / 1e6:.2f} million, {told / one_sum:.1f} times",
        end="",
    )
    assert_equal_to_predict(architectures, tolerance, init=init)


def test_lists_and_one_by_one():
    flat, offsets = ragged(20_000)
    rows = [flat[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    lists = seconds(lambda: initdiag.screen(rows, init="he_normal"))
    arrays = seconds(lambda: initdiag.screen((flat, offsets), init="he_normal"))
    start = time.process_time()
    single = [initdiag.accepts(row, init="he_normal") for row in rows[:200]]
    each = (time.process_time() - start) / 200
    print(
        f"\nlists of lists {20_000 / lists / 1e6:.2f}, arrays {20_000 / arrays / 1e6:.2f} million a second; ",
        end="",
    )
    print(f"accepts {each * 1e3:.2f} ms each, {each * 20_000 / arrays:.0f} times as much", end="")
    assert single == initdiag.screen(rows[:200], init="he_normal").accepted.tolist()


def zero_cost_proxies(widths, repeats=10):
    """Milliseconds of the proxies that need a network: its construction, one forward and backward pass over 64 rows (grad norm, SNIP, fisher)."""
    import torch
    from torch import nn

    def once():
        pairs = itertools.pairwise(widths)
        model = nn.Sequential(
            *[part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())][:-1]
        )
        loss = nn.functional.cross_entropy(
            model(torch.ones(64, widths[0])), torch.zeros(64, dtype=torch.long)
        )
        loss.backward()
        return sum(float(p.grad.norm()) for p in model.parameters())

    return seconds(lambda: [once() for _ in range(repeats)], 1) / repeats * 1e3


def test_beside_the_zero_cost_proxies():
    flat, offsets = ragged(2000)
    proxies = np.mean(
        [zero_cost_proxies(flat[offsets[i] : offsets[i + 1]].tolist(), 2) for i in range(20)]
    )
    cost = seconds(lambda: initdiag.screen((flat, offsets), init="he_normal")) / 2000 * 1e3
    print(
        f"\na gradient-norm proxy {proxies:.1f} ms, screening {cost:.5f} ms an architecture: {proxies / cost:.0f} times"
    )


def parquet_of(path, count):
    """``count`` architectures, written a million at a time."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kind = pyarrow.list_(pyarrow.int16())
    with parquet.ParquetWriter(path, pyarrow.schema({"widths": kind})) as writer:
        for seed in range(count // COUNT):
            flat, offsets = ragged(seed=seed)
            lists = pyarrow.ListArray.from_arrays(offsets.astype(np.int32), flat.astype(np.int16))
            writer.write_table(pyarrow.table({"widths": lists}))


COMMAND = """
import re, sys, time
from initdiag.cli.main import main
start = time.process_time()
try:
    main(["screen", sys.argv[1], "-o", sys.argv[2], "--init", "he_normal", "--max-risk", "0.01"])
except SystemExit as done:
    assert not done.code
print(time.process_time() - start, int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


def test_ten_million_rows_of_parquet(tmp_path):
    from pyarrow import parquet

    for millions in (1, 2, 5, 10):
        source, output = tmp_path / f"{millions}.parquet", tmp_path / f"{millions}-kept.parquet"
        parquet_of(source, millions * COUNT)
        arguments = [sys.executable, "-c", COMMAND, str(source), str(output)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        cost, peak = map(float, done.stdout.split())
        print(
            f"\n{done.stderr.strip()}; {cost:.1f} s, {millions * COUNT / cost / 1e6:.2f} million a second, peak {peak:.0f} MiB",
            end="",
        )
        expected = sum(
            int(initdiag.screen(ragged(seed=s), init="he_normal", max_risk=0.01).accepted.sum())
            for s in range(millions)
        )
        assert parquet.ParquetFile(output).metadata.num_rows == expected
