"""How far off are mean and variance of ``ln||Ju||^2`` for non-Gaussian entries, and is the stated error right? Explicit products ``D W``, ReLU gates by coins.

    python tests/evidence/entries/products.py tests/evidence/entries/products.csv     # resumable
    python tests/evidence/entries/products.py tests/evidence/entries/products.csv --summary

Every cell is a family of entries, a direction ``u``, a constant width and a depth, every layer ReLU; 2e8 matrix entries are drawn for it, at most
200,000 products. Rademacher entries behind fewer than 16 units are left out (sums of signs cancel exactly; `predict` refuses them). ``gaussian_variance`` is that of
Gaussian weights: what it is off is what the formula has to correct.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import math
import sys
import zlib
from pathlib import Path

import numpy as np

import initdiag
from initdiag.network.architecture import Activation, Architecture, Layer, WeightLaw

KURTOSES = {
    "uniform": 1.8,
    "truncated": 2.3655367,
    "rademacher": 1.0,
    "t8": 4.5,
    "t5": 9.0,
    "sparse": 6.0,
}
WIDTHS, DEPTHS, DIRECTIONS = (2, 4, 8, 16, 32, 64, 128), (1, 5, 20), ("uniform", "one-hot", "alike")
LEAST_ALIVE = 1000  # products that are not dead, to be summed up
FIELDS = (
    "family", "direction", "width", "depth", "draws", "dead", "mean", "mean_se", "variance", "variance_se",
    "coverage", "predicted_mean", "predicted_variance", "mean_error", "variance_error", "gaussian_mean", "gaussian_variance",
)  # fmt: skip


def _study() -> object:
    """The study beside this file: its sampler of entries."""
    spec = importlib.util.spec_from_file_location(
        "entries_study", Path(__file__).with_name("study.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


study = _study()


def cells() -> list[tuple[str, str, int, int]]:
    found = []
    for family, direction, width, depth in itertools.product(KURTOSES, DIRECTIONS, WIDTHS, DEPTHS):
        cancels = family == "rademacher" and width < 16 and depth > 1
        if not cancels and (depth < 20 or direction == "uniform"):
            found.append((family, direction, width, depth))
    return found


def entries(family: str, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Variance 2/fan_in."""
    if family == "t8":
        return rng.standard_t(8, shape) * math.sqrt(6 / 8 * 2 / shape[-1])
    if family == "sparse":
        return study.entries("normal", shape, rng) * (rng.random(shape) < 0.5) * math.sqrt(2)
    return study.entries(family, shape, rng)


def products(family: str, direction: str, width: int, depth: int, draws: int) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(f"{family} {direction} {width} {depth}".encode()))
    chunk = max(1, 2_000_000 // width**2)
    return np.concatenate(
        [
            _products(family, direction, width, depth, min(chunk, draws - at), rng)
            for at in range(0, draws, chunk)
        ]
    )


def _products(
    family: str, direction: str, width: int, depth: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    start = {
        "one-hot": np.eye(width)[:1],
        "alike": np.ones((1, width)),
        "uniform": rng.standard_normal((draws, width)),
    }
    u = np.broadcast_to(start[direction], (draws, width))
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    total = np.zeros(draws)
    for _ in range(depth):
        h = (entries(family, (draws, width, width), rng) @ u[..., None])[..., 0] * rng.integers(
            0, 2, (draws, width)
        )
        h[np.abs(h) < 1e-12] = 0.0  # sums of signs that cancel but for rounding
        norm = np.linalg.norm(h, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            total += 2 * np.log(norm)
            u = np.nan_to_num(h / norm[:, None])
    return total


def predict(family: str, direction: str, width: int, depth: int) -> initdiag.Prediction:
    kind = {
        "uniform": "uniform",
        "truncated": "truncated_normal",
        "sparse": "sparse",
        "normal": "normal",
    }.get(family, "other")
    weight = WeightLaw(kind, 2 / width, KURTOSES.get(family, 3.0))
    layers = tuple(Layer(str(i), width, width, weight, Activation("relu")) for i in range(depth))
    u_fourth = {"one-hot": 1.0, "alike": 1 / width, "uniform": None}[direction]
    return initdiag.predict(Architecture(layers, width, width), u_fourth=u_fourth)


def run(
    family: str, direction: str, width: int, depth: int, draws: int | None = None
) -> dict[str, object]:
    """One row."""
    prediction, gaussian = (
        predict(family, direction, width, depth),
        predict("normal", direction, width, depth),
    )
    draws = draws or min(200_000, round(2e8 / (depth * width**2)))
    log_norms = products(family, direction, width, depth, draws)
    alive = log_norms[np.isfinite(log_norms)]
    variance = alive.var(ddof=1)
    numbers = {
        "mean": alive.mean(),
        "mean_se": math.sqrt(variance / len(alive)),
        "variance": variance,
        "variance_se": math.sqrt((np.mean((alive - alive.mean()) ** 4) - variance**2) / len(alive)),
        "predicted_mean": prediction.log_mean,
        "predicted_variance": prediction.log_variance,
        "mean_error": prediction.log_mean_error,
        "variance_error": prediction.log_variance_error,
        "gaussian_mean": gaussian.log_mean,
        "gaussian_variance": gaussian.log_variance,
    }
    return {
        "family": family, "direction": direction, "width": width, "depth": depth, "draws": draws, "dead": draws - len(alive),
        "coverage": prediction.coverage,
        **{name: "" if value is None else f"{value:.6g}" for name, value in numbers.items()},
    }  # fmt: skip


def work(path: Path) -> None:
    done = (
        {(r["family"], r["direction"], int(r["width"]), int(r["depth"])) for r in read(path)}
        if path.exists()
        else set()
    )
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for cell in cells():
            if cell not in done:
                writer.writerow(run(*cell))
                file.flush()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> str:
    """By family and width: what the Gaussian law and the formula are off, as a share of the log-variance, root mean square over the cells; noise likewise."""
    lines = [
        "log-variance, percent, root mean square over directions and depths; z with the stated error: root mean square"
    ]
    lines.append(
        f"{'entries':10} {'width':>5} {'cells':>5} {'Gaussian':>9} {'formula':>8} {'noise':>6} {'stated':>7} {'z':>5} {'mean z':>7} refused"
    )
    for family, width in itertools.product(KURTOSES, WIDTHS):
        chosen = [r for r in rows if r["family"] == family and int(r["width"]) == width]
        covered = [
            r
            for r in chosen
            if r["coverage"] != "none" and int(r["draws"]) - int(r["dead"]) > LEAST_ALIVE
        ]
        if not covered:
            lines += [f"{family:10} {width:5} refused, or dead"] if chosen else []
            continue
        columns = (
            "variance",
            "variance_se",
            "predicted_variance",
            "variance_error",
            "gaussian_variance",
        )
        seen, se, predicted, error, gaussian = (
            np.array([float(r[c]) for r in covered]) for c in columns
        )
        shares = [(gaussian - seen) / seen, (predicted - seen) / seen, se / seen, error / seen]
        percents = [100 * float(np.sqrt(np.mean(s**2))) for s in shares]
        z = (seen - predicted) / np.hypot(se, error)
        mean, mean_se, mean_predicted, mean_error = (
            np.array([float(r[c]) for r in covered])
            for c in ("mean", "mean_se", "predicted_mean", "mean_error")
        )
        z_mean = (mean - mean_predicted) / np.hypot(mean_se, mean_error)
        numbers = "{:9.1f} {:8.1f} {:6.1f} {:7.1f}".format(*percents)
        lines.append(
            f"{family:10} {width:5} {len(covered):5} {numbers} {np.sqrt(np.mean(z**2)):5.2f} {np.sqrt(np.mean(z_mean**2)):7.2f} "
            f"{sum(r['coverage'] == 'none' for r in chosen)}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--summary", action="store_true", help="only read the file")
    arguments = parser.parse_args()
    if not arguments.summary:
        work(arguments.path)
    print(summary(read(arguments.path)))
