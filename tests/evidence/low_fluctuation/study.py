"""Networks that hardly fluctuate, trained: does their risk say what happens? (See PLAN.md.)

export PYTHONPATH=tests OMP_NUM_THREADS=1
python -m evidence.low_fluctuation.study run      # runs.csv; resumable
python -m evidence.low_fluctuation.study results  # RESULTS.md
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from evidence.calibration import tasks, training, validation
from evidence.calibration.population import BATCHES, OPTIMIZERS, learning_rates
from evidence.calibration.study import cells
from torch import Tensor, nn

import initdiag
from initdiag.diagnosing import risk

HERE = Path(__file__).parent
RUNS, RESULTS = HERE / "runs.csv", HERE / "RESULTS.md"
SEED, GROUPS, SCALES, WIDTH = 20261127, 80, 3, 64
FLOORS = (1e-4, 0.086)
GATES: dict[str, tuple[type[nn.Module], Callable[[Tensor], Tensor], float]] = {
    "tanh": (nn.Tanh, torch.tanh, 1.0),
    "gelu": (nn.GELU, nn.functional.gelu, math.sqrt(2)),
    "elu": (nn.ELU, nn.functional.elu, 1.0),
    "relu": (nn.ReLU, torch.relu, math.sqrt(2)),
}
FIELDS = (
    *("group", "task", "batch", "gate", "hidden", "scale", "drift", "variance", "dead"),
    *("optimizer", "lr", "loss", "score", "started"),
)


def network(widths: Sequence[int], gate: str, scale: float) -> nn.Sequential:
    """A chain of orthogonal layers with the factor ``scale`` on the gate's usual gain."""
    module, _, gain = GATES[gate]
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths[:-1]):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, scale * gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, module()]
    output = nn.Linear(widths[-2], widths[-1])
    nn.init.normal_(output.weight, std=widths[-2] ** -0.5)
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


def stack_of(gate: str) -> type[training.Stack]:
    """The calibration study's stack of networks, with another gate than ReLU."""

    class Stack(training.Stack):
        gate = staticmethod(GATES[gate][1])

    return Stack


def group_rows(index: int) -> list[list[object]]:
    """Train a group: a row for each of its runs."""
    rng = np.random.default_rng([SEED, index])
    gate, name = str(rng.choice(list(GATES))), str(rng.choice(["digits", "teacher"]))
    batch, hidden = int(rng.choice(BATCHES)), round(math.exp(rng.uniform(*np.log([6, 40]))))
    scales = np.exp(rng.uniform(*np.log([0.25, 1.3]), SCALES))
    rates = [[float(rng.choice(learning_rates(name, o))) for _ in scales] for o in OPTIMIZERS]
    task = tasks.task(name)
    torch.manual_seed(index)
    widths = (task.x.shape[1], *[WIDTH] * hidden, task.outputs)
    networks = [network(widths, gate, float(s)) for s in scales]
    laws = [initdiag.predict(initdiag.trace(n, task.x[:64])) for n in networks]
    of = [(o, k) for o in range(len(OPTIMIZERS)) for k in range(SCALES)]
    trace = training.train(
        [networks[k] for _, k in of],
        [OPTIMIZERS[o] for o, _ in of],
        [rates[o][k] for o, k in of],
        task,
        batch,
        index,
        stack=stack_of(gate),
    )
    losses, scores, known = trace.losses.numpy(), trace.scores.numpy(), cells()
    rows: list[list[object]] = []
    for column, (o, k) in enumerate(of):
        cell, law = known[name, batch, OPTIMIZERS[o], rates[o][k]], laws[k]
        if not cell.is_kept or law.hidden_drift is None or law.hidden_log_variance is None:
            continue
        end = scores[-1, column], losses[-1, column], losses[0, column]
        started = cell.started(*map(np.asarray, end))
        numbers = law.hidden_drift, law.hidden_log_variance, law.hidden_dead_probability
        rows.append(
            [index, name, batch, gate, hidden, f"{scales[k]:.4g}"]
            + [f"{number:.5g}" for number in numbers]
            + [OPTIMIZERS[o], rates[o][k], f"{end[1]:.3g}", f"{end[0]:.3f}", int(started)]
        )
    return rows


def run() -> None:
    """Run the groups that runs.csv lacks."""
    if not RUNS.exists():
        RUNS.write_text(",".join(FIELDS) + "\n")
    done = {int(row["group"]) for row in csv.DictReader(RUNS.open())}
    for index in sorted(set(range(GROUPS)) - done):
        with RUNS.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(group_rows(index))


def risks(rows: Sequence[dict[str, str]], floor: float) -> np.ndarray:
    """The risk of each run by the shipped curve, its least log-variance set to ``floor``."""
    shipped, risk.LEAST_VARIANCE = risk.LEAST_VARIANCE, floor
    try:
        return np.array([_risk(row) for row in rows])
    finally:
        risk.LEAST_VARIANCE = shipped


def _risk(row: dict[str, str]) -> float:
    loss = "classification" if row["task"] == "digits" else "regression"
    told = risk.Training(row["optimizer"], float(row["lr"]), loss)
    numbers = (float(row[name]) for name in ("drift", "variance", "dead"))
    return risk.risk_of_moments(*numbers, int(row["hidden"]) + 1, told)


def results() -> str:
    """RESULTS.md."""
    with RUNS.open() as file:
        rows = list(csv.DictReader(file))
    variances = sorted(float(row["variance"]) for row in rows)
    lines = [
        "# The risk of networks that hardly fluctuate: what was found",
        "",
        f"{len(rows)} of {GROUPS * SCALES * len(OPTIMIZERS)} runs were kept (the rest have no prediction or "
        "belong to cells that the calibration study dropped); hidden log-variance "
        f"{variances[0]:.2g} to {variances[-1]:.2g}, median {variances[len(variances) // 2]:.2g}.",
        "",
        "| optimisers | gate | runs | did not start | floor | ROC | calibration error | Brier | "
        "called healthy, did not start | called at risk, started |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in (("sgd", "momentum"), ("adam", "adamw")):
        for gate in ("all", *GATES):
            own = [r for r in rows if r["optimizer"] in family and gate in ("all", r["gate"])]
            failed = np.array([r["started"] == "0" for r in own])
            for floor in FLOORS:
                lines.append(_line(" and ".join(family), gate, failed, floor, risks(own, floor)))
    return "\n".join([*lines, "", "`python -m evidence.low_fluctuation.study results`", ""])


def _line(family: str, gate: str, failed: np.ndarray, floor: float, risk: np.ndarray) -> str:
    area = validation.roc_area(failed, risk) if 0 < failed.sum() < len(failed) else math.nan
    error, brier = validation.calibration_error(failed, risk), validation.brier(failed, risk)
    missed, alarms = (risk[failed] < 0.5).sum(), (risk[~failed] >= 0.5).sum()
    share = f"{failed.mean():.0%}"
    return (
        f"| {family} | {gate} | {len(failed)} | {share} | {floor:g} | {area:.3f} | {error:.3f} | "
        f"{brier:.3f} | {missed} | {alarms} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "results"])
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if parser.parse_args().command == "run":
        run()
    else:
        RESULTS.write_text(results(), encoding="utf-8")


if __name__ == "__main__":
    main()
