"""Short trainings of small networks with what one batch showed before: see PLAN.md.

    nice python tests/evidence/causes/study.py [runs]

goes on where ``runs.csv`` ends.
"""

from __future__ import annotations

import csv
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import initdiag
from initdiag.measuring.batch_probe import probe_batch
from initdiag.tracing.adapter import Adapter

RUNS, STEPS, ROWS, TEST_ROWS = 500, 400, 32, 512
PROBED_ROWS = 64
FILE = Path(__file__).with_name("runs.csv")
FAMILIES = (
    "relu", "tanh", "sigmoid", "gelu", "elu", "residual", "layernorm", "sine", "fourier", "bounded",
)  # fmt: skip
TASKS = ("classes2", "classes8", "classes16", "smooth2", "smooth16", "identity64")
SCALES = (0.01, 0.1, 10.0, 100.0, 1000.0)
GATES: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "elu": nn.ELU,
}  # fmt: skip
FIELDS = (
    "index", "family", "task", "optimizer", "lr", "scale", "offset", "depth", "width", "init", "gain", "detail",
    "curve", "input_rms", "saturated", "output_saturated", "dead_units", "collapse", "torn", "output_rms",
     "sharpness", "contrast", "sign_step", "first_loss", "last_loss", "score",
)  # fmt: skip


class Sine(nn.Module):
    """``sin(w x)``."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.w * x)


class Fourier(nn.Module):
    """Fixed Fourier features of a bandwidth."""

    def __init__(self, inputs: int, features: int, bandwidth: float) -> None:
        super().__init__()
        self.register_buffer("b", torch.randn(inputs, features) * bandwidth)

    def forward(self, x: Tensor) -> Tensor:
        phase = 2 * math.pi * (x @ self.b)
        return torch.cat([phase.sin(), phase.cos()], -1)


class Residual(nn.Module):
    """``x + W relu(V x)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@dataclass(frozen=True)
class Task:
    """A stream of rows; ``is_classes`` says whether targets are classes."""

    inputs: int
    outputs: int
    is_classes: bool
    target: Callable[[Tensor], Tensor]

    def rows(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, self.inputs, generator=generator)
        return x, self.target(x)


def task(name: str) -> Task:
    """The task of that name, the same at every call."""
    g = torch.Generator().manual_seed(TASKS.index(name))
    kind, n = name.rstrip("0123456789"), int("".join(c for c in name if c.isdigit()))
    if kind == "identity":
        mix = torch.randn(6, n, generator=g) / 6**0.5
        return Task(n, n, False, lambda x: (x @ mix.T) @ mix / 3.4)
    hidden, out = torch.randn(n, 16, generator=g) / n**0.5, torch.randn(16, 5, generator=g)
    if kind == "classes":
        return Task(n, 5, True, lambda x: ((1.5 * x @ hidden).tanh() @ out).argmax(1))
    return Task(n, 1, False, lambda x: (1.5 * x @ hidden).tanh() @ out[:, :1] / 2.6)


def init(module: nn.Module, how: str, gain: float) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear) and how != "default":
            rule = {
                "xavier": nn.init.xavier_normal_, "orthogonal": nn.init.orthogonal_,
                "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
            }[how]  # fmt: skip
            rule(part.weight)
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Linear):
            with torch.no_grad():
                part.weight.mul_(gain)


def mlp(sizes: list[int], gate: Callable[[], nn.Module], norm: bool = False) -> nn.Sequential:
    parts: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        parts.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            parts += [nn.LayerNorm(b), gate()] if norm else [gate()]
    return nn.Sequential(*parts)


def network(
    family: str, t: Task, depth: int, width: int, rng: np.random.Generator
) -> tuple[nn.Module, str]:
    """A network before its initialisation, and what else was drawn for it."""
    sizes = [t.inputs, *[width] * depth, t.outputs]
    if family == "residual":
        blocks = [Residual(width) for _ in range(depth)]
        return nn.Sequential(nn.Linear(t.inputs, width), *blocks, nn.Linear(width, t.outputs)), ""
    if family == "sine":
        w = float(np.round(np.exp(rng.uniform(0, math.log(40))), 2))
        net = mlp([t.inputs, *[width] * min(depth, 5), t.outputs], lambda: Sine(w))
        linear = [p for p in net if isinstance(p, nn.Linear)]
        for i, layer in enumerate(linear[:-1]):
            bound = 1 / layer.in_features if i == 0 else (6 / layer.in_features) ** 0.5 / w
            nn.init.uniform_(layer.weight, -bound, bound)
        return net, f"w={w}"
    if family == "fourier":
        s = float(np.round(np.exp(rng.uniform(math.log(0.02), math.log(3))), 3))
        return nn.Sequential(Fourier(t.inputs, 64, s), mlp([128, *sizes[1:]], nn.ReLU)), f"s={s}"
    if family == "bounded":
        out = (nn.Sigmoid, nn.Tanh, nn.ReLU)[int(rng.integers(3))]
        return nn.Sequential(mlp(sizes, nn.ReLU), out()), out.__name__
    return mlp(sizes, GATES.get(family, nn.ReLU), norm=family == "layernorm"), ""


def trained(
    net: nn.Module, t: Task, optimizer: str, lr: float, scale: float, offset: float, seed: int
) -> dict[str, float]:
    g = torch.Generator().manual_seed(seed)
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](net.parameters(), lr=lr)
    loss_of = nn.CrossEntropyLoss() if t.is_classes else nn.MSELoss()
    first = last = math.nan
    for step in range(STEPS):
        x, y = t.rows(ROWS, g)
        loss = loss_of(net((x + offset) * scale), y)
        last = float(loss.detach())
        first = last if step == 0 else first
        if not math.isfinite(last):
            return {"first_loss": first, "last_loss": last, "score": math.nan}
        rule.zero_grad()
        loss.backward()
        rule.step()
    x, y = t.rows(TEST_ROWS, g)
    with torch.no_grad():
        out = net((x + offset) * scale)
    if t.is_classes:
        chance = float(y.bincount().max()) / TEST_ROWS
        score = (float((out.argmax(1) == y).float().mean()) - chance) / (1 - chance)
    else:
        score = 1 - float((out - y).square().mean()) / float(y.var(0, correction=0).mean())
    return {"first_loss": first, "last_loss": last, "score": score}


@dataclass(frozen=True)
class Run:
    """One run before it is trained."""

    net: nn.Module
    task: Task
    batch: Tensor
    columns: dict[str, object]

    @property
    def loss(self) -> str:
        return "classification" if self.task.is_classes else "regression"


def drawn(index: int) -> Run:
    """The run of that index."""
    rng = np.random.default_rng([20261127, index])
    torch.manual_seed(int(rng.integers(2**31)))
    family, name = FAMILIES[index % len(FAMILIES)], TASKS[int(rng.integers(len(TASKS)))]
    t = task(name)
    depth, width = (
        round(math.exp(rng.uniform(0, math.log(m / a))) * a) for a, m in ((1, 12), (16, 128))
    )
    scale = 1.0 if rng.random() < 0.5 else float(rng.choice(SCALES))
    offset = 3.0 if rng.random() < 1 / 6 else 0.0
    optimizer = ("sgd", "adam")[int(rng.integers(2))]
    low, high = (1e-3, 1.0) if optimizer == "sgd" else (1e-4, 0.1)
    lr = float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.2g}")
    net, detail = network(family, t, depth, width, rng)
    ways = ["default", "xavier", "he", "orthogonal"]
    how = "default" if family == "sine" else str(rng.choice(ways))
    gain = (
        np.round(np.exp(rng.uniform(math.log(0.3), math.log(3))), 2) if rng.random() >= 0.5 else 1.0
    )
    init(net, how, float(gain))
    x, _ = t.rows(PROBED_ROWS, torch.Generator().manual_seed(index))
    columns = {
        "index": index, "family": family, "task": name, "optimizer": optimizer, "lr": lr, "scale": scale,
        "offset": offset, "depth": depth, "width": width, "init": how, "gain": float(gain), "detail": detail,
    }  # fmt: skip
    return Run(net, t, (x + offset) * scale, columns)


def probed(run: Run) -> dict[str, object]:
    """What the batch shows."""
    p = probe_batch(Adapter(run.net), run.batch, run.loss)
    assert p is not None
    out = p.output_gate
    return {
        "input_rms": p.input_rms, "saturated": p.saturated or 0.0,
        "output_saturated": out.saturated if out and out.saturated else 0.0, "dead_units": p.dead_units or 0.0,
        "collapse": p.collapse, "torn": p.torn, "output_rms": p.output_rms, "sharpness": p.sharpness.get(run.loss),
        "contrast": p.contrast.get(run.loss), "sign_step": p.sign_step,
    }  # fmt: skip


def run(index: int) -> dict[str, object]:
    """The row of that index: what was known before, and what came of it."""
    one = drawn(index)
    optimizer, lr = one.columns["optimizer"], one.columns["lr"]
    is_chain = one.columns["family"] in ("relu", "tanh", "sigmoid", "gelu", "elu")
    report = initdiag.diagnose(
        one.net, one.batch, draws=128, optimizer=optimizer, lr=lr, loss=one.loss,
        method="none" if is_chain else "auto",
    )  # fmt: skip
    curve = {"curve": report.risk.get(optimizer, math.nan)}
    how = one.columns
    result = trained(one.net, one.task, optimizer, lr, how["scale"], how["offset"], index)
    return how | curve | probed(one) | result


def main(runs: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    done = len(FILE.read_text().splitlines()) - 1 if FILE.exists() else 0
    with FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for index in range(max(done, 0), runs):
            row = run(index)
            writer.writerow(
                {
                    k: f"{v:.5g}" if isinstance(v, float) and k != "collapse" else v
                    for k, v in row.items()
                }
            )
            file.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
