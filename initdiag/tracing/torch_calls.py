"""What a call of a torch function means to the theory: a linear map, an activation, a
dropout, a change of shape.

Both the tracer and the measuring engine read calls through this one page. A call is
identified by its function's name, which is the same for the function, the method and
the in-place form (``F.relu``, ``x.relu()``, ``x.relu_()``, ``nn.ReLU``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from initdiag._core.validation import choice
from initdiag.network.architecture import ACTIVATIONS, Activation

__all__ = [
    "LinearCall",
    "ReluReading",
    "activation_of",
    "autograd_step",
    "bias_added",
    "compared_with_zero",
    "dropout_rate",
    "function_name",
    "is_constant",
    "is_parametric",
    "is_reshape",
    "is_zero",
    "linear_call",
    "prelu_weight",
    "relu_readings",
    "rrelu_bounds",
]

_TRANSPOSE = vars(torch._C.TensorBase)["T"].__get__

_RESHAPES = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze contiguous clone to float double half "
    "bfloat16 type type_as view_as "
    "reshape_as identity requires_grad".split()
)
_CONSTANTS = frozenset(
    "zeros zeros_like new_zeros ones_like new_ones full_like new_full empty_like rand_like "
    "randn_like".split()
)
_SMOOTH: dict[str, dict[str, Any]] = {
    "tanh": {}, "sigmoid": {}, "silu": {}, "selu": {}, "relu6": {}, "gelu": {},
    "elu": {"alpha": 1.0},
    "softplus": {"beta": 1.0, "threshold": 20.0},
}  # fmt: skip
"""The numbers that a smooth activation takes, and those at which it is the one of that
name (both forms of GELU are: they differ by 1e-3).
"""

_CLAMPS = frozenset("clamp clip clamp_min hardtanh threshold leaky_relu prelu".split())
_COARSE_DROPOUTS = frozenset(
    "alpha_dropout feature_alpha_dropout feature_dropout dropout1d dropout2d dropout3d".split()
)
_AUTOGRAD_NAMES = {
    "relu6": "hardtanh", "selu": "elu", "clip": "clamp", "max": "maximum",
    "prelu": "prelukernel", "imul": "mul", "rmul": "mul",
    "rrelu": "rreluwithnoise", "dropout": "mul",
}  # fmt: skip
"""Functions whose backward function is named after another; dropout is a product with
noise.
"""


@dataclass(frozen=True, slots=True)
class LinearCall:
    """A linear map ``x -> x M (+ bias)`` that a call makes: ``weight`` as the call has
    it, transposed to ``M^T`` or not.

    Attributes
    ----------
    x, weight : Tensor
        Input and second factor.
    bias : Tensor or None
        What is added.
    is_transposed : bool
        True where the call uses ``weight`` as ``(fan_in, fan_out)`` (``x @ weight``),
        False for ``F.linear``.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    is_transposed: bool


def function_name(function: Callable[..., Any]) -> str:
    """Return the plain name of a torch function, method or in-place method: ``relu``
    for all of ReLU's.
    """
    name = getattr(function, "__name__", "")
    if name == "__get__":
        return "transpose_property" if function == _TRANSPOSE else "property"
    return name.strip("_")


def linear_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> LinearCall | None:
    """Return the linear map with a two-dimensional second factor that this call makes;
    None if it is not one.
    """
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
    """Return the activation that the call by itself applies to its first argument; None
    if it is not one.
    """
    if name == "relu":
        return Activation("relu")
    if name == "leaky_relu":
        _, slope = _bound(args, kwargs, ("input", "negative_slope"))
        return Activation("leaky_relu", negative_slope=0.01 if slope is None else float(slope))
    if name in ("clamp", "clip", "clamp_min"):
        _, low, high = _bound(args, kwargs, ("input", "min", "max"))
        return _clamped(low, high)
    if name == "hardtanh":
        _, low, high = _bound(args, kwargs, ("input", "min_val", "max_val"))
        return _clamped(-1.0 if low is None else low, 1.0 if high is None else high)
    if name == "threshold":
        _, threshold, value = _bound(args, kwargs, ("input", "threshold", "value"))
        return Activation("relu") if is_zero(threshold) and is_zero(value) else None
    if name == "rrelu":
        lower, upper, training = rrelu_bounds(args, kwargs)
        return Activation("rrelu") if training else Activation("leaky_relu", (lower + upper) / 2)
    if not _is_standard(name, args, kwargs):
        return None
    return Activation(choice(name, "activation", ACTIVATIONS))


def _is_standard(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether the call is a smooth activation with the numbers that its name
    stands for.
    """
    if name not in _SMOOTH:
        return False
    standard = _SMOOTH[name]
    given = dict(zip(standard, args[1:], strict=False)) | {
        k: v for k, v in kwargs.items() if k in standard
    }
    further = [*args[1 + len(standard) :], *(v for k, v in kwargs.items() if k.endswith("scale"))]
    return given == {k: standard[k] for k in given} and all(
        isinstance(v, bool) for v in further
    )  # inplace is one


def _clamped(low: Any, high: Any) -> Activation | None:
    """Return what ``clamp`` to ``[low, high]`` is: a ReLU, ReLU6 or hard tanh; None for
    any other.
    """
    if high is None:
        return Activation("relu") if is_zero(low) else None
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    if (low, high) == (0.0, 6.0):
        return Activation("relu6")
    return Activation("hardtanh") if (low, high) == (-1.0, 1.0) else None


def is_parametric(name: str) -> bool:
    """Return whether the function is an activation that the theory knows for some of
    its parameters only.
    """
    return name in _CLAMPS or bool(_SMOOTH.get(name))


def rrelu_bounds(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[float, float, bool]:
    """Return the range of an RReLU call's slope, and whether it is drawn (train mode)
    or the mean (eval mode).
    """
    _, lower, upper, training = _bound(args, kwargs, ("input", "lower", "upper", "training"))
    return (
        1 / 8 if lower is None else float(lower),
        1 / 3 if upper is None else float(upper),
        bool(training),
    )


def prelu_weight(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the slopes that a PReLU call is given; None for another call."""
    return _bound(args, kwargs, ("input", "weight"))[1] if name == "prelu" else None


@dataclass(frozen=True, slots=True)
class ReluReading:
    """One way to read a call as a ReLU of ``x``: ``x`` where ``mask`` is ``kept``,
    ``zero`` elsewhere.

    Without a mask (None) the call itself compares ``x`` with ``zero``. Whether ``mask``
    is ``x > 0`` and ``zero`` is 0 is for the caller to find out.
    """

    x: Any
    mask: Any
    kept: bool
    zero: Any


def relu_readings(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[ReluReading]:
    """Yield the ways in which a call on two or three values may be a ReLU: ``maximum``,
    ``where``, a product, ``masked_fill``.
    """
    if name in ("maximum", "max", "fmax"):
        a, b = _bound(args, kwargs, ("input", "other"))
        yield from (ReluReading(a, None, True, b), ReluReading(b, None, True, a))
    elif name == "where":
        a, b, c = _bound(args, kwargs, ("condition", "input", "other"))
        yield from (ReluReading(b, a, True, c), ReluReading(c, a, False, b))
        # x.where(mask, other)
        yield from (ReluReading(a, b, True, c), ReluReading(c, b, False, a))
    elif name in ("mul", "rmul", "imul", "multiply"):
        a, b = _bound(args, kwargs, ("input", "other"))
        yield from (ReluReading(a, b, True, 0.0), ReluReading(b, a, True, 0.0))
    elif name == "masked_fill":
        x, mask, value = _bound(args, kwargs, ("input", "mask", "value"))
        yield ReluReading(x, mask, False, value)


def compared_with_zero(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, bool] | None:
    """Return ``(x, True)`` for ``x > 0``, ``(x, False)`` for ``x < 0`` (or with
    equality); None for another call.
    """
    sides = {"gt": True, "ge": True, "lt": False, "le": False}
    if name not in sides:
        return None
    x, other = _bound(args, kwargs, ("input", "other"))
    return (x, sides[name]) if is_zero(other) else None


def is_zero(value: Any) -> bool:
    """Return whether ``value`` is the number 0, or a tensor of zeros whose values can
    be seen.
    """
    if isinstance(value, Tensor):
        hidden = isinstance(value, FakeTensor) or value.is_meta or value.requires_grad
        return not hidden and value.numel() > 0 and not bool(value.any())
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def is_constant(name: str) -> bool:
    """Return whether the call takes only the shape of its argument, so that no gradient
    flows.
    """
    return name in _CONSTANTS


def dropout_rate(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float | None:
    """Return the rate of a dropout call, 0 if it is not active; None if the call is not
    a dropout of single entries.
    """
    if name not in _COARSE_DROPOUTS and name != "dropout":
        return None
    _, rate, training = _bound(args, kwargs, ("input", "p", "training"))
    training = (
        kwargs.get("train", not name.endswith("alpha_dropout")) if training is None else training
    )
    rate = (0.5 if rate is None else float(rate)) if training else 0.0
    return None if rate > 0 and name in _COARSE_DROPOUTS else rate


def autograd_step(function: str, activation: Activation | None) -> str | None:
    """Return what an activation or dropout call must show in the autograd graph; None
    if nothing (an idle dropout).
    """
    if activation is not None and activation.name == "linear" and not activation.dropout:
        return None
    return _AUTOGRAD_NAMES.get(function, function.replace("_", ""))


def is_reshape(name: str) -> bool:
    """Return whether the call leaves the values as they are (their shape, layout or
    dtype may change).
    """
    return name in _RESHAPES


def _bound(args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the named arguments, given by position or by keyword; None where not given
    (``self`` may stand for ``input``).
    """
    values = list(args[: len(names)])
    values += [kwargs.get(name) for name in names[len(values) :]]
    return values
