"""Sums over the entries of a weight: everything cheap that is known of them, in float64
and in slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from initdiag.errors import InvalidInput, explain

__all__ = ["EntrySums"]

_SLICE = 1 << 22
"""Entries taken to float64 at a time: 32 MB."""


@dataclass(frozen=True, slots=True)
class EntrySums:
    """Power sums of the entries of a tensor, their signs and largest absolute value
    (float64).
    """

    count: int
    s1: float
    s2: float
    s3: float
    s4: float
    s6: float
    sign: float
    nonzero: float
    largest: float

    @classmethod
    def of(cls, tensor: Tensor, name: str) -> EntrySums:
        """Return the sums of ``tensor``.

        Raises
        ------
        InvalidInput
            If there is no entry, one is NaN or infinite, or the dtype is complex or
            integer.
        """
        _check(tensor, name)
        sums = np.zeros(7)
        largest = 0.0
        with np.errstate(all="ignore"):  # what is not finite is found below
            for part in tensor.detach().reshape(-1).split(_SLICE):
                x = part.double().cpu().numpy()
                square = x * x
                sums += [
                    x.sum(),
                    square.sum(),
                    x @ square,
                    square @ square,
                    square @ (square * square),
                    *_signs(x),
                ]
                largest = max(largest, float(np.abs(x).max()))
        if not (np.isfinite(sums).all() and math.isfinite(largest)):
            raise InvalidInput(
                explain(
                    expected=f"finite weights in {name!r}",
                    got="NaN or infinite entries",
                    do="Check how the parameter is initialised or loaded.",
                )
            )
        s1, s2, s3, s4, s6, sign, nonzero = sums.tolist()
        return cls(tensor.numel(), s1, s2, s3, s4, s6, sign, nonzero, largest)

    @property
    def variance(self) -> float:
        """Mean square of the entries (about 0, as an initialiser's variance is)."""
        return self.s2 / self.count

    @property
    def kurtosis(self) -> float:
        """Mean fourth power over squared mean square; 3 if Gaussian. 3 by convention
        where all entries are 0.
        """
        return self.count * self.s4 / self.s2**2 if self.s2 > 0 else 3.0


def _signs(x: NDArray[np.float64]) -> tuple[int, int]:
    """Sum of the signs, and number of entries that are not 0."""
    positive, negative = np.count_nonzero(x > 0), np.count_nonzero(x < 0)
    return int(positive) - int(negative), int(positive) + int(negative)


def _check(tensor: Tensor, name: str) -> None:
    """Refuse a weight that is not of floating numbers, or has none."""
    if not tensor.is_floating_point():
        raise InvalidInput(
            explain(
                expected=f"real floating-point weights in {name!r}",
                got=str(tensor.dtype),
                do="Convert the module, e.g. model.float().",
            )
        )
    if tensor.numel() == 0:
        raise InvalidInput(
            explain(
                expected=f"weights in {name!r} that have entries",
                got=f"shape {tuple(tensor.shape)}",
                do="Give the layer at least one input and one output.",
            )
        )
