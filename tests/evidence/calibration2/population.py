"""What is trained: architectures, initialisations, tasks; every draw from the index alone."""

from __future__ import annotations

import csv
import functools
import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from evidence.calibration.training import batches
from torch import Tensor, nn

from . import families, tasks
from .families import FAMILIES, Spec
from .tasks import Task

SEED = 20261127
"""Of the whole study; a group's generator is ``default_rng([SEED, index])``."""

BATCH = 16
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
RATES = {
    ("classification", "sgd"): (0.01, 0.05, 0.25, 1.0),
    ("classification", "momentum"): (0.003, 0.015, 0.08, 0.4),
    ("regression", "sgd"): (0.003, 0.02, 0.1, 0.5),
    ("regression", "momentum"): (0.001, 0.005, 0.03, 0.15),
}
ADAPTIVE_RATES = (0.0003, 0.0015, 0.007, 0.03)
"""Of Adam and AdamW; the largest of each grid blows up healthy networks of some tasks."""

WIDTHS = (8, 256)
DEPTHS = {
    **dict.fromkeys(FAMILIES, (2, 60)),
    **dict.fromkeys(("res_plain", "res_pre", "res_post", "swiglu"), (1, 30)),
    **dict.fromkeys(("cnn_plain", "cnn_norm", "cnn_res"), (2, 24)),
    **dict.fromkeys(("transformer_pre", "transformer_post"), (1, 12)),
    **dict.fromkeys(("rnn", "lstm"), (1, 4)),
}
"""Hidden layers, blocks (two layers each; swiglu three, transformers six), convolutions,
recurrent layers."""

BUDGET, LARGE_BUDGET, LARGE_SHARE = 16_000, 140_000, 0.06
"""Multiplications of one row's forward pass at most; in one group of sixteen the larger number."""

COSTLY = 2
"""Convolutions, transformers and recurrent networks may cost as many times more."""

SCALES, WRONG_SCALE_SHARE = (0.01, 10.0, 100.0), 0.125
"""What a group's inputs are multiplied by, wrongly, in one group of eight."""

_HE, _XAVIER, _LECUN = ("he_normal", 1.0), ("xavier_normal", 1.0), ("lecun_normal", 1.0)
_ORTHOGONAL = ("orthogonal", 1.0)
USUAL = {
    **dict.fromkeys(FAMILIES, (_HE, ("he_uniform", 1.0), ("orthogonal", math.sqrt(2)))),
    "tanh": (("xavier_normal", 5 / 3), _XAVIER, _ORTHOGONAL),
    "sigmoid": (_XAVIER, ("xavier_normal", 4.0), _ORTHOGONAL),
    "selu": (_LECUN, _LECUN, _ORTHOGONAL),
    "elu": (_HE, _LECUN, ("orthogonal", 1.2)),
    "siren": (("sitzmann", 1.0),),
    **dict.fromkeys(("transformer_pre", "transformer_post"), (_XAVIER, ("normal", 0.02))),
    **dict.fromkeys(("rnn", "lstm"), (_XAVIER, _ORTHOGONAL)),
}
"""An initialiser and the factor on its weights."""

WRONG = (
    *(("he_normal", factor) for factor in (0.1, 0.3, 0.5, 0.7, 1.5, 2.0, 4.0)),
    *(("xavier_normal", factor) for factor in (0.5, 1.0, 3.0)),
    *(("orthogonal", factor) for factor in (0.1, 0.5, 3.0)),
    *(("normal", sd) for sd in (0.01, 0.05, 0.3, 1.0)),
    *(("uniform", bound) for bound in (0.05, 0.5)),
)
"""As found in the wild: any of them on any family (some are harmless on some)."""

DEFAULT = ("torch_default", 1.0)


@dataclass(frozen=True)
class Group:
    """One architecture on one task, three initialisations, each under every optimiser and rate."""

    index: int
    task: str
    spec: Spec
    scale: float
    inits: tuple[tuple[str, float], ...]


def group(index: int) -> Group:
    """The group of an index; each run of as many indices as there are families has each once."""
    block, place = divmod(index, len(FAMILIES))
    family = FAMILIES[np.random.default_rng([SEED, block, 0]).permutation(len(FAMILIES))[place]]
    rng = np.random.default_rng([SEED, index, 1])
    possible = [n for n in tasks.NAMES if takes(family, tasks.task(n))]
    name = possible[rng.integers(len(possible))]
    large = rng.random() < LARGE_SHARE
    spec = _spec(family, tasks.task(name), LARGE_BUDGET if large else BUDGET, rng)
    is_wrong = rng.random() < WRONG_SCALE_SHARE and name not in ("ring", "advection")
    scale = SCALES[rng.integers(len(SCALES))] if is_wrong else 1.0
    usual = USUAL[family][rng.integers(len(USUAL[family]))]
    others = [init for init in WRONG if init != usual]
    return Group(index, name, spec, scale, (usual, DEFAULT, others[rng.integers(len(others))]))


def takes(family: str, task: Task) -> bool:
    """Whether networks of the family can be given the task."""
    if family.startswith("cnn"):
        return task.image is not None
    return family not in ("transformer_pre", "transformer_post", "rnn", "lstm") or bool(task.steps)


def _spec(family: str, task: Task, budget: int, rng: np.random.Generator) -> Spec:
    """Depth and width log-uniform, drawn again until the budget is kept."""
    extra = 0.0
    if family == "siren":
        extra = float(rng.choice([1.0, 10.0, 30.0]))
    elif family == "fourier":
        extra = float(rng.choice([0.03, 0.1, 0.3, 1.0, 3.0]))
    while True:
        depth, width = (
            round(float(np.exp(rng.uniform(*np.log(ends))))) for ends in (DEPTHS[family], WIDTHS)
        )
        spec = Spec(family, depth, width + width % 2, extra)
        if cost(spec, task) <= budget * (1 if _is_cheap(family) else COSTLY):
            return spec


def _is_cheap(family: str) -> bool:
    return families.BUILDERS[family] in (families.chain, families.residual)


def cost(spec: Spec, task: Task) -> int:
    """Multiplications of one row's forward pass, about."""
    square, ends = spec.width**2, spec.width * (task.x.shape[1] + math.prod(task.output))
    if spec.family.startswith("cnn"):
        positions = 16 if task.image == (8, 8) else math.prod(task.image)
        return 9 * square * positions * (spec.depth - 1) + ends * positions
    if spec.family.startswith("transformer"):
        return 8 * square * task.steps[0] * spec.depth + ends
    if spec.family in ("rnn", "lstm"):
        heard = task.steps[0] + (task.output[0] if len(task.output) > 1 else 0)
        return 2 * square * heard * spec.depth * (4 if spec.family == "lstm" else 1) + ends
    layers = {"res_plain": 2, "res_pre": 2, "res_post": 2, "swiglu": 3}.get(spec.family, 1)
    return layers * square * spec.depth + ends


def initial(of: Group, k: int) -> nn.Module:
    """The group's network under its initialisation ``k``, as it is before training."""
    torch.manual_seed(1000 * of.index + k)
    network = families.build(tasks.task(of.task), of.spec)
    initialise(network, *of.inits[k])
    return network


@torch.no_grad()
def initialise(network: nn.Module, name: str, factor: float) -> None:
    """Redraw every linear layer's and convolution's weight, and zero its bias, unless PyTorch's
    default is asked for.
    """
    if name == "torch_default":
        return
    first = True
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.zeros_(layer.bias)
            if name == "sitzmann":
                w = next((m.w for m in network.modules() if isinstance(m, families.Sine)), 1.0)
                n = layer.weight.shape[1]
                nn.init.uniform_(layer.weight, *_both(1 / n if first else math.sqrt(6 / n) / w))
            else:
                _redraw(layer.weight, name, factor)
            first = False


def _both(bound: float) -> tuple[float, float]:
    return -bound, bound


def _redraw(weight: Tensor, name: str, factor: float) -> None:
    if name == "normal":
        nn.init.normal_(weight, std=factor)
    elif name == "uniform":
        nn.init.uniform_(weight, *_both(factor))
    elif name == "he_uniform":
        nn.init.kaiming_uniform_(weight, nonlinearity="relu").mul_(factor)
    elif name == "orthogonal":
        nn.init.orthogonal_(weight, factor)
    elif name == "xavier_normal":
        nn.init.xavier_normal_(weight, factor)
    else:
        gain = {"he_normal": "relu", "lecun_normal": "linear"}[name]
        nn.init.kaiming_normal_(weight, nonlinearity=gain).mul_(factor)


def rates(task: Task, optimizer: str) -> tuple[float, ...]:
    """The grid of an optimiser on a task."""
    return RATES.get((task.kind, optimizer), ADAPTIVE_RATES)


# From a row of runs.csv.gz back to what was trained.

RUNS = Path(__file__).parent / "runs.csv.gz"


def rows(path: Path = RUNS) -> list[dict[str, str]]:
    """The rows of the runs, in the order they were made: the first are a fair sample."""
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def network(row: Mapping[str, str]) -> nn.Module:
    """The exact network of a row before its training."""
    return initial(group(int(row["group"])), int(row["k"]))


def batch(row: Mapping[str, str], number: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the row's batch of a number, as they were trained on."""
    of = _known_group(int(row["group"]))
    task = tasks.task(of.task)
    stream = batches(len(task.x), BATCH, of.index)
    chosen = [next(stream) for _ in range(number + 1)][-1]
    return task.x[chosen] * of.scale, task.y[chosen]


@functools.lru_cache(maxsize=64)
def _known_group(index: int) -> Group:
    return group(index)
