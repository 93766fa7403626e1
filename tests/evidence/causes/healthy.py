"""False alarms on healthy settings: what the batch alone makes suspect, and the verdict's whole risk.

    PYTHONPATH=tests python -m evidence.causes.healthy

20 settings of 25 seeds each, every one a usual network, initialisation, optimiser and learning rate on inputs of variance 1.
"""

from __future__ import annotations

import torch
from torch import nn

from initdiag.diagnosing.causes import suspicions, with_suspicions
from initdiag.diagnosing.risk import Training
from initdiag.measuring.batch_probe import probe_batch

from .study import Fourier, Residual, Sine, mlp

SEEDS = 25
ROWS = 64


def he(net: nn.Module, gain: float = 2**0.5) -> nn.Module:
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=gain / part.in_features**0.5)
            nn.init.zeros_(part.bias)
    return net


def siren(inputs: int, outputs: int, w: float) -> nn.Module:
    net = mlp([inputs, 128, 128, 128, outputs], lambda: Sine(w))
    for i, layer in enumerate(part for part in net if isinstance(part, nn.Linear)):
        n = layer.in_features
        bound = 1 / n if i == 0 else (6 / n) ** 0.5 / w
        nn.init.uniform_(layer.weight, -bound, bound)
    return net


def residual(blocks: int) -> nn.Module:
    net = nn.Sequential(nn.Linear(16, 64), *(Residual(64) for _ in range(blocks)), nn.Linear(64, 3))
    for block in net[1:-1]:
        nn.init.zeros_(block.body[2].weight)
    return net


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


SGD, ADAM = ("sgd", 0.1), ("adam", 1e-3)
SLOW = ("sgd", 0.01)
C, R = "classification", "regression"
SETTINGS = {
    "He 2x128, SGD .1": (lambda: he(mlp([64, 128, 128, 10], nn.ReLU)), (64,), SGD, C),
    "He 4x256, Adam": (lambda: he(mlp([784, *[256] * 4, 10], nn.ReLU)), (784,), ADAM, C),
    "default 2x64, Adam": (lambda: mlp([16, 64, 64, 1], nn.ReLU), (16,), ADAM, R),
    "default 1x64, SGD .1": (lambda: mlp([16, 64, 3], nn.ReLU), (16,), SGD, C),
    "He 3x64, SGD .01": (lambda: he(mlp([16, 64, 64, 64, 1], nn.ReLU)), (16,), SLOW, R),
    "tanh 4x64, Adam": (lambda: he(mlp([16, *[64] * 4, 3], nn.Tanh), 1.0), (16,), ADAM, C),
    "tanh 2x64, SGD .1": (lambda: he(mlp([16, 64, 64, 3], nn.Tanh), 1.0), (16,), SGD, C),
    "sigmoid 1x64, Adam": (lambda: mlp([16, 64, 3], nn.Sigmoid), (16,), ADAM, C),
    "sigmoid 2x64, Adam .01": (lambda: mlp([16, 64, 64, 1], nn.Sigmoid), (16,), ("adam", 0.01), R),
    "GELU 4x64, Adam": (lambda: he(mlp([16, *[64] * 4, 1], nn.GELU)), (16,), ADAM, R),
    "ELU 4x64, Adam": (lambda: he(mlp([16, *[64] * 4, 3], nn.ELU), 1.0), (16,), ADAM, C),
    "LayerNorm 6x64, Adam": (lambda: mlp([16, *[64] * 6, 3], nn.ReLU, norm=True), (16,), ADAM, C),
    "LayerNorm 3x64, SGD .1": (lambda: mlp([16, *[64] * 3, 3], nn.ReLU, norm=True), (16,), SGD, C),
    "residual 6, zero branches, Adam": (lambda: residual(6), (16,), ADAM, C),
    "residual 6, zero branches, SGD .01": (lambda: residual(6), (16,), SLOW, C),
    "SIREN w 30 on coordinates, Adam 1e-4": (lambda: siren(2, 3, 30.0), (2,), ("adam", 1e-4), R),
    "SIREN w 1, 16 inputs, Adam": (lambda: siren(16, 3, 1.0), (16,), ADAM, R),
    "Fourier .05, 12 inputs, Adam": (
        lambda: nn.Sequential(Fourier(12, 64, 0.05), mlp([128, 64, 1], nn.ReLU)), (12,), ADAM, R,
    ),
    "CNN, Adam": (cnn, (3, 12, 12), ADAM, C),
    "autoencoder 64-16-64, Adam": (lambda: mlp([64, 32, 16, 32, 64], nn.ReLU), (64,), ADAM, R),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    alarms = 0
    for name, (factory, shape, (optimizer, lr), loss) in SETTINGS.items():
        found = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            net, x = factory(), torch.randn(ROWS, *shape)
            if "coordinates" in name:
                x = 2 * torch.rand(1024, *shape) - 1
            named = suspicions(probe_batch(net, x, loss), Training(optimizer, lr, loss))
            found.append((with_suspicions(0.0, named), named[0].cause))
        wrong = [cause for risk, cause in found if risk >= 0.5]
        alarms += len(wrong)
        worst = max(found)
        print(
            f"{name:40s} {len(wrong)} of {SEEDS}, largest {worst[0]:.3f} ({worst[1]})", flush=True
        )
    print(f"in all {alarms} of {SEEDS * len(SETTINGS)}: {alarms / SEEDS / len(SETTINGS):.1%}")


if __name__ == "__main__":
    main()
