"""How far apart two sets of rows, or two matrices, are, relative to their size."""

from __future__ import annotations

import numpy as np

from initdiag.tracing.observed import Array

__all__ = ["error_of_outer", "relative_error"]


def relative_error(actual: Array, expected: Array, scale: Array, vanished: float) -> float:
    """Return the largest of the rows' ``|actual - expected|``, relative to their
    size.
    """
    if not len(actual):
        return 0.0
    with np.errstate(all="ignore"):
        size = np.maximum(_norms(scale), _norms(actual))
        error = _norms(actual - expected) / size
        error[size <= vanished] = 0.0
        if np.isfinite(error).all():
            return float(error.max())
        both_overflow = ~np.isfinite(_norms(expected)) & ~np.isfinite(_norms(actual))
        return float(np.where(both_overflow, 0.0, np.nan_to_num(error, nan=1.0)).max())


def error_of_outer(actual: Array, left: Array, right: Array, vanished: float) -> float:
    """Return the relative error of a matrix that should be ``left^T right``, whichever
    way it is kept, by its product with one vector.
    """
    v = np.cos(np.arange(right.shape[1]) ** 1.5).astype(actual.dtype)
    expected = (left.T @ (right @ v))[None]
    shape = left.shape[1], right.shape[1]
    turns = [a for a in (actual, actual.T) if a.shape == shape]
    return min(relative_error((a @ v)[None], expected, expected, vanished) for a in turns)


def _norms(rows: Array) -> Array:
    norms: Array = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms
