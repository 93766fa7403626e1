"""Are the printed standard errors of signs, redraws and prediction right? (PLAN.md)

PYTHONPATH=tests python -m evidence.moments.study tests/evidence/moments/z.csv [--summary]
"""

from __future__ import annotations

import csv
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import torch
from evidence.agreement.study import INITS, build, honest
from torch import nn

import initdiag

MODULES, SEEDS, SMALL, DEEPEST = 200, 30, 10, 6
SIDES = ("signs", "redraw", "prediction")
FIELDS = ("kind", "module", "seed", *(f"{s}_{q}" for s in SIDES for q in ("mean", "mean_error", "variance", "variance_error")))  # fmt: skip


def drawn_again(init: str):
    """Return what draws a module of this initialiser, as `Module.apply` takes it."""

    def one(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            module.reset_parameters()
            if INITS[init] is not None:
                INITS[init](module.weight)
                nn.init.zeros_(module.bias)

    return one


def row(kind: str, module: int, seed: int) -> dict[str, object]:
    """Return what the three say of one module."""
    widths, init, gate = honest(np.random.default_rng((11, module)))
    torch.manual_seed(1000 * module + seed)
    net = build(widths, init, gate)
    options = {"gradients": False, "seed": 1000 * module + seed}
    signs = initdiag.measure(net, draws=1024, **options)
    found: dict[str, object] = {"kind": kind, "module": module, "seed": seed}
    sides = {"signs": signs}
    if kind == "module":
        again = drawn_again(init)
        sides["redraw"] = initdiag.measure(net, draws=512, method="redraw", init=again, **options)
        prediction = initdiag.predict(initdiag.trace(net))
        found |= {
            "prediction_mean": prediction.log_mean,
            "prediction_mean_error": prediction.log_mean_error,
            "prediction_variance": prediction.log_variance,
            "prediction_variance_error": prediction.log_variance_error,
        }
    for name, m in sides.items():
        found |= {
            f"{name}_mean": m.log_mean,
            f"{name}_mean_error": m.log_mean_se,
            f"{name}_variance": m.log_variance,
            f"{name}_variance_error": m.log_variance_se,
        }
    return found


def plan() -> list[tuple[str, int, int]]:
    """Return all rows: the 200 modules, and ten small ones over 30 seeds."""
    depths = ((m, len(honest(np.random.default_rng((11, m)))[0]) - 1) for m in range(MODULES))
    small = list(itertools.islice((m for m, depth in depths if depth <= DEEPEST), SMALL))
    modules = [("module", m, 0) for m in range(MODULES)]
    return modules + [("scatter", m, s) for m in small for s in range(1, SEEDS + 1)]


def summary(path: Path) -> None:
    """Print the z-scores' means and standard deviations, and the scatter."""
    rows = list(csv.DictReader(path.open()))
    honest_rows = [r for r in rows if r["kind"] == "module"]
    for (a, b), of in itertools.product(itertools.combinations(SIDES, 2), ("mean", "variance")):
        z = np.array([
            (float(r[f"{a}_{of}"]) - float(r[f"{b}_{of}"]))
            / math.hypot(float(r[f"{a}_{of}_error"]), float(r[f"{b}_{of}_error"]))
            for r in honest_rows
        ])  # fmt: skip
        print(f"{a} - {b}, {of}: {len(z)} modules, mean {z.mean():+.2f}, sd {z.std():.2f}, largest {abs(z).max():.1f}")  # fmt: skip
    ratios = []
    scatter = [r for r in rows if r["kind"] == "scatter"]
    for _, group in itertools.groupby(scatter, key=lambda r: r["module"]):
        members = list(group)
        means = np.array([float(r["signs_mean"]) for r in members])
        stated = math.sqrt(np.mean([float(r["signs_mean_error"]) ** 2 for r in members]))
        ratios.append(means.std(ddof=1) / stated)
    if ratios:
        print(f"scatter over seeds, in stated errors: {np.round(ratios, 2).tolist()}, root mean square {math.sqrt(np.mean(np.square(ratios))):.2f}")  # fmt: skip


def main(path: Path) -> None:
    """Run what is missing."""
    torch.set_num_threads(1)
    if not path.exists():
        path.write_text(",".join(FIELDS) + "\n")
    with path.open() as file:
        done = {(r["kind"], int(r["module"]), int(r["seed"])) for r in csv.DictReader(file)}
    for key in plan():
        if key not in done:
            found = row(*key)
            with path.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(found)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    summary(where) if "--summary" in sys.argv else main(where)
