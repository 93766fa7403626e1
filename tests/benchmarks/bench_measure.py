"""What a measured draw costs, as ratios within one run: CPU time on one thread, warm, the marginal cost of a draw (two runs of different
length, subtracted); for random signs also wall time on all threads, of which the naive loop can use but one. Every ratio has its correctness oracle on
the same calls.

pytest tests/benchmarks/bench_measure.py -m benchmark -s
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag.diagnosing.agreement import agreement
from initdiag.measuring.ensembles.redraw import reset_parameters
from initdiag.network.log_moments import LogMoments

NETWORKS = {
    "784-256x8-10": [784, *[256] * 8, 10],
    "64-32x30-10": [64, *[32] * 30, 10],
    "256x20": [256] * 21,
    "1024x10": [1024] * 11,
}

pytestmark = pytest.mark.benchmark


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cpu(call: Callable[[], object], times: int = 1) -> float:
    """Seconds of CPU a call."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def wall(call: Callable[[], object]) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def marginal(
    measure: Callable[[int], object],
    few: int,
    many: int,
    clock: Callable[[Callable[[], object]], float] = cpu,
) -> float:
    """Seconds a further draw."""
    measure(few)
    short = min(clock(lambda: measure(few)) for _ in range(2))
    return (min(clock(lambda: measure(many)) for _ in range(2)) - short) / (many - few)


def naive_loop(model: nn.Module, width: int, draws: int) -> np.ndarray:
    """ln||Ju||^2 of ``draws`` re-initialised networks."""
    found = []
    for _ in range(draws):
        initialise(model)
        u = torch.randn(1, width)
        _, tangent = torch.func.jvp(model, (torch.randn(1, width),), (u / u.norm(),))
        found.append(float(tangent.detach().double().square().sum().log()))
    return np.array(found)


def initialise(model: nn.Module) -> None:
    for module in model.modules():
        reset_parameters(module)


def show(capsys, text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}", end="")


@pytest.mark.parametrize("name", NETWORKS)
def test_signs_against_the_naive_loop_and_against_a_forward(name, capsys):
    widths = NETWORKS[name]
    model = seeded(lambda: mlp(widths))
    arch = initdiag.trace(model)
    many = 8192 + 2048 if max(widths) > 500 and name == "1024x10" else 65536
    per_draw = marginal(lambda n: initdiag.measure(model, draws=n, architecture=arch), 2048, many)
    x = torch.randn(2048, widths[0])
    with torch.no_grad():
        model(x)
        forward = cpu(lambda: model(x), 10) / 2048
    naive_draws = 20 if name == "1024x10" else 100
    naive_loop(model, widths[0], 3)
    start = time.process_time()
    naive = LogMoments.of(naive_loop(model, widths[0], naive_draws))
    loop = (time.process_time() - start) / naive_draws
    torch.set_num_threads(os.cpu_count() or 1)
    loop_wall = wall(lambda: naive_loop(model, widths[0], naive_draws)) / naive_draws
    wall_draw = marginal(
        lambda n: initdiag.measure(model, draws=n, architecture=arch), 2048, many, wall
    )
    signs = initdiag.measure(model, draws=2048)
    assert (
        abs(signs.log_mean - naive.mean) < 5 * math.hypot(signs.log_mean_se, naive.mean_se) + 0.1
    ), "the oracle"
    show(
        capsys,
        f"{name}: signs {1e6 * per_draw:.1f} us a draw; naive loop {1e6 * loop:.0f} us: {loop / per_draw:.0f} times; "
        f"plain forward {1e6 * forward:.1f} us a row: {per_draw / forward:.2f} forwards; "
        f"wall, {os.cpu_count()} threads: {1e6 * wall_draw:.1f} us, {loop_wall / wall_draw:.0f} times",
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_redraws_against_their_initialiser_and_the_naive_loop(name, capsys):
    widths = NETWORKS[name]
    model = seeded(lambda: mlp(widths))
    arch = initdiag.trace(model)
    draws = 12 if name == "1024x10" else 128
    per_draw = marginal(
        lambda n: initdiag.measure(
            model, draws=n, method="redraw", architecture=arch, gradients=False
        ),
        draws,
        3 * draws,
    )
    initialiser = cpu(lambda: initialise(model), draws)
    naive_loop(model, widths[0], 3)
    loop = cpu(lambda: naive_loop(model, widths[0], draws)) / draws
    found = initdiag.measure(model, draws=128, method="redraw")
    assert agreement(arch, found, level=0.001).agrees, "the oracle"
    law = marginal(
        lambda n: initdiag.measure(model, draws=n, method="law", architecture=arch), 2048, 8192
    )
    simulated = initdiag.measure(model, draws=2048, method="law")
    assert abs(simulated.log_mean - found.log_mean) < 5 * math.hypot(
        simulated.log_mean_se, found.log_mean_se
    ), "the oracle"
    show(
        capsys,
        f"{name}: redraw {1e3 * per_draw:.2f} ms a draw: {per_draw / initialiser:.2f} initialisers, naive loop {loop / per_draw:.1f} times; "
        f"law {1e6 * law:.0f} us a network: redraw {per_draw / law:.0f} times",
    )


def test_a_diagnosis(capsys):
    """Wall time, since a person waits for it."""
    model = seeded(lambda: mlp(NETWORKS["784-256x8-10"]))
    whole, theory = [], []
    for _ in range(5):
        start = time.perf_counter()
        report = initdiag.diagnose(model)
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        initdiag.diagnose(model, method="none")
        theory.append(time.perf_counter() - start)
    assert report.agreement.agrees, "the oracle"
    show(
        capsys,
        f"diagnose of 784-256x8-10: first {whole[0]:.2f} s, then {min(whole):.3f} s; tracing, prediction and judging {theory[0]:.3f}, then {min(theory):.3f} s",
    )


PEAK = """
import resource, sys
sys.path.insert(0, "tests")
import torch, initdiag
from support.styles import mlp, seeded
torch.set_num_threads(1)
model = seeded(lambda: mlp([256] * 21))
initdiag.measure(model, draws=256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = initdiag.measure(model, draws=int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, resource.getrusage(resource.RUSAGE_SELF).ru_utime, found.log_mean, found.log_mean_se)
"""


def test_memory_and_time_over_draws(capsys):
    """Peak growth is bounded; time is linear in draws (a process each; CPU time with imports)."""
    lines = []
    for draws in (62_500, 250_000, 1_000_000):
        out = subprocess.run(
            [sys.executable, "-c", PEAK, str(draws)], capture_output=True, text=True, check=True
        ).stdout
        grown, seconds, mean, _ = map(float, out.split())
        lines.append(f"{draws} draws: peak {grown / 1024:+.0f} MiB, {seconds:.1f} s of CPU")
        means = [mean] if draws == 62_500 else [*means, mean]  # noqa: F821
    assert max(means) - min(means) < 0.05, "the oracle"
    show(capsys, "256x20: " + "; ".join(lines))


def test_cost_over_depth_and_width(capsys):
    """``ln cost = a + b ln depth + c ln width`` beside ``ln(operations)``: 2 products of ``2 n^2`` a layer."""
    rows = []
    for depth in (5, 10, 20, 40):
        for width in (32, 64, 128, 256, 512):
            model = seeded(lambda depth=depth, width=width: mlp([width] * (depth + 1)))
            arch = initdiag.trace(model)
            per_draw = marginal(
                lambda n, model=model, arch=arch: initdiag.measure(
                    model, draws=n, architecture=arch
                ),
                2048,
                6144,
            )
            rows.append(
                (
                    math.log(depth),
                    math.log(width),
                    math.log(per_draw),
                    per_draw / (4 * depth * width**2),
                )
            )
    a = np.array(rows)
    design = np.column_stack([np.ones(len(a)), a[:, 0], a[:, 1]])
    wide = a[:, 1] > math.log(100)
    (_, by_depth, by_width), *_ = np.linalg.lstsq(design[wide], a[wide, 2], rcond=None)
    narrow_depth, narrow_width = np.linalg.lstsq(design[~wide], a[~wide, 2], rcond=None)[0][1:]
    per_second = 1e-9 / a[:, 3]
    show(
        capsys,
        f"cost ~ depth^{by_depth:.2f} width^{by_width:.2f} at widths 128 to 512, depth^{narrow_depth:.2f} width^{narrow_width:.2f} at 32 and 64 "
        f"(operations: depth^1 width^2); {per_second.min():.1f} to {per_second.max():.1f} Gflop/s",
    )


def test_peak_memory_is_read_in_kib():
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 50_000
