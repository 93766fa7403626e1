"""What is so of the cases: every weight is drawn afresh, the Jacobian taken by reverse mode.

PYTHONPATH=tests python -m evidence.claims.truth        # adds to truths.csv what is missing
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from evidence.claims.cases import KINDS
from torch import Tensor, nn

from initdiag.network.log_moments import LogMoments

TRUTHS = Path(__file__).parent / "truths.csv"
FIELDS = ("kind", "case", "mean", "mean_se", "variance", "variance_se", "dead", "draws")
DRAWS = 400


def log_norms(factory: Callable[[], nn.Module], x: Tensor, draws: int) -> np.ndarray:
    """``ln||Ju||^2`` of fresh modules (float64), each at a row of ``x``; ``u`` is a random
    unit vector."""
    found = []
    for i in range(draws):
        torch.manual_seed(1_000_003 + i)
        random.seed(i)
        np.random.seed(i)
        model = factory().double()
        leaf = x[i % len(x)][None].double().requires_grad_()
        y = model(leaf.clone()).reshape(-1)
        u = torch.randn(leaf.numel(), dtype=torch.float64)
        gradients = [torch.autograd.grad(v, leaf, retain_graph=True)[0].reshape(-1) for v in y]
        square = float((torch.stack(gradients) @ (u / u.norm())).square().sum())
        found.append(math.log(square) if square > 0 else -math.inf)
    return np.array(found)


def read() -> dict[tuple[str, str], dict[str, float]]:
    with TRUTHS.open(encoding="utf-8", newline="") as file:
        return {
            (row.pop("kind"), row.pop("case")): {name: float(v) for name, v in row.items()}
            for row in csv.DictReader(file)
        }


def main() -> None:
    known = read() if TRUTHS.exists() else {}
    with TRUTHS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for kind, cases in KINDS.items():
            for name, (factory, x) in cases.items():
                found = known.get((kind, name)) or truth_of(factory, x)
                writer.writerow([kind, name, *(f"{value:.6g}" for value in found.values())])
                file.flush()


def truth_of(factory: Callable[[], nn.Module], x: Tensor) -> dict[str, float]:
    m = LogMoments.of(log_norms(factory, x, DRAWS))
    values = (m.mean, m.mean_se, m.variance, m.variance_se, m.dead_fraction, DRAWS)
    return dict(zip(FIELDS[2:], values, strict=True))


if __name__ == "__main__":
    main()
