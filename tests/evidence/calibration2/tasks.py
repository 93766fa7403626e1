"""Ten tasks: the five of the first study, and five of other kinds.

Inputs are standardised but for `ring`, whose raw inputs are a hundred times as large. Every
task has rows of numbers; ``steps`` says how they are read as a sequence, ``image`` as a picture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from evidence.calibration import tasks as first
from torch import Tensor

TRAIN_ROWS = 2000
TEST_ROWS = 360


@dataclass(frozen=True)
class Task:
    """Data, loss and score.

    ``output`` is the shape of a row's target values: (classes,), (numbers,) or (positions,
    classes). ``constant`` is the training loss of the best constant output, ``chance`` its test
    score (accuracy, or R^2 = 0). ``direction``: a physics-informed loss takes the derivative
    along it.
    """

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    output: tuple[int, ...]
    steps: tuple[int, int] | None = None
    image: tuple[int, int] | None = None
    direction: tuple[float, ...] | None = None

    @property
    def is_classification(self) -> bool:
        return not self.y.is_floating_point()

    @property
    def kind(self) -> str:
        return "classification" if self.is_classification else "regression"

    @functools.cached_property
    def chance(self) -> float:
        if not self.is_classification:
            return 0.0
        return float(self.y_test.flatten().bincount().max()) / self.y_test.numel()

    @functools.cached_property
    def constant(self) -> float:
        if self.direction is not None:
            start = self.x[:, 1] == 0
            return float(self.y[start].var(correction=0) * start.float().mean())
        if not self.is_classification:
            return float(self.y.reshape(len(self.y), -1).var(0, correction=0).mean())
        y = self.y.reshape(len(self.y), -1)
        shares = torch.stack([(y == c).double().mean(0) for c in range(self.output[-1])])
        return float(-torch.special.xlogy(shares, shares).sum(0).mean())

    def run(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What the loss needs of one network: its outputs, or also their derivative along
        ``direction``.
        """
        if self.direction is None:
            return network(x)
        along = torch.tensor(self.direction).expand_as(x)
        return torch.cat(torch.func.jvp(network, (x,), (along,)), -1)

    def losses(self, outputs: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss of each network: outputs (networks, rows, *output)."""
        if self.direction is not None:  # the equation inside, the values at time 0
            value, slope = outputs.unbind(-1)
            at_start = x[:, 1] == 0
            return torch.where(at_start, (value - y).square(), slope.square()).mean(-1)
        if self.is_classification:
            logs = outputs.log_softmax(-1)
            picked = logs.gather(-1, y.expand(*outputs.shape[:-1]).unsqueeze(-1)).squeeze(-1)
            return -picked.flatten(1).mean(-1)
        return (outputs - y.reshape(len(y), -1)).square().flatten(1).mean(-1)

    def scores(self, outputs: Tensor) -> Tensor:
        """Accuracy, or R^2, of each network on the test rows."""
        if self.is_classification:
            return (outputs.argmax(-1) == self.y_test).float().flatten(1).mean(-1)
        y = self.y_test.reshape(len(self.y_test), -1)
        error = (outputs[..., : y.shape[1]] - y).square().flatten(1).mean(-1)
        return 1 - error / y.var(0, correction=0).mean()


def _of_first(name: str, **shape: tuple[int, int]) -> Task:
    of = first.task(name)
    return Task(name, of.x, of.y, of.x_test, of.y_test, (of.outputs,), **shape)


def _made(name: str, x: np.ndarray, y: np.ndarray, output: tuple[int, ...], **how) -> Task:
    inputs = torch.tensor(x, dtype=torch.float32)
    target = torch.tensor(y, dtype=torch.int64 if y.dtype.kind == "i" else torch.float32)
    n = TEST_ROWS
    return Task(name, inputs[n:], target[n:], inputs[:n], target[:n], output, **how)


def digits() -> Task:
    return _of_first("digits", steps=(8, 8), image=(8, 8))


def cancer() -> Task:
    return _of_first("cancer", steps=(5, 6))


def clusters() -> Task:
    return _of_first("clusters", steps=(4, 5))


def teacher() -> Task:
    return _of_first("teacher", steps=(4, 4), image=(4, 4))


def wave() -> Task:
    return _of_first("wave")


def advection() -> Task:
    """A physics-informed loss: ``u_t + u_x = 0`` and ``u(x, 0) = sin(pi x)``, half of the rows at
    time 0; scored against the solution ``sin(pi (x - t))``.
    """
    rng = np.random.default_rng(11)
    x = rng.uniform(-1, 1, TRAIN_ROWS + TEST_ROWS)
    t = rng.uniform(0, 1, len(x)) * (rng.uniform(size=len(x)) < 0.5)
    t[:TEST_ROWS] = rng.uniform(0, 1, TEST_ROWS)
    return _made(
        "advection",
        np.stack([x, t], 1),
        math.sqrt(2) * np.sin(math.pi * (x - t)),
        (1,),
        direction=(1.0, 1.0),
    )


def field() -> Task:
    """An implicit field: the signed distance of points of a square to a five-pointed star."""
    rng = np.random.default_rng(12)
    x = rng.uniform(-1, 1, (TRAIN_ROWS + TEST_ROWS, 2))
    radius, angle = np.hypot(*x.T), np.arctan2(*x.T)
    distance = radius - 0.5 * (1 + 0.5 * np.cos(5 * angle))
    y = (distance - distance.mean()) / distance.std()
    return _made("field", math.sqrt(3) * x, y, (1,))


def ring() -> Task:
    """Points of a disc and of the ring around it, inputs times 100: two classes."""
    rng = np.random.default_rng(13)
    y = rng.integers(0, 2, TRAIN_ROWS + TEST_ROWS)
    radius = np.where(y == 1, rng.uniform(0.5, 0.9, len(y)), rng.uniform(0, 0.45, len(y)))
    angle = rng.uniform(0, 2 * math.pi, len(y))
    return _made(
        "ring", 100 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), y, (2,)
    )


def autoencoding() -> Task:
    """The digits from themselves."""
    of = first.task("digits")
    return Task("autoencoding", of.x, of.x, of.x_test, of.x_test, (64,), (8, 8), (8, 8))


SYMBOLS, LENGTH = 5, 6


def copying() -> Task:
    """A sequence of six out of five symbols, to be said in reverse order."""
    rng = np.random.default_rng(14)
    words = rng.integers(0, SYMBOLS, (TRAIN_ROWS + TEST_ROWS, LENGTH))
    x = math.sqrt(SYMBOLS) * np.eye(SYMBOLS)[words]
    return _made(
        "copying",
        x.reshape(len(x), -1),
        words[:, ::-1].copy(),
        (LENGTH, SYMBOLS),
        steps=(LENGTH, SYMBOLS),
        image=(LENGTH, SYMBOLS),
    )


MAKERS = (digits, cancer, clusters, teacher, wave, advection, field, ring, autoencoding, copying)
NAMES = tuple(maker.__name__ for maker in MAKERS)
NEW = NAMES[5:]


@functools.cache
def task(name: str) -> Task:
    """The task called ``name``, made once a process."""
    return MAKERS[NAMES.index(name)]()
