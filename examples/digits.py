"""The prediction comes true: a deep network on the scikit-learn digits, trained before and after the advice.

    pip install "initdiag[examples]" && python examples/digits.py
    python examples/digits.py --figure loss.svg    # also draws the losses

The network as built is called at risk and stays at chance under plain SGD. With the first advice of its report pasted in, the same
network, data, optimiser and budget learn.
"""

from __future__ import annotations

import argparse
import math

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


def train(model: nn.Module) -> tuple[list[float], float]:
    """Train by plain SGD for a few epochs; return the loss of every step, and the test accuracy."""
    x, y, x_test, y_test = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        return losses, float((model(x_test).argmax(1) == y_test).float().mean())


def draw(before: list[float], after: list[float], path: str) -> None:
    """Draw the losses of both trainings beside that of a guess."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.axhline(math.log(10), color="0.6", lw=1, ls=":")
    axes.plot(before, color="#c0392b", lw=1.5)
    axes.plot(after, color="#1f6fb2", lw=1.5)
    end = len(before)
    axes.text(end, 2.42, "as built: a guess, ln 10", color="#c0392b", ha="right", va="bottom")
    axes.text(end, max(after[-40:]) + 0.1, "with the first advice", color="#1f6fb2", ha="right")
    axes.set(xlabel="step of SGD", ylabel="training loss", ylim=(0, 2.9), xlim=(0, end))
    axes.spines[["top", "right"]].set_visible(False)
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "initdiag"}):
        figure.savefig(path, metadata={"Date": None} if path.endswith("svg") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="PATH", help="draw the losses of both trainings")
    path = parser.parse_args().figure
    images = digits()[0][:256]
    model = build()
    before = initdiag.check(model, images)
    assert before.verdict is initdiag.Verdict.VANISHING

    mended = build()
    follow(before.advice[0].code, mended)
    after = initdiag.check(mended, images)
    assert after.ok

    (losses, score), (mended_losses, mended_score) = train(model), train(mended)
    print(
        f"test accuracy after {EPOCHS} epochs: {score:.0%} as built, {mended_score:.0%} with the first advice"
    )
    assert score < 0.2 < 0.8 < mended_score
    assert max(abs(loss - math.log(10)) for loss in losses) < 0.1 < 2 - mended_losses[-1]
    if path:
        draw(losses, mended_losses, path)


if __name__ == "__main__":
    main()
