"""The calibration study's runs (see PLAN.md).

export PYTHONPATH=tests OMP_NUM_THREADS=1
python -m evidence.calibration.study healthy                  # the healthy networks of every cell: healthy.csv
python -m evidence.calibration.study run --groups 1200        # runs.csv; resumable
python -m evidence.calibration.study run --groups 1200 --part 0/2 &  # in two processes, on one file
python -m evidence.calibration.study run --groups 1200 --part 1/2
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import population, proxies, tasks, training
from .population import BATCHES, OPTIMIZERS, Group, learning_rates

HERE = Path(__file__).parent
HEALTHY, RUNS = HERE / "healthy.csv", HERE / "runs.csv"

HEALTHY_HIDDEN = ((64, 64), (128, 128), (64, 64, 64), (128, 128, 128))
HEALTHY_INITS = (("he_normal", 1.0), ("orthogonal", 1.0))
LEAST_HEALTHY_GAIN, LEAST_HEALTHY_STARTED = 0.3, 7
STARTED = 0.1

HEALTHY_FIELDS = (
    "task",
    "batch",
    "optimizer",
    "lr",
    "chance",
    "gain",
    "started",
    "start",
    "scores",
)
RUN_FIELDS = (
    *("group", "task", "batch", "shape", "hidden", "init", "gain"),
    *proxies.NAMES,
    *(f"{name}_ms" for name in proxies.NAMES),
    "loss_before",
    *(f"{o}_{what}" for o in OPTIMIZERS for what in ("lr", "loss", "score", "start")),
)


@dataclass(frozen=True)
class Cell:
    """What eight healthy networks reach: ``gain`` of the score over ``chance`` (median), how many of them started, and when (median step)."""

    chance: float
    gain: float
    healthy_started: int
    start: float

    @property
    def is_kept(self) -> bool:
        """Whether healthy networks learn: a gain of at least 0.3 of the greatest there can be, and 7 of 8 start."""
        learns = self.gain >= LEAST_HEALTHY_GAIN * (1 - self.chance)
        return learns and self.healthy_started >= LEAST_HEALTHY_STARTED

    def started(
        self, scores: np.ndarray, losses: np.ndarray, loss_before: np.ndarray
    ) -> np.ndarray:
        """Whether the score gained a tenth of what healthy ones gain, and the training loss fell. NaN is no start."""
        return (scores - self.chance >= STARTED * self.gain) & (losses < loss_before)


def cells(path: Path = HEALTHY) -> dict[tuple[str, int, str, float], Cell]:
    """The cells of the study by task, batch size, optimiser and learning rate."""
    with path.open() as file:
        return {
            (r["task"], int(r["batch"]), r["optimizer"], float(r["lr"])): Cell(
                float(r["chance"]), float(r["gain"]), int(r["started"]), float(r["start"])
            )
            for r in csv.DictReader(file)
        }


def healthy(path: Path) -> None:
    """Train the healthy networks of every cell."""
    lines = [HEALTHY_FIELDS]
    for name, batch in itertools.product(tasks.NAMES, BATCHES):
        lines += _healthy_lines(name, batch)
        print(*lines[-1])
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def _healthy_lines(name: str, batch: int) -> Iterator[Sequence[object]]:
    task = tasks.task(name)
    settings = [(o, lr) for o in OPTIMIZERS for lr in learning_rates(name, o)]
    scores = np.concatenate(
        [_healthy_scores(name, batch, n, settings) for n in range(len(HEALTHY_HIDDEN))], 2
    )
    for (optimizer, lr), of in zip(settings, scores.transpose(1, 0, 2), strict=True):
        gain = float(np.median(of[-1])) - task.chance
        has = of - task.chance >= STARTED * max(gain, 1e-9)
        starts = [_step(column) or training.CHECKPOINTS[-1] for column in has.T]
        finals = " ".join(f"{score:.3f}" for score in of[-1])
        numbers = f"{task.chance:.4f}", f"{gain:.4f}", int(has[-1].sum()), f"{np.median(starts):g}"
        yield name, batch, optimizer, lr, *numbers, finals


def _healthy_scores(
    name: str, batch: int, number: int, settings: Sequence[tuple[str, float]]
) -> np.ndarray:
    """Scores [look][setting][initialiser] of one healthy architecture; of a network that blew up, 0."""
    task = tasks.task(name)
    widths = (task.x.shape[1], *HEALTHY_HIDDEN[number], task.outputs)
    bases = [population.network(widths, *init, seed=10**9 + number) for init in HEALTHY_INITS]
    optimizers, rates = zip(*(s for s in settings for _ in bases), strict=True)
    trace = training.train(
        [b for _ in settings for b in bases], optimizers, rates, task, batch, 10**9 + number
    )
    return np.nan_to_num(trace.scores.numpy()).clip(0).reshape(-1, len(settings), len(bases))


def _step(has: np.ndarray) -> int | None:
    """The first step at which it holds, of step 0 and the checkpoints."""
    return (0, *training.CHECKPOINTS)[int(has.argmax())] if has.any() else None


def run(path: Path, groups: int, part: int, parts: int) -> None:
    """Run the groups that ``path`` does not have; a group's rows are written at once."""
    known = cells()
    if not path.exists():
        path.write_text(",".join(RUN_FIELDS) + "\n")
    for index in range(part, groups, parts):
        if index not in finished(path):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(
                group_rows(population.group(index), known)
            )
            with path.open("a") as file:
                file.write(text.getvalue())


def finished(path: Path) -> set[int]:
    """The groups that are in the file."""
    with path.open() as file:
        return {int(row["group"]) for row in csv.DictReader(file)}


def group_rows(group: Group, known: dict[tuple[str, int, str, float], Cell]) -> list[list[object]]:
    """Train a group: a row for each of its networks."""
    task = tasks.task(group.task)
    seeds = [1000 * group.index + k for k in range(len(group.inits))]
    bases = [
        population.network(group.widths, *init, seed=s)
        for init, s in zip(group.inits, seeds, strict=True)
    ]
    measured = [proxies.measured(base, task) for base in bases]
    of = [(o, k) for o in range(len(OPTIMIZERS)) for k in range(len(bases))]
    trace = training.train(
        [bases[k] for _, k in of],
        [OPTIMIZERS[o] for o, _ in of],
        [group.rates[k][o] for o, k in of],
        task,
        group.batch,
        group.index,
    )
    losses, scores = trace.losses.numpy(), trace.scores.numpy()
    rows = []
    for k, (init, gain) in enumerate(group.inits):
        values, costs = measured[k]
        row: list[object] = [
            group.index,
            group.task,
            group.batch,
            group.shape,
            compact(group.hidden),
            init,
            gain,
        ]
        row += [*(f"{v:.5g}" for v in values), *(f"{c:.1f}" for c in costs), f"{losses[0, k]:.4g}"]
        for o, optimizer in enumerate(OPTIMIZERS):
            column, lr = of.index((o, k)), group.rates[k][o]
            cell = known[group.task, group.batch, optimizer, lr]
            step = _step(cell.started(scores[:, column], losses[:, column], losses[0, column]))
            row += [
                lr,
                f"{losses[-1, column]:.3g}",
                f"{max(scores[-1, column], -1):.3f}",
                "" if step is None else step,
            ]
        rows.append(row)
    return rows


def compact(hidden: Sequence[int]) -> str:
    """Widths as ``12-3x40-7``."""
    runs = [(len(list(same)), n) for n, same in itertools.groupby(hidden)]
    return "-".join(f"{count}x{n}" if count > 1 else str(n) for count, n in runs)


def expanded(text: str) -> tuple[int, ...]:
    """The widths that `compact` wrote."""
    found: list[int] = []
    for part in text.split("-"):
        count, _, n = part.rpartition("x")
        found += [int(n)] * int(count or 1)
    return tuple(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["healthy", "run"])
    parser.add_argument("--path", type=Path)
    parser.add_argument("--groups", type=int, default=1200)
    parser.add_argument("--part", default="0/1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if arguments.command == "healthy":
        healthy(arguments.path or HEALTHY)
    else:
        part, parts = map(int, arguments.part.split("/"))
        run(arguments.path or RUNS, arguments.groups, part, parts)


if __name__ == "__main__":
    main()
