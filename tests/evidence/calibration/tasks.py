"""The five tasks of the calibration study: inputs of mean square 1, targets of a class or of variance 1."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from torch import Tensor, nn

TEST_ROWS = 360
"""At most so many rows are held out, a quarter of a small data set."""


@dataclass(frozen=True)
class Task:
    """Data and loss. ``chance`` is the score of the best constant: accuracy of the commonest class, or R^2 = 0."""

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    outputs: int

    @property
    def is_classification(self) -> bool:
        return not self.y.is_floating_point()

    @property
    def chance(self) -> float:
        return (
            float(self.y_test.bincount().max()) / len(self.y_test)
            if self.is_classification
            else 0.0
        )

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss of each network: outputs (networks, rows, n), targets (rows,)."""
        if self.is_classification:
            logs = outputs.log_softmax(-1)
            return -logs.gather(-1, y.expand(len(outputs), -1).unsqueeze(-1)).squeeze(-1).mean(-1)
        return (outputs.squeeze(-1) - y).square().mean(-1)

    def scores(self, outputs: Tensor) -> Tensor:
        """Accuracy, or R^2, of each network on the test rows."""
        if self.is_classification:
            return (outputs.argmax(-1) == self.y_test).float().mean(-1)
        return 1 - self.losses(outputs, self.y_test) / self.y_test.var(correction=0)


def _task(name: str, x: np.ndarray, y: np.ndarray) -> Task:
    order = np.random.default_rng(0).permutation(len(x))
    held = min(TEST_ROWS, len(x) // 4)
    is_classification = np.issubdtype(y.dtype, np.integer)
    target = (
        torch.tensor(y[order])
        if is_classification
        else torch.tensor((y - y.mean()) / y.std())[order].float()
    )
    inputs = torch.tensor(x[order], dtype=torch.float32)
    outputs = int(y.max()) + 1 if is_classification else 1
    return Task(name, inputs[held:], target[held:], inputs[:held], target[:held], outputs)


def _scaled(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    spread = centred.std(0)
    return centred / np.where(spread > 0, spread, 1.0)


def digits() -> Task:
    """8 x 8 images, ten classes; one common scale, so that empty pixels stay empty."""
    data = load_digits()
    return _task(
        "digits", (data.data - data.data.mean()) / data.data.std(), data.target.astype(np.int64)
    )


def cancer() -> Task:
    """30 measurements of cells, two classes."""
    data = load_breast_cancer()
    return _task("cancer", _scaled(data.data), data.target.astype(np.int64))


def clusters() -> Task:
    """20 synthetic features, 12 of them informative, five classes of two clusters."""
    x, y = make_classification(
        3000,
        20,
        n_informative=12,
        n_redundant=4,
        n_classes=5,
        n_clusters_per_class=2,
        class_sep=2.0,
        random_state=0,
    )
    return _task("clusters", _scaled(x), y.astype(np.int64))


def teacher() -> Task:
    """A random ReLU network 16-32-1 on Gaussian inputs."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3000, 16))
    hidden = np.maximum(x @ rng.standard_normal((16, 32)) / 4 + rng.standard_normal(32) / 2, 0)
    return _task("teacher", x, hidden @ rng.standard_normal(32))


def wave() -> Task:
    """The solution ``sin(pi x) cos(pi t)`` of a wave equation, from its values at points of a rectangle."""
    rng = np.random.default_rng(2)
    x, t = rng.uniform(-1, 1, (2, 3000))
    return _task(
        "wave", math.sqrt(3) * np.stack([x, t], 1), np.sin(math.pi * x) * np.cos(math.pi * t)
    )


MAKERS = (digits, cancer, clusters, teacher, wave)
NAMES = tuple(maker.__name__ for maker in MAKERS)


@functools.cache
def task(name: str) -> Task:
    """The task called ``name``, made once a process."""
    return MAKERS[NAMES.index(name)]()


def loss_module(of: Task) -> nn.Module:
    """The task's loss for one network, as PyTorch has it."""
    return nn.CrossEntropyLoss() if of.is_classification else nn.MSELoss()
