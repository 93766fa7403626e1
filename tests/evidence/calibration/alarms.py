"""False alarms and detection: the verdict on freshly initialised modules, seed after seed.

    PYTHONPATH=tests python -m evidence.calibration.alarms --seeds 1000      # alarms.csv; resumable by setting

Each seed makes a new module, which is traced, its weights tested, predicted (what is no chain: simulated through its own forward, 1,024 draws), and
judged as `initdiag.diagnose` judges it: from the law where it covers the module, whatever is measured (so that the measurement can be left out), else
(a test of the weights rejects one draw in a million) from the measurement.
"""

from __future__ import annotations

import argparse
import collections
import csv
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import initdiag

RESULTS = Path(__file__).parent / "alarms.csv"
FIELDS = (
    "setting",
    "optimizer",
    "expected",
    "seeds",
    "as_expected",
    "verdicts",
    "least_risk",
    "greatest_risk",
)


def mlp(
    widths: list[int],
    init: Callable[[Tensor], object] | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A chain as people write it; PyTorch's default without ``init``, else zero biases."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        linear = nn.Linear(a, b)
        if init is not None:
            init(linear.weight)
            nn.init.zeros_(linear.bias)
        layers.append(linear)
        if i < len(widths) - 2:
            layers.append(activation())
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def he(weight: Tensor, factor: float = 1.0) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
    with torch.no_grad():
        weight.mul_(factor)


def orthogonal(weight: Tensor) -> None:
    nn.init.orthogonal_(weight, math.sqrt(2))


class Block(nn.Module):
    """A pre-LN residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def residual() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 64), *(Block(64) for _ in range(12)), nn.LayerNorm(64), nn.Linear(64, 10)
    )


@dataclass(frozen=True)
class Setting:
    """A factory of modules, the optimiser judged for, and whether the verdict should be HEALTHY."""

    name: str
    make: Callable[[], nn.Module]
    is_healthy: bool
    optimizer: str = "sgd"


def _chain(depth: int, width: int, inputs: int = 784, **how: object) -> Callable[[], nn.Module]:
    return functools.partial(mlp, [inputs, *[width] * depth, 10], **how)


SETTINGS = (
    Setting("He 5 x 256", _chain(5, 256, init=he), True),
    Setting("He 3 x 64", _chain(3, 64, init=he), True),
    Setting("PyTorch default 2 x 128", _chain(2, 128), True),
    Setting("orthogonal 12 x 256", _chain(12, 256, init=orthogonal), True),
    Setting("orthogonal 20 x 512", _chain(20, 512, init=orthogonal), True),
    Setting("pre-LN residual, 12 blocks of 64", residual, True),
    Setting("He 4 x 256, dropout 0.1", _chain(4, 256, init=he, dropout=0.1), True),
    Setting("He 5 x 128, leaky ReLU 0.01", _chain(5, 128, init=he, activation=functools.partial(nn.LeakyReLU, 0.01)), True),
    *(Setting(f"PyTorch default {d} x {w}", _chain(d, w, 64), False) for d, w in ((15, 64), (15, 128), (15, 256), (20, 128), (30, 128))),
    Setting("He times 1.5, 20 x 128", _chain(20, 128, 64, init=functools.partial(he, factor=1.5)), False),
    Setting("He divided by 1.5, 20 x 128", _chain(20, 128, 64, init=functools.partial(he, factor=1 / 1.5)), False),
    Setting("He 40 x 14", _chain(40, 14, 64, init=he), False),
    Setting("PyTorch default 30 x 64", _chain(30, 64, 64), False, "adam"),
)  # fmt: skip


def judged(setting: Setting, seed: int) -> tuple[str, float]:
    """The verdict on the module of a seed, and its risk."""
    for method in ("none", "auto"):
        torch.manual_seed(seed)
        report = initdiag.diagnose(
            setting.make(), method=method, optimizer=setting.optimizer, seed=seed
        )
        if report.basis != "none":
            break
    return report.verdict.value, report.risk.get(setting.optimizer, math.nan)


def row(setting: Setting, seeds: int) -> list[object]:
    """One setting's counts: healthy ones must be called HEALTHY, the others at risk (NO_VERDICT is neither)."""
    verdicts, risks = zip(*(judged(setting, seed) for seed in range(seeds)), strict=True)
    counts = collections.Counter(verdicts)
    hits = (
        counts["HEALTHY"]
        if setting.is_healthy
        else seeds - counts["HEALTHY"] - counts["NO_VERDICT"]
    )
    said = " ".join(f"{name}:{count}" for name, count in sorted(counts.items()))
    expected = "HEALTHY" if setting.is_healthy else "at risk"
    return [
        setting.name,
        setting.optimizer,
        expected,
        seeds,
        hits,
        said,
        f"{min(risks):.4f}",
        f"{max(risks):.4f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--path", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.path.exists():
        arguments.path.write_text(",".join(FIELDS) + "\n")
    for setting in SETTINGS:
        with arguments.path.open() as file:
            done = {r["setting"] for r in csv.DictReader(file)}
        if setting.name not in done:
            line = row(setting, arguments.seeds)
            with arguments.path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(line)


if __name__ == "__main__":
    main()
