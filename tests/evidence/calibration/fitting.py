"""The study's runs as arrays, and the logistic curve fitted to them."""

from __future__ import annotations

import csv
import functools
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

import initdiag
from initdiag.risk import DEPTHS, LEAST_VARIANCE, MIDDLE_DEPTH

from . import proxies, study, tasks
from .population import OPTIMIZERS

Array = NDArray[np.float64]

FAMILIES = {"sgd": ("sgd", "momentum"), "adam": ("adam", "adamw")}
EFFECTIVE = {"momentum": 10.0}
"""Factor on the learning rate: momentum 0.9 takes steps ten times as large in the long run."""

KINDS = {name: "classification" if tasks.task(name).is_classification else "regression" for name in tasks.NAMES}

NAMES = (
    *("intercept", "fluctuation", "upward", "upward_linear", "downward", "downward_linear", "depth"),
    *("rate", "rate_square", "rate_fluctuation", "rate_upward", "rate_downward", "rate_depth"),
)
OF_LAW = 7
"""So many of the names are not of the learning rate."""
_PLANNED = ("intercept", "fluctuation", "upward", "downward", "rate")
_DRIFTS = (*_PLANNED, "rate_upward", "rate_downward", "upward_linear", "downward_linear")
FORMS = {
    "without the learning rate": _PLANNED[:-1],
    "as planned": _PLANNED,
    "and the rate with the drifts": (*_PLANNED, "rate_upward", "rate_downward"),
    "and the drifts themselves": _DRIFTS,
    "and the rate's square": (*_DRIFTS, "rate_square"),
    "and the rate with the log-variance": (*_DRIFTS, "rate_square", "rate_fluctuation"),
    "and the depth": (*_DRIFTS, "rate_square", "rate_fluctuation", "depth"),
    "and the rate with the depth (shipped)": NAMES,
}
"""The plan's form, and what was added to it: each after a look at how the forms before it fared with tasks left out.

(Tried besides: squares of the logarithms in place of the drifts themselves, log-loss 2 to 5 % higher; products of the drifts with the
log-variance, 0 to 4 % lower for two coefficients more; products of the depth with the drifts, 2 to 3 % lower for two more; ln sum 1/v, the
gradient's size at unit gain, in place of the depth: 2 % higher.)
"""


@dataclass(frozen=True)
class Runs:
    """Runs of kept cells, one entry each; ``x`` has columns drift, log-variance, dead probability, ln of the effective learning rate, linear layers."""

    task: NDArray[np.str_]
    optimizer: NDArray[np.str_]
    group: NDArray[np.int64]
    lr: Array
    x: Array
    failed: NDArray[np.bool_]
    failed_by_loss: NDArray[np.bool_]
    start: Array  # steps over the healthy networks' median, inf where it did not start
    score: Array  # gain over the healthy networks' median gain
    rivals: dict[str, Array]

    def __len__(self) -> int:
        return len(self.task)

    def where(self, mask: NDArray[np.bool_]) -> Runs:
        """The runs where ``mask`` holds (or of these indices)."""
        arrays = {k: v[mask] for k, v in vars(self).items() if k != "rivals"}
        return Runs(**arrays, rivals={k: v[mask] for k, v in self.rivals.items()})

    @property
    def kind(self) -> NDArray[np.str_]:
        return np.array([KINDS[name] for name in self.task])

    def of_family(self, family: str) -> Runs:
        """The runs under the optimisers of a family."""
        return self.where(np.isin(self.optimizer, FAMILIES[family]))


@functools.cache
def law(widths: tuple[int, ...], init: str, gain: float) -> tuple[float, float, float]:
    """Hidden drift, hidden log-variance and dead probability of a chain."""
    p = initdiag.predict(list(widths), init=init, gain=gain)
    return p.hidden_drift, p.hidden_log_variance, p.dead_probability


def load(path: Path = study.RUNS) -> Runs:
    """The runs of the kept cells, of all groups before the first that is missing (those that take long come late)."""
    cells = study.cells()
    done = study.finished(path)
    complete = next(index for index in itertools.count() if index not in done)
    with path.open() as file:
        rows = sorted((r for r in csv.DictReader(file) if int(r["group"]) < complete), key=lambda r: int(r["group"]))
    found = [one for row in rows for one in _of_row(row, cells)]
    columns = list(zip(*found, strict=True))
    rivals = {k: np.array([r[k] for r in columns[9]]) for k in columns[9][0]}
    arrays = [np.array(column) for column in columns[:9]]
    return Runs(*arrays[:4], arrays[4].astype(float), *arrays[5:], rivals=rivals)


def _of_row(row: dict[str, str], cells: dict[tuple[str, int, str, float], study.Cell]):
    name, batch = row["task"], int(row["batch"])
    task = tasks.task(name)
    widths = (task.x.shape[1], *study.expanded(row["hidden"]), task.outputs)
    numbers = law(widths, row["init"], float(row["gain"]))
    size = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    rivals = {name: float(row[name]) for name in proxies.NAMES} | {"depth": len(widths) - 2, "parameters": size}
    before = float(row["loss_before"])
    for optimizer in OPTIMIZERS:
        lr, after, score = (float(row[f"{optimizer}_{what}"]) for what in ("lr", "loss", "score"))
        cell = cells[name, batch, optimizer, lr]
        if not cell.is_kept:
            continue
        constant = constant_loss(name)
        failed = not cell.started(np.array(score), np.array(after), np.array(before))
        by_loss = not constant - after >= study.STARTED * cell.gain / (1 - cell.chance) * constant
        first = row[f"{optimizer}_start"]
        start = float(first) / cell.start if first and not failed else math.inf
        relative = (score - cell.chance) / cell.gain if math.isfinite(score) else -math.inf
        x = (*numbers, math.log(lr * EFFECTIVE.get(optimizer, 1.0)), len(widths) - 1)
        yield name, optimizer, int(row["group"]), lr, x, failed, by_loss, start, relative, rivals


@functools.cache
def constant_loss(name: str) -> float:
    """Training loss of the best constant output."""
    task = tasks.task(name)
    if not task.is_classification:
        return float(task.y.var(correction=0))
    shares = task.y.bincount().double() / len(task.y)
    return float(-(shares * shares.log()).sum())


def design(x: Array, centre: float) -> Array:
    """Columns of the curve's argument, in the order of ``NAMES``."""
    drift, variance, _, rate, layers = x.T
    up, down = drift.clip(0), (-drift).clip(0)
    log_up, log_down = np.log1p(up), np.log1p(down)
    rate = rate - centre
    fluctuation = np.log(variance.clip(LEAST_VARIANCE))
    depth = np.log(layers.clip(*DEPTHS) / MIDDLE_DEPTH)
    law = [np.ones(len(x)), fluctuation, log_up, up / 10, log_down, down / 10, depth]
    return np.stack([*law, rate, rate**2, *(rate * c for c in (fluctuation, log_up, log_down, depth))], 1)


@dataclass(frozen=True)
class Fitted:
    """A curve: ``weights`` in the order of ``NAMES``; learning rates count as ``ln(lr) - centre``, within ``low`` and ``high``."""

    weights: Array
    centre: float
    low: float
    high: float

    def risk(self, x: Array) -> Array:
        """Probability that training does not start, for rows of x as in `Runs`."""
        told = x.copy()
        told[:, 3] = told[:, 3].clip(self.low, self.high)
        return x[:, 2] + (1 - x[:, 2]) * special.expit(design(told, self.centre) @ self.weights)


PENALTY = 0.5
"""Of the squared weights but the intercept's, in units of log-likelihood: keeps separable samples finite."""


LEAST_LINEAR = 0.25
"""Of the drifts' own terms, per 10: the study's reach from -91 to 37, and where single precision overflows or underflows (177) the risk must be near 1 whatever they say."""


def fit(runs: Runs, terms: tuple[str, ...] = NAMES) -> Fitted:
    """The most likely curve that is monotone in the law's numbers and in depth at every learning rate of the sample; terms left out are 0."""
    rates = runs.x[:, 3]
    centre, low, high = (float(r) for r in (np.unique(rates).mean(), rates.min(), rates.max()))
    columns, dead, failed = design(runs.x, centre), runs.x[:, 2], runs.failed
    used = np.array([name in terms for name in NAMES])

    def cost(weights: Array) -> tuple[float, Array]:
        curve = special.expit(columns @ weights)
        risk = (dead + (1 - dead) * curve).clip(1e-12, 1 - 1e-12)
        value = -np.where(failed, np.log(risk), np.log1p(-risk)).sum()
        slope = np.where(failed, -1 / risk, 1 / (1 - risk)) * (1 - dead) * curve * (1 - curve)
        penalised = np.concatenate([[0.0], weights[1:]])
        return value + PENALTY * penalised @ penalised, (columns.T @ slope + 2 * PENALTY * penalised) * used

    bounds = [(None, None), *(OF_LAW - 1) * [(0, None)], *(len(NAMES) - OF_LAW) * [(None, None)]]
    for linear in (3, 5):
        bounds[linear] = (LEAST_LINEAR, None)
    bounds = [b if u else (0, 0) for b, u in zip(bounds, used, strict=True)]
    ends = [
        {"type": "ineq", "fun": lambda w, i=i, j=j, end=end: w[i] + w[j] * (end - centre)}
        for i, j in ((1, 9), (2, 10), (4, 11), (6, 12))
        for end in (low, high)
    ]
    start = np.where(used, 0.1, 0.0)
    found = optimize.minimize(
        cost, start, jac=True, bounds=bounds, constraints=ends, method="SLSQP", options={"maxiter": 1000}
    )
    return Fitted(found.x, centre, low, high)
