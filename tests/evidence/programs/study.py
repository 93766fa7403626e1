"""The claims about random programs against fresh draws of them; the plan is PLAN.md.

PYTHONPATH=tests python -m evidence.programs.study 0 2000       # resumable, appends
PYTHONPATH=tests python -m evidence.programs.study --summary
"""

from __future__ import annotations

import csv
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from evidence.programs.generator import Plan, Program, program
from scipy import stats

import initdiag
from initdiag.network.log_moments import LogMoments

HERE = Path(__file__).parent
RESULTS = HERE / "programs.csv"
FIELDS = (
    "seed", "names", "verdict", "coverage", "predicted_mean", "mean_error", "predicted_variance",
    "variance_error", "predicted_dead", "gap", "true_mean", "mean_se", "true_variance",
    "variance_se", "true_dead", "draws", "z_mean", "z_variance", "p_dead", "seconds",
)  # fmt: skip
CLAIMS = ("exact", "first-order")
LIMIT, DEAD_LEVEL, DRAWS = 5.0, 1e-6, 300


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def rows_of(plan: Plan) -> torch.Tensor:
    return torch.randn(16, plan.widths[0], generator=torch.Generator().manual_seed(plan.seed))


def true_log_norms(plan: Plan, draws: int) -> np.ndarray:
    """``ln||Ju||^2`` of fresh programs, each at a row of the example, by reverse mode."""
    rows, logs = rows_of(plan).double(), []
    for i in range(draws):
        seeded(plan.seed * 10_007 + i)
        net = Program(plan).double()
        x = rows[i % len(rows)][None].clone().requires_grad_()
        y = net(x.clone()).reshape(-1)
        u = torch.randn(x.numel(), dtype=torch.float64)
        rows_of_jacobian = [
            torch.autograd.grad(v, x, retain_graph=True, allow_unused=True)[0] for v in y
        ]
        jacobian = torch.stack(
            [torch.zeros(x.numel()) if r is None else r.reshape(-1) for r in rows_of_jacobian]
        )
        square = float((jacobian.double() @ (u / u.norm())).square().sum())
        logs.append(math.log(square) if square > 0 else -math.inf)
    return np.array(logs)


def study(seed: int, draws: int = DRAWS) -> dict[str, object]:
    """What is said of one program, and, where something is claimed, what is so.

    What is no chain is also simulated; no claim rests on that, so it is kept short.
    """
    plan, begin = program(seed), time.process_time()
    seeded(seed)
    model = Program(plan)
    row: dict[str, object] = {"seed": seed, "names": plan.names}
    try:
        report = initdiag.diagnose(model, rows_of(plan), method="none", draws=64)
    except initdiag.InitdiagError as error:
        return {**row, "coverage": "refused", "gap": str(error)[:60]}
    p = report.prediction
    gaps = report.architecture.gaps
    row |= {"verdict": report.verdict.value, "coverage": p.coverage}
    row |= {"gap": gaps[0].kind if gaps else "", "seconds": time.process_time() - begin}
    if p.coverage == "none" or (p.coverage not in CLAIMS and gaps):
        return row
    found = true_log_norms(plan, draws)
    m = LogMoments.of(found)
    errors = [
        math.hypot(p.log_mean_error or 0.0, p.log_mean_se or 0.0),
        math.hypot(p.log_variance_error or 0.0, p.log_variance_se or 0.0),
    ]
    # the variance's own standard error is poor in heavy tails: that of the claim is used too
    claimed_se = p.log_variance * math.sqrt(2 / max(1, m.count - 1))
    variance_se = max(m.variance_se, claimed_se)
    mean_se = max(m.mean_se, math.sqrt(p.log_variance / max(1, m.count)))
    dead = round(m.dead_fraction * draws)
    row |= {
        "predicted_mean": p.log_mean, "mean_error": errors[0],
        "predicted_variance": p.log_variance, "variance_error": errors[1],
        "predicted_dead": p.dead_probability, "true_mean": m.mean, "mean_se": mean_se,
        "true_variance": m.variance, "variance_se": variance_se, "true_dead": m.dead_fraction,
        "draws": draws,
        "z_mean": (p.log_mean - m.mean) / math.hypot(mean_se, errors[0]),
        "z_variance": (p.log_variance - m.variance) / math.hypot(variance_se, errors[1]),
        "p_dead": stats.binomtest(dead, draws, min(1.0, max(0.0, p.dead_probability))).pvalue,
    }  # fmt: skip
    return row


def is_false(row: dict[str, object]) -> bool:
    """Whether the row holds a claim that is not so."""
    if row.get("z_mean") in (None, ""):
        return False
    is_near = all(abs(float(row[z])) <= LIMIT for z in ("z_mean", "z_variance"))
    return not is_near or float(row["p_dead"]) < DEAD_LEVEL


def read() -> list[dict[str, str]]:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> str:
    """The figures that the plan asks for."""
    claims = [row for row in rows if row["z_mean"] not in ("", None)]
    plain = [row for row in rows if row["names"] == "plain"]
    false = [row for row in claims if is_false(row)]
    kept = sum(row["coverage"] in CLAIMS for row in plain)
    lines = [
        f"{len(rows)} programs, {len(claims)} claims, {len(false)} of them false",
        f"{len(plain)} plain chains, {kept} of them claimed",
    ]
    lines += [f"false: seed {row['seed']}, {row['names']}" for row in false]
    for what in ("z_mean", "z_variance"):
        z = np.array([float(row[what]) for row in claims])
        lines.append(f"{what}: mean {z.mean():.2f}, standard deviation {z.std():.2f}")
    twisted = Counter(name for row in claims for name in row["names"].split() if name != "plain")
    lines.append("claimed with a twist: " + ", ".join(f"{n} {c}" for n, c in twisted.most_common()))
    return "\n".join(lines)


def main(first: int, end: int) -> None:
    done = {int(row["seed"]) for row in read()} if RESULTS.exists() else set()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for seed in range(first, end):
            if seed not in done:
                writer.writerow(study(seed))
                file.flush()


if __name__ == "__main__":
    if sys.argv[1] == "--summary":
        print(summary(read()))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
