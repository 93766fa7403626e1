"""What looking at a batch costs, in forward passes of that batch.

python tests/benchmarks/bench_probe.py
"""

from __future__ import annotations

import time

import torch
from torch import nn

from initdiag.measuring.batch_probe import probe_batch


def seconds(run) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def mlp(width: int, depth: int) -> nn.Sequential:
    parts = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(width, 10))


def main() -> None:
    torch.set_num_threads(1)
    for width, depth, rows in ((64, 4, 32), (256, 8, 64), (512, 8, 256), (1024, 6, 1024)):
        net, x = mlp(width, depth), torch.randn(rows, width)
        with torch.no_grad():
            forward = seconds(lambda net=net, x=x: net(x))
        probe = seconds(lambda net=net, x=x: probe_batch(net, x, "classification"))
        print(
            f"{depth} x {width}, {rows} rows: forward {forward * 1e3:.2f} ms, probe {probe * 1e3:.1f} ms, {probe / forward:.0f} forwards"
        )


if __name__ == "__main__":
    main()
