"""Do the measured singular values of PyTorch modules follow the predicted spectrum, and how fast does the distance fall with the width?

    python tests/evidence/spectrum/study.py tests/evidence/spectrum/ks.csv   # resumable

Plan (written before the first run). Square networks of width 50 to 800 and depth 1, 2, 3 and 5, gated after every layer, without biases; weights drawn
afresh for every draw (``measure_spectrum(method="redraw")``) as He normal, He uniform or orthogonal; about 25,600 pooled eigenvalues a row. Gates of two kinds:

- ``exact``: fixed masks, exactly half of them open: the limit's own assumption at finite width;
- ``coins``: ReLU, whose number of open gates ``K_l`` fluctuates by ``sqrt(n)/2`` from draw to draw and layer to layer. The rank is the least of them, so that its mean
  is below ``n/2`` at any number of draws. For iid weights the prediction is therefore also averaged over ``K_l ~ Bin(n, 1/2)``, which is what the theory says
  of a finite ReLU network (a chain of linear layers of widths ``n, K_1, ..., K_L``).

Columns: Kolmogorov-Smirnov distances between pooled measured eigenvalues of ``J^T J`` and predicted law: ``ks`` with the zeros, ``ks_positive`` of those that
are not 0; ``ks_counts`` and ``ks_counts_positive`` the same against the law averaged over ``K_l``. One orthogonal layer is left out: its spectrum is an atom.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

import initdiag
from initdiag import SpectralMeasurement
from initdiag.spectrum.record import SpectralLaw

FIELDS = (
    "init", "gates", "depth", "width", "draws", "seed", "ks", "ks_positive", "ks_counts", "ks_counts_positive",
)  # fmt: skip
POOLED = 25_600
COUNTS = 200
INITS = {
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "orthogonal": lambda w: nn.init.orthogonal_(w, math.sqrt(2)),
}


class Mask(nn.Module):
    """Exactly half of the gates open."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        is_open = torch.randperm(width, generator=generator) < width // 2
        self.register_buffer("mask", is_open.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def network(width: int, depth: int, gates: str, seed: int) -> nn.Sequential:
    """Linear layers and gates in turn."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    for _ in range(depth):
        parts += [
            nn.Linear(width, width, bias=False),
            nn.ReLU() if gates == "coins" else Mask(width, generator),
        ]
    return nn.Sequential(*parts)


def measured(
    width: int, depth: int, gates: str, init: str, draws: int, seed: int
) -> SpectralMeasurement:
    """Fresh networks, a draw each."""

    def draw(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            INITS[init](module.weight)

    return initdiag.measure_spectrum(
        network(width, depth, gates, seed),
        draws=draws,
        method="redraw",
        init=draw,
        seed=seed,
        dense=True,
    )


def positive(found: SpectralMeasurement) -> np.ndarray:
    """``ln lambda`` of all eigenvalues that are not 0, ascending."""
    largest = found.log_largest[:, None]
    return np.sort(found.log_nodes[found.log_nodes > largest + found.log_resolution])


def distances(x: np.ndarray, total: int, cdf: np.ndarray, zero_mass: float) -> tuple[float, float]:
    """KS distance with zeros and of the rest: ``x`` ascending out of ``total`` eigenvalues; ``cdf`` at ``x``, given not 0."""
    both = []
    for missing, share in ((total - len(x), zero_mass), (0, 0.0)):
        steps = (missing + np.arange(len(x) + 1)) / (missing + len(x))
        values = share + (1 - share) * cdf
        gaps = np.maximum(steps[1:] - values, values - steps[:-1])
        both.append(float(max(gaps.max(), abs(steps[0] - share))))
    return both[0], both[1]


def averaged_over_counts(
    spectrum: SpectralLaw, x: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """CDF at ``x`` given not 0, and mass of zero, over ``K_l ~ Bin(n_l, 1/2)`` of a He-initialised ReLU chain.

    With closed units left out a draw is a linear chain of widths ``n, K_1, ..., K_L``; LeCun's variance ``1/fan_in`` in place of He's ``2/n`` shifts the log.
    """
    n, depth = spectrum.input_size, len(spectrum.factors)
    grid = np.linspace(x[0] - 0.1, x[-1] + 0.1, 2000)
    share, zero = np.zeros_like(grid), 0.0
    for counts in np.random.default_rng([seed, n, depth]).binomial(n, 0.5, (COUNTS, depth)):
        widths = [n, *counts.tolist()]
        law = initdiag.predict_spectrum(widths, init="lecun_normal", activation="linear")
        shift = sum(math.log(2 * width / n) for width in widths[:-1])
        share += (1 - law.zero_mass) * law.law.cdf(grid - shift)
        zero += law.zero_mass
    zero /= COUNTS
    return np.interp(x, grid, share / COUNTS / (1 - zero)), zero


def run(width: int, depth: int, gates: str, init: str, draws: int, seed: int) -> dict[str, object]:
    """One row."""
    spectrum = initdiag.predict_spectrum([width] * (depth + 1), init=init, output="relu")
    found = measured(width, depth, gates, init, draws, seed)
    x, total = positive(found), draws * width
    row = dict.fromkeys(FIELDS, "")
    row |= {
        "init": init,
        "gates": gates,
        "depth": depth,
        "width": width,
        "draws": draws,
        "seed": seed,
    }
    ks = distances(x, total, spectrum.law.cdf(x), spectrum.zero_mass)
    row["ks"], row["ks_positive"] = (f"{value:.5f}" for value in ks)
    if gates == "coins" and init != "orthogonal":
        ks = distances(x, total, *averaged_over_counts(spectrum, x, seed))
        row["ks_counts"], row["ks_counts_positive"] = (f"{value:.5f}" for value in ks)
    return row


def plan() -> list[tuple[int, int, str, str]]:
    """Width, depth, gates and initialisation of every row, the quick ones first."""
    return [
        (width, depth, gates, init)
        for width in (50, 100, 200, 400, 800)
        for depth in (1, 2, 3, 5)
        for gates in ("exact", "coins")
        for init in INITS
        if not (init == "orthogonal" and depth == 1)
    ]


def study(path: Path) -> None:
    """Add the rows that are missing."""
    done = (
        {(int(r["width"]), int(r["depth"]), r["gates"], r["init"]) for r in read(path)}
        if path.exists()
        else set()
    )
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for width, depth, gates, init in plan():
            if (width, depth, gates, init) not in done:
                writer.writerow(run(width, depth, gates, init, POOLED // width, seed=0))
                file.flush()


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a result file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> str:
    """Largest distance over initialisations, and its power of the width."""
    lines = [
        f"{'gates':<6} {'depth':<6} {'distance':<19}"
        + "".join(f"{n:>8}" for n in (50, 100, 200, 400, 800))
        + "   power of n"
    ]
    for gates, column in (
        ("exact", "ks"), ("exact", "ks_positive"), ("coins", "ks"), ("coins", "ks_positive"), ("coins", "ks_counts"), ("coins", "ks_counts_positive"),
    ):  # fmt: skip
        for depth in ("1", "2", "3", "5"):
            worst: dict[int, float] = {}
            for row in rows:
                if (row["gates"], row["depth"]) == (gates, depth) and row[column]:
                    worst[int(row["width"])] = max(
                        worst.get(int(row["width"]), 0.0), float(row[column])
                    )
            power = np.polyfit(np.log(list(worst)), np.log(list(worst.values())), 1)[0]
            cells = "".join(f"{worst[n]:8.4f}" for n in sorted(worst))
            lines.append(f"{gates:<6} {depth:<6} {column:<19}{cells}   {power:+.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--summary", action="store_true", help="only read the file")
    arguments = parser.parse_args()
    if not arguments.summary:
        study(arguments.path)
    print(summary(read(arguments.path)))
