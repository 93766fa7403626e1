"""An activation and the dropout after it, evaluated as the laws take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from initdiag.network.activation import Activation

__all__ = ["Activated", "activated"]

Array = NDArray[np.floating[Any]]

_FUNCTIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "tanh": (torch.tanh,),
    "sigmoid": (torch.sigmoid,),
    "gelu": (F.gelu, lambda x: F.gelu(x, approximate="tanh")),
    "silu": (F.silu,),
    "elu": (F.elu,),
    "selu": (F.selu,),
    "softplus": (F.softplus,),
    "hardtanh": (F.hardtanh,),
    "relu6": (F.relu6,),
    "rrelu": (lambda x: F.rrelu(x, training=True),),
}
"""Those without a discrete gate; GELU in both its forms, which differ by 1e-3."""

_KINKED = frozenset(("relu", "leaky_relu", "rrelu", "relu6", "selu"))
"""Activations whose derivative jumps at zero."""


@dataclass(frozen=True, slots=True)
class Activated:
    """Values and derivatives, each of shape (rows, features).

    Attributes
    ----------
    value, slope : array
        Value and derivative of the activation, the dropout included.
    is_kinked : bool array of shape ()
        Whether the derivative jumps at zero.
    """

    value: Array
    slope: Array
    is_kinked: NDArray[np.bool_]


def activated(
    activation: Activation, dropouts: Sequence[float], before: Array, after: Array, like: Tensor
) -> Activated:
    """Return the activation of ``before``, in the form that comes nearest to ``after``.

    Dropout masks are drawn from torch's default generator, as a module draws them that
    runs in the same state and uses it for nothing else.

    Parameters
    ----------
    activation : Activation
        The activation as the laws take it.
    dropouts : sequence of float
        The rates of the active dropouts that follow, in their order.
    before, after : array of shape (rows, features)
        What the linear map gave, and what the module made of it.
    like : Tensor
        A tensor of the dtype and on the device with which the module draws its masks.
    """
    name = activation.name
    if name not in _FUNCTIONS:
        negative = {"linear": 1.0, "relu": 0.0}.get(name, activation.negative_slope)
        slope = np.where(before > 0, 1.0, negative).astype(before.dtype)
        forms: list[tuple[Array, Array]] = [(slope * before, slope)]
    else:
        forms = [_with_derivative(function, before) for function in _FUNCTIONS[name]]
    mask = _mask(dropouts, before, like)
    value, slope = min(
        ((value * mask, slope * mask) for value, slope in forms),
        key=lambda form: float(np.linalg.norm(form[0] - after)),
    )
    return Activated(value, slope, np.asarray(name in _KINKED))


def _mask(dropouts: Sequence[float], before: Array, like: Tensor) -> Array:
    mask: Array = np.ones((), before.dtype)
    for rate in dropouts:
        ones = torch.ones(before.shape, dtype=like.dtype, device=like.device)
        drawn = F.dropout(ones, rate, training=True).cpu().double().numpy()
        mask = mask * drawn.astype(before.dtype)
    return mask


def _with_derivative(function: Callable[[Tensor], Tensor], before: Array) -> tuple[Array, Array]:
    leaf = torch.from_numpy(before).requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().numpy(), slope.numpy()
