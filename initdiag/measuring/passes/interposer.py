"""One pass through the user's own forward, with the linear layers replaced by an
ensemble's.

The rows of the batch are independent networks. A ``TorchFunctionMode`` catches each
linear call on a known weight and hands what enters to the ensemble; everything else
runs as the user wrote it. What carries the derivative (`modes`) and how it is kept in
range (`rows.Scales`) are parts of it, not kinds of it.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.passes.modes import Mode, Parts
from initdiag.measuring.passes.rows import Rows, Scales, rowwise
from initdiag.tracing import torch_calls
from initdiag.tracing.provenance import Origin, Provenance
from initdiag.tracing.structures import tensors_in

__all__ = ["Ensemble", "Interposer", "LinearUse", "Observer", "unseen"]


@dataclass(frozen=True, slots=True)
class LinearUse:
    """One linear call on a layer's weight.

    Attributes
    ----------
    name : str
        The weight's.
    weight : Tensor
        The module's own as this call uses it, ``(fan_out, fan_in)``.
    is_transposed : bool
        Whether that is the parameter's transpose.
    earlier : int
        How often the pass has used this weight before.
    is_computed : bool
        Whether it was computed, so that its entries are not those of a parameter.
    """

    name: str
    weight: Tensor
    is_transposed: bool
    earlier: int = 0
    is_computed: bool = False


class Ensemble(Protocol):
    """How an ensemble's networks differ from the module, row by row."""

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Parameters and buffers that the module has in a pass; others stay its own."""
        ...

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        """Return ``W_i x_i`` of each row ``i``, for each of ``parts``."""
        ...

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        """Return the bias ``name`` of each row: ``(rows, fan_out)`` or ``(fan_out,)``.

        ``use`` is the linear call that it follows, if there was one.
        """
        ...


Observer = Callable[[LinearUse, Parts, Parts, Scales], None]
"""Is told of each linear call what entered and what its product is, before a bias."""


def unseen(use: LinearUse, entered: Parts, product: Parts, scales: Scales) -> None:
    """Look at nothing."""


class Interposer(TorchFunctionMode):
    """Catch the linear calls of one pass.

    Parameters
    ----------
    origins : Provenance
        Tells which tensors are the replica's parameters.
    layers : frozenset of str
        Names of the weights between input and output; linear calls on others are side
        branches, and run as they are.
    ensemble : Ensemble
        What is done instead.
    rows : Rows
        What the rows stand for.
    mode : Mode
        What carries the derivative.
    scales : Scales
        What the rows were divided by; updated on the way.
    observer : Observer
        Told of each linear call.
    """

    def __init__(
        self,
        origins: Provenance,
        layers: frozenset[str],
        ensemble: Ensemble,
        rows: Rows,
        mode: Mode,
        scales: Scales,
        observer: Observer = unseen,
    ) -> None:
        super().__init__()
        self._origins, self._layers, self._ensemble = origins, layers, ensemble
        self._rows, self._mode, self._scales, self._observer = rows, mode, scales, observer
        self._uses: collections.Counter[str] = collections.Counter()
        self._last_use: LinearUse | None = None
        self._last_output: Tensor | None = None
        self._noises = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = torch_calls.function_name(func)
        call = torch_calls.linear_call(name, args, kwargs)
        origin = None if call is None else self._weight_of(call)
        if call is not None and origin is not None:
            return self._linear(call, origin)
        summands = torch_calls.bias_added(name, args, kwargs)
        if summands is not None and self._is_bias_added(*summands):
            return self._add_bias(*summands)
        x = args[0] if args else kwargs.get("input")
        is_stacked = 1 < self._rows.batch < self._rows.count
        if name == "batch_norm" and is_stacked and self._mode.carries(x):
            return self._batch_norm(*_normalisation(*args, **kwargs))
        noisy = self._with_noise(name, x, args, kwargs) if self._rows.are(x) else None
        if noisy is not None:
            return x.copy_(noisy) if _is_in_place(func, kwargs) else noisy
        out = func(*args, **kwargs)
        used = list(tensors_in((args, kwargs)))
        if any(self._origins.of(t) for t in used) and not any(map(self._mode.carries, used)):
            self._origins.follow(name, args, used, out)
        return out

    def _is_bias_added(self, first: Any, second: Any) -> bool:
        """Return whether a layer's bias is added.

        On a chain whatever parameter is added is one, elsewhere a vector that is added
        right after the product.
        """
        value, bias = (second, first) if self._origins.of(first) else (first, second)
        if not (self._mode.carries(value) and self._origins.of(bias)):
            return False
        return self._scales.of_primals or (value is self._last_output and bias.dim() == 1)

    def _weight_of(self, call: torch_calls.LinearCall) -> Origin | None:
        """Return the second factor's origin if it is a layer's weight on the way."""
        origin = self._origins.of(call.weight)
        is_layer = origin is not None and origin.name in self._layers
        return origin if is_layer and self._mode.carries(call.x) else None

    def _linear(self, call: torch_calls.LinearCall, origin: Origin) -> Tensor:
        name = origin.name
        if not self._rows.are(call.x):
            raise UnsupportedArchitecture(
                f"{name!r} is applied to a tensor of shape {tuple(call.x.shape)}, whose first "
                f"dimension is not the batch of {self._rows.count} rows, so that rows cannot be "
                "separate networks. Keep the batch dimension first."
            )
        if self._scales.of_tangents and self._uses[name]:
            raise UnsupportedArchitecture(
                f"{name!r} is run once more on the side, so that the scale of rows cannot be kept."
            )
        weight = call.weight.T if call.is_transposed else call.weight
        is_transposed = origin.is_transposed != call.is_transposed
        is_computed = not self._origins.are_its_own(origin)
        use = LinearUse(name, weight, is_transposed, self._uses[name], is_computed)
        self._last_use = use
        self._uses[name] += 1
        entered = self._mode.parts(call.x)
        product = self._ensemble.apply(use, entered)
        self._observer(use, entered, product, self._scales)
        y, *tangent = self._mode.rescaled(product, self._scales)
        self._last_output = self._mode.joined((self._with_bias(y, call.bias), *tangent))
        return self._last_output

    def _with_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None:
            return self._scales.with_bias(y, None)
        rows = self._own(bias)
        return self._scales.with_bias(y, rowwise(rows, y) if rows.dim() == 2 else rows)

    def _own(self, bias: Tensor) -> Tensor:
        """Return each row's own values of a parameter."""
        origin = self._origins.of(bias)
        return self._ensemble.bias(self._last_use, "" if origin is None else origin.name, bias)

    def _add_bias(self, first: Any, second: Any) -> Tensor:
        """Return ``x @ W + b``, written out because the bias belongs to the linear call
        before it.
        """
        value, bias = (second, first) if self._origins.of(first) else (first, second)
        y, *tangent = self._mode.parts(value)
        return self._mode.joined((self._with_bias(y, bias), *tangent))

    def _batch_norm(self, x: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
        """Normalise the batch of every network by its own statistics."""
        parts = x.reshape(-1, self._rows.batch, x.shape[1], math.prod(x.shape[2:]))
        centred = parts - parts.mean((1, 3), keepdim=True)
        unit = centred / (centred.square().mean((1, 3), keepdim=True) + eps).sqrt()
        unit = unit.reshape(len(x), x.shape[1], -1)
        unit = unit if weight is None else unit * self._own(weight).to(weight.dtype)[..., None]
        unit = unit if bias is None else unit + self._own(bias).to(bias.dtype)[..., None]
        return unit.reshape(x.shape)

    def _with_noise(self, name: str, x: Tensor, args: Any, kwargs: Any) -> Tensor | None:
        """Return a dropout's or RReLU's output with the draws' own noise; None for
        others.
        """
        rate = torch_calls.dropout_rate(name, args, kwargs)
        if rate is not None and 0 < rate < 1:
            keep = self._uniforms(x) >= rate
            return torch.mul(x, keep.to(x.dtype) / (1 - rate))
        if name == "rrelu":
            lower, upper, training = torch_calls.rrelu_bounds(args, kwargs)
            if training:
                slopes = lower + (upper - lower) * self._uniforms(x)
                return torch.where(x >= 0, x, slopes.to(x.dtype) * x)
        return None

    def _uniforms(self, like: Tensor) -> Tensor:
        """Return uniform numbers from a stream of this random call's own."""
        self._noises += 1
        return self._rows.uniforms(self._noises - 1, like)


def _normalisation(
    x: Tensor, mean: Any, variance: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> tuple[Tensor, Any, Any, float]:  # fmt: skip
    """Return what matters of `torch.nn.functional.batch_norm`'s arguments.

    These are the ones that the batch's own statistics are used with.
    """
    if not training:
        raise UnsupportedArchitecture("batch normalisation by running statistics is not stacked.")
    return x, weight, bias, eps


def _is_in_place(function: Any, kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("inplace")) or getattr(function, "__name__", "").endswith("_")
