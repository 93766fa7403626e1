"""Does the exact law's distribution function describe explicit samples? 30 random architectures, a million samples each.

    python tests/evidence/law/study.py tests/evidence/law/ks.csv --architectures 30 --samples 1000000   # resumable

Plan (written before the first run). Architectures: depth 1 to 60 and widths 1 to 300 (both log-uniform), every layer's gate drawn anew from ReLU,
leaky ReLU (slope .01 to .5), linear, each with dropout (rate .05 to .5) one time in three; weights He normal with a random gain, one chain in four
orthogonal throughout, one in four mixed. Samples: gates by binomials, chi-squares by numpy, nothing of initdiag (`explicit_log_norms`). Every row is one
architecture: the p-values of two-sided Kolmogorov-Smirnov tests against ``law.cdf`` of the explicit samples and of ``law.rvs``, and the z-scores of the
explicit samples' mean and variance. If the law is right the p-values are uniform and the z-scores standard normal; ``--summary`` tests just that.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from pathlib import Path

import numpy as np
from scipy import interpolate, stats

import initdiag
from initdiag.network.architecture import Activation, Architecture, Layer, WeightLaw

FIELDS = (
    "seed",
    "samples",
    "depth",
    "widths",
    "families",
    "activations",
    "p_explicit",
    "p_rvs",
    "z_mean",
    "z_variance",
)


def random_architecture(seed: int, deepest: int = 60, widest: int = 300) -> Architecture:
    """A chain drawn from ``seed`` as the plan says."""
    rng = np.random.default_rng([seed, 0])
    depth = round(math.exp(rng.uniform(0, math.log(deepest))))
    widths = [round(math.exp(rng.uniform(0, math.log(widest)))) for _ in range(depth + 1)]
    chain = rng.choice(["normal", "normal", "haar", "mixed"])
    layers = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        haar = chain == "haar" or (chain == "mixed" and rng.random() < 0.5)
        name = "orthogonal" if haar else "he_normal"
        weight = WeightLaw.from_initializer(
            name, fan_in, fan_out, float(np.exp(rng.normal(0, 0.3)))
        )
        layers.append(Layer(str(index), fan_in, fan_out, weight, _random_activation(rng, chain)))
    return Architecture(tuple(layers), widths[0], widths[-1])


def _random_activation(rng: np.random.Generator, chain: str) -> Activation:
    # A chain of orthogonal layers alone has a density only if it is not leaky (initdiag refuses the others where narrow).
    name = str(
        rng.choice(["relu", "linear"] if chain == "haar" else ["relu", "leaky_relu", "linear"])
    )
    slope = (
        float(np.exp(rng.uniform(math.log(0.01), math.log(0.5)))) if name == "leaky_relu" else 0.0
    )
    dropout = float(rng.uniform(0.05, 0.5)) if rng.random() < 1 / 3 else 0.0
    return Activation(name, slope, dropout)


def explicit_log_norms(
    architecture: Architecture, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """``ln||Ju||^2`` given not dead: every layer's ``v sum d_i^2 z_i^2``, its dead draws drawn again."""
    total = np.zeros(samples)
    for layer in architecture.layers:
        activation = layer.activation
        keep = 1 - activation.dropout
        open_, positive = _gates(layer.fan_out, activation, samples, rng)
        high, low = chi_square(positive, rng), chi_square(open_ - positive, rng)
        squares = high + activation.negative_slope**2 * low
        if layer.weight.family == "haar":
            n = max(layer.fan_in, layer.fan_out)
            squares *= n / (high + low + chi_square(n - open_, rng))
        total += np.log(layer.weight.variance * squares / keep**2)
    return total


def _gates(
    width: int, activation: Activation, samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How many gates are not closed (at least one), and how many of them let everything through."""
    share = {"relu": 0.5, "leaky_relu": 0.5, "linear": 1.0}[activation.name]
    keep = 1 - activation.dropout
    open_, positive = np.zeros(samples, dtype=int), np.zeros(samples, dtype=int)
    dead = np.arange(samples)
    while dead.size:
        kept = rng.binomial(width, keep, dead.size)
        positive[dead] = rng.binomial(kept, share)
        open_[dead] = kept if activation.name == "leaky_relu" else positive[dead]
        dead = dead[open_[dead] == 0]
    return open_, positive


def chi_square(dof: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chi-square draws; 0 where there is no degree of freedom."""
    return np.where(dof > 0, rng.chisquare(np.maximum(dof, 1)), 0.0)


def fast_cdf(law: object, low: float, high: float):
    """``law.cdf`` by cubic Hermite interpolation between 20,001 exact values and slopes; the error is about 1e-12 where F is smooth."""
    x = np.linspace(low, high, 20001)
    smooth = interpolate.CubicHermiteSpline(x, law.cdf(x), law.pdf(x))
    return lambda at: np.clip(smooth(at), 0.0, 1.0)


def run(seed: int, samples: int) -> dict[str, object]:
    """One row."""
    architecture = random_architecture(seed)
    prediction = initdiag.predict(architecture)
    law = prediction.law
    values = explicit_log_norms(architecture, samples, np.random.default_rng([seed, 1]))
    drawn = law.rvs(size=samples, random_state=np.random.default_rng([seed, 2]))
    low, high = min(values.min(), drawn.min()), max(values.max(), drawn.max())
    has_edge = math.isfinite(law.support()[1])
    cdf = law.cdf if has_edge else fast_cdf(law, low, high)
    variance = values.var()
    fourth = np.mean((values - values.mean()) ** 4)
    return {
        "seed": seed,
        "samples": samples,
        "depth": len(architecture.layers),
        "widths": "-".join(map(str, architecture.widths)),
        "families": "".join(layer.weight.family[0] for layer in architecture.layers),
        "activations": "; ".join(sorted({layer.activation.name for layer in architecture.layers})),
        "p_explicit": f"{ks_p_value(values, cdf, has_edge):.6f}",
        "p_rvs": f"{ks_p_value(drawn, cdf, has_edge):.6f}",
        "z_mean": f"{(values.mean() - prediction.log_mean) / math.sqrt(variance / samples):.4f}",
        "z_variance": f"{(variance - prediction.log_variance) / math.sqrt((fourth - variance**2) / samples):.4f}",
    }


def ks_p_value(values: np.ndarray, cdf, has_edge: bool) -> float:
    """Of the Kolmogorov-Smirnov test; where the law may have an edge with an atom, of a chi-square test in 200 cells (20,000 samples at least)."""
    if not has_edge:
        return float(stats.kstest(values, cdf).pvalue)
    cells = np.quantile(values[: len(values) // 10], np.linspace(0, 1, 201)[1:-1])
    cells = np.unique(cells)
    fresh = values[len(values) // 10 :]
    expected = np.diff(np.concatenate([[0.0], cdf(cells), [1.0]])) * len(fresh)
    counts = np.bincount(np.searchsorted(cells, fresh, side="left"), minlength=len(cells) + 1)
    enough = expected > 5
    if enough.sum() < 2:
        return math.nan
    statistic = float(((counts - expected)[enough] ** 2 / expected[enough]).sum())
    return float(stats.chi2.sf(statistic, enough.sum() - 1))


def study(path: Path, architectures: int, samples: int) -> None:
    done = {int(row["seed"]) for row in read(path)} if path.exists() else set()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for seed in sorted(set(range(architectures)) - done):
            writer.writerow(run(seed, samples))
            file.flush()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> str:
    """Are the p-values uniform, the z-scores standard normal?"""
    lines = [f"{len(rows)} architectures, {rows[0]['samples']} samples each"]
    for name in ("p_explicit", "p_rvs"):
        p = np.array([float(row[name]) for row in rows])
        p = p[np.isfinite(p)]
        lines.append(
            f"{name}: least {p.min():.4f}, uniform with p = {stats.kstest(p, 'uniform').pvalue:.3f} ({len(p)} values)"
        )
    for name in ("z_mean", "z_variance"):
        z = np.array([float(row[name]) for row in rows])
        z = z[np.isfinite(z)]
        lines.append(
            f"{name}: mean {z.mean():.2f}, standard deviation {z.std(ddof=1):.2f}, largest {np.abs(z).max():.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--architectures", type=int, default=30)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--summary", action="store_true", help="only read the file")
    arguments = parser.parse_args()
    if not arguments.summary:
        study(arguments.path, arguments.architectures, arguments.samples)
    print(summary(read(arguments.path)))
