"""What a module does in a run: at each of its linear maps, and at its output.

The replica runs by itself; a mode looks on and notes what each linear map is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from initdiag.errors import brief
from initdiag.tracing import torch_calls
from initdiag.tracing.forward_pass import paired
from initdiag.tracing.guard import seed_generators, seen_to_draw

__all__ = [
    "Array",
    "BackwardFails",
    "Observed",
    "PathDiffers",
    "Places",
    "Trial",
    "afresh",
    "array",
    "observed",
    "trials",
]

Array = NDArray[np.floating[Any]]

_ROWS = 4
"""Rows of the user's example that are run: enough to see whether they mix."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A run that is asked for: rows, what they are in words, and a random state."""

    name: str
    rows: Tensor
    seed: int
    has_gradients: bool = False
    has_tangents: bool = False


@dataclass(frozen=True, slots=True)
class _Product:
    """A linear map as the module called it.

    Attributes
    ----------
    x : Tensor
        The input itself.
    values : Tensor
        A copy of its values at that moment.
    weight : Tensor of shape (fan_out, fan_in)
        The matrix that it is multiplied by.
    """

    x: Tensor
    values: Tensor
    weight: Tensor


class _Products(TorchFunctionMode):
    """Notes every linear map that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Product] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = torch_calls.linear_call(torch_calls.function_name(func), args, kwargs)
        if call is not None:
            weight = call.weight.detach()
            turned = weight.T if call.is_transposed else weight
            self.seen.append(_Product(call.x, call.x.detach().clone(), turned))
            if call.bias is not None and forward_ad.unpack_dual(call.x).tangent is not None:
                return _with_bias(call.x @ _second_factor(call), call.bias)
        return func(*args, **kwargs)


def _second_factor(call: torch_calls.LinearCall) -> Tensor:
    """Return the second factor of the product."""
    return call.weight if call.is_transposed else call.weight.T


def _with_bias(product: Tensor, bias: Tensor) -> Tensor:
    """Return the sum, added to the value alone: torch's own rule here loads its
    compiler.
    """
    value, tangent = forward_ad.unpack_dual(product)
    summed: Tensor = forward_ad.make_dual(value + bias, tangent)
    return summed


@dataclass(frozen=True, slots=True)
class Observed:
    """What the module did in one run, at each linear map's input and at the output.

    Attributes
    ----------
    weights : list of Tensor, each of shape (fan_out, fan_in)
        The matrices of the linear maps as the calls had them.
    values, tangents, gradients : list of array, each of shape (rows, features)
        Tangents and gradients are empty where they were not asked for.
    dtype : torch.dtype
        The lowest precision that was met.
    weight_gradients : list of array or None, each of its weight's shape
        What came back to the weights that are parameters; empty without gradients.
    backward_fault : str
        What no chain's backward pass does; empty for none.
    """

    weights: list[Tensor]
    values: list[Array]
    tangents: list[Array]
    gradients: list[Array]
    dtype: torch.dtype
    weight_gradients: list[Array | None]
    backward_fault: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look.

    Attributes
    ----------
    products : int
        How many linear maps the forward pass calls, on whatever.
    ordinals : tuple of int
        Which of them are the layers, in their order.
    has_input_map : bool
        Whether something stands between the input and the first layer.
    parameters : tuple of Tensor or None
        Each layer's weight, where it is a parameter of the module that runs.
    """

    products: int
    ordinals: tuple[int, ...]
    has_input_map: bool
    parameters: tuple[Tensor | None, ...]


class PathDiffers(Exception):
    """The module took another way than the one that was traced."""


class BackwardFails(RuntimeError):
    """The backward pass of the module raises."""


def observed(module: nn.Module, trial: Trial, places: Places) -> Observed:
    """Return what ``module`` does in a trial; without tangents where it has none.

    Raises
    ------
    PathDiffers
        If it calls another number of linear maps.
    BackwardFails
        If its backward pass raises.
    """
    if trial.has_tangents:
        try:
            with _dual_numbers():
                return _observed(module, trial, places)
        except (NotImplementedError, RuntimeError):  # no forward-mode derivative
            trial = replace(trial, has_tangents=False)
    return _observed(module, trial, places)


def _observed(module: nn.Module, trial: Trial, places: Places) -> Observed:
    leaf = trial.rows.clone().requires_grad_(trial.has_gradients)
    tangent = _spread(leaf[0]).expand_as(leaf).contiguous()
    products = _Products()
    seed_generators(trial.seed)
    with torch.set_grad_enabled(trial.has_gradients), products:
        x = leaf.clone()
        out = module(forward_ad.make_dual(x, tangent) if trial.has_tangents else x)
    if len(products.seen) != places.products:
        raise PathDiffers(
            f"the forward pass has {len(products.seen)} linear maps, not {places.products}"
        )
    used = [products.seen[ordinal] for ordinal in places.ordinals]
    points, values = [*(one.x for one in used), out], [*(one.values for one in used), out.detach()]
    tangents = [_tangent(point) for point in points] if trial.has_tangents else []
    if not places.has_input_map:
        points[0], values[0] = leaf, trial.rows
        tangents[:1] = [tangent] if trial.has_tangents else []
    own = [p for p in places.parameters if p is not None]
    (gradients, of_own), draws = seen_to_draw(
        lambda: _gradients(points, own) if trial.has_gradients else ([], [])
    )
    idle = sum(gradient is None for gradient in of_own)
    left = iter(of_own)
    of_weights = [None if p is None else next(left, None) for p in places.parameters]
    fault = f"{idle} of the layers' weights get no gradient" if idle else ""
    if draws:
        fault = "the backward pass draws random numbers"
    return Observed(
        [one.weight for one in used],
        [_rows(v) for v in values],
        [_rows(t) for t in tangents],
        [_rows(g) for g in gradients],
        max((v.dtype for v in values), key=lambda dtype: torch.finfo(dtype).eps),
        [None if g is None else array(g) for g in of_weights] if gradients else [],
        fault,
    )


def _spread(like: Tensor) -> Tensor:
    """Return numbers from 1 to 2: a direction without symmetries."""
    return torch.linspace(1, 2, like.numel(), device=like.device).to(like).reshape(like.shape)


def trials(x: Tensor) -> list[Trial]:
    """Return rows of several kinds, in several random states."""
    rows = x[:_ROWS]
    generator = torch.Generator("cpu").manual_seed(0)
    # a row alone and one among others differ
    shape = (max(3, len(rows)), *rows.shape[1:])
    normal = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(rows)
    normal = normal * rows.double().square().mean().sqrt().to(rows)
    return [
        Trial("the example's rows", rows, 1, has_gradients=True, has_tangents=True),
        Trial("the example's rows, negated and a thousand times larger", -1000 * rows, 2),
        Trial("one row alone, a thousand times smaller", normal[:1] / 1000, 3),
        Trial("random rows", normal, 4, has_gradients=True),
    ]


def afresh(trial: Trial, seed: int) -> Trial:
    """Return the trial under weights drawn afresh, without the tangents."""
    name = f"{trial.name}, with the weights drawn afresh"
    has_gradients = trial.has_gradients and not trial.has_tangents
    return Trial(name, trial.rows, seed, has_gradients)


@contextmanager
def _dual_numbers() -> Iterator[None]:
    """Enter forward mode. Its first use in a process makes torch warn of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with forward_ad.dual_level():
            yield


def _tangent(point: Tensor) -> Tensor:
    primal, tangent = forward_ad.unpack_dual(point)
    return torch.zeros_like(primal) if tangent is None else tangent


def _gradients(
    points: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return the gradients of one combination of outputs: at points (or 0), of
    parameters. The graph is kept.
    """
    *wanted, last = points
    output = forward_ad.unpack_dual(last).primal
    cotangent = _spread(output)
    product = paired(output, cotangent)
    inputs = [*wanted, *parameters]
    reached = [one for one in inputs if one.requires_grad and output.requires_grad]
    try:
        found: tuple[Tensor | None, ...] = ()
        if reached:
            found = torch.autograd.grad(product, reached, retain_graph=True, allow_unused=True)
    except Exception as error:
        raise BackwardFails(brief(error)) from error
    by_id = {id(one): gradient for one, gradient in zip(reached, found, strict=True)}
    shown = [by_id.get(id(one)) for one in inputs]
    zeroed = [
        torch.zeros_like(point) if gradient is None else gradient
        for point, gradient in zip(wanted, shown, strict=False)
    ]
    return [*zeroed, cotangent], shown[len(wanted) :]


def array(tensor: Tensor) -> Array:
    """Return a tensor's values in its own precision, a half type's in float32."""
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    array: Array = wide.detach().cpu().numpy()
    return array


def _rows(tensor: Tensor) -> Array:
    return array(tensor).reshape(len(tensor), -1)
