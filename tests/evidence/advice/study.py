"""Networks that do not start, and what the first advice makes of them: see PLAN.md.

    PYTHONPATH=.:tests nice python -m evidence.advice.study [minutes]

goes on where ``runs.csv`` ends; ``PYTHONPATH=.:tests python -m evidence.advice.study 0`` prints the shares alone.
"""

from __future__ import annotations

import copy
import csv
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import initdiag
from initdiag.diagnosing.advice import Advice

from ..causes.study import Task, task, trained

FILE = Path(__file__).with_name("runs.csv")
WANTED, STARTED, ROWS = 60, 0.1, 64
GATES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "elu": nn.ELU, "scaled": nn.ReLU,
}  # fmt: skip
TRAININGS = (("sgd", 0.01), ("sgd", 0.1), ("adam", 1e-3), ("adam", 1e-2))
FIELDS = (
    "index", "family", "task", "optimizer", "lr", "depth", "width", "init", "gain", "verdict", "cause", "risk", "score",
    "advice", "risk_after", "advised", "by_gate", "lsuv",
)  # fmt: skip


class Net(nn.Module):
    """A chain, perhaps with skip connections ``x + s layer(gate(x))``."""

    def __init__(self, widths: list[int], gate: type[nn.Module], skip: float | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.gate, self.skip = gate(), skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for layer in self.layers[1:-1]:
            branch = layer(self.gate(x))
            x = branch if self.skip is None else x + self.skip * branch
        return self.layers[-1](self.gate(x))


@dataclass
class Arm:
    """A network and how it is trained."""

    net: nn.Module
    optimizer: str
    lr: float
    scale: float
    offset: float = 0.0


def by_layer(net: nn.Module, code: str) -> nn.Module:
    for part in net.modules():
        if isinstance(part, nn.Linear):
            exec(code, {"nn": nn, "w": part.weight, "b": part.bias})
    return net


def followed(advice: Advice, arm: Arm, widths: list[int], gate: type[nn.Module]) -> Arm:
    """The network with an advice followed to the letter."""
    names: dict[str, object] = {}
    rate = re.match(r"lr = ([^;]+)", advice.code)
    shape = re.search(r"widths = [^;]+", advice.code)
    skip = re.search(r"x \+ (\S+) \* layer", advice.action)
    other = re.search(r"(tanh|ReLU) in place of the hidden sigmoids", advice.action)
    if shape:
        exec(shape[0], names)
        widths = list(names["widths"])  # type: ignore[call-overload]
    if other:
        gate = {"tanh": nn.Tanh, "ReLU": nn.ReLU}[other[1]]
    result = copy.deepcopy(arm)
    if shape or skip or other:
        result.net = Net(widths, gate, float(skip[1]) if skip else None)
    calls = "; ".join(re.findall(r"nn\.init\.\w+\([^;#]*\)", advice.code))
    if calls:
        by_layer(result.net, calls)
    repair = re.search(r"initdiag\.repair\(model(?:, \"(\w+)\")?\)", advice.code)
    if repair:
        initdiag.repair(result.net, repair[1] or "he_normal", seed=0)  # type: ignore[arg-type]
    if rate:
        result.lr = float(rate[1])
    if "Adam(" in advice.code:
        result.optimizer, result.lr = "adam", 1e-3
    scaled = re.match(r"x = \(x ([+-]) (\S+)\) / (\S+)", advice.code)
    if scaled:
        shift = float(scaled[2]) * (1 if scaled[1] == "+" else -1)
        result.offset, result.scale = shift / arm.scale, arm.scale / float(scaled[3])
    return result


def usual(net: nn.Module, gate: type[nn.Module]) -> nn.Module:
    is_bounded = gate in (nn.Tanh, nn.Sigmoid)
    call = "xavier_normal_(w)" if is_bounded else 'kaiming_normal_(w, nonlinearity="relu")'
    return by_layer(net, f"nn.init.{call}; nn.init.zeros_(b)")


def lsuv(net: Net, x: Tensor) -> Net:
    with torch.no_grad():
        for i, layer in enumerate(net.layers):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
            h = x if i == 0 else net.gate(x)
            for _ in range(10):
                spread = layer(h).std()
                if not spread > 0 or abs(float(spread) - 1) < 0.01:
                    break
                layer.weight /= spread
            x = layer(h)
    return net


def score(arm: Arm, t: Task, seed: int) -> float:
    torch.manual_seed(seed)
    return trained(arm.net, t, arm.optimizer, arm.lr, arm.scale, arm.offset, seed)["score"]


def run(index: int) -> dict[str, object]:
    """The row of that index; without remedies where it starts, or is not called at risk."""
    rng = np.random.default_rng([20261128, index])
    torch.manual_seed(int(rng.integers(2**31)))
    family = list(GATES)[index % len(GATES)]
    optimizer, lr = TRAININGS[int(rng.integers(4))]
    name, gate = str(rng.choice(["classes16", "smooth16"])), GATES[family]
    depth, width = int(rng.integers(6, 25)), int(rng.choice([16, 32, 64]))
    how, gain = (
        str(rng.choice(["default", "xavier", "he"])),
        float(rng.choice([0.1, 0.5, 1.0, 3.0])),
    )
    t = task(name)
    widths = [t.inputs, *[width] * depth, t.outputs]
    net = Net(widths, gate)
    calls = {"xavier": "xavier_normal_(w)", "he": 'kaiming_normal_(w, nonlinearity="relu")'}
    if how != "default":
        by_layer(net, f"nn.init.{calls[how]}; nn.init.zeros_(b)")
    by_layer(net, f"w.data.mul_({gain})")
    arm = Arm(net, optimizer, lr, 100.0 if family == "scaled" else 1.0)
    x = t.rows(ROWS, torch.Generator().manual_seed(index))[0] * arm.scale
    loss = "classification" if t.is_classes else "regression"
    report = initdiag.diagnose(net, x, method="none", optimizer=optimizer, lr=lr, loss=loss)
    row: dict[str, object] = {
        "index": index, "family": family, "task": name, "optimizer": optimizer, "lr": lr, "depth": depth,
        "width": width, "init": how, "gain": gain, "verdict": report.verdict.value, "cause": report.cause,
        "risk": report.risk.get(optimizer), "score": score(copy.deepcopy(arm), t, index),
    }  # fmt: skip
    if started(row["score"]) or not report.verdict.is_at_risk:
        return row
    first = report.advice[0] if report.advice else None
    if first is not None:
        row |= {"advice": first.action, "risk_after": first.risk_after}
        row["advised"] = score(followed(first, arm, widths, gate), t, index)
    others: dict[str, Callable[[], nn.Module]] = {
        "by_gate": lambda: usual(copy.deepcopy(net), gate), "lsuv": lambda: lsuv(copy.deepcopy(net), x),
    }  # fmt: skip
    for kind, build in others.items():
        row[kind] = score(Arm(build(), optimizer, lr, arm.scale), t, index)
    return row


def started(value: object) -> bool:
    return value not in ("", None) and float(value) >= STARTED  # type: ignore[arg-type]


def counted(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        r for r in rows if not started(r["score"]) and r["verdict"] not in ("HEALTHY", "NO_VERDICT")
    ]


def summary(rows: list[dict[str, str]]) -> None:
    failed = counted(rows)
    missed = sum(not started(r["score"]) and r["verdict"] == "HEALTHY" for r in rows)
    alarms = sum(
        started(r["score"]) and r["verdict"] not in ("HEALTHY", "NO_VERDICT") for r in rows
    )
    print(
        f"{len(rows)} networks: {len(failed)} failed and were called at risk, {missed} failed and were called"
    )
    print(
        f"healthy, {alarms} started and were called at risk. Of those that failed and were called at risk started:"
    )
    for key in (None, "optimizer", "family", "cause"):
        groups: dict[str, list[dict[str, str]]] = {}
        for r in failed:
            label = (
                "all"
                if key is None
                else f"{r['optimizer']} {r['lr']}"
                if key == "optimizer"
                else r[key]
            )
            groups.setdefault(label, []).append(r)
        for label, group in sorted(groups.items()):
            shares = (
                f"{k} {sum(started(r[k]) for r in group):2d}"
                for k in ("advised", "by_gate", "lsuv")
            )
            print(f"  {label:22s} of {len(group):2d}: {', '.join(shares)}")
    print("Advice that did not start:")
    for action, count in Counter(
        re.sub(r"[-+]?\d[\d.e-]*", "#", r["advice"] or "none")[:70]
        for r in failed
        if not started(r["advised"])
    ).most_common():
        print(f"  {count} x {action}")


def read() -> list[dict[str, str]]:
    return list(csv.DictReader(FILE.open())) if FILE.exists() else []


def main(minutes: float) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and len(counted(read())) < WANTED:
        rows = read()
        with FILE.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if not rows:
                writer.writeheader()
            row = run(len(rows))
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    summary(read())


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20)
