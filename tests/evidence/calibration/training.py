"""Many networks of one architecture trained as one: parameters stacked, each network its own optimiser and learning rate.

The parameters of K networks lie in one array (K, P) of which the layers are views: a step is one batched forward and backward pass, and a
dozen operations on the whole. Equal to training each alone by ``torch.optim`` (a test holds this).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .tasks import Task

CHECKPOINTS = (5, 10, 20, 30, 40, 60, 80, 100, 125, 150, 175, 200, 250, 300, 350, 400)
TRAIN_ROWS = 256
"""Of the training set, for the training loss at a checkpoint."""

STACK_PARAMETERS = 300_000
"""In one stack at most, so that it stays in the processor's cache."""

MOMENTUM, DECAY = 0.9, 0.01  # of "momentum"; of "adamw", PyTorch's default
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # PyTorch's defaults


@dataclass(frozen=True)
class Trace:
    """Of each network at step 0 and each checkpoint, shape (1 + checkpoints, K): training loss and test score."""

    losses: Tensor
    scores: Tensor


class Stack:
    """K networks ``Linear, gate, ..., Linear`` of the same widths; the gate is ReLU."""

    gate = staticmethod(torch.relu)

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        shapes = [p.shape for p in networks[0].parameters()]
        self.values = torch.stack(
            [nn.utils.parameters_to_vector(n.parameters()) for n in networks]
        ).detach()
        ends = [0, *itertools.accumulate(shape.numel() for shape in shapes)]
        self.parameters = []
        for shape, (a, b) in zip(shapes, itertools.pairwise(ends), strict=True):
            self.parameters.append(self.values[:, a:b].view(len(networks), *shape).requires_grad_())

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (K, rows, n_L) for inputs (rows, n_0)."""
        weights, biases = self.parameters[::2], self.parameters[1::2]
        h = x.expand(len(self.values), -1, -1)
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            h = torch.baddbmm(b.unsqueeze(1), h, w.transpose(1, 2))
            if i < len(weights) - 1:
                h = self.gate(h)
        return h

    def gradients(self, loss: Tensor) -> Tensor:
        """Of a sum of the networks' losses: (K, P), each network's its own."""
        return torch.cat([g.flatten(1) for g in torch.autograd.grad(loss, self.parameters)], 1)


class Steps:
    """SGD, momentum, Adam and AdamW at once, by network: those of the first two kinds must come first."""

    def __init__(self, stack: Stack, optimizers: Sequence[str], rates: Sequence[float]) -> None:
        self.first = sum(o in ("sgd", "momentum") for o in optimizers)
        assert all(o in ("sgd", "momentum") for o in optimizers[: self.first]), (
            "SGD and momentum come first"
        )
        column = lambda numbers: torch.tensor(list(numbers), dtype=torch.float32).unsqueeze(1)  # noqa: E731
        self.rate = column(rates)
        self.momentum = column(
            MOMENTUM if o == "momentum" else 0.0 for o in optimizers[: self.first]
        )
        decay = column(DECAY if o == "adamw" else 0.0 for o in optimizers[self.first :])
        self.keep = 1 - self.rate[self.first :] * decay
        self.values = stack.values
        self.mean, self.square = (
            torch.zeros_like(stack.values),
            torch.zeros_like(stack.values[self.first :]),
        )
        self.count = 0

    @torch.no_grad()
    def step(self, gradients: Tensor) -> None:
        self.count += 1
        f = self.first
        plain = self.mean[:f].mul_(self.momentum).add_(gradients[:f])
        self.values[:f].addcmul_(plain, self.rate[:f], value=-1)
        gradient = gradients[f:]
        mean = self.mean[f:].lerp_(gradient, 1 - BETA1)
        square = self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        scale = square.div(1 - BETA2**self.count).sqrt_().add_(EPSILON)
        self.values[f:].mul_(self.keep).addcmul_(
            mean / scale, self.rate[f:], value=-1 / (1 - BETA1**self.count)
        )


def train(
    networks: Sequence[nn.Sequential],
    optimizers: Sequence[str],
    rates: Sequence[float],
    task: Task,
    batch: int,
    seed: int,
    checkpoints: Sequence[int] = CHECKPOINTS,
    stack: type[Stack] = Stack,
) -> Trace:
    """Train each network with its optimiser and learning rate, all on the same batches, and look at them at the checkpoints; ``stack``: how they are run."""
    size = sum(p.numel() for p in networks[0].parameters())
    at_once = max(1, STACK_PARAMETERS // size)
    parts = [slice(a, a + at_once) for a in range(0, len(networks), at_once)]
    traces = [
        _train(stack(networks[p]), optimizers[p], rates[p], task, batch, seed, checkpoints)
        for p in parts
    ]
    return Trace(torch.cat([t.losses for t in traces], 1), torch.cat([t.scores for t in traces], 1))


def _train(
    stack: Stack,
    optimizers: Sequence[str],
    rates: Sequence[float],
    task: Task,
    batch: int,
    seed: int,
    checkpoints: Sequence[int],
) -> Trace:
    steps = Steps(stack, optimizers, rates)
    losses, scores = torch.full((2, 1 + len(checkpoints), len(optimizers)), torch.nan)
    losses[0], scores[0] = _look(stack, task)
    for number, chosen in enumerate(
        itertools.islice(batches(len(task.x), batch, seed), checkpoints[-1]), 1
    ):
        steps.step(stack.gradients(task.losses(stack(task.x[chosen]), task.y[chosen]).sum()))
        if number in checkpoints:
            look = 1 + checkpoints.index(number)
            losses[look], scores[look] = _look(stack, task)
            if losses[look].isnan().all():  # every network's weights have overflowed, and stay so
                break
    return Trace(losses, scores)


def batches(rows: int, batch: int, seed: int):
    """Batches for ever: epochs of random order, the rest that fills no batch left out."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from order[: rows - rows % batch].split(batch)


@torch.no_grad()
def _look(stack: Stack, task: Task) -> tuple[Tensor, Tensor]:
    outputs = stack(torch.cat([task.x[:TRAIN_ROWS], task.x_test]))
    losses = task.losses(outputs[:, :TRAIN_ROWS], task.y[:TRAIN_ROWS])
    return losses, torch.where(losses.isnan(), torch.nan, task.scores(outputs[:, TRAIN_ROWS:]))
