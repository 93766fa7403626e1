"""A deep fully connected network as most people write it, and the same network mended.

initdiag check examples/deep_mlp.py:build          # at risk: exit code 1, and why
initdiag check examples/deep_mlp.py:build_fixed    # healthy: exit code 0
"""

from __future__ import annotations

import torch
from torch import nn

import initdiag


def build() -> nn.Sequential:
    """Thirty hidden layers of 64 under PyTorch's default initialisation: its gradient vanishes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(30):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def build_fixed() -> nn.Sequential:
    """Eight hidden layers of 256 under He initialisation: what the report's advice comes to."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in in [64] + [256] * 7:
        layers += [nn.Linear(fan_in, 256), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model


if __name__ == "__main__":
    assert not initdiag.check(build()).ok
    assert initdiag.check(build_fixed()).ok
