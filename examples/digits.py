"""The prediction comes true: a deep network on the scikit-learn digits, trained before and after the advice.

    pip install "initdiag[examples]" && python examples/digits.py

The network as built is called at risk and stays at chance under plain SGD. With the first advice of its report pasted in, the same
network, data, optimiser and budget learn.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

import initdiag

EPOCHS, BATCH, LEARNING_RATE = 10, 64, 0.05


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Standardised images and labels: 1,437 for training, 360 for testing."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1437]], y[order[:1437]], x[order[1437:]], y[order[1437:]]


def build() -> nn.Sequential:
    """Fifteen hidden layers of 128 under PyTorch's default initialisation."""
    torch.manual_seed(0)
    hidden = [part for _ in range(14) for part in (nn.Linear(128, 128), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), *hidden, nn.Linear(128, 10))


def follow(advice_code: str, model: nn.Module) -> None:
    """Paste a report's advice: it speaks of one layer's weight ``w`` and bias ``b``."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            exec(advice_code, {"nn": nn, "w": layer.weight, "b": layer.bias})


def accuracy_after_training(model: nn.Module) -> float:
    """Train by plain SGD for a few epochs; return the test accuracy."""
    x, y, x_test, y_test = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((model(x_test).argmax(1) == y_test).float().mean())


def main() -> None:
    images = digits()[0][:256]
    model = build()
    before = initdiag.check(model, images)
    assert before.verdict is initdiag.Verdict.VANISHING

    mended = build()
    follow(before.advice[0].code, mended)
    after = initdiag.check(mended, images)
    assert after.ok

    scores = accuracy_after_training(model), accuracy_after_training(mended)
    print(
        f"test accuracy after {EPOCHS} epochs: {scores[0]:.0%} as built, {scores[1]:.0%} with the first advice"
    )
    assert scores[0] < 0.2 < 0.8 < scores[1]


if __name__ == "__main__":
    main()
