"""Does the simulated law describe real redraws? The networks of ``examples/beyond_relu.py``, 20,000 redraws each.

    python tests/evidence/law/beyond_relu.py tests/evidence/law/beyond_relu.csv --chunks 20   # resumable
    python tests/evidence/law/beyond_relu.py tests/evidence/law/beyond_relu.csv --summary

Plan (written before the first run). Every network of the example (chains of tanh, GELU, SiLU; LayerNorm ReLU; pre-norm residual GELU; post-norm residual
ReLU; residual SwiGLU), Gaussian weights and biases, one input of root mean square 1. A chunk is 1,000 true redraws (``method="redraw"``) and 8,192
draws of the law (``method="law"``), with seeds of their own; its row holds the power sums of ``ln||Ju||^2``. The summary merges them to log-mean and log-variance
with standard errors and tests both by their differences in combined standard errors: for 7 networks 14 z-scores, the largest should be near 2, none above 4.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
from pathlib import Path

import numpy as np

import initdiag

ROOT = Path(__file__).parents[3]
FIELDS = ("network", "method", "seed", "draws", "alive", "s1", "s2", "s3", "s4")
DRAWS = {"redraw": 1000, "law": 8192}
_LAW_SEEDS = 10_000


def example():
    """The module ``examples/beyond_relu.py``."""
    spec = importlib.util.spec_from_file_location(
        "beyond_relu_example", ROOT / "examples" / "beyond_relu.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(networks, name: str, method: str, seed: int, draws: int) -> dict[str, object]:
    """One row: the power sums of one chunk's log-norms."""
    model, x = networks.subject(name)
    init = networks.initialiser(name) if method == "redraw" else None
    found = initdiag.measure(model, x, method=method, init=init, draws=draws, seed=seed)
    alive = found.log_norms[np.isfinite(found.log_norms)]
    sums = {f"s{k}": repr(float((alive**k).sum())) for k in (1, 2, 3, 4)}
    return {
        "network": name,
        "method": method,
        "seed": seed,
        "draws": draws,
        "alive": len(alive),
        **sums,
    }


def run(path: Path, chunks: int) -> None:
    """Add the chunks that are missing from the file."""
    rows = read(path)
    done = {(row["network"], row["method"], int(row["seed"])) for row in rows}
    networks = example()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not rows:
            writer.writeheader()
        for chunk in range(chunks):
            for name in networks.NETWORKS:
                for method, seed in (("redraw", 1 + chunk), ("law", _LAW_SEEDS + chunk)):
                    if (name, method, seed) not in done:
                        writer.writerow(measured(networks, name, method, seed, DRAWS[method]))
                        file.flush()


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of the file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def moments(rows: list[dict[str, str]]) -> tuple[int, float, float, float, float]:
    """Return count, mean, its standard error, variance, its standard error of merged chunks."""
    n = sum(int(row["alive"]) for row in rows)
    m1, m2, m3, m4 = (math.fsum(float(row[f"s{k}"]) for row in rows) / n for k in (1, 2, 3, 4))
    variance = (m2 - m1**2) * n / (n - 1)
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    return n, m1, math.sqrt(variance / n), variance, math.sqrt((fourth - variance**2) / n)


def scores(rows: list[dict[str, str]], name: str) -> tuple[float, float]:
    """Return how far law and redraws are apart, in combined standard errors: log-mean, log-variance."""
    (_, m, m_se, v, v_se), (_, m_, m_se_, v_, v_se_) = (
        moments([row for row in rows if row["network"] == name and row["method"] == method])
        for method in ("law", "redraw")
    )
    return (m - m_) / math.hypot(m_se, m_se_), (v - v_) / math.hypot(v_se, v_se_)


def summarise(rows: list[dict[str, str]]) -> None:
    """Print one line a network and method, and the z-scores."""
    print(f"{'':26s}{'draws':>16s}{'log-mean':>19s}{'log-variance':>19s}{'z':>14s}")
    for name in dict.fromkeys(row["network"] for row in rows):
        for method in DRAWS:
            n, m, m_se, v, v_se = moments(
                [r for r in rows if r["network"] == name and r["method"] == method]
            )
            text = f"{name:26s}{method:>8s}{n:>8d}{m:10.4f} +- {m_se:.4f}{v:10.4f} +- {v_se:.4f}"
            print(
                text
                + ("".join(f"{z:+7.2f}" for z in scores(rows, name)) if method == "law" else "")
            )
    z = np.array([scores(rows, name) for name in dict.fromkeys(row["network"] for row in rows)])
    print(
        f"{z.size} z-scores: mean {z.mean():+.2f}, standard deviation {z.std():.2f}, largest {np.abs(z).max():.2f}"
    )


def main() -> None:
    """Run, or summarise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    options = parser.parse_args()
    if not options.summary:
        run(options.path, options.chunks)
    summarise(read(options.path))


if __name__ == "__main__":
    main()
