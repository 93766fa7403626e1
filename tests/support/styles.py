"""The ways people write a fully connected ReLU net; each style carries its own truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Style:
    """A factory, and what tracing it must find."""

    name: str
    build: Callable[[], nn.Module]
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    gates: tuple[str, ...]
    input_size: tuple[int, ...] | None = None
    unused: tuple[str, ...] = ()


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(12, 20), nn.Sequential(nn.ReLU(), nn.Linear(20, 24)), nn.ReLU()
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.encoder(x))


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.out(x)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, 32), nn.Linear(32, 20), nn.Linear(20, 6)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = self.b(x)
        x.relu_()
        return self.c(x)


class Shared(nn.Module):
    """One ReLU module for all layers, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.one, self.two, self.three = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.three(self.act(self.two(self.act(self.one(x)))))


class OtherOrder(nn.Module):
    """Executed in another order than defined, with a layer that is never used and monitoring on the side."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(24, 4)
        self.middle = nn.Linear(18, 24)
        self.never = nn.Linear(24, 24)
        self.first = nn.Linear(9, 18)

    def forward(self, x):
        x = self.first(x).relu()
        self.seen = x.detach().mean()
        return self.last(self.middle(x).relu())


class Flattening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(48, 30), nn.Linear(30, 10)

    def forward(self, x):
        x = x.view(x.shape[0], -1)
        return self.b(F.relu(self.a(x)).reshape(-1, 30))


def _in_place_first() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 14), nn.ReLU(inplace=True), nn.Linear(14, 14), nn.ReLU(inplace=True)
    )


R, L = "ReLU", "linear"

STYLES = (
    Style(
        "nested",
        Nested,
        ("encoder.0.weight", "encoder.1.1.weight", "head.weight"),
        (12, 20, 24, 5),
        (R, R, L),
    ),
    Style(
        "loop",
        Loop,
        (*(f"layers.{i}.weight" for i in range(4)), "out.weight"),
        (16, 16, 16, 16, 16, 3),
        (R, R, R, R, L),
    ),
    Style(
        "functional", Functional, ("a.weight", "b.weight", "c.weight"), (10, 32, 20, 6), (R, R, L)
    ),
    Style(
        "shared", Shared, ("one.weight", "two.weight", "three.weight"), (8, 16, 16, 8), (R, R, L)
    ),
    Style(
        "other order",
        OtherOrder,
        ("first.weight", "middle.weight", "last.weight"),
        (9, 18, 24, 4),
        (R, R, L),
        unused=("never.weight",),
    ),
    Style(
        "flattening",
        Flattening,
        ("a.weight", "b.weight"),
        (48, 30, 10),
        (R, L),
        input_size=(2, 3, 4, 4),
    ),
    Style("relu output", _in_place_first, ("0.weight", "2.weight"), (7, 14, 14), (R, R)),
    Style(
        "flatten module",
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(20, 16),
            nn.ReLU(),
            nn.Unflatten(1, (4, 4)),
            nn.Flatten(),
            nn.Linear(16, 2),
        ),
        ("1.weight", "5.weight"),
        (20, 16, 2),
        (R, L),
        input_size=(3, 5, 4),
    ),
)


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build with torch's random state set, and put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def mlp(widths: list[int], init: str = "torch_default", gain: float = 1.0) -> nn.Sequential:
    """A plain ReLU net with linear output; biases zero unless the initialisation is PyTorch's default."""
    layers: list[nn.Module] = []
    for index in range(len(widths) - 1):
        linear = nn.Linear(widths[index], widths[index + 1])
        if init == "he_normal":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        elif init == "orthogonal":
            nn.init.orthogonal_(linear.weight, 2**0.5)
            nn.init.zeros_(linear.bias)
        linear.weight.data.mul_(gain)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def gated(sizes, gate=nn.ReLU, init=None) -> nn.Sequential:
    """A chain with a gate between its layers; ``init`` draws a weight, and zeroes the biases."""
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layer = nn.Linear(a, b)
        if init is not None:
            init(layer.weight)
            nn.init.zeros_(layer.bias)
        parts += [layer, gate()]
    return nn.Sequential(*parts[:-1])
