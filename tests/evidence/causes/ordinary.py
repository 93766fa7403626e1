"""Trainings of ordinary networks, whose outcomes the tests and comments beside the batch's curves quote.

``PYTHONPATH=.:tests python -m evidence.causes.ordinary``: half a minute; prints, writes nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS, ROWS = 400, 32


class Encoding(nn.Module):
    """The input, and sines and cosines of it at octaves from pi to 2^(octaves-1) pi."""

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves

    def forward(self, x: Tensor) -> Tensor:
        turns = (x[..., None] * 2.0 ** torch.arange(self.octaves) * math.pi).flatten(1)
        return torch.cat([x, turns.sin(), turns.cos()], 1)


def mlp(widths: list[int], gate: Callable[[], nn.Module], *end: nn.Module) -> nn.Sequential:
    parts = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), gate())]
    return nn.Sequential(*parts[:-1], *end)


def he(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            nn.init.zeros_(part.bias)
    return model


def cnn() -> nn.Module:
    parts = []
    for a, b in ((1, 16), (16, 32)):
        parts += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*parts, nn.Flatten(), mlp([32 * 49, 64, 10], nn.ReLU))


def trained(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: nn.Module,
    rate: float,
    adam: bool = False,
    steps: int = STEPS,
) -> Tensor:
    """Train on three quarters of the rows; return the outputs for the rest."""
    kind = torch.optim.Adam if adam else torch.optim.SGD
    optimizer, count = kind(model.parameters(), lr=rate), len(x) * 3 // 4
    for _ in range(steps):
        rows = torch.randint(0, count, (ROWS,))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return model(x[count:])


def r2(out: Tensor, y: Tensor) -> float:
    y = y[-len(out) :]
    return 1 - float(((out - y) ** 2).mean() / ((y - y.mean(0)) ** 2).mean())


def main() -> None:
    torch.manual_seed(1)
    x = torch.randn(4000, 16)
    y = torch.tanh(x @ torch.randn(16, 3) / 4) + 0.5 * x[:, :3] * x[:, 3:6]
    y = (y - y.mean(0)) / y.std(0)
    for gate, rate in itertools.product((nn.GELU, nn.ReLU), (0.01, 0.1)):
        torch.manual_seed(0)
        out = trained(mlp([16, 64, 64, 64, 3], gate), x, y, nn.MSELoss(), rate)
        print(f"{gate.__name__} 3x64, SGD {rate}: R^2 {r2(out, y):.2f}", flush=True)
    x = torch.randn(4000, 20)
    y = (x @ torch.randn(20, 1) > 0).float()
    torch.manual_seed(0)
    out = trained(mlp([20, 32, 32, 1], nn.ReLU, nn.Sigmoid()), x, y, nn.BCELoss(), 0.05)
    print(
        f"binary, sigmoid, SGD 0.05: accuracy {((out > 0.5) == (y[-len(out) :] > 0.5)).float().mean():.2f}",
        flush=True,
    )
    z = torch.randn(4000, 6) @ torch.randn(6, 64) / 2.4
    for rate in (0.01, 0.1):
        torch.manual_seed(0)
        out = trained(mlp([64, 32, 8, 32, 64], nn.ReLU), z, z, nn.MSELoss(), rate)
        print(f"autoencoder, SGD {rate}: R^2 {r2(out, z):.2f}", flush=True)
    labels = torch.randint(0, 10, (2000,))
    images = torch.rand(10, 1, 28, 28)[labels] + 0.3 * torch.randn(2000, 1, 28, 28)
    images = (images - images.mean()) / images.std()
    torch.manual_seed(0)
    out = trained(he(cnn()), images, labels, nn.CrossEntropyLoss(), 0.05, steps=120)
    print(
        f"He CNN, SGD 0.05, 120 steps: accuracy {(out.argmax(1) == labels[-len(out) :]).float().mean():.3f}",
        flush=True,
    )
    x = torch.rand(20_000, 3) * 2 - 1
    turns = math.pi * x
    y = torch.stack(
        [
            turns[:, 0].sin() * turns[:, 1].cos(),
            turns[:, 2].cos(),
            x[:, 0] * x[:, 1],
            torch.tanh(4 * (x.norm(dim=1) - 1)),
        ],
        1,
    )
    for rate, adam in ((0.1, False), (0.001, True)):
        torch.manual_seed(0)
        net = nn.Sequential(Encoding(8), he(mlp([51, *[64] * 10, 4], nn.ReLU)))
        print(
            f"encoding to 2^7 pi, ten layers of 64, {'Adam' if adam else 'SGD'} {rate}: R^2 {r2(trained(net, x, y, nn.MSELoss(), rate, adam), y):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
