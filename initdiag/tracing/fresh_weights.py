"""Other values for weights, from the laws that they are taken for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from initdiag.network.weights import WeightLaw

__all__ = ["drawn", "normal"]

_TILE = 1 << 16
"""Numbers that are drawn for one weight; a larger weight repeats them."""


def drawn(law: WeightLaw, like: Tensor) -> Tensor:
    """Return a fresh draw from a law in ``like``'s shape: normal, or Haar."""
    if law.family == "haar":
        haar: Tensor = nn.init.orthogonal_(torch.empty_like(like, dtype=torch.float64))
        return haar.mul_(like.double().norm() / haar.norm())
    return normal(like, math.sqrt(law.variance))


def normal(like: Tensor, scale: float) -> Tensor:
    """Return normal numbers of this standard deviation in ``like``'s shape."""
    tile = torch.randn(min(like.numel(), _TILE), dtype=torch.float64, device="cpu")
    tile = tile.mul_(scale).to(like)
    copies = -(-like.numel() // len(tile))
    return tile.repeat(copies)[: like.numel()].reshape(like.shape)
