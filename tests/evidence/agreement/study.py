"""Is the agreement test calibrated, and does it see what is wrong? 200 random modules, and 60 sabotaged ones.

    python tests/evidence/agreement/study.py tests/evidence/agreement/p_values.csv               # resumable
    python tests/evidence/agreement/study.py tests/evidence/agreement/p_values.csv --summary

Plan (written before the first run). Modules: depth 2 to 12, widths 8 to 96 (log-uniform), hidden activation ReLU, leaky ReLU (slope 0.1) or ReLU with dropout
0.2, linear output, weights PyTorch's default, He normal, Xavier uniform or orthogonal, every choice anew; 1,024 draws by random signs on one module,
held against the prediction of its trace. A row is a module: the p-values of the test and of its parts. If the test is calibrated they are uniform.
Sabotaged modules (fifteen of each kind; depth 4 to 12, 4,096 draws) are held against the prediction of the module that they ought to be: one
layer's weights 1.2 times too large; all hidden layers one tied matrix (width 8 to 16); weights redrawn from a skewed law (exponential less its
mean) in place of the normal; one ReLU left out. The test at level 1 % should refuse at least 95 % of them.

Run again, all of it, when the size of the weights became a part of the test (column scale).
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import nn

import initdiag
from initdiag.diagnosing.agreement import Agreement, agreement

HONEST, SABOTAGED = 200, 60
KINDS = ("gain", "tied", "skewed", "dropped relu")
FIELDS = (
    "seed", "kind", "widths", "init", "gate", "p_value", "moments", "shape", "dead", "scale",
)  # fmt: skip
LEVEL = 0.01
INITS: dict[str, Callable[[torch.Tensor], object] | None] = {
    "torch_default": None,
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "xavier_uniform": nn.init.xavier_uniform_,
    "orthogonal": lambda w: nn.init.orthogonal_(w, 2**0.5),
}
GATES: dict[str, Callable[[], list[nn.Module]]] = {
    "relu": lambda: [nn.ReLU()],
    "leaky": lambda: [nn.LeakyReLU(0.1)],
    "dropout": lambda: [nn.ReLU(), nn.Dropout(0.2)],
}


def build(widths: list[int], init: str, gate: str, skip_gate: int | None = None) -> nn.Sequential:
    """Return a random module; without the gate after layer ``skip_gate``."""
    parts: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        linear = nn.Linear(fan_in, fan_out)
        drawn = INITS[init]
        if drawn is not None:
            drawn(linear.weight)
            nn.init.zeros_(linear.bias)
        parts += [
            linear,
            *(GATES[gate]() if index < len(widths) - 2 and index != skip_gate else []),
        ]
    return nn.Sequential(*parts)


class Tied(nn.Module):
    """A chain whose hidden layers are one matrix."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        linears = [m for m in chain if isinstance(m, nn.Linear)]
        self.first, self.shared, self.last, self.times = (
            linears[0],
            linears[1],
            linears[-1],
            len(linears) - 2,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        for _ in range(self.times):
            x = self.shared(x).relu()
        return self.last(x)


def skewed(module: nn.Module) -> None:
    """Initialise by an exponential law less its mean, of He's variance."""
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
        module.weight.data.exponential_().sub_(1).mul_((2 / module.in_features) ** 0.5)


def honest(rng: np.random.Generator) -> tuple[list[int], str, str]:
    """Widths, initialiser and gate of one module."""
    depth = int(rng.integers(2, 13))
    widths = [round(float(w)) for w in np.exp(rng.uniform(np.log(8), np.log(96), depth + 1))]
    return widths, str(rng.choice(list(INITS))), str(rng.choice(list(GATES)))


def tested(seed: int) -> tuple[dict[str, object], Agreement | None]:
    """One row: what it was, and the test."""
    rng = np.random.default_rng((11, seed))
    widths, init, gate = honest(rng)
    kind = "honest" if seed < HONEST else KINDS[(seed - HONEST) % len(KINDS)]
    torch.manual_seed(seed)
    options = {"draws": 1024 if kind == "honest" else 4096, "seed": seed, "gradients": False}
    if kind in ("tied", "skewed", "dropped relu"):
        init, gate = "he_normal", "relu"
    if kind != "honest":
        depth = int(rng.integers(4, 13))
        widths = [round(float(w)) for w in np.exp(rng.uniform(np.log(8), np.log(64), depth + 1))]
    if kind == "tied":
        widths = [int(rng.integers(8, 17))] * (depth + 1)
    model = build(widths, init, gate)
    architecture = initdiag.trace(model)
    if kind == "gain":
        with torch.no_grad():
            layer = rng.choice([m for m in model if isinstance(m, nn.Linear)])  # type: ignore[arg-type]
            layer.weight.mul_(1.2)
    elif kind == "tied":
        model = Tied(model)  # type: ignore[assignment]
    elif kind == "skewed":
        options |= {"method": "redraw", "init": skewed}
    elif kind == "dropped relu":
        torch.manual_seed(seed)
        model = build(widths, init, gate, skip_gate=int(rng.integers(len(widths) - 2)))
    row = {
        "seed": seed,
        "kind": kind,
        "widths": "-".join(map(str, widths)),
        "init": init,
        "gate": gate,
    }
    return row, agreement(architecture, initdiag.measure(model, **options), LEVEL)  # type: ignore[arg-type]


def run(path: Path, rows: int) -> None:
    """Append the rows that are missing."""
    done = (
        {int(row["seed"]) for row in csv.DictReader(path.read_text().splitlines())}
        if path.exists()
        else set()
    )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for seed in range(rows):
            if seed in done:
                continue
            row, test = tested(seed)
            names = ("p_value", "moments_p_value", "shape_p_value", "dead_p_value", "scale_p_value")
            parts = [None if test is None else getattr(test, name) for name in names]
            shown = ["" if p is None else f"{p:.4g}" for p in parts]
            writer.writerow(row | dict(zip(FIELDS[5:], shown, strict=True)))
            file.flush()


def summary(path: Path) -> str:
    """Return the figures that count."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    p = np.array(
        [float(row["p_value"]) for row in rows if row["kind"] == "honest" and row["p_value"]]
    )
    lines = [
        f"{len(p)} honest modules: KS test of uniformity p = {stats.kstest(p, 'uniform').pvalue:.3f}, refused at 1 %: {int((p < LEVEL).sum())}"
    ]
    for part in ("moments", "shape", "scale"):
        q = np.array([float(row[part]) for row in rows if row["kind"] == "honest" and row[part]])
        lines.append(
            f"  {part}: KS test of uniformity p = {stats.kstest(q, 'uniform').pvalue:.3f}, below 1 %: {int((q < LEVEL).sum())} of {len(q)}"
        )
    sabotaged = [row for row in rows if row["kind"] != "honest"]
    for kind in KINDS:
        own = [float(row["p_value"]) for row in sabotaged if row["kind"] == kind]
        lines.append(f"sabotaged, {kind}: {sum(q < LEVEL for q in own)} of {len(own)} refused")
    refused = sum(float(row["p_value"]) < LEVEL for row in sabotaged)
    return "\n".join([*lines, f"sabotaged, all: {refused} of {len(sabotaged)} refused"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=HONEST + SABOTAGED)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.summary:
        print(summary(arguments.path))
    else:
        run(arguments.path, arguments.rows)
