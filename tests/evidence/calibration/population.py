"""What is trained: random architectures, initialisations, optimisers; every draw from the index alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from . import tasks

SEED = 20261207
"""Of the whole study; a group's generator is ``default_rng([SEED, index])``."""

INITS = (
    ("he_normal", 1.0),
    ("he_uniform", 1.0),
    ("torch_default", 1.0),
    ("xavier_normal", 1.0),
    ("lecun_normal", 1.0),
    ("orthogonal", 1.0),
    ("he_normal", 0.67),
    ("he_normal", 1.5),
)
"""Initialiser and the factor on every weight; "orthogonal" is with the factor sqrt 2, as ReLU asks for."""

INITS_PER_GROUP = 4

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
LEARNING_RATES = {
    ("classification", "sgd"): (0.01, 0.03, 0.1, 0.3),
    ("classification", "momentum"): (0.003, 0.01, 0.03, 0.1),
    ("regression", "sgd"): (0.001, 0.003, 0.01, 0.03),
    ("regression", "momentum"): (0.0003, 0.001, 0.003, 0.01),
}
ADAPTIVE_RATES = (0.0003, 0.001, 0.003, 0.01)
"""Of Adam and AdamW. Under squared error healthy networks blow up from SGD's 0.1 on, so that its grid is a factor ten lower."""


def learning_rates(task: str, optimizer: str) -> tuple[float, ...]:
    """The grid of an optimiser on a task."""
    kind = "classification" if tasks.task(task).is_classification else "regression"
    return LEARNING_RATES.get((kind, optimizer), ADAPTIVE_RATES)


BATCHES = (16, 64)
STEPS = 400

SHAPES = ("constant", "random", "alternating", "bottleneck", "pyramid")


@dataclass(frozen=True)
class Group:
    """Networks of one architecture on one task and batch size, trained together: ``inits`` each under every optimiser."""

    index: int
    task: str
    batch: int
    shape: str
    hidden: tuple[int, ...]
    inits: tuple[tuple[str, float], ...]
    rates: tuple[tuple[float, ...], ...]  # [init][optimiser]

    @property
    def widths(self) -> tuple[int, ...]:
        of = tasks.task(self.task)
        return of.x.shape[1], *self.hidden, of.outputs


def group(index: int) -> Group:
    """Group ``index`` of the plan."""
    rng = np.random.default_rng([SEED, index])
    name = tasks.NAMES[index % len(tasks.NAMES)]
    batch = int(rng.choice(BATCHES))
    shape = str(rng.choice(SHAPES))
    hidden = _hidden(shape, round(math.exp(rng.uniform(math.log(3), math.log(45)))), rng)
    chosen = rng.choice(len(INITS), INITS_PER_GROUP, replace=False)
    rates = tuple(
        tuple(float(rng.choice(learning_rates(name, o))) for o in OPTIMIZERS) for _ in chosen
    )
    return Group(index, name, batch, shape, hidden, tuple(INITS[i] for i in chosen), rates)


def _hidden(shape: str, depth: int, rng: np.random.Generator) -> tuple[int, ...]:
    a, b = np.exp(rng.uniform(math.log(8), math.log(128), 2))
    if shape == "constant":
        real = np.full(depth, a)
    elif shape == "random":
        real = np.exp(rng.uniform(math.log(8), math.log(128), depth))
    elif shape == "alternating":
        real = np.where(np.arange(depth) % 2 == 0, a, b)
    elif shape == "bottleneck":
        real = np.full(depth, max(a, b))
        real[rng.integers(depth)] = min(a, b)
    else:
        real = np.exp(np.linspace(math.log(a), math.log(b), depth))
    return tuple(int(n) for n in np.round(real))


def network(widths: tuple[int, ...], init: str, gain: float, seed: int) -> nn.Sequential:
    """One network as PyTorch makes it; biases as drawn under PyTorch's default, else 0."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        linear = nn.Linear(a, b)
        initialise(linear, init, gain)
        layers += [linear, nn.ReLU()] if i < len(widths) - 2 else [linear]
    return nn.Sequential(*layers)


@torch.no_grad()
def initialise(linear: nn.Linear, init: str, gain: float) -> None:
    """Redraw the weight and zero the bias, unless PyTorch's default is asked for."""
    weight = linear.weight
    if init == "torch_default":
        return
    nn.init.zeros_(linear.bias)
    if init == "he_normal":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    elif init == "he_uniform":
        nn.init.kaiming_uniform_(weight, nonlinearity="relu")
    elif init == "xavier_normal":
        nn.init.xavier_normal_(weight)
    elif init == "lecun_normal":
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
    elif init == "orthogonal":
        nn.init.orthogonal_(weight, math.sqrt(2))
    else:
        raise ValueError(init)
    weight.mul_(gain)
