"""Fit the shipped curves and write what they are worth: risk_coefficients.json (in the package) and RESULTS.md.

PYTHONPATH=tests python -m evidence.calibration.analyse
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
from typing import Any

import numpy as np

from . import fitting, study, tables, validation
from .fitting import FAMILIES, KINDS, NAMES, Runs
from .population import OPTIMIZERS

RESULTS = study.HERE / "RESULTS.md"
COEFFICIENTS = study.HERE.parents[2] / "initdiag" / "diagnosing" / "risk_coefficients.json"


def coefficients(
    runs: Runs, when: str, commit: str, curves: dict[str, tuple[str, ...]] | None = None
) -> dict[str, Any]:
    """The document that `initdiag.diagnosing.calibration` loads; ``curves``: kinds of loss by family, all if not given."""
    kinds = tuple(sorted(set(KINDS.values())))
    wanted = curves or dict.fromkeys(FAMILIES, kinds)
    groups = int(runs.group.max()) + 1
    count = f"{len(runs):,} training runs on {len(set(runs.task))} tasks"
    return {
        "provenance": {
            "summary": f"calibrated on {count} (tests/evidence/calibration)",
            "plan": "tests/evidence/calibration/PLAN.md",
            "command": "PYTHONPATH=tests python -m evidence.calibration.analyse fit",
            "commit": commit,
            "date": when,
            "groups": groups,
            "runs": len(runs),
            "seed": "default_rng([20261207, group])",
        },
        "curves": {
            family: {kind: _curve(runs.of_family(family), kind) for kind in own}
            for family, own in wanted.items()
        },
        "rates": {o: {kind: _rates(runs, o, kind) for kind in kinds} for o in OPTIMIZERS},
    }


def _curve(runs: Runs, kind: str) -> dict[str, float]:
    fitted = fitting.fit(runs.where(runs.kind == kind))
    ends = {"centre": fitted.centre, "lowest": fitted.low, "highest": fitted.high}
    ends |= {"lowest": float(np.exp(fitted.low)), "highest": float(np.exp(fitted.high))}
    return {
        k: float(f"{v:.6g}")
        for k, v in {**dict(zip(NAMES, fitted.weights, strict=True)), **ends}.items()
    }


def _rates(runs: Runs, optimizer: str, kind: str) -> list[list[float]]:
    of = runs.lr[(runs.optimizer == optimizer) & (runs.kind == kind)]
    return [[float(lr), round(float((of == lr).mean()), 4)] for lr in np.unique(of)]


def untold(runs: Runs, told_loss: bool) -> np.ndarray:
    """The shipped risk of each run when the learning rate is not told (nor the loss): what a report shows."""
    from initdiag.diagnosing.risk import Training, risks

    found = np.empty(len(runs))
    for optimizer in OPTIMIZERS:
        for kind in set(KINDS.values()):
            of = (runs.optimizer == optimizer) & (runs.kind == kind)
            training = Training(optimizer, loss=kind if told_loss else None)
            found[of] = risks(*runs.x[of, :3].T, runs.x[of, 4], training)
    return found


def results(runs: Runs, document: dict[str, Any]) -> str:
    """RESULTS.md."""
    held = {
        "tasks": validation.left_out_tasks(runs),
        "all_tasks": validation.left_out_tasks(runs, same_kind=False),
        "no_rate": validation.left_out_tasks(runs, terms=fitting.UNTOLD),
        "rates": validation.left_out_rates(runs),
        "within": validation.left_out_groups(runs, within_task=True),
        "pooled": validation.left_out_groups(runs, within_task=False),
        "untold": untold(runs, told_loss=True),
        "nothing_told": untold(runs, told_loss=False),
    }
    return tables.results(runs, held, document)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True, cwd=study.HERE
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["fit", "results"])
    runs = fitting.load()
    if parser.parse_args().command == "fit":
        document = coefficients(
            runs, datetime.date.today().isoformat(), _git("log", "-1", "--format=%h", "--", ".")
        )
        COEFFICIENTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    else:
        document = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
        RESULTS.write_text(results(runs, document), encoding="utf-8")


if __name__ == "__main__":
    main()
