"""How rows stand to one another in a network: as alike as ever, or torn apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Seen", "mean_cosine", "torn"]

_SHORT = 0.3
"""Part of the way from one row to another over which a network should not change its
mind: half way two rows' sum is as much the one as the other.
"""

_FEW = 0.1
"""Share of a fixed map's features that are enough to learn from, if they keep
neighbours together: a positional encoding has some of every frequency. One of 3 inputs
up to 2^7 pi, 9 of whose 51 features have periods of 2 or more, starts: R^2 of 0.57 (SGD
0.1) to 0.63 (Adam 1e-3) by ``python -m evidence.causes.ordinary``.
"""


class Seen(NamedTuple):
    """What the first linear map was given, and the last of several, a line a row."""

    mapped: Tensor | None
    hidden: Tensor | None


def mean_cosine(hidden: Tensor) -> float | None:
    """Return the mean cosine of pairs of rows; None without two rows that are not 0."""
    norms = hidden.norm(dim=1, keepdim=True)
    units = hidden[norms[:, 0] > 0] / norms[norms[:, 0] > 0]
    n = len(units)
    if n < 2:
        return None
    return float((units.sum(0).square().sum() - n) / (n * (n - 1)))


def torn(x: Tensor, others: Tensor, seen: Seen, seen_at: Callable[[Tensor], Seen]) -> float | None:
    """Return by how much of the way to another row a short way there leads, in the last
    hidden layer; without what a fixed map of the input adds to those of its features
    that move least.

    The short way is that to the nearest of as many batches as a batch has rows,
    relative to the mean distance: in d dimensions the nearest of n rows is about
    n^(-1/d) away, so that among n^2 it is the square of that. It is at most `_SHORT`:
    among many features every row is far from every other.
    """
    distances = torch.cdist(x.flatten(1), others.flatten(1))
    mean = float(distances.sum()) / (len(x) * (len(others) - 1))
    nearest = float(distances.fill_diagonal_(torch.inf).min(1).values.mean())
    if not (mean > 0 and nearest > 0):
        return None
    part = min((nearest / mean) ** 2, _SHORT)
    found = seen_at(torch.lerp(x, x.roll(1, 0), part))
    hidden, moved = seen.hidden, found.hidden
    if hidden is None or moved is None or moved.shape != hidden.shape:
        return None
    whole = (hidden.roll(1, 0) - hidden).norm(dim=1).mean()
    if not whole > 0:
        return None
    ratio = float((moved - hidden).norm(dim=1).mean() / whole)
    return (ratio - _torn_by_the_map(seen.mapped, found.mapped) - part) / (1 - part)


def _torn_by_the_map(mapped: Tensor | None, moved: Tensor | None) -> float:
    """Return by how much further a fixed map of the input goes than those of its
    features that move least: they are what the layers can learn from. A map that keeps
    all neighbours together, such as a scaling or a reshape, has 0.
    """
    if mapped is None or moved is None or mapped.dim() != 2 or mapped.shape != moved.shape:
        return 0.0
    whole = (mapped.roll(1, 0) - mapped).abs().mean(dim=0)
    ratios = ((moved - mapped).abs().mean(dim=0) / whole)[whole > 0]
    if not len(ratios):
        return 0.0
    return float(ratios.mean() - ratios.quantile(_FEW, interpolation="lower"))
