"""The larger run of ``examples/architecture_search.py``, where its plan is: 10 seeds, compute for 30 networks, random search and evolution.

    PYTHONPATH=tests python -m evidence.search.study --jobs 2      # runs.csv; resumable; then summary.txt
    PYTHONPATH=tests python -m evidence.search.study --summary     # only summary.txt

Rows come in the order of the seeds, so that a run that was interrupted has all tasks and strategies of its first seeds.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

import initdiag

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "examples"))

import architecture_search as example  # noqa: E402
from architecture_search import Trial  # noqa: E402

RUNS, SUMMARY = HERE / "runs.csv", HERE / "summary.txt"
SEEDS, TRIALS = 10, 30
COLUMNS = [field.name for field in fields(Trial)]
KINDS = {"str": str, "int": int, "float": float, "bool": "True".__eq__}


def read(path: Path = RUNS) -> list[Trial]:
    """The rows of the file, if it is there."""
    if not path.exists():
        return []
    kinds = {field.name: KINDS[str(field.type)] for field in fields(Trial)}
    with path.open(encoding="utf-8") as file:
        return [
            Trial(**{name: kinds[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]


def append(trials: list[Trial], path: Path = RUNS) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for trial in trials:
            writer.writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(trial).items()}
            )


def run(jobs: int, seeds: int, strategies: list[str]) -> None:
    """Every search that the file lacks."""
    done = {(trial.seed, trial.strategy, trial.task) for trial in read()}
    plan = itertools.product(range(seeds), strategies, example.TASKS, [TRIALS])
    work = [search for search in plan if search[:3] not in done]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as executor:
        for trials in executor.map(example.both_arms, work):
            append(trials)
            print(trials[0].seed, trials[0].strategy, trials[0].task, len(trials), flush=True)


def provenance(seeds: int) -> str:
    """Command, commit, date, whose coefficients, and whether the run is whole."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout
    coefficients = json.loads(
        (Path(initdiag.__file__).parent / "diagnosing" / "risk_coefficients.json").read_text(
            encoding="utf-8"
        )
    )
    command = "PYTHONPATH=tests python -m evidence.search.study"
    return (
        f"{command}; commit {commit.strip()}, {datetime.date.today()}\n"
        f"the risk's coefficients: commit {coefficients['provenance']['commit']}, {coefficients['provenance']['date']}\n"
        f"{seeds} of the {SEEDS} seeds of the plan{'' if seeds == SEEDS else ': INCOMPLETE'}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="the first so many")
    parser.add_argument(
        "--strategies", nargs="+", choices=example.STRATEGIES, default=list(example.STRATEGIES)
    )
    parser.add_argument("--summary", action="store_true", help="only write summary.txt")
    arguments = parser.parse_args()
    if not arguments.summary:
        run(arguments.jobs, arguments.seeds, arguments.strategies)
    trials = read()
    SUMMARY.write_text(
        f"{provenance(len({t.seed for t in trials}))}\n{example.text(trials)}\n", encoding="utf-8"
    )
    print(SUMMARY.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
