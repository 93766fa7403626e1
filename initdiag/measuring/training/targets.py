"""Targets that are made up where there are none: random labels, or a linear teacher's
values.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_dimension", "labels", "values"]

_PARTS = 16
"""Features of the input that a linear teacher looks at, at most, each a random one."""


def class_dimension(out: Tensor, label_shape: tuple[int, ...] | None = None) -> int:
    """Return the dimension of an output that holds a class's score each.

    The labels' shape tells; without them it is 1 for images (rows, classes, height,
    width), and the last otherwise.
    """
    if label_shape is None:
        return 1 if out.dim() == 4 else -1
    return -1 if label_shape == tuple(out.shape[:-1]) else 1


def labels(out: Tensor, seed: int) -> Tensor:
    """Return labels at random for an output, all classes equally often, or nearly.

    A single score is that of two classes, and its labels are 0 and 1 of its own shape.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    where = class_dimension(out)
    classes = 2 if out.shape[where] == 1 else out.shape[where]
    shape = list(out.shape)
    if out.shape[where] > 1:
        del shape[where]
    count = torch.Size(shape).numel()
    found = (torch.arange(count) % classes)[torch.randperm(count, generator=generator)]
    found = found.reshape(shape).to(out.device)
    return found.to(out.dtype) if out.shape[where] == 1 else found


def values(x: Tensor, out: Tensor, seed: int) -> Tensor:
    """Return what a random linear function makes of the inputs, of variance 1 at every
    place of the output; random numbers where it has other rows than the input.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    rows, size = len(out), out[0].numel()
    if len(x) == rows:
        flat = x.detach().double().cpu().flatten(1)
        flat = (flat - flat.mean(0)) / flat.std(0, correction=0).clamp_min(1e-12)
        first = torch.randn(flat.shape[1], _PARTS, generator=generator, dtype=torch.float64)
        parts = flat @ first
    else:
        parts = torch.randn(rows, _PARTS, generator=generator, dtype=torch.float64)
    found = parts @ torch.randn(_PARTS, size, generator=generator, dtype=torch.float64)
    found = (found - found.mean(0)) / found.std(0, correction=0).clamp_min(1e-12)
    return found.reshape(out.shape).to(out.device, out.dtype)
