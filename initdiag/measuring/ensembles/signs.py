"""The sign-flip ensemble: one model is enough.

If the entries of ``W`` are iid and symmetric (or ``W`` is Haar), ``R W S`` with independent random +-1 diagonals has the law of ``W``. So
every row of a batch gets its own ``R`` and ``S`` at every linear layer: each row is a true draw from the initialisation's law,
all rows share the real ``|W|``, and the cost is that of one batched pass. A symmetric bias is flipped with ``R``; a constant or
skewed one is not. A tied weight gets one pair for all its uses.

What the rows share does not vary over them: the variance over rows is the part within ``|W|``, and the mean carries an offset that
the sample norms of the weights explain to leading order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.interposer import rowwise

__all__ = ["SignFlips"]


class SignFlips:
    """Random signs for one chunk of draws.

    Parameters
    ----------
    seed, draws : int, range
        Fix the signs: draw ``i`` has the same ones in every chunk.
    order : mapping
        Weight name -> the number of its stream.
    flipped_biases : frozenset of str
        Names of the weights whose bias is flipped with them.
    """

    def __init__(
        self, seed: int, draws: range, order: Mapping[str, int], flipped_biases: frozenset[str]
    ) -> None:
        self._seed, self._draws, self._order, self._flipped = seed, draws, order, flipped_biases
        self._sides: dict[str, tuple[Tensor, Tensor]] = {}
        self._output: dict[str, Tensor] = {}

    def apply(
        self, name: str, x: Tensor, tangent: Tensor, weight: Tensor, is_transposed: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ``R W S x`` and ``R W S t``: one matrix product for both."""
        if name not in self._sides:
            self._sides[name] = self._drawn(name, weight.T if is_transposed else weight, x)
        rows, columns = self._sides[name]
        s, r = (rows, columns) if is_transposed else (columns, rows)
        self._output[name] = r
        s = rowwise(s, x)
        both = torch.cat([x * s, tangent * s]) @ weight.T
        r = rowwise(r, both)
        return both[: len(x)] * r, both[len(x) :] * r

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return ``R b`` where the bias is flipped, else ``b``."""
        return bias * self._output[name] if self.flips_bias(name) else bias

    def again(self) -> SignFlips:
        """Return itself: it is the same in every pass."""
        return self

    def flips_bias(self, name: str) -> bool:
        """Return whether the layer's bias is flipped with its output."""
        return name in self._flipped

    def bits(self, name: str, weight: Tensor, is_transposed: bool) -> tuple[Tensor, Tensor]:
        """Return the bits (1 for the sign -1) of the layer's inputs and outputs, ``weight`` as the call uses it."""
        rows, columns = self._bits(name, weight.T if is_transposed else weight)
        return (rows, columns) if is_transposed else (columns, rows)

    def _bits(self, name: str, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of the parameter's rows and of its columns: a transposed use swaps them."""
        rows, columns = parameter.shape
        values = random_numbers.bits(self._seed, self._draws, self._order[name], rows + columns)
        tensor = torch.from_numpy(values).to(parameter.device)
        return tensor[:, columns:], tensor[:, :columns]

    def _drawn(self, name: str, parameter: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = self._bits(name, parameter)
        return 1 - 2 * rows.to(like.dtype), 1 - 2 * columns.to(like.dtype)
