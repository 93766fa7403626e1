"""Are mean and variance of ``ln||Ju||^2`` right, for each coverage? 60 random modules, 4,000 true redraws each.

    python tests/evidence/entries/study.py tests/evidence/entries/redraws.csv --modules 60     # resumable
    python tests/evidence/entries/study.py tests/evidence/entries/redraws.csv --summary

Plan (written before the first run; but widths of Rademacher entries from 16, after rows with widths of 8 and 9 had shown that sums of signs cancel
exactly there: `predict` refuses those now; and 60 modules rather than 40, because the 40 z-scores of the mean under "exact" had a standard deviation
of 1.3). Modules: depth 1 to 12, widths 8 to 96 (log-uniform), hidden activation ReLU (half of them) or leaky ReLU (slope .01 to .5), dropout (rate
.05 to .4) one time in four, output linear or gated alike. Coverage "exact": all layers Gaussian (half), all Haar, or each by a coin. Coverage "first-
order": all layers uniform, truncated normal (at two standard deviations), Rademacher or Student-t(5) in turn. Even seeds: an ``nn.Sequential``
redrawn by ``initdiag.measure(method="redraw")``, uniform unit vectors. Odd seeds: numpy's own forward pass and derivative with every weight drawn
afresh, nothing of initdiag; under first order ``u`` is one-hot, all alike, or uniform in turn. The gates are those of the forward pass at random
normal inputs, never coins.

A row holds what was seen and what was predicted. If the prediction is right, z-scores (difference over the redraws' standard error, "with": over the root of
the sum of its square and the prediction's stated error's) have mean 0 and standard deviation 1: ``--summary`` says so.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

import initdiag
from initdiag.network.architecture import Activation, Architecture, Layer, WeightLaw

COVERAGES = ("exact", "first-order")
FAMILIES = ("uniform", "truncated", "rademacher", "t5")
TRUNCATED_SD = 0.8796256610342398  # of a standard normal truncated at 2
FIELDS = (
    "coverage", "seed", "kind", "family", "direction", "widths", "activation", "draws", "dead", "mean", "mean_se", "variance", "variance_se",
    "predicted_mean", "predicted_variance", "mean_error", "variance_error",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One random module."""

    coverage: str
    seed: int
    widths: tuple[int, ...]
    families: tuple[str, ...]
    slope: float
    dropout: float
    gated_output: bool

    @property
    def uses_torch(self) -> bool:
        return self.seed % 2 == 0

    @property
    def direction(self) -> str:
        is_own = self.coverage == "first-order" and not self.uses_torch
        return ("one-hot", "alike", "uniform")[self.seed // 2 % 3] if is_own else "uniform"

    @property
    def u_fourth(self) -> float | None:
        return {"one-hot": 1.0, "alike": 1 / self.widths[0], "uniform": None}[self.direction]


def random_plan(coverage: str, seed: int, deepest: int = 12, widest: int = 96) -> Plan:
    """A module drawn from ``seed`` as the plan says."""
    rng = np.random.default_rng([COVERAGES.index(coverage), seed])
    depth = round(math.exp(rng.uniform(0, math.log(deepest))))
    signs = coverage == "first-order" and FAMILIES[seed // 2 % 4] == "rademacher"
    narrowest = 16 if signs else 8
    widths = tuple(
        round(math.exp(rng.uniform(math.log(narrowest), math.log(widest))))
        for _ in range(depth + 1)
    )
    if coverage == "exact":
        kind = rng.choice(["normal", "normal", "haar", "mixed"])
        coins = rng.choice(["normal", "haar"], depth)
        families = tuple(str(c) if kind == "mixed" else str(kind) for c in coins)
    else:
        families = (
            FAMILIES[seed // 2 % 4],
        ) * depth  # every family as often redrawn by torch as by numpy
    slope = (
        float(math.exp(rng.uniform(math.log(0.01), math.log(0.5)))) if rng.random() < 0.5 else 0.0
    )
    dropout = float(rng.uniform(0.05, 0.4)) if rng.random() < 0.25 else 0.0
    return Plan(coverage, seed, widths, families, slope, dropout, bool(rng.random() < 0.5))


def architecture(plan: Plan) -> Architecture:
    """What the theory is told: nominal moments."""
    layers = []
    for index, ((n, m), family) in enumerate(
        zip(itertools.pairwise(plan.widths), plan.families, strict=True)
    ):
        variance = 2 / max(n, m) if family == "haar" else 2 / n
        weight = {
            "normal": WeightLaw("normal", variance, 3.0),
            "haar": WeightLaw.from_initializer("orthogonal", n, m),
            "uniform": WeightLaw("uniform", variance, 9 / 5),
            "truncated": WeightLaw("truncated_normal", variance, 2.3655367),
            "rademacher": WeightLaw("other", variance, 1.0),
            "t5": WeightLaw.student_t(5, variance),
        }[family]
        layers.append(Layer(str(index), n, m, weight, _activation(plan, index)))
    return Architecture(tuple(layers), plan.widths[0], plan.widths[-1])


def _activation(plan: Plan, index: int) -> Activation:
    last = index == len(plan.widths) - 2
    if last and not plan.gated_output:
        return Activation("linear")
    return Activation(
        "leaky_relu" if plan.slope else "relu", plan.slope, 0.0 if last else plan.dropout
    )


def entries(family: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Standard deviation sqrt(2/fan_in), or sqrt 2 times Haar; shape (draws, fan_out, fan_in)."""
    scale = math.sqrt(2 / shape[-1])
    if family == "haar":
        larger = max(shape[1:])
        q, r = np.linalg.qr(rng.standard_normal((shape[0], larger, larger)))
        q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
        return math.sqrt(2) * q[:, : shape[1], : shape[2]]
    if family == "truncated":
        low, high = special.ndtr([-2.0, 2.0])
        return scale / TRUNCATED_SD * special.ndtri(rng.uniform(low, high, shape))
    draw = {
        "normal": lambda: rng.standard_normal(shape),
        "uniform": lambda: rng.uniform(-math.sqrt(3), math.sqrt(3), shape),
        "rademacher": lambda: 2.0 * rng.integers(0, 2, shape) - 1,
        "t5": lambda: rng.standard_t(5, shape) * math.sqrt(3 / 5),
    }[family]
    return scale * draw()


def explicit(plan: Plan, draws: int, seed: int) -> np.ndarray:
    """``ln||Ju||^2`` of true networks, each at its own random normal input; -inf where dead."""
    rng = np.random.default_rng([seed, plan.seed, 7])
    chunk = max(1, 4_000_000 // max(n * m for n, m in itertools.pairwise(plan.widths)))
    return np.concatenate(
        [_explicit(plan, min(chunk, draws - at), rng) for at in range(0, draws, chunk)]
    )


def _explicit(plan: Plan, draws: int, rng: np.random.Generator) -> np.ndarray:
    n = plan.widths[0]
    x = rng.standard_normal((draws, n, 1))
    u = {
        "one-hot": np.eye(n)[:1],
        "alike": np.ones((1, n)),
        "uniform": rng.standard_normal((draws, n)),
    }[plan.direction]
    u = np.broadcast_to(u / np.linalg.norm(u, axis=1, keepdims=True), (draws, n))[..., None]
    total = np.zeros(draws)
    for index, ((n, m), family) in enumerate(
        zip(itertools.pairwise(plan.widths), plan.families, strict=True)
    ):
        w = entries(family, (draws, m, n), rng)
        x, u = w @ x, w @ u
        activation = _activation(plan, index)
        slope = {"linear": 1.0, "relu": 0.0, "leaky_relu": activation.negative_slope}[
            activation.name
        ]
        gate = np.where(x > 0, 1.0, slope)
        if activation.dropout:
            gate *= (rng.random(x.shape) >= activation.dropout) / (1 - activation.dropout)
        x, u = gate * x, gate * u
        u[np.abs(u) < 1e-12] = 0.0  # sums of signs that cancel but for rounding
        norm = np.linalg.norm(u, axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            total += 2 * np.log(norm[:, 0, 0])
            u = np.where(norm > 0, u / norm, 0.0)
    return total


def redrawn(plan: Plan, draws: int, seed: int) -> np.ndarray:
    """``ln||Ju||^2`` by `initdiag.measure` on an ``nn.Sequential`` of the same kind."""
    import torch
    from torch import nn

    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            shape = (1, *module.weight.shape)
            rng = np.random.default_rng(torch.randint(2**62, (1,)).item())
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(entries(module.family, shape, rng)[0]))  # type: ignore[arg-type]

    modules: list[nn.Module] = []
    for index, ((n, m), family) in enumerate(
        zip(itertools.pairwise(plan.widths), plan.families, strict=True)
    ):
        linear = nn.Linear(n, m, bias=False, dtype=torch.float64)
        linear.family = family  # type: ignore[assignment]
        activation = _activation(plan, index)
        gate = (
            nn.LeakyReLU(activation.negative_slope)
            if activation.name == "leaky_relu"
            else nn.ReLU()
        )
        modules += [linear] if activation.name == "linear" else [linear, gate]
        modules += [nn.Dropout(activation.dropout)] if activation.dropout else []
    torch.manual_seed(plan.seed)
    model = nn.Sequential(*modules)
    model.apply(init)
    example = torch.randn(256, plan.widths[0], dtype=torch.float64)
    return initdiag.measure(
        model, example, draws=draws, method="redraw", init=init, seed=seed
    ).log_norms


def run(coverage: str, seed: int, draws: int, **limits: int) -> dict[str, object]:
    """One row."""
    plan = random_plan(coverage, seed, **limits)
    prediction = initdiag.predict(architecture(plan), u_fourth=plan.u_fourth)
    assert prediction.coverage == coverage, prediction.reasons
    log_norms = redrawn(plan, draws, 1) if plan.uses_torch else explicit(plan, draws, 1)
    alive = log_norms[np.isfinite(log_norms)]
    variance = alive.var(ddof=1)
    fourth = np.mean((alive - alive.mean()) ** 4)
    numbers = {
        "mean": alive.mean(),
        "mean_se": math.sqrt(variance / len(alive)),
        "variance": variance,
        "variance_se": math.sqrt((fourth - variance**2) / len(alive)),
        "predicted_mean": prediction.log_mean,
        "predicted_variance": prediction.log_variance,
        "mean_error": prediction.log_mean_error,
        "variance_error": prediction.log_variance_error,
    }
    return {
        "coverage": coverage,
        "seed": seed,
        "kind": "module" if plan.uses_torch else "numpy",
        "family": "/".join(sorted(set(plan.families))),
        "direction": plan.direction,
        "widths": "-".join(map(str, plan.widths)),
        "activation": f"{_activation(plan, 0).label if len(plan.widths) > 2 else ''}{'' if plan.gated_output else ' + linear'}",
        "draws": draws,
        "dead": draws - len(alive),
        **{name: f"{value:.6g}" for name, value in numbers.items()},
    }


def z_scores(rows: list[dict[str, str]], what: str, with_error: bool) -> np.ndarray:
    """Of ``mean`` or ``variance``: seen less predicted, in standard errors."""
    columns = (what, f"predicted_{what}", f"{what}_se", f"{what}_error")
    seen, predicted, se, error = (np.array([float(row[c]) for row in rows]) for c in columns)
    return (seen - predicted) / np.hypot(se, error * with_error)


def study(path: Path, modules: int, draws: int) -> None:
    done = {(row["coverage"], int(row["seed"])) for row in read(path)} if path.exists() else set()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for seed, coverage in itertools.product(range(modules), COVERAGES):
            if (coverage, seed) not in done:
                writer.writerow(run(coverage, seed, draws))
                file.flush()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> str:
    """Mean and standard deviation of the z-scores, for each coverage, kind of redraw and family."""
    lines = []
    groups = [(c, "", "") for c in COVERAGES]
    groups += [(c, "kind", k) for c in COVERAGES for k in ("module", "numpy")]
    groups += [("first-order", "family", f) for f in FAMILIES]
    groups += [("first-order", "direction", d) for d in ("uniform", "one-hot", "alike")]
    for coverage, column, value in groups:
        chosen = [
            row
            for row in rows
            if row["coverage"] == coverage and (not column or row[column] == value)
        ]
        if len(chosen) < 2:
            continue
        for with_error in (False, True) if coverage == "first-order" else (False,):
            parts = []
            for what in ("mean", "variance"):
                z = z_scores(chosen, what, with_error)
                parts.append(
                    f"{what} {z.mean():+.2f}, sd {z.std(ddof=1):.2f}, largest {np.abs(z).max():.1f}"
                )
            name = f"{coverage} {column} {value}".strip()
            lines.append(
                f"{name}, {len(chosen)} modules{', with the stated error' if with_error else ''}: {'; '.join(parts)}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--modules", type=int, default=60)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--summary", action="store_true", help="only read the file")
    arguments = parser.parse_args()
    if not arguments.summary:
        study(arguments.path, arguments.modules, arguments.draws)
    print(summary(read(arguments.path)))
