"""What a call of a torch function means to the theory: a linear map, an activation, a dropout, a change of shape.

Both the tracer and the measuring engine read calls through this one page. A call is identified by its function's name,
which is the same for the function, the method and the in-place form (``F.relu``, ``x.relu()``, ``x.relu_()``, ``nn.ReLU``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from initdiag.architecture import Activation

__all__ = ["LinearCall", "activation_of", "bias_added", "dropout_rate", "function_name", "is_reshape", "linear_call"]

Arguments = tuple[Sequence[Any], Mapping[str, Any]]

_TRANSPOSE = vars(torch._C.TensorBase)["T"].__get__

_RESHAPES = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze contiguous clone to float double half bfloat16 type view_as "
    "reshape_as identity requires_grad_".split()
)
_SMOOTH = frozenset("tanh sigmoid gelu silu elu selu softplus hardtanh relu6".split())


@dataclass(frozen=True, slots=True)
class LinearCall:
    """A linear map ``x -> x M (+ bias)`` that a call makes: ``weight`` as the call has it, transposed to ``M^T`` or not.

    Attributes
    ----------
    x, weight : Tensor
        Input and second factor.
    bias : Tensor or None
        What is added.
    is_transposed : bool
        True where the call uses ``weight`` as ``(fan_in, fan_out)`` (``x @ weight``), False for ``F.linear``.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    is_transposed: bool


def function_name(function: Callable[..., Any]) -> str:
    """Return the plain name of a torch function, method or in-place method: ``relu`` for all of ReLU's."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        return "transpose_property" if function == _TRANSPOSE else "property"
    if name.startswith("__") and name.endswith("__"):
        return name.strip("_")
    return name.rstrip("_")


def linear_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> LinearCall | None:
    """Return the linear map with a two-dimensional second factor that this call makes; None if it is not one."""
    if name == "linear":
        x, weight, bias = _bound(args, kwargs, ("input", "weight", "bias"))
        call = LinearCall(x, weight, bias, is_transposed=False)
    elif name in ("matmul", "mm"):
        x, weight = _bound(args, kwargs, ("input", "other" if name == "matmul" else "mat2"))
        call = LinearCall(x, weight, None, is_transposed=True)
    elif name == "addmm" and not {"beta", "alpha"} & set(kwargs):
        bias, x, weight = _bound(args, kwargs, ("input", "mat1", "mat2"))
        call = LinearCall(x, weight, bias, is_transposed=True)
    else:
        return None
    tensors = isinstance(call.x, Tensor) and isinstance(call.weight, Tensor)
    return call if tensors and call.weight.dim() == 2 else None


def bias_added(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Return the two summands of a plain addition; None if the call is not one."""
    if name not in ("add", "iadd", "radd") or kwargs.get("alpha", 1) != 1:
        return None
    first, second = _bound(args, kwargs, ("input", "other"))
    return first, second


def activation_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Activation | None:
    """Return the activation that the call applies to its first argument; None if it is not one."""
    if name == "relu":
        return Activation("relu")
    if name == "leaky_relu":
        _, slope = _bound(args, kwargs, ("input", "negative_slope"))
        return Activation("leaky_relu", negative_slope=0.01 if slope is None else float(slope))
    if name in _SMOOTH:
        return Activation(name)
    return None


def dropout_rate(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float | None:
    """Return the rate of a dropout call, 0 if it is not active; None if the call is not a dropout of single entries."""
    if name != "dropout":
        return None
    _, rate, training = _bound(args, kwargs, ("input", "p", "training"))
    rate = 0.5 if rate is None else float(rate)
    return rate if training is None or training else 0.0


def is_reshape(name: str) -> bool:
    """Return whether the call leaves the values as they are (their shape, layout or dtype may change)."""
    return name in _RESHAPES


def _bound(args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The named arguments, by position or by keyword; None where not given (``self`` may stand for ``input``)."""
    values = list(args[: len(names)])
    values += [kwargs.get(name) for name in names[len(values) :]]
    return values
