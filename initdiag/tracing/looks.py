"""Whether a module reads its weights other than by multiplying with them.

A branch on a weight is taken by few redraws, perhaps, and shows in none of two. So a
module that compares its weights, or takes numbers out of them, is redrawn more often
before it is called a chain.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from initdiag.tracing.structures import tensors_in
from initdiag.tracing.torch_calls import function_name

__all__ = ["Reads"]

_READS = frozenset(
    "item bool float int index tolist numpy array equal allclose is_nonzero isclose "
    "gt lt ge le eq ne argmax argmin".split()
)
"""What takes a number, or an answer of yes or no, out of a tensor."""


class Reads(TorchFunctionMode):
    """Follows what is computed from parameters alone, and sees when it is read.

    Attributes
    ----------
    found : bool
        Whether a pass under this mode has read them.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._memory = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._kept: list[Tensor] = []
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = list(tensors_in((args, kwargs or {})))
        if given and all(self._is_of_weights(tensor) for tensor in given):
            self.found = self.found or function_name(func) in _READS
            for tensor in tensors_in(out):
                self._kept.append(tensor)  # so that its memory is not used again
                self._memory.add(tensor.untyped_storage().data_ptr())
        return out

    def _is_of_weights(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._memory
