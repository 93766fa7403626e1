"""What is known of each network at initialisation: the numbers that the product judges by, and
baselines (features.csv; resumable by network).

    PYTHONPATH=.:tests OMP_NUM_THREADS=1 python -m evidence.calibration2.features
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

import initdiag
from initdiag.diagnosing.basis import basis_of

from . import population, tasks

FEATURES = Path(__file__).parent / "features.csv"
FIELDS = ("group", "k", "basis", "drift", "variance", "dead", "layers", "grad_norm", "seconds")
DRAWS = 64


def features(row: Mapping[str, str]) -> list[object]:
    """The network's numbers; ``basis`` is "structure" where the verdict needs none of them, and
    then the risk is 1; "none" where there is no verdict; "error: ..." where the product raised.
    """
    begun = time.perf_counter()
    network, (x, y) = population.network(row), population.batch(row)
    size = grad_norm(row, x, y)
    try:
        basis, numbers = judged(network, x)
    except Exception as error:  # a fault of the product is a row, too
        print(row["group"], row["k"], repr(error), file=sys.stderr, flush=True)
        basis, numbers = f"error: {type(error).__name__}", ("", "", "", "")
    spent = f"{time.perf_counter() - begun:.2f}"
    return [row["group"], row["k"], basis, *numbers, f"{size:.4g}", spent]


def judged(network: torch.nn.Module, x: torch.Tensor) -> tuple[str, tuple[object, ...]]:
    """The basis of `initdiag.diagnose`'s verdict, and its numbers. Where the law covers the
    network it is judged by the law, whatever is measured, so that nothing is measured there.
    """
    for method in ("none", "auto"):
        report = initdiag.diagnose(network, x, draws=DRAWS, method=method)
        if report.basis != "none":
            break
    if report.basis == "structure":
        return "structure", ("", "", 1.0, "")
    numbers, basis = basis_of(
        report.architecture, report.prediction, report.measurement, report.agreement
    )
    if numbers is None:
        return "none", ("", "", "", "")
    depth = "" if numbers.depth is None else numbers.depth
    return basis.value, (f"{numbers.drift:.6g}", f"{numbers.variance:.6g}", numbers.dead, depth)


def grad_norm(row: Mapping[str, str], x: torch.Tensor, y: torch.Tensor) -> float:
    """The norm of the task's loss's gradient with respect to all weights."""
    network, task = population.network(row), tasks.task(row["task"])
    network = torch.func.replace_all_batch_norm_modules_(network)  # as in training
    loss = task.losses(task.run(network, x).unsqueeze(0), x, y).sum()
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return float(torch.cat([g.flatten() for g in found if g is not None]).norm())


def known(path: Path = FEATURES) -> dict[tuple[int, int], dict[str, str]]:
    """The features in the file, by group and network."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(int(r["group"]), int(r["k"])): r for r in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--until", type=int, default=420)
    parser.add_argument("--path", type=Path, default=FEATURES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    done = known(arguments.path)
    if not arguments.path.exists():
        arguments.path.write_text(",".join(FIELDS) + "\n")
    for index, k in itertools.product(range(arguments.until), range(3)):
        if (index, k) not in done:
            row = {"group": str(index), "k": str(k), "task": population.group(index).task}
            with arguments.path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(features(row))


if __name__ == "__main__":
    main()
