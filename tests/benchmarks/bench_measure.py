"""Random signs against the loop that everyone writes: ``reset_parameters`` and ``torch.func.jvp``, draw by draw.

pytest tests/benchmarks -m benchmark -s
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from styles import mlp, seeded
from torch import nn

import initdiag
from initdiag.measurement import LogMoments

NETWORKS = {
    "784-256x8-10": [784, *[256] * 8, 10],
    "64-32x30-10": [64, *[32] * 30, 10],
    "256x20": [256] * 21,
    "1024x10": [1024] * 11,
}


def naive_loop(model: nn.Module, width: int, draws: int) -> np.ndarray:
    """ln||Ju||^2 of ``draws`` re-initialised networks."""
    found = []
    for _ in range(draws):
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        u = torch.randn(1, width)
        _, tangent = torch.func.jvp(model, (torch.randn(1, width),), (u / u.norm(),))
        found.append(float(tangent.detach().double().square().sum().log()))
    return np.array(found)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", NETWORKS)
def test_signs_against_the_naive_loop(name, capsys):
    widths = NETWORKS[name]
    model = seeded(lambda: mlp(widths))
    initdiag.measure(model, draws=256)
    naive_draws = 20 if max(widths) > 500 else 100
    start = time.perf_counter()
    signs = initdiag.measure(model, draws=1024)
    per_sign = (time.perf_counter() - start) / 1024
    start = time.perf_counter()
    naive = LogMoments.of(naive_loop(model, widths[0], naive_draws))
    per_loop = (time.perf_counter() - start) / naive_draws
    assert abs(signs.log_mean - naive.mean) < 5 * math.hypot(signs.log_mean_se, naive.mean_se) + 0.1, "the oracle"
    with capsys.disabled():
        print(
            f"\n{name}: signs {1e6 * per_sign:.0f} us a draw, loop {1e6 * per_loop:.0f} us: "
            f"{per_loop / per_sign:.0f} times (1,024 draws, tracing and replica included)"
        )
