"""At which learning rate times curvature squared errors diverge, by what a network is made of.

``PYTHONPATH=.:tests python -m evidence.causes.overshoot > tests/evidence/causes/overshoot.txt``: five minutes.

Each run is one network (2 to 26 linear layers of 16 to 128 units) on a smooth target of 2, 12 or 32 normal inputs, plain
SGD, rows of 32, 100 steps. Its learning rate is ``2 exp(z)`` over the sharpness that `probe_batch` finds, z uniform in
(-0.7, 3.5). It diverged if a loss is above 1e6 or no number. Printed: the runs' shares by z, and the logistic curve of z.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from initdiag.measuring.batch_probe import probe_batch

RUNS, STEPS, ROWS = 72, 100, 32
GATES = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}
KINDS = ("relu", "leaky", "tanh", "gelu", "elu", "silu", "norm", "sums", "sums of norms")  # fmt: skip


class Block(nn.Module):
    """``x + W relu(V x)``, of a norm of x where there is one."""

    def __init__(self, n: int, gain: float, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n) if norm else nn.Identity()
        self.body = nn.Sequential(linear(n, n, gain), nn.ReLU(), linear(n, n, gain))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(self.norm(x))


def linear(a: int, b: int, gain: float) -> nn.Linear:
    layer = nn.Linear(a, b)
    nn.init.normal_(layer.weight, std=gain / a**0.5)
    nn.init.zeros_(layer.bias)
    return layer


def network(kind: str, inputs: int, n: int, depth: int, gain: float) -> nn.Module:
    if kind.startswith("sums"):
        blocks = [Block(n, gain * 2**0.5, kind != "sums") for _ in range(depth)]
        return nn.Sequential(linear(inputs, n, 1.0), *blocks, linear(n, 1, 1.0))
    gate: Callable[[], nn.Module] = GATES.get(kind, nn.ReLU)
    own = {"tanh": 1.0, "elu": 1.2}.get(kind, 2**0.5)
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise([inputs, *[n] * (2 * depth)]):
        parts += [linear(a, b, own), *([nn.LayerNorm(b)] if kind == "norm" else []), gate()]
    return nn.Sequential(*parts, linear(n, 1, 1.0))


def run(kind: str, index: int) -> tuple[float, bool]:
    """Return the run's z, and whether it diverged."""
    rng = np.random.default_rng([20261127, KINDS.index(kind), index])
    torch.manual_seed(int(rng.integers(2**31)))
    depth, n, inputs = (
        int(rng.integers(1, 13)),
        round(2 ** rng.uniform(4, 7)),
        int(rng.choice([2, 12, 32])),
    )
    net = network(kind, inputs, n, depth, float(rng.uniform(0.3, 1)))
    mix, z = torch.randn(inputs, 8) / inputs**0.5, float(rng.uniform(-0.7, 3.5))

    def rows(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, inputs)
        return x, torch.tanh(1.5 * x @ mix).sum(1, keepdim=True) / 2

    probe = probe_batch(net, rows(64)[0], "regression")
    assert probe is not None
    rate = 2 * math.exp(z) / probe.sharpness["regression"]
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    for _ in range(STEPS):
        x, y = rows(ROWS)
        loss = (net(x) - y).square().mean()
        if not float(loss.detach()) < 1e6:
            return z, True
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return z, False


def fitted(found: list[tuple[float, bool]]) -> tuple[float, float]:
    """Return middle and slope of the logistic curve, the slope at most 6."""
    z, y = (np.array(part, dtype=float) for part in zip(*found, strict=True))

    def loss(at: np.ndarray) -> float:
        return float(np.logaddexp(0, np.where(y, -1, 1) * at[1] * (z - at[0])).sum())

    best = minimize(loss, [1.5, 2.0], bounds=[(-1, 4), (0.3, 6)])
    return float(best.x[0]), float(best.x[1])


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for kind in KINDS:
        found = [run(kind, index) for index in range(RUNS)]
        shares = (
            f"{sum(d for z, d in found if low <= z < low + 1):2d} of {sum(low <= z < low + 1 for z, _ in found):2d}"
            for low in (-1, 0, 1, 2, 3)
        )
        middle, slope = fitted(found)
        print(
            f"{kind:14s} diverged, z from -1, 0, 1, 2, 3 on: {', '.join(shares)}; 1/2 at {middle:.2f}, slope {slope:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
