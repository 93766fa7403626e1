"""Orthogonal (Haar) weight matrices, recognised by their geometry."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["is_haar"]


def is_haar(matrix: Tensor) -> bool:
    """Return whether the smaller side's vectors are orthogonal and of one length.

    If so, ``W W^T V = g^2 V`` for any vectors ``V``. The first few vectors are looked
    at first, each with each, which spares the rest nearly always. A matrix of one row
    or column passes trivially, and is not called Haar. Of ``m`` vectors of length
    ``n``, iid entries leave a residual of about ``sqrt(m/n)``; entries rounded to a
    relative ``eps`` leave ``0.3 eps sqrt(m/n)`` (rounding errors of rms ``0.21 eps``,
    in both factors), and the factorisation before them, in single precision or better,
    a few of its own ``eps`` a vector.
    """
    w = matrix.detach() if matrix.shape[0] <= matrix.shape[1] else matrix.detach().T
    if w.shape[0] < 2:
        return False
    eps, length = torch.finfo(matrix.dtype).eps, w.shape[1]
    factorised = 10 * min(eps, torch.finfo(torch.float32).eps) * math.sqrt(length)
    few, all_at_once = np.eye(min(len(w), 8)), np.cos(np.arange(len(w)) ** 1.5)[:, None]
    return all(
        _orthogonality_error(w[: len(v)], v) < 2 * eps * math.sqrt(len(v) / length) + factorised
        for v in (few, all_at_once)
    )


def _orthogonality_error(rows: Tensor, v: NDArray[np.float64]) -> float:
    """Return the relative residual of ``W W^T V = g^2 V`` (Frobenius)."""
    w = rows.double().cpu().numpy()
    image = w @ (w.T @ v)
    scale = np.sum(image * v) / np.sum(v * v)
    return (
        float(np.linalg.norm(image - scale * v) / (scale * np.linalg.norm(v)))
        if scale > 0
        else math.inf
    )
