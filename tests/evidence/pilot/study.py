"""The pilot study, before that of `tests/evidence/calibration`: random architectures trained on the digits, and a logistic curve fitted.

    python tests/evidence/pilot/study.py runs.csv --runs 400        # resumable: a finished run is not run again
    python tests/evidence/pilot/study.py runs.csv --fit

Plan (written before the first run). Architectures: depth 3 to 45 (log-uniform), constant, random or alternating widths 8 to
256 (log-uniform); initialiser one of He, PyTorch's default, Xavier, orthogonal, He times 1.5, He divided by 1.5; biases as
PyTorch draws them under its default, else 0. Training: 1,437 digits, batches of 64, 15 epochs, plain SGD at 0.1 and at 0.01,
Adam at 1e-3. Outcome: "did not start": test accuracy under chance plus a tenth of what the healthy reference (He,
3 x 128, same optimiser) gains over chance (its accuracy stands in every row).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import initdiag

OPTIMIZERS = (("sgd", 0.1), ("sgd", 0.01), ("adam", 1e-3))
INITS = (
    ("he_normal", 1.0),
    ("torch_default", 1.0),
    ("xavier_normal", 1.0),
    ("orthogonal", 1.0),
    ("he_normal", 1.5),
    ("he_normal", 1 / 1.5),
)


def widths(rng: np.random.Generator) -> list[int]:
    depth = round(math.exp(rng.uniform(math.log(3), math.log(45))))
    draw = lambda size: np.exp(rng.uniform(math.log(8), math.log(256), size)).astype(int)  # noqa: E731
    shape = rng.choice(["constant", "random", "alternating"])
    if shape == "constant":
        hidden = [int(draw(1)[0])] * depth
    elif shape == "alternating":
        pair = draw(2)
        hidden = [int(pair[i % 2]) for i in range(depth)]
    else:
        hidden = [int(n) for n in draw(depth)]
    return [64, *hidden, 10]


def build(sizes: list[int], init: str, gain: float) -> nn.Module:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(a, b)
        if init != "torch_default":
            nn.init.zeros_(linear.bias)
            if init == "orthogonal":
                nn.init.orthogonal_(linear.weight, math.sqrt(2))
            elif init == "xavier_normal":
                nn.init.xavier_normal_(linear.weight)
            else:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
                linear.weight.data.mul_(gain)
        layers += [linear, nn.ReLU()] if i < len(sizes) - 2 else [linear]
    return nn.Sequential(*layers)


def data() -> tuple[torch.Tensor, ...]:
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    return x[train], y[train], x[test], y[test]


def accuracy(model: nn.Module, optimizer: str, lr: float, seed: int, epochs: int = 15) -> float:
    x, y, x_test, y_test = data()
    step = (torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam)(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            step.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            step.step()
    with torch.no_grad():
        return float((model(x_test).argmax(1) == y_test).float().mean())


def reference(optimizer: str, lr: float) -> float:
    torch.manual_seed(0)
    return accuracy(build([64, 128, 128, 128, 10], "he_normal", 1.0), optimizer, lr, 0)


def run(path: Path, count: int) -> None:
    torch.set_num_threads(1)
    done = sum(1 for _ in path.open()) - 1 if path.exists() else 0
    references = {o: reference(*o) for o in OPTIMIZERS}
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if done <= 0:
            writer.writerow(
                "run optimizer lr init gain widths accuracy reference did_not_start".split()
            )
        for index in range(max(done, 0), count):
            rng = np.random.default_rng([20261122, index])
            sizes, (init, gain) = widths(rng), INITS[rng.integers(len(INITS))]
            optimizer, lr = OPTIMIZERS[index % len(OPTIMIZERS)]
            torch.manual_seed(index)
            score = accuracy(build(sizes, init, gain), optimizer, lr, index)
            healthy = references[optimizer, lr]
            failed = int(not score >= 0.1 + 0.1 * (healthy - 0.1))
            row = [index, optimizer, lr, init, round(gain, 6), "-".join(map(str, sizes))]
            writer.writerow([*row, round(score, 4), round(healthy, 4), failed])
            file.flush()


def features(row: dict[str, str]) -> list[float]:
    prediction = initdiag.predict(
        [int(n) for n in row["widths"].split("-")], init=row["init"], gain=float(row["gain"])
    )
    drift = prediction.hidden_drift
    return [
        math.log(prediction.hidden_log_variance),
        math.log1p(max(drift, 0.0)),
        math.log1p(max(-drift, 0.0)),
    ]


def fit(path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss, roc_auc_score
    from sklearn.model_selection import cross_val_predict

    rows = list(csv.DictReader(path.open()))
    result = {}
    for optimizer in ("sgd", "adam"):
        part = [r for r in rows if r["optimizer"] == optimizer]
        x = np.array([features(r) for r in part])
        y = np.array([int(r["did_not_start"]) for r in part])
        model = LogisticRegression(C=10.0, max_iter=10_000)
        held_out = cross_val_predict(model, x, y, cv=5, method="predict_proba")[:, 1]
        model.fit(x, y)
        result[optimizer] = {
            "runs": len(part),
            "share_failed": round(float(y.mean()), 3),
            "roc_area_5_fold": round(float(roc_auc_score(y, held_out)), 3),
            "brier_5_fold": round(float(brier_score_loss(y, held_out)), 3),
            "intercept": round(float(model.intercept_[0]), 3),
            "ln_log_variance, ln1p_up, ln1p_down": [round(float(c), 3) for c in model.coef_[0]],
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    fit(arguments.path) if arguments.fit else run(arguments.path, arguments.runs)
