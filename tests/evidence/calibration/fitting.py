"""The study's runs as arrays, and the logistic curve fitted to them."""

from __future__ import annotations

import csv
import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from initdiag.diagnosing.calibration import DEPTHS, MIDDLE_DEPTH
from initdiag.diagnosing.risk import LEAST_VARIANCE
from initdiag.law.batch import laws as batch
from initdiag.law.batch.ragged import Ragged

from . import proxies, study, tasks
from .population import OPTIMIZERS

Array = NDArray[np.float64]

FAMILIES = {"sgd": ("sgd", "momentum"), "adam": ("adam", "adamw")}
EFFECTIVE = {"momentum": 10.0}
"""Factor on the learning rate: momentum 0.9 takes steps ten times as large in the long run."""

KINDS = {
    name: "classification" if tasks.task(name).is_classification else "regression"
    for name in tasks.NAMES
}

SIGNAL = (
    "intercept",
    "fluctuation",
    "upward",
    "upward_linear",
    "downward",
    "downward_linear",
    "rate",
    "rate_square",
    "rate_upward",
    "rate_downward",
)
STEP = ("step", "step_rate", "step_depth")
NAMES = (*SIGNAL, *STEP)
_PLANNED = ("intercept", "fluctuation", "upward", "downward", "rate")
_RATES = (*_PLANNED, "rate_upward", "rate_downward")
FORMS = {
    "without the learning rate": _PLANNED[:-1],
    "as planned": _PLANNED,
    "and the rate with the drifts": _RATES,
    "and the drifts themselves": (*_RATES, "upward_linear", "downward_linear"),
    "and the rate's square": SIGNAL,
    "and the step, by learning rate alone": (*SIGNAL, "step", "step_rate"),
    "and by depth (shipped)": NAMES,
}
"""The plan's form, and what was added to it: each after a look at how the forms before it fared with tasks left out.

(Tried besides, in one logistic curve: its product with the log-variance, depth and its product with the learning rate, log-loss 8 % higher than the
shipped; so it was with ln sum 1/v, the gradient's size at unit gain, in place of depth. Drift up in the step, too: 1 % lower for one coefficient more, but a drift of 0.7, which He initialisation has by its output layer, then counts as an explosion.)
"""

UNTOLD = (
    "intercept",
    "fluctuation",
    "upward",
    "upward_linear",
    "downward",
    "downward_linear",
    "step",
    "step_depth",
)
"""What is left where no learning rate is told."""


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


Network = tuple[tuple[int, ...], str, float]
"""Widths, initialisation and gain."""


def laws(networks: Iterable[Network]) -> dict[Network, tuple[float, float, float]]:
    """Hidden drift, hidden log-variance and dead probability of chains, as `initdiag.predict` has them (to 1e-11)."""
    found: dict[Network, tuple[float, float, float]] = {}
    for (init, gain), group in itertools.groupby(
        sorted(set(networks), key=lambda n: n[1:]), key=lambda n: n[1:]
    ):
        members = list(group)
        law = batch.laws(Ragged.of([list(widths) for widths, *_ in members]), init=init, gain=gain)
        numbers = zip(law.hidden_drift, law.hidden_log_variance, law.dead_probability, strict=True)
        found.update(
            zip(members, ((float(d), float(v), float(p)) for d, v, p in numbers), strict=True)
        )
    return found


def _network(row: dict[str, str]) -> Network:
    task = tasks.task(row["task"])
    widths = (task.x.shape[1], *study.expanded(row["hidden"]), task.outputs)
    return widths, row["init"], float(row["gain"])


def load(path: Path = study.RUNS) -> Runs:
    """The runs of the kept cells, of all groups before the first that is missing (those that take long come late)."""
    cells = study.cells()
    done = study.finished(path)
    complete = next(index for index in itertools.count() if index not in done)
    with path.open() as file:
        rows = sorted(
            (r for r in csv.DictReader(file) if int(r["group"]) < complete),
            key=lambda r: int(r["group"]),
        )
    law = laws(map(_network, rows))
    found = [one for row in rows for one in _of_row(row, cells, law)]
    columns = list(zip(*found, strict=True))
    rivals = {k: np.array([r[k] for r in columns[9]]) for k in columns[9][0]}
    arrays = [np.array(column) for column in columns[:9]]
    return Runs(*arrays[:4], arrays[4].astype(float), *arrays[5:], rivals=rivals)


def _of_row(
    row: dict[str, str],
    cells: dict[tuple[str, int, str, float], study.Cell],
    law: dict[Network, tuple[float, float, float]],
):
    name, batch = row["task"], int(row["batch"])
    network = _network(row)
    widths, numbers = network[0], law[network]
    size = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    rivals = {name: float(row[name]) for name in proxies.NAMES} | {
        "depth": len(widths) - 2,
        "parameters": size,
    }
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


def design(x: Array, centre: float) -> tuple[Array, Array]:
    """Columns of the signal's and of the step's argument, in the order of ``SIGNAL`` and ``STEP``."""
    drift, variance, _, rate, layers = x.T
    up, down = drift.clip(0), (-drift).clip(0)
    log_up, log_down = np.log1p(up), np.log1p(down)
    rate, ones = rate - centre, np.ones(len(x))
    law = [ones, np.log(variance.clip(LEAST_VARIANCE)), log_up, up / 10, log_down, down / 10]
    signal = np.stack([*law, rate, rate**2, rate * log_up, rate * log_down], 1)
    return signal, np.stack([ones, rate, np.log(layers.clip(*DEPTHS) / MIDDLE_DEPTH)], 1)


def starts(x: Array, columns: tuple[Array, Array], weights: Array) -> tuple[Array, Array, Array]:
    """The probability that a network starts, and those that it has a signal and no step too large."""
    signal, step = (
        special.expit(-z)
        for z in (columns[0] @ weights[: len(SIGNAL)], columns[1] @ weights[len(SIGNAL) :])
    )
    return (1 - x[:, 2]) * signal * step, signal, step


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
        return 1 - starts(x, design(told, self.centre), self.weights)[0]


FREE = ("intercept", "rate", "rate_square", "rate_upward", "rate_downward", "step")
"""Coefficients of either sign."""

PENALTY = 0.5
"""Of the squared weights but the intercepts, in units of log-likelihood: keeps separable samples finite."""


LEAST_LINEAR = 0.25
"""Of the drifts' own terms, per 10: the study's reach from -91 to 37, and where single precision overflows or underflows (177) the risk must be near 1 whatever they say."""


def fit(runs: Runs, terms: tuple[str, ...] = NAMES) -> Fitted:
    """The most likely curve that is monotone in the law's numbers and in depth at every learning rate of the sample; terms left out are 0."""
    rates = runs.x[:, 3]
    centre, low, high = (float(r) for r in (np.unique(rates).mean(), rates.min(), rates.max()))
    columns, failed = design(runs.x, centre), runs.failed
    used = np.array([name in terms for name in NAMES])
    has_step = "step" in terms

    def cost(weights: Array) -> tuple[float, Array]:
        start, signal, step = starts(runs.x, columns, weights)
        step = step if has_step else np.ones_like(step)
        start = (start if has_step else (1 - runs.x[:, 2]) * signal).clip(1e-12, 1 - 1e-12)
        value = -np.where(failed, np.log1p(-start), np.log(start)).sum()
        slope = np.where(
            failed, start / (1 - start), -1.0
        )  # of the log-likelihood by ln(start), its sign turned
        gradient = np.concatenate(
            [columns[0].T @ (-slope * (1 - signal)), columns[1].T @ (-slope * (1 - step))]
        )
        penalised = np.where(np.isin(NAMES, ("intercept", "step")), 0.0, weights)
        return value + PENALTY * penalised @ penalised, (gradient + 2 * PENALTY * penalised) * used

    place = NAMES.index
    bounds = [(0, None) if name not in FREE else (None, None) for name in NAMES]
    for linear in ("upward_linear", "downward_linear"):
        bounds[place(linear)] = (LEAST_LINEAR, None)
    bounds = [b if u else (0, 0) for b, u in zip(bounds, used, strict=True)]
    ends = [
        {"type": "ineq", "fun": lambda w, i=i, j=j, end=end: w[i] + w[j] * (end - centre)}
        for i, j in ((place(drift), place(f"rate_{drift}")) for drift in ("upward", "downward"))
        for end in (low, high)
    ]
    start = np.where(used, np.where(np.isin(NAMES, ("intercept", "step")), -3.0, 0.3), 0.0)
    found = optimize.minimize(
        cost,
        start,
        jac=True,
        bounds=bounds,
        constraints=ends,
        method="SLSQP",
        options={"maxiter": 2000},
    )
    weights = found.x if has_step else np.where(np.array(NAMES) == "step", -np.inf, found.x)
    return Fitted(weights, centre, low, high)
