"""The curvature of a batch's mean loss at initialisation: the Gauss-Newton matrix.

Its products with vectors are one backward pass and one further forward pass, whose
difference quotient in double precision is the tangent: that works for whatever the
module computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from initdiag._core.choices import Loss

__all__ = ["Curvature"]

_ROUNDS = 4
"""Products of a power iteration.

The largest eigenvalue is then known to some percent, and that without the outputs' mean
to a third, from below: the next ones lie nearer to it.
"""

_STEP = 1e-6
"""Length of the difference's step relative to the parameters': in double precision the
tangent is then right to about six digits.
"""


@dataclass(frozen=True, slots=True)
class Curvature:
    """One network on one batch, whose pass with its graph is kept.

    Attributes
    ----------
    parameters : sequence of Tensor
        Those of the replica that get a gradient.
    forward : callable
        Runs the replica on the batch.
    out : Tensor
        What it returned, with its graph.
    are_odds : bool
        Whether the outputs are probabilities, each by itself, as of a sigmoid.
    """

    parameters: Sequence[Tensor]
    forward: Callable[[], Tensor]
    out: Tensor
    are_odds: bool = False

    @classmethod
    def of(
        cls, module: nn.Module, forward: Callable[[], Tensor], are_odds: bool = False
    ) -> Curvature | None:
        """Return the curvature of a replica; None if no parameter gets a gradient."""
        parameters = [p for p in module.parameters() if p.is_floating_point()]
        for parameter in parameters:
            parameter.requires_grad_()
        with torch.enable_grad():
            out = forward()
        return cls(parameters, forward, out, are_odds) if out.requires_grad else None

    def largest(self, loss: Loss, *, centred: bool) -> float:
        """Return the largest eigenvalue, by power iteration.

        ``centred`` is without the mean of the outputs over the rows: of what tells rows
        apart.
        """
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(self.out.shape, generator=generator, dtype=torch.float64)
        v = v.to(self.out.device, self.out.dtype)
        value = 0.0
        for _ in range(_ROUNDS):
            v = v - v.mean(0) if centred else v
            g = self._pulled(v)
            square = sum(float(part.square().sum()) for part in g)
            if square == 0:
                return 0.0
            pushed = self._pushed(g)
            pushed = pushed - pushed.mean(0) if centred else pushed
            v = self._bent(pushed, loss)
            value = float((pushed * v).sum()) / square
        return value

    def sign_step(self, loss: Loss) -> float:
        """Return by how much outputs change per unit of learning rate if each parameter
        moves by one, in the direction that changes the batch's outputs most.
        """
        v = self.out.detach() - self.out.detach().mean(0)
        for _ in range(2):
            g = self._pulled(v)
            v = self._pushed(g)
        signs = [part.sign() for part in self._pulled(v)]
        return float(self._pushed(signs).square().mean().sqrt())

    def _bent(self, v: Tensor, loss: Loss) -> Tensor:
        """Return ``H v``, the loss's second derivative by the outputs.

        The mean of squared errors has 2 over the number of outputs. A cross entropy is
        taken at even odds, where it bends most: logits that start far out are on its
        flat ends, and training passes the middle. Its classes are the last axis, or the
        second of a batch of images; a single output is a logit. Of probabilities the
        binary cross entropy bends by 1/(p (1 - p)), 4 at even odds.
        """
        if loss == "regression":
            return 2 * v / v.numel()
        if self.are_odds:
            return 4 * v / v.numel()
        axis = 1 if v.dim() in (2, 4, 5) else -1
        if v.shape[axis] == 1:
            return v / (4 * v.numel())
        return (v - v.mean(axis, keepdim=True)) / v.numel()

    def _pulled(self, v: Tensor) -> list[Tensor]:
        """Return ``J^T v``, one part a parameter."""
        with torch.enable_grad():
            product = (self.out * v).sum()
        found = torch.autograd.grad(product, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(found, self.parameters, strict=True)
        return [torch.zeros_like(p) if g is None else g.detach() for g, p in pairs]

    def _pushed(self, g: list[Tensor]) -> Tensor:
        """Return ``J g``, a difference quotient; the parameters end as they began."""
        length = _norm(g)
        scale = _STEP * (_norm([p.detach() for p in self.parameters]) or 1.0) / (length or 1.0)
        kept = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            try:
                for parameter, part in zip(self.parameters, g, strict=True):
                    parameter.data.add_(part, alpha=scale)
                moved = self.forward()
            finally:
                for parameter, before in zip(self.parameters, kept, strict=True):
                    parameter.data.copy_(before)
        return (moved - self.out.detach()) / scale


def _norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))
