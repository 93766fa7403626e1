"""Held-out risks of the study's runs, and how good they are: ROC area, calibration error, Brier score, bootstrap over groups."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import initdiag

from . import fitting, proxies, study
from .fitting import FAMILIES, KINDS, Array, Runs

PILOT = Path(__file__).parent.parent / "pilot" / "runs.csv"
BINS, FOLDS, RESAMPLES = 10, 10, 1000


def roc_area(failed: NDArray[np.bool_], score: Array) -> float:
    """P(a failing run scores higher than one that started), ties one half; NaN where all runs end alike."""
    bad = int(failed.sum())
    good = len(failed) - bad
    if not bad or not good:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[failed].sum() - bad * (bad + 1) / 2) / (bad * good))


def calibration_error(failed: NDArray[np.bool_], risk: Array) -> float:
    """Mean over bins of equal count of |share failed - mean risk| (expected calibration error)."""
    return float(
        sum(len(b) * abs(failed[b].mean() - risk[b].mean()) for b in bins(risk)) / len(risk)
    )


def bins(risk: Array) -> list[NDArray[np.int64]]:
    """Indices of the runs in ten bins of equal count, by risk."""
    return [b for b in np.array_split(np.argsort(risk, kind="stable"), BINS) if len(b)]


def brier(failed: NDArray[np.bool_], risk: Array) -> float:
    """Mean squared difference of outcome and risk."""
    return float(np.mean((failed - risk) ** 2))


def resamples(
    group: NDArray[np.int64], count: int = RESAMPLES, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Indices of runs, groups drawn with replacement: runs of a group share their architecture."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(group == g) for g in np.unique(group)]
    for _ in range(count):
        yield np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])


def interval(values: Array) -> tuple[float, float]:
    """The 95 % percentile interval."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def log_loss(failed: NDArray[np.bool_], risk: Array) -> float:
    """Mean of -ln(risk of what happened), risks kept from 0 and 1 by 1e-4."""
    kept = risk.clip(1e-4, 1 - 1e-4)
    return float(-np.where(failed, np.log(kept), np.log1p(-kept)).mean())


def left_out_tasks(
    runs: Runs, same_kind: bool = True, terms: tuple[str, ...] = fitting.NAMES
) -> Array:
    """Risk of each run by the curve fitted to the other tasks (of its kind of loss) under its optimiser family."""
    found = np.full(len(runs), np.nan)
    for members in FAMILIES.values():
        family = np.isin(runs.optimizer, members)
        for name, kind in KINDS.items():
            others = family & (runs.task != name) & ((runs.kind == kind) | (not same_kind))
            held = family & (runs.task == name)
            if held.any():
                found[held] = fitting.fit(runs.where(others), terms).risk(runs.x[held])
    return found


def left_out_rates(runs: Runs) -> Array:
    """Risk of each run by the curve fitted to its kind of loss and optimiser family at the other effective learning rates."""
    found = np.full(len(runs), np.nan)
    for part in family_and_kind(runs):
        for rate in np.unique(runs.x[part, 3]):
            held = part & (runs.x[:, 3] == rate)
            found[held] = fitting.fit(runs.where(part & ~held)).risk(runs.x[held])
    return found


def left_out_groups(runs: Runs, within_task: bool) -> Array:
    """Risk of each run by ten-fold cross-validation over groups: of curves for each task, or for each kind of loss."""
    found = np.full(len(runs), np.nan)
    folds = np.random.default_rng(0).permutation(runs.group.max() + 1)[runs.group] % FOLDS
    for part in family_and_kind(runs):
        for name in np.unique(runs.task[part]) if within_task else ("",):
            of = part & (runs.task == name) if within_task else part
            for fold in range(FOLDS):
                held = of & (folds == fold)
                found[held] = fitting.fit(runs.where(of & ~held)).risk(runs.x[held])
    return found


@dataclass(frozen=True)
class Pilot:
    """The pilot's runs under one optimiser and learning rate, with risks from the other classifications of this study."""

    optimizer: str
    lr: float
    failed: NDArray[np.bool_]
    risk: Array


def pilot(runs: Runs, path: Path = PILOT) -> Iterator[Pilot]:
    """Runs of the earlier pilot on the digits (other code, widths to 256, 345 steps), by curves that have not seen the digits."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for optimizer, lr in sorted(
        {(row["optimizer"], float(row["lr"])) for row in rows}, reverse=True
    ):
        of = [row for row in rows if (row["optimizer"], float(row["lr"])) == (optimizer, lr)]
        networks = [
            (tuple(map(int, r["widths"].split("-"))), r["init"], float(r["gain"])) for r in of
        ]
        law = fitting.laws(networks)
        x = [(*law[network], np.log(lr), len(network[0]) - 1) for network in networks]
        others = runs.of_family(optimizer)
        fitted = fitting.fit(
            others.where((others.kind == "classification") & (others.task != "digits"))
        )
        failed = np.array([row["did_not_start"] == "1" for row in of])
        yield Pilot(optimizer, lr, failed, fitted.risk(np.array(x)))


def family_and_kind(runs: Runs) -> Iterator[NDArray[np.bool_]]:
    """Where each family's runs of each kind are."""
    for members in FAMILIES.values():
        for kind in sorted(set(KINDS.values())):
            yield np.isin(runs.optimizer, members) & (runs.kind == kind)


def costs() -> str:
    """The rivals' cost per network from the runs' file, and the law's, measured here on its architectures."""
    with study.RUNS.open() as file:
        rows = list(csv.DictReader(file))
    texts = []
    for name in proxies.NAMES:
        times = [float(row[f"{name}_ms"]) for row in rows]
        texts.append(f"{name} {np.median(times):.2f}, {np.mean(times):.2f}")
    times = []
    for row in rows[:: max(1, len(rows) // 200)]:
        started = time.process_time()
        prediction = initdiag.predict(
            [20, *study.expanded(row["hidden"]), 5], init=row["init"], gain=float(row["gain"])
        )
        initdiag.failure_risk(prediction)
        times.append(1e3 * (time.process_time() - started))
    return "; ".join([f"the law and its risk {np.median(times):.2f}, {np.mean(times):.2f}", *texts])
