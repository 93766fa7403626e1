"""Other values for weights, from the laws that they are taken for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from initdiag.network.weights import WeightLaw

__all__ = ["drawn", "normal"]

_TILE = 8191
"""Numbers that are drawn for one weight; a larger weight repeats them. A prime: so no
two rows begin at one place.
"""


def drawn(law: WeightLaw, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return a fresh draw from a law in ``like``'s shape: normal, or Haar."""
    if law.family == "haar":
        empty = torch.empty(like.shape, dtype=torch.float64, device="cpu")
        haar: Tensor = nn.init.orthogonal_(empty, generator=generator).to(like.device)
        return haar.mul_(like.double().norm() / haar.norm())
    return normal(like, math.sqrt(law.variance), generator)


def normal(like: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Return normal numbers of this standard deviation in ``like``'s shape."""
    size = min(like.numel(), _TILE)
    tile = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    tile = tile.mul_(scale).to(like)
    copies = -(-like.numel() // len(tile))
    return tile.repeat(copies)[: like.numel()].reshape(like.shape)
