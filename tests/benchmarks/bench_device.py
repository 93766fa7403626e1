"""What a draw costs on a CUDA device, in plain forwards of the same model, within one run.

pytest tests/benchmarks/bench_device.py -m benchmark -s
"""

from __future__ import annotations

import time

import pytest
import torch
from support.styles import mlp

import initdiag

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]


def seconds(call) -> float:
    call()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


@pytest.mark.parametrize(
    ("name", "widths", "draws"),
    [
        ("784-256x8-10", [784, *[256] * 8, 10], 65536),
        ("1024x10", [1024] * 11, 32768),
        ("64-32x30-10", [64, *[32] * 30, 10], 65536),
    ],
)
def test_draws_by_signs_in_forwards(name, widths, draws):
    model = mlp(widths, "he_normal").cuda()
    x = torch.randn(draws, widths[0], device="cuda")
    with torch.no_grad():
        forward = seconds(lambda: model(x)) / draws
    a_draw = seconds(lambda: initdiag.measure(model, draws=draws, gradients=False)) / draws
    print(
        f"\n{torch.cuda.get_device_name()}: {name}: {1e6 * a_draw:.2f} us a draw, "
        f"{a_draw / forward:.0f} forwards of {1e6 * forward:.3f} us"
    )


@pytest.mark.parametrize("widths", [[4096] * 17], ids=["4096x16"])
def test_a_large_model(widths):
    model = mlp(widths, "he_normal").cuda()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    report = initdiag.diagnose(model, draws=64)
    taken = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() - size
    print(
        f"\n{torch.cuda.get_device_name()}: {size / 2**30:.2f} GiB of weights: diagnose "
        f"{taken:.1f} s, peak {peak / 2**30:.2f} GiB beyond the model, {report.verdict.value}"
    )
