"""The second study's runs (see PLAN.md).

    export PYTHONPATH=.:tests OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824
    python -m evidence.calibration2.study healthy          # healthy.csv
    python -m evidence.calibration2.study run --until 400  # runs.csv.gz; resumable by group

The allocator's setting keeps large arrays from being mapped anew at every step; it changes no
number.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import io
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import families, population, tasks, training
from .families import Spec
from .population import OPTIMIZERS, RUNS, Group

HEALTHY = Path(__file__).parent / "healthy.csv"
HEALTHY_NETWORKS = (
    ("relu", ("he_normal", 1.0)),
    ("relu", ("orthogonal", 2**0.5)),
    ("tanh", ("xavier_normal", 1.0)),
)
HEALTHY_WIDTH, HEALTHY_DEPTHS = 48, (2, 3)
STARTED, LEAST_GAIN = 0.1, 0.3

HEALTHY_FIELDS = ("task", "optimizer", "lr", "chance", "constant", "score", "loss", "scores")
FIELDS = (
    *("group", "k", "family", "depth", "width", "extra", "task", "scale", "init", "factor"),
    *("optimizer", "lr", "first_loss", "constant_loss", "final_loss", "score", "started"),
    *("nan", "steps", "seconds"),
)


@dataclass(frozen=True)
class Cell:
    """What healthy networks reach with a task, an optimiser and a learning rate, or a lower one
    of the grid: the best median ``gain`` of the score over ``chance``, the best median
    ``reduction`` of the training loss under the ``constant`` guess's.
    """

    chance: float
    constant: float
    gain: float
    reduction: float

    @property
    def is_kept(self) -> bool:
        """Whether healthy networks learn here at all."""
        return self.gain >= LEAST_GAIN * (1 - self.chance)

    def started(self, before: float, after: float, score: float) -> bool:
        """Whether a run started: a tenth of the healthy gain, and a training loss that fell."""
        return score - self.chance >= STARTED * self.gain and after < before

    def loss_started(self, after: float) -> bool:
        """Whether it did by its training loss alone."""
        return self.constant - after >= STARTED * self.reduction


def cells(path: Path = HEALTHY) -> dict[tuple[str, str, float], Cell]:
    """The cells by task, optimiser and learning rate."""
    found, best = {}, {}
    with path.open() as file:
        for r in sorted(csv.DictReader(file), key=lambda r: float(r["lr"])):
            chance, constant = float(r["chance"]), float(r["constant"])
            reached = np.array([float(r["score"]) - chance, constant - float(r["loss"])])
            key = r["task"], r["optimizer"]
            best[key] = np.fmax(best.get(key, np.zeros(2)), reached)
            gain, reduction = (float(v) for v in best[key])
            found[*key, float(r["lr"])] = Cell(chance, constant, gain, reduction)
    return found


def settings(task: tasks.Task) -> list[tuple[str, float]]:
    """The sixteen optimisers with their learning rates, SGD and momentum first."""
    return [(o, lr) for o in OPTIMIZERS for lr in population.rates(task, o)]


def healthy(path: Path) -> None:
    """Train the healthy networks of every cell, on standardised inputs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEALTHY_FIELDS)
        for name in tasks.NAMES:
            writer.writerows(_healthy_rows(tasks.task(name)))
            file.flush()


def _healthy_rows(task: tasks.Task) -> list[list[object]]:
    pairs, scale = settings(task), 1 / float(task.x.std())
    found = []
    for (gate, init), depth in itertools.product(HEALTHY_NETWORKS, HEALTHY_DEPTHS):
        torch.manual_seed(10**9)
        network = families.build(task, Spec(gate, depth, HEALTHY_WIDTH))
        population.initialise(network, *init)
        copies = [copy.deepcopy(network) for _ in pairs]
        optimizers, rates = zip(*pairs, strict=True)
        found.append(training.train(copies, optimizers, rates, task, scale, 10**9))
    scores = np.nan_to_num(np.stack([f.score for f in found]), nan=-1.0).clip(-1)
    losses = np.nan_to_num(np.stack([f.after for f in found]), nan=np.inf)
    rows = []
    for j, pair in enumerate(pairs):
        middle = f"{np.median(scores[:, j]):.4f}", f"{np.median(losses[:, j]):.4g}"
        every = " ".join(f"{s:.3f}" for s in scores[:, j])
        rows.append(
            [task.name, *pair, f"{task.chance:.4f}", f"{task.constant:.4g}", *middle, every]
        )
    return rows


def run(path: Path, until: int) -> None:
    """Run the groups up to ``until`` that the file does not have, in order; a group's rows are
    written at once.
    """
    known = cells()
    done = {int(row["group"]) for row in population.rows(path)} if path.exists() else set()
    if not path.exists():
        _append(path, [FIELDS])
    for index in range(until):
        if index not in done:
            _append(path, group_rows(population.group(index), known))


def _append(path: Path, lines: list) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with path.open("ab") as file:
        file.write(gzip.compress(text.getvalue().encode(), mtime=0))


def group_rows(
    group: Group,
    known: Mapping[tuple[str, str, float], Cell],
    ks: tuple[int, ...] = (0, 1, 2),
    pairs: list[tuple[str, float]] | None = None,
) -> list[list[object]]:
    """Train a group, or only some of its networks under some settings: a row for each run."""
    task, begun = tasks.task(group.task), time.perf_counter()
    networks = {k: population.initial(group, k) for k in ks}
    of = [(o, lr, k) for o, lr in pairs or settings(task) for k in ks]
    outcome = training.train(
        [copy.deepcopy(networks[k]) for *_, k in of],
        [o for o, *_ in of],
        [lr for _, lr, _ in of],
        task,
        group.scale,
        group.index,
    )
    seconds = f"{(time.perf_counter() - begun) / len(of):.3f}"
    spec, rows = group.spec, []
    for j, (optimizer, lr, k) in enumerate(of):
        before, after, score = (float(v[j]) for v in (outcome.before, outcome.after, outcome.score))
        is_started = known[task.name, optimizer, lr].started(before, after, score)
        init, factor = group.inits[k]
        rows.append([
            group.index, k, spec.family, spec.depth, spec.width, spec.extra, task.name, group.scale,
            init, f"{factor:.4g}", optimizer, lr, f"{before:.4g}", f"{task.constant:.4g}",
            f"{after:.4g}", f"{score:.3f}", int(is_started), int(not np.isfinite(after)),
            outcome.steps[j], seconds,
        ])  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["healthy", "run"])
    parser.add_argument("--path", type=Path)
    parser.add_argument("--until", type=int, default=420)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if arguments.command == "healthy":
        healthy(arguments.path or HEALTHY)
    else:
        run(arguments.path or RUNS, arguments.until)


if __name__ == "__main__":
    main()
