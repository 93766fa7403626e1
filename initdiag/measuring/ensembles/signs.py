"""The sign-flip ensemble: one model is enough.

If the entries of ``W`` are iid and symmetric (or ``W`` is Haar), ``R W S`` with
independent random +-1 diagonals has the law of ``W``. So every row of a batch gets its
own ``R`` and ``S`` at every linear layer: each row is a true draw from the
initialisation's law, all rows share the real ``|W|``, and the cost is that of one
batched pass. A symmetric bias is flipped with ``R``; a constant or skewed one is not. A
tied weight gets one pair for all its uses.

What the rows share does not vary over them: the variance over rows is the part within
``|W|``, and the mean carries an offset that the sample norms of the weights explain to
leading order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.interposer import LinearUse
from initdiag.measuring.passes.modes import Parts
from initdiag.measuring.passes.rows import rowwise

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

    values: Mapping[str, Tensor] = {}

    def __init__(
        self, seed: int, draws: range, order: Mapping[str, int], flipped_biases: frozenset[str]
    ) -> None:
        self._seed, self._draws, self._order, self._flipped = seed, draws, order, flipped_biases
        self._drawn: dict[str, tuple[Tensor, Tensor]] = {}

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        """Return ``R W S x`` for each of ``parts``: one matrix product for all."""
        s, r = self.signs(use, parts[0].dtype)
        s = rowwise(s, parts[0])
        images = torch.cat([part * s for part in parts]) @ use.weight.T
        r = rowwise(r, images)
        return tuple(image * r for image in images.split([len(part) for part in parts]))

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        """Return ``R b`` where the bias is flipped, else ``b``."""
        if use is None or not self.flips_bias(use.name):
            return bias
        return bias * self.signs(use, bias.dtype)[1]

    def flips_bias(self, name: str) -> bool:
        """Return whether the layer's bias is flipped with its output."""
        return name in self._flipped

    def bits(self, use: LinearUse) -> tuple[Tensor, Tensor]:
        """Return the bits (1 for the sign -1) of the layer's inputs and of
        its outputs.
        """
        fan_out, fan_in = use.weight.shape
        rows, columns = (fan_in, fan_out) if use.is_transposed else (fan_out, fan_in)
        order = self._order[use.name]
        values = random_numbers.bits(self._seed, self._draws, order, rows + columns)
        tensor = torch.from_numpy(values).to(use.weight.device)
        of_rows, of_columns = tensor[:, columns:], tensor[:, :columns]
        return (of_rows, of_columns) if use.is_transposed else (of_columns, of_rows)

    def signs(self, use: LinearUse, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the signs of inputs and outputs, a row for each draw; they are kept
        because a layer asks twice for them.

        A transposed use of a weight swaps the two.
        """
        if use.name not in self._drawn:
            s, r = (1 - 2 * bits.to(dtype) for bits in self.bits(use))
            self._drawn[use.name] = (r, s) if use.is_transposed else (s, r)
        s, r = self._drawn[use.name]
        return (r, s) if use.is_transposed else (s, r)
