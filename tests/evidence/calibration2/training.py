"""Many networks of one architecture trained as one, whatever the architecture: `torch.func`'s
stack of their parameters, the forward pass by `vmap`, the steps of the first study.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from evidence.calibration.training import Steps, batches
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap

from .population import BATCH
from .tasks import Task

STEPS = 200
TRAIN_ROWS = 256
"""Of the training set, for the training loss."""


@dataclass(frozen=True)
class Outcome:
    """Each network's first and last training loss, last test score, and steps done before its
    loss was no longer a number.
    """

    before: np.ndarray
    after: np.ndarray
    score: np.ndarray
    steps: np.ndarray


class Stack:
    """K networks of one architecture; batch norms take the batch's own mean and variance."""

    def __init__(self, networks: Sequence[nn.Module], task: Task) -> None:
        self.task = task
        self.base = replace_all_batch_norm_modules_(networks[0])
        self.buffers = [dict(n.named_buffers()) for n in networks]
        named = dict(networks[0].named_parameters())
        flat = [nn.utils.parameters_to_vector(n.parameters()) for n in networks]
        self.values = torch.stack(flat).detach()
        ends = [0, *itertools.accumulate(p.numel() for p in named.values())]
        self.parameters = {
            name: self.values[:, a:b].view(len(networks), *p.shape).requires_grad_()
            for (name, p), (a, b) in zip(named.items(), itertools.pairwise(ends), strict=True)
        }
        names = dict(self.base.named_buffers())
        self.stacked = {name: torch.stack([b[name] for b in self.buffers]) for name in names}
        self.run = vmap(self._one, (0, 0, None))

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return self.task.run(lambda x: functional_call(self.base, (parameters, buffers), (x,)), x)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (K, rows, ...) for inputs (rows, n)."""
        return self.run(self.parameters, self.stacked, x)

    def gradients(self, loss: Tensor) -> Tensor:
        """Of a sum of the networks' losses: (K, P), each network's its own."""
        found = torch.autograd.grad(loss, list(self.parameters.values()))
        return torch.cat([g.flatten(1) for g in found], 1)


def train(
    networks: Sequence[nn.Module],
    optimizers: Sequence[str],
    rates: Sequence[float],
    task: Task,
    scale: float,
    seed: int,
    count: int = STEPS,
) -> Outcome:
    """Train each network with its optimiser and rate, all on the same batches of inputs times
    ``scale``; those under SGD and momentum come first. Stops where none is a number any more.
    """
    stack = Stack(networks, task)
    steps = Steps(stack, optimizers, rates)
    before, _ = look(stack, scale)
    done = np.zeros(len(networks), int)
    for chosen in itertools.islice(batches(len(task.x), BATCH, seed), count):
        x, y = task.x[chosen] * scale, task.y[chosen]
        losses = task.losses(stack(x), x, y)
        is_number = losses.detach().isfinite()
        if not is_number.any():
            break
        done += is_number.numpy()
        steps.step(stack.gradients(losses.sum()))
    return Outcome(before, *look(stack, scale), done)


@torch.no_grad()
def look(stack: Stack, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Training loss and test score of each network; the score of one whose loss is not a number
    is not one either.
    """
    task = stack.task
    x, y = task.x[:TRAIN_ROWS] * scale, task.y[:TRAIN_ROWS]
    losses = task.losses(stack(x), x, y)
    scores = task.scores(stack(task.x_test * scale))
    return losses.numpy(), torch.where(losses.isfinite(), scores, torch.nan).numpy()
