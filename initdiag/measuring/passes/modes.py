"""What carries the derivative: tangents forward, or the graph backward."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from torch.autograd import forward_ad

from initdiag.measuring.passes.rows import Scales

__all__ = ["FORWARD", "REVERSE", "Mode", "Parts"]

Parts = tuple[Tensor, ...]
"""A value and, in forward mode, its tangent: what a linear layer is applied to."""


class Mode(Protocol):
    """How a derivative is carried."""

    def carries(self, value: Any) -> bool:
        """Return whether the derivative flows through this value."""
        ...

    def parts(self, value: Tensor) -> Parts:
        """Return what a linear map is applied to."""
        ...

    def joined(self, parts: Parts) -> Tensor:
        """Return the value of these parts."""
        ...

    def rescaled(self, parts: Parts, scales: Scales) -> Parts:
        """Return the parts with the derivative kept in range."""
        ...


class _Forward:
    """Values carry tangents."""

    def carries(self, value: Any) -> bool:
        return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None

    def parts(self, value: Tensor) -> Parts:
        primal, tangent = forward_ad.unpack_dual(value)
        assert tangent is not None, "the caller asked whether it carries one"
        return primal, tangent

    def joined(self, parts: Parts) -> Tensor:
        dual: Tensor = forward_ad.make_dual(*parts)
        return dual

    def rescaled(self, parts: Parts, scales: Scales) -> Parts:
        primal, tangent = parts
        return primal, scales.rescaled_tangent(tangent)


class _Reverse:
    """Values carry a graph, through which cotangents come back."""

    def carries(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.requires_grad

    def parts(self, value: Tensor) -> Parts:
        return (value,)

    def joined(self, parts: Parts) -> Tensor:
        (value,) = parts
        return value

    def rescaled(self, parts: Parts, scales: Scales) -> Parts:
        (value,) = parts
        return (scales.rescaling_cotangents(value),)


FORWARD: Mode = _Forward()
REVERSE: Mode = _Reverse()
