"""Names for the arrays of numbers that the laws are computed with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Complex", "Real", "complex_array"]

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def complex_array(values: ArrayLike) -> Complex:
    """Return ``values`` in double precision, complex."""
    return np.asarray(values, dtype=np.complex128)
