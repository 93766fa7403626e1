"""How often a named initialiser is not the one that drew the weights (PLAN.md).

PYTHONPATH=tests python -m evidence.recognition.study 1000
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.network.weights import INITIALIZERS, WeightLaw
from initdiag.tracing.weights import weight_laws

DRAWS = {
    "torch_default": lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "lecun_normal": lambda w: nn.init.normal_(w, std=w.shape[1] ** -0.5),
    "orthogonal": lambda w: nn.init.orthogonal_(w, math.sqrt(2)),
    "lecun_truncated_normal": lambda w: _truncated(w, w.shape[1] ** -0.5),
}
POPULATIONS = (*DRAWS, "two", "all")

TRUNCATED_SD = 0.8796256610342398
"""Standard deviation of a standard normal truncated at 2."""


def _truncated(w: Tensor, std: float) -> Tensor:
    scale = std / TRUNCATED_SD
    return nn.init.trunc_normal_(w, std=scale, a=-2 * scale, b=2 * scale)


@dataclass(frozen=True)
class Network:
    """Matrices, and the initialiser that drew each."""

    names: tuple[str, ...]
    matrices: tuple[Tensor, ...]

    @classmethod
    def drawn(cls, population: str, seed: int) -> Network:
        """Return the network of one seed, as the plan says."""
        rng = np.random.default_rng([POPULATIONS.index(population), seed])
        torch.manual_seed(int(rng.integers(2**40)))
        widths = rng.integers(4, 65, rng.integers(3, 10)).tolist()
        if seed % 2:
            widths[1:-1] = [widths[1]] * len(widths[1:-1])
        names = rng.choice(list(DRAWS), len(widths) - 1).tolist()
        if population in DRAWS:
            names = [population] * len(names)
        if population == "two":
            names[:-1] = [names[0]] * len(names[:-1])
        shapes = [(m, n) for n, m in itertools.pairwise(widths)]
        drawn = [DRAWS[name](torch.empty(s)) for name, s in zip(names, shapes, strict=True)]
        return cls(tuple(names), tuple(drawn))


@dataclass(frozen=True)
class Judged:
    """What recognition said of one network."""

    layers: int
    wrong: int
    unnamed: int
    drift: float
    error: float

    @property
    def z(self) -> float:
        """Distance of the drift from the truth, in its stated errors."""
        if abs(self.drift) < 1e-5:
            return 0.0
        return abs(self.drift) / self.error if self.error else math.inf

    @classmethod
    def of(cls, network: Network) -> Judged:
        """Return what is said of the network's weights."""
        laws = weight_laws([(str(i), w) for i, w in enumerate(network.matrices)])
        pairs = list(zip(laws, network.names, network.matrices, strict=True))
        return cls(
            layers=len(laws),
            wrong=sum(is_wrong(*pair) for pair in pairs),
            unnamed=sum(law.initializer is None for law in laws),
            drift=math.fsum(distance(*pair) for pair in pairs),
            error=math.hypot(*(law.scale_error for law in laws)),
        )


def distance(law: WeightLaw, name: str, w: Tensor) -> float:
    """Return the distance of the law's log variance from the true one."""
    return math.log(law.variance / INITIALIZERS[name][1](w.shape[1], w.shape[0]))


def is_wrong(law: WeightLaw, name: str, w: Tensor) -> bool:
    """Return whether the law has a name that means another one."""
    if law.initializer is None:
        return False
    return law.family != INITIALIZERS[name][0] or abs(distance(law, name, w)) > 1e-5


def judged(population: str, seeds: Iterable[int]) -> Iterator[Judged]:
    """Judge the networks of these seeds."""
    return (Judged.of(Network.drawn(population, seed)) for seed in seeds)


def line(population: str, found: list[Judged]) -> str:
    """Return one row of the table."""
    layers = sum(f.layers for f in found)
    worst = max((f.z for f in found if f.wrong), default=0.0)
    return (
        f"{population:24}{layers:7}"
        f"{sum(f.wrong for f in found) / layers:9.2%}"
        f"{sum(f.wrong > 0 for f in found) / len(found):9.2%}"
        f"{sum(f.unnamed for f in found) / layers:9.2%}"
        f"{sum(f.unnamed > 0 for f in found) / len(found):9.2%}"
        f"{worst:8.2f}{sum(f.z > 3 for f in found) / len(found):9.2%}"
    )


def main(networks: int) -> None:
    """Print the table."""
    print(
        f"{'population':24}{'layers':>7}{'wrong':>9}{'networks':>9}{'unnamed':>9}{'networks':>9}"
        f"{'worst':>8}{'beyond 3':>9}"
    )
    for population in POPULATIONS:
        print(line(population, list(judged(population, range(networks)))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
