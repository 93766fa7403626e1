"""Curves fitted anew, a family or a task left out: evidence only, nothing that the product uses.

Three are compared with today's risk: the first study's form of curve fitted to this study's
other families (or tasks); the same fitted to these and to the first study's runs; and, beyond
the plan, a logistic curve in today's log-odds and in what one batch says beside them: the loss
over the constant guess's, and the size of the first step.

    PYTHONPATH=.:tests python -m evidence.calibration2.refit   # refit.txt
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from evidence.calibration import fitting
from evidence.calibration.fitting import FAMILIES
from evidence.calibration.validation import calibration_error, interval, resamples, roc_area
from numpy.typing import NDArray
from scipy import optimize, special

from . import analysis
from .analysis import Array, Runs

REFIT = Path(__file__).parent / "refit.txt"
RESAMPLES = 200
FAR = 200.0
"""A drift of networks that overflow or are dead counts as this."""

PENALTY = 0.5
KINDS = ("classification", "regression")


def left_out(runs: Runs, by: NDArray[np.str_], first: fitting.Runs | None) -> Array:
    """Risk of each run by the curve fitted to the runs of other families (or tasks) under its
    optimiser family and kind of loss; joined by the first study's, if given.
    """
    found, x, is_known = runs.risk.copy(), clipped(runs.x), ~np.isnan(runs.x).any(1)
    for part in parts(runs):
        joined = None if first is None else same_part(first, runs, part)
        for name in np.unique(by[part]):
            held = part & is_known & (by == name)
            others = part & is_known & (by != name)
            found[held] = _fit(x[others], runs.failed[others], joined).risk(x[held])
    return found


def clipped(x: Array) -> Array:
    """Drifts within reach, a log-variance where there is none."""
    x = x.copy()
    x[:, 0] = x[:, 0].clip(-FAR, FAR)
    return x


def parts(runs: Runs) -> Iterator[NDArray[np.bool_]]:
    """Where the runs of each optimiser family and kind of loss are."""
    kind = runs.kind
    for members in FAMILIES.values():
        for one in KINDS:
            yield np.isin(runs.optimizer, members) & (kind == one)


def same_part(first: fitting.Runs, runs: Runs, part: NDArray[np.bool_]) -> fitting.Runs:
    """The first study's runs of the same optimiser family and kind of loss."""
    optimizer, kind = runs.optimizer[part][0], runs.kind[part][0]
    members = next(m for m in FAMILIES.values() if optimizer in m)
    return first.where(np.isin(first.optimizer, members) & (first.kind == kind))


def _fit(x: Array, failed: NDArray[np.bool_], joined: fitting.Runs | None) -> fitting.Fitted:
    if joined is not None:
        x, failed = np.concatenate([x, joined.x]), np.concatenate([failed, joined.failed])
    return fitting.fit(SimpleNamespace(x=x, failed=failed))


def on_first(runs: Runs, first: fitting.Runs, joined: bool) -> Array:
    """The first study's runs judged by the curves fitted to this one's (and to themselves)."""
    found, x, is_known = np.full(len(first), np.nan), clipped(runs.x), ~np.isnan(runs.x).any(1)
    kind = first.kind
    for part in parts(runs):
        of = part & is_known
        own = same_part(first, runs, part)
        fitted = _fit(x[of], runs.failed[of], own if joined else None)
        optimizer = runs.optimizer[part][0]
        members = next(m for m in FAMILIES.values() if optimizer in m)
        held = np.isin(first.optimizer, members) & (kind == runs.kind[part][0])
        found[held] = fitted.risk(first.x[held])
    return found


def beside(runs: Runs) -> Array:
    """Columns: 1, today's log-odds, what a batch says (see the module)."""
    risk = analysis.filled(runs.risk).clip(1e-4, 1 - 1e-4)
    grad_norm = np.nan_to_num(runs.baselines[:, 2], nan=1e15, posinf=1e15).clip(1e-15, 1e15)
    excess = np.log(
        (np.nan_to_num(runs.first_loss, nan=1e9, posinf=1e9) / runs.constant).clip(1e-3, 1e9)
    )
    step = np.log(1 + np.exp(runs.x[:, 3]) * grad_norm**2 / runs.constant)
    adaptive = np.isin(runs.optimizer, FAMILIES["adam"])
    rate = runs.x[:, 3] - runs.x[:, 3].mean()
    small = np.log(1 + 1e-6 / grad_norm)  # under Adam's epsilon, about
    columns = [special.logit(risk), np.maximum(excess, 0), np.where(adaptive, 0, step), small, rate]
    return np.stack([np.ones(len(runs)), *columns], 1)


def left_out_beside(runs: Runs, by: NDArray[np.str_]) -> Array:
    """Risk of each run by the logistic curve in `beside`'s columns fitted to the others."""
    found, columns = np.empty(len(runs)), beside(runs)
    for part in parts(runs):
        for name in np.unique(by[part]):
            held, others = part & (by == name), part & (by != name)
            found[held] = special.expit(
                columns[held] @ _logistic(columns[others], runs.failed[others])
            )
    return found


def _logistic(columns: Array, failed: NDArray[np.bool_]) -> Array:
    scale = np.where(columns.std(0) > 0, columns.std(0), 1.0)
    scaled, sign = columns / scale, np.where(failed, 1.0, -1.0)

    def cost(w: Array) -> tuple[float, Array]:
        z = sign * (scaled @ w)
        slope = -sign * special.expit(-z)
        return float(
            np.logaddexp(0, -z).sum() + PENALTY * w @ w
        ), scaled.T @ slope + 2 * PENALTY * w

    return (
        optimize.minimize(cost, np.zeros(columns.shape[1]), jac=True, method="L-BFGS-B").x / scale
    )


def differences(runs: Runs, risk: Array) -> str:
    """A refit's gain over today's risk, by resampled groups: ROC area and calibration error."""
    now, new = analysis.filled(runs.risk), analysis.filled(risk)
    text = []
    for name, measure in (("ROC", roc_area), ("ECE", calibration_error)):
        gaps = [
            measure(runs.failed[i], new[i]) - measure(runs.failed[i], now[i])
            for i in resamples(runs.group, RESAMPLES)
        ]
        low, high = interval(np.array(gaps))
        text.append(f"{name} [{low:+.3f}, {high:+.3f}]")
    return ", ".join(text)


def summary(runs: Runs) -> list[str]:
    """The refits' tables, by lines."""
    first = fitting.load()
    lines = ["\nRefits, as evidence only (families without 20 failures and 20 starts are left out)"]
    forms: dict[str, Callable[[NDArray[np.str_]], Array]] = {
        "this study's other runs": lambda by: left_out(runs, by, None),
        "and the first study's": lambda by: left_out(runs, by, first),
        "today's odds and a batch": lambda by: left_out_beside(runs, by),
    }
    for what, by in (("family", runs.family), ("task", runs.task)):
        found = {name: of(by) for name, of in forms.items()}
        lines.append(f"\n{what} left out; then the difference to today's risk\n{analysis.HEAD}")
        for name, risk in {"today's": runs.risk, **found}.items():
            lines.append(f"{name:24s} {analysis.figures(runs, risk, RESAMPLES)}")
            if name in found:
                lines.append(f"{'':24s} {differences(runs, risk)}")
        lines += _by_name(runs, by, {"today": runs.risk, **found})
    lines.append("\nThe first study's runs by curves fitted to (ROC area, ECE):")
    for name, joined in (("this study's", False), ("both", True)):
        risk = on_first(runs, first, joined)
        pair = roc_area(first.failed, risk), calibration_error(first.failed, risk)
        lines.append(f"{name:24s} {pair[0]:.3f} {pair[1]:.3f}")
    return lines


def _by_name(runs: Runs, by: NDArray[np.str_], found: dict[str, Array]) -> Iterator[str]:
    """ROC area and calibration error of each risk, for each family or task."""
    heads = " ".join(f"{name:>26s}" for name in found)
    yield f"\n{'ROC, ECE':18s} {heads}"
    for name in np.unique(by):
        of = by == name
        failed = runs.failed[of]
        if min(failed.sum(), (~failed).sum()) < analysis.FEW:
            continue
        pairs = []
        for risk in found.values():
            one = analysis.filled(risk)[of]
            pairs.append(f"{roc_area(failed, one):.3f}, {calibration_error(failed, one):.3f}")
        yield f"{name:18s} " + " ".join(f"{pair:>26s}" for pair in pairs)


def main() -> None:
    REFIT.write_text("\n".join(summary(analysis.load())) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
