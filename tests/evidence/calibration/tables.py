"""RESULTS.md of the calibration study: its tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import proxies, study, validation
from .fitting import FAMILIES, FORMS, KINDS, Array, Runs
from .population import OPTIMIZERS

LEAST_AREA = {"classification": 0.93, "regression": 0.85}
MOST_ERROR, MOST_ERROR_WITHIN = 0.10, 0.05
RIVALS = ("depth", "parameters", *proxies.NAMES)

BEYOND = """Beyond the plan: the curve has terms that were not planned (the drifts themselves, and a second way to fail, too large a step for the depth; see the forms below); groups count up to the first one that was not finished, so that groups that take long are not left out.
"""

Held = dict[str, Array]


def results(runs: Runs, held: Held, document: dict[str, Any]) -> str:
    """The whole document; ``held``: risks of each run by how they were held out."""
    law, rival = areas(runs, held["tasks"])
    parts = [
        *_head(runs, document),
        *_targets(runs, held, law, rival),
        "## Left-out tasks\n",
        "Fitted on the other tasks of the same kind of loss; learning rate told. In brackets: 95 % intervals by a bootstrap over groups.\n",
        table(LEFT_OUT, left_out(runs, held["tasks"], law)),
        "Fitted on all other tasks, whatever their loss (what a task of a third kind would get):\n",
        table(LEFT_OUT[:-1], left_out(runs, held["all_tasks"])),
        "The earlier pilot's 600 runs (`tests/evidence/pilot`: digits; other code, widths to 256, 345 steps), by curves fitted to `cancer` and "
        "`clusters`:\n",
        table(("optimiser", "learning rate", "runs", "failed", "ROC area", "ECE", "Brier"), pilot(runs)),
        "Forms of the curve, with the task left out (mean log-loss, and the mean over tasks and optimisers of the ROC area):\n",
        table(FORMS_HEAD, forms(runs)),
        "## Left-out learning rates\n",
        "Fitted without every run at that effective learning rate (of momentum: ten times the learning rate).\n",
        table(("loss", "family", "effective rate", "runs", "failed", "ROC area", "ECE", "Brier"), rates(runs, held["rates"])),
        "## Within tasks\n",
        "Ten-fold cross-validation over groups: of a curve fitted to the task alone; of the shipped curve's form, fitted to all tasks of the "
        "kind; and the shipped curve told the loss but not the learning rate, and told nothing (both in sample: what a report shows).\n",
        table(WITHIN, within(runs, held)),
        "## Rivals\n",
        "ROC area of each rival on the same runs (of its better sign), beside the law's with the task left out, and the law's lead in a paired "
        "bootstrap (95 % interval).\n",
        table(("task", "optimiser", "law", *RIVALS), rival_areas(law, rival)),
        table(("task", "optimiser", *(f"lead over {r}" for r in RIVALS)), leads(law, rival)),
        "Processor time per network (ms, median, mean): " + validation.costs() + "\n",
        "## Reliability\n",
        "Runs in ten bins of equal count by the risk held out by task: mean risk, and share that did not start.\n",
        table(("loss", "family", *map(str, range(1, 11))), reliability(runs, held["tasks"])),
        "## The verdict\n",
        "A report's rule on these runs: at risk from 0.5 on, told only the optimiser (in sample, all tasks).\n",
        table(("optimiser", "called at risk", "of these, did not start", "called healthy", "of these, did not start"), called(runs, held)),
        "## How late a network starts\n",
        "Steps until it starts over the healthy networks' median, of those that started, by the risk held out by task; and the final gain over "
        "the healthy networks' (median).\n",
        table(("loss", "family", "risk", "runs", "did not start", "steps ratio (median)", "(90 %)", "gain ratio"), delays(runs, held["tasks"])),
        "## The outcome by training loss alone\n",
        "Did not start: the training loss fell by less than a tenth of what the healthy networks' gain would be of it. Same risks.\n",
        table(("task", "optimiser", "failed", "disagrees", "ROC area", "ECE"), by_loss(runs, held["tasks"])),
    ]  # fmt: skip
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, followed by an empty line."""
    lines = [" | ".join(head), " | ".join(["---"] * len(head)), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def parts_of(runs: Runs) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Task, optimiser, and the indices of their runs."""
    for name in KINDS:
        for optimizer in OPTIMIZERS:
            yield (
                name,
                optimizer,
                np.flatnonzero((runs.task == name) & (runs.optimizer == optimizer)),
            )


Areas = dict[tuple[str, str], Array]


def areas(runs: Runs, risk: Array) -> tuple[Areas, dict[str, Areas]]:
    """ROC areas of the law and of each rival by task and optimiser: the sample's first, then those of the resamples (paired)."""
    law: Areas = {}
    rivals: dict[str, Areas] = {name: {} for name in RIVALS}
    for name, optimizer, of in parts_of(runs):
        draws = [np.arange(len(of)), *validation.resamples(runs.group[of])]
        failed = runs.failed[of]
        law[name, optimizer] = np.array(
            [validation.roc_area(failed[d], risk[of][d]) for d in draws]
        )
        for rival in RIVALS:
            score = np.nan_to_num(runs.rivals[rival][of], nan=-np.inf)
            score = score if not validation.roc_area(failed, score) < 0.5 else -score
            rivals[rival][name, optimizer] = np.array(
                [validation.roc_area(failed[d], score[d]) for d in draws]
            )
    return law, rivals


def _head(runs: Runs, document: dict[str, Any]) -> Iterator[str]:
    p = document["provenance"]
    dropped = [key for key, cell in study.cells().items() if not cell.is_kept]
    yield "# Calibration of the risk: results\n"
    yield f"Written by `{p['command']}` ({p['date']}) from `runs.csv`, by the plan in `PLAN.md`. Natural logarithms throughout.\n"
    yield f"{p['runs']:,} runs of {p['groups']} groups; {runs.failed.mean():.1%} did not start. Dropped by the rule for cells: "
    yield "; ".join(f"{t}, batch {b}, {o} {lr:g}" for t, b, o, lr in dropped) + ".\n"
    yield BEYOND
    yield "Coefficients (`initdiag/diagnosing/risk_coefficients.json`; the linear terms per 10 of drift):\n"
    names = [
        n for n in next(iter(document["curves"]["sgd"].values())) if n not in ("lowest", "highest")
    ]
    rows = [
        (family, kind, *(f"{curve[n]:.3f}" for n in names))
        for family, by in document["curves"].items()
        for kind, curve in by.items()
    ]
    yield table(("family", "loss", *names), rows)


def _targets(runs: Runs, held: Held, law: Areas, rivals: dict[str, Areas]) -> Iterator[str]:
    """Where the targets set beforehand are met, and where they are not."""
    yield "## Targets\n"
    below = [
        f"{t} {o} ({a[0]:.3f})" for (t, o), a in law.items() if not a[0] >= LEAST_AREA[KINDS[t]]
    ]
    yield _said(
        f"ROC area with the task left out: {LEAST_AREA['classification']} on each classification, {LEAST_AREA['regression']} on each regression",
        below,
    )
    for what, risk, most in (
        ("with the task left out", held["tasks"], MOST_ERROR),
        ("within tasks", held["within"], MOST_ERROR_WITHIN),
    ):
        errors = {
            (t, o): validation.calibration_error(runs.failed[of], risk[of])
            for t, o, of in parts_of(runs)
        }
        yield _said(
            f"Expected calibration error {what}: at most {most:.2f}",
            [f"{t} {o} ({e:.3f})" for (t, o), e in errors.items() if not e <= most],
        )
    yield from beaten(law, rivals, "")
    yield from beaten(
        areas(runs, held["no_rate"])[0], rivals, ", the law not told the learning rate"
    )
    yield ""


def beaten(law: Areas, rivals: dict[str, Areas], how: str) -> Iterator[str]:
    """Where each rival's ROC area is below the law's, by the 95 % interval of a paired bootstrap."""
    for rival, found in rivals.items():
        lows = {key: validation.interval(ours[1:] - found[key][1:])[0] for key, ours in law.items()}
        missed = [
            f"{' '.join(key)} ({law[key][0]:.3f} against {found[key][0]:.3f})"
            for key, low in lows.items()
            if not low > 0
        ]
        yield _said(f"{rival} beaten in a paired bootstrap (95 %){how}", missed)


def _said(what: str, missed: list[str]) -> str:
    total = len(KINDS) * len(OPTIMIZERS)
    return f"- {what}: " + (
        f"**met in {total - len(missed)} of {total}**; not met: {', '.join(missed)}."
        if missed
        else f"**met in all {total}**."
    )


LEFT_OUT = ("task", "optimiser", "runs", "failed", "ROC area", "ECE", "Brier", "ROC interval")


def left_out(runs: Runs, risk: Array, law: Areas | None = None) -> Iterator[tuple[str, ...]]:
    for name, optimizer, of in parts_of(runs):
        row = (name, optimizer, *_scored(runs.failed[of], risk[of]))
        if law is None:
            yield row
        else:
            low, high = validation.interval(law[name, optimizer][1:])
            yield (*row, f"[{low:.3f}, {high:.3f}]")


def pilot(runs: Runs) -> Iterator[tuple[str, ...]]:
    for part in validation.pilot(runs):
        yield part.optimizer, f"{part.lr:g}", *_scored(part.failed, part.risk)


FORMS_HEAD = (
    "form",
    "sgd, classification",
    "sgd, regression",
    "adam, classification",
    "adam, regression",
    "mean ROC area",
)


def forms(runs: Runs) -> Iterator[tuple[str, ...]]:
    for name, terms in FORMS.items():
        risk = validation.left_out_tasks(runs, terms=terms)
        losses = [
            validation.log_loss(runs.failed[p], risk[p]) for p in validation.family_and_kind(runs)
        ]
        found = [validation.roc_area(runs.failed[of], risk[of]) for _, _, of in parts_of(runs)]
        yield name, *(f"{loss:.3f}" for loss in losses), f"{np.nanmean(found):.3f}"


def _scored(failed: NDArray[np.bool_], risk: Array) -> tuple[str, ...]:
    measures = (
        validation.roc_area(failed, risk),
        validation.calibration_error(failed, risk),
        validation.brier(failed, risk),
    )
    return str(len(failed)), f"{failed.mean():.1%}", *(f"{m:.3f}" for m in measures)


def rates(runs: Runs, risk: Array) -> Iterator[tuple[str, ...]]:
    for part in validation.family_and_kind(runs):
        family = next(f for f, members in FAMILIES.items() if runs.optimizer[part][0] in members)
        for rate in np.unique(runs.x[part, 3]):
            of = part & (runs.x[:, 3] == rate)
            yield (
                runs.kind[of][0],
                family,
                f"{np.exp(rate):.4g}",
                *_scored(runs.failed[of], risk[of]),
            )


WITHIN = (
    "task",
    "optimiser",
    "own curve: ROC",
    "ECE",
    "shared curve: ROC",
    "ECE",
    "rate untold: ROC",
    "ECE",
    "nothing told: ROC",
    "ECE",
)


def within(runs: Runs, held: Held) -> Iterator[tuple[str, ...]]:
    for name, optimizer, of in parts_of(runs):
        row = [name, optimizer]
        for key in ("within", "pooled", "untold", "nothing_told"):
            failed, risk = runs.failed[of], held[key][of]
            row += [
                f"{validation.roc_area(failed, risk):.3f}",
                f"{validation.calibration_error(failed, risk):.3f}",
            ]
        yield tuple(row)


def rival_areas(law: Areas, rivals: dict[str, Areas]) -> Iterator[tuple[str, ...]]:
    for key, ours in law.items():
        yield *key, f"**{ours[0]:.3f}**", *(f"{rivals[r][key][0]:.3f}" for r in RIVALS)


def leads(law: Areas, rivals: dict[str, Areas]) -> Iterator[tuple[str, ...]]:
    for key, ours in law.items():
        intervals = [validation.interval(ours[1:] - rivals[r][key][1:]) for r in RIVALS]
        yield *key, *(f"[{low:+.3f}, {high:+.3f}]" for low, high in intervals)


def reliability(runs: Runs, risk: Array) -> Iterator[tuple[str, ...]]:
    for part in validation.family_and_kind(runs):
        failed, held = runs.failed[part], risk[part]
        family = next(f for f, members in FAMILIES.items() if runs.optimizer[part][0] in members)
        cells = [f"{held[b].mean():.2f}: {failed[b].mean():.2f}" for b in validation.bins(held)]
        yield runs.kind[part][0], family, *cells


def called(runs: Runs, held: Held) -> Iterator[tuple[str, ...]]:
    for optimizer in OPTIMIZERS:
        of = runs.optimizer == optimizer
        at_risk = held["nothing_told"] >= 0.5
        cells = [
            (str(int((of & m).sum())), f"{runs.failed[of & m].mean():.1%}")
            for m in (at_risk, ~at_risk)
        ]
        yield optimizer, *cells[0], *cells[1]


def delays(runs: Runs, risk: Array) -> Iterator[tuple[str, ...]]:
    for part in validation.family_and_kind(runs):
        family = next(f for f, members in FAMILIES.items() if runs.optimizer[part][0] in members)
        for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
            of = part & (risk >= low) & (risk < high)
            ratios = runs.start[of][np.isfinite(runs.start[of])]
            late = (
                [f"{np.median(ratios):.1f}", f"{np.quantile(ratios, 0.9):.1f}"]
                if len(ratios)
                else ["", ""]
            )
            gain = f"{np.median(runs.score[of]):.2f}" if of.any() else ""
            failed = f"{runs.failed[of].mean():.1%}" if of.any() else ""
            yield (
                runs.kind[part][0],
                family,
                f"{low:g} to {min(high, 1):g}",
                str(int(of.sum())),
                failed,
                *late,
                gain,
            )


def by_loss(runs: Runs, risk: Array) -> Iterator[tuple[str, ...]]:
    for name, optimizer, of in parts_of(runs):
        failed = runs.failed_by_loss[of]
        differs = (failed != runs.failed[of]).mean()
        area, error = (
            validation.roc_area(failed, risk[of]),
            validation.calibration_error(failed, risk[of]),
        )
        yield (
            name,
            optimizer,
            f"{failed.mean():.1%}",
            f"{differs:.1%}",
            f"{area:.3f}",
            f"{error:.3f}",
        )
