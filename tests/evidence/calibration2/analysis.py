"""What today's risk is worth on the second study's runs: summary.txt (see PLAN.md).

PYTHONPATH=.:tests python -m evidence.calibration2.analysis          # today's risk
PYTHONPATH=.:tests python -m evidence.calibration2.analysis --refit  # and curves fitted anew
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from evidence.calibration.validation import (
    brier,
    calibration_error,
    interval,
    resamples,
    roc_area,
)
from numpy.typing import NDArray

from initdiag.diagnosing.basis import Numbers
from initdiag.diagnosing.risk import Training

from . import features, population, study, tasks

Array = NDArray[np.float64]
SUMMARY = Path(__file__).parent / "summary.txt"
RESAMPLES = 500
FEW = 20
BASELINES = ("depth", "|drift|", "grad_norm")


@dataclass(frozen=True)
class Runs:
    """Runs of kept cells whose network's features are known, an entry each. ``x`` as in the first
    study: drift, log-variance, dead share, ln of the effective learning rate, linear layers.
    """

    family: NDArray[np.str_]
    task: NDArray[np.str_]
    optimizer: NDArray[np.str_]
    group: NDArray[np.int64]
    init: NDArray[np.str_]
    basis: NDArray[np.str_]
    scale: Array
    lr: Array
    x: Array
    baselines: Array
    first_loss: Array
    constant: Array
    after: Array
    failed: NDArray[np.bool_]
    failed_by_loss: NDArray[np.bool_]
    risk: Array

    def __len__(self) -> int:
        return len(self.family)

    def where(self, mask: NDArray) -> Runs:
        return Runs(**{name: values[mask] for name, values in vars(self).items()})

    @property
    def kind(self) -> NDArray[np.str_]:
        return np.array([tasks.task(name).kind for name in self.task])

    @property
    def at_largest_rate(self) -> NDArray[np.bool_]:
        entries = zip(self.lr, self.task, self.optimizer, strict=True)
        largest = [lr == population.rates(tasks.task(t), o)[-1] for lr, t, o in entries]
        return np.array(largest, dtype=bool)


def load() -> Runs:
    """The committed runs; a network without a verdict has NaN for a risk."""
    cells, known = study.cells(), features.known()
    found = []
    for row in population.rows():
        cell = cells[row["task"], row["optimizer"], float(row["lr"])]
        of = known.get((int(row["group"]), int(row["k"])))
        if cell.is_kept and of is not None:
            found.append(_entry(row, of, cell))
    return Runs(*(np.array(column) for column in zip(*found, strict=True)))


SLOTS = ("usual", "default", "wrong")
EFFECTIVE = {"momentum": 10.0}


def _entry(row: dict[str, str], of: dict[str, str], cell: study.Cell) -> tuple:
    drift, variance, dead = (float(of[n] or "nan") for n in ("drift", "variance", "dead"))
    depth = int(of["layers"]) if of["layers"] else None
    lr, optimizer = float(row["lr"]), row["optimizer"]
    training = Training(optimizer, lr, tasks.task(row["task"]).kind)
    if of["basis"] in ("law", "measurement"):
        risk = Numbers(drift, variance, dead, depth).risk(training)
    else:
        risk = 1.0 if of["basis"] == "structure" else math.nan
    layers = depth or int(row["depth"])
    x = drift, variance, dead, math.log(lr * EFFECTIVE.get(optimizer, 1.0)), layers
    return (
        *(row["family"], row["task"], optimizer, int(row["group"]), SLOTS[int(row["k"])]),
        *(of["basis"].split(":")[0], float(row["scale"]), lr, x),
        (layers, abs(drift), float(of["grad_norm"])),
        *(float(row["first_loss"]), cell.constant, float(row["final_loss"])),
        row["started"] == "0",
        not cell.loss_started(float(row["final_loss"])),
        risk,
    )


def filled(values: Array) -> Array:
    """Numbers with the mean of the finite in place of those that are not known."""
    return np.where(np.isnan(values), np.nanmean(values), values)


def figures(runs: Runs, risk: Array, count: int = RESAMPLES) -> str:
    """One row of a table: count, failures, ROC area, calibration error, Brier score, intervals."""
    failed, risk = runs.failed, filled(risk)
    text = f"{len(runs):6d} {failed.mean():6.1%} {roc_area(failed, risk):6.3f}"
    text += f" {calibration_error(failed, risk):6.3f} {brier(failed, risk):6.3f}"
    for measure in (roc_area, calibration_error):
        low, high = interval(
            np.array([measure(failed[i], risk[i]) for i in resamples(runs.group, count)])
        )
        text += f"  [{low:.3f}, {high:.3f}]"
    missed, alarms = share(risk < 0.5, failed), share(risk >= 0.5, ~failed)
    return f"{text} {missed:6.1%} {alarms:6.1%}"


def share(of: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    """How often ``of`` holds where ``where`` does."""
    return float(of[where].mean()) if where.any() else math.nan


HEAD = (
    f"{'':22s} {'runs':>6s} {'failed':>6s} {'ROC':>6s} {'ECE':>6s} {'Brier':>6s}  "
    f"{'ROC, 95 %':14s}  {'ECE, 95 %':14s} {'missed':>6s} {'alarms':>6s}"
)


def table(title: str, parts: dict[str, Runs], of: Callable[[Runs], Array]) -> Iterator[str]:
    """A table with a row for each part; ``of``: the risks of a part."""
    yield f"\n{title}\n{HEAD}"
    for name, runs in parts.items():
        if len(runs):
            yield f"{name:22s} {figures(runs, of(runs))}"


def split(runs: Runs, by: NDArray[np.str_]) -> dict[str, Runs]:
    return {str(name): runs.where(by == name) for name in sorted(set(by))}


def today(runs: Runs) -> Array:
    return runs.risk


def summary(runs: Runs) -> Iterator[str]:
    """The report, by lines."""
    groups = len(set(runs.group))
    yield f"{len(runs):,} runs of {groups} groups in kept cells, features known."
    yield f"No verdict: {np.isnan(runs.risk).mean():.1%} of them; their risk counts as the mean."
    sane = runs.where((runs.scale == 1) & (runs.task != "ring"))
    new = np.isin(runs.task, tasks.NEW)
    outcome = Runs(**{**vars(runs), "failed": runs.failed_by_loss})
    yield from table(
        "Today's risk, told optimiser, rate and kind of loss (missed: failures with a risk under "
        "0.5; alarms: starts with 0.5 or more)",
        {
            "all": runs,
            "with a verdict": runs.where(~np.isnan(runs.risk)),
            "inputs scaled rightly": sane,
            "inputs scaled wrongly": runs.where((runs.scale != 1) | (runs.task == "ring")),
            "first study's tasks": runs.where(~new),
            "new tasks": runs.where(new),
            "by training loss alone": outcome,
            **split(runs, runs.basis),
        },
        today,
    )
    yield from table("By optimiser", split(runs, runs.optimizer), today)
    largest = runs.at_largest_rate
    by_rate = {"largest rate": runs.where(largest), "other rates": runs.where(~largest)}
    yield from table("By learning rate", by_rate, today)
    yield from table("By initialisation", split(runs, runs.init), today)
    yield from table("By family", split(runs, runs.family), today)
    yield from table("By family, inputs scaled rightly", split(sane, sane.family), today)
    yield from table("By task", split(runs, runs.task), today)
    yield from against(runs)
    yield from misses(runs)


def against(runs: Runs) -> Iterator[str]:
    """Today's risk beside the baselines: ROC areas, and the difference by resampled groups."""
    yield "\nBaselines (ROC area, of the better sign; differences to today's risk by groups)"
    risk = filled(runs.risk)
    draws = list(resamples(runs.group, RESAMPLES))
    for j, name in enumerate(BASELINES):
        score = filled(np.nan_to_num(runs.baselines[:, j], nan=np.nan, posinf=1e30))
        area = roc_area(runs.failed, score)
        sign = 1.0 if area >= 0.5 else -1.0
        gaps = [
            roc_area(runs.failed[i], risk[i]) - roc_area(runs.failed[i], sign * score[i])
            for i in draws
        ]
        low, high = interval(np.array(gaps))
        better = roc_area(runs.failed, sign * score)
        yield f"{name:22s} {better:.3f}  today's risk more by [{low:.3f}, {high:.3f}]"


def misses(runs: Runs) -> Iterator[str]:
    """What became of the failures that were called healthy, by family."""
    yield (
        "\nFailures called healthy (risk under 0.5): shares that blew up (no number, or a loss over "
        "the first),\nlearnt the training rows alone, stayed at the constant guess or above; and of "
        "inputs scaled wrongly, of the largest rate"
    )
    columns = "missed", "of", "blew up", "rows alone", "stuck", "scale", "largest rate"
    yield f"{'':22s} " + " ".join(f"{name:>12s}" for name in columns)
    for name, of in {"all": runs, **split(runs, runs.family)}.items():
        missed = of.where(of.failed & (filled(of.risk) < 0.5))
        if len(missed):
            blew = ~(missed.after <= missed.first_loss)
            memory = ~blew & ~missed.failed_by_loss
            scale = (missed.scale != 1) | (missed.task == "ring")
            kinds = blew, memory, ~blew & ~memory, scale, missed.at_largest_rate
            shares = " ".join(f"{kind.mean():12.0%}" for kind in kinds)
            yield f"{name:22s} {len(missed):12d} {int(of.failed.sum()):12d} {shares}"


def main() -> None:
    SUMMARY.write_text("\n".join(summary(load())) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
