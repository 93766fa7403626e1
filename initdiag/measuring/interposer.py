"""One forward-mode pass through the user's own forward, with the linear layers replaced by an ensemble's.

The rows of the batch are independent networks. A ``TorchFunctionMode`` catches each linear call on a known weight and hands
primal and tangent to the ensemble; everything else runs as the user wrote it.

*Range.* On a proved chain each row's tangent is divided by its largest entry after every linear layer, and the log of that is
kept. If the gates are positively homogeneous (linear, ReLU, leaky ReLU) the primal is rescaled too, and the biases with it:
``W x + b`` times ``e^-a`` has the same gates. So depth can neither overflow nor underflow, and a zero tangent is a dead draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring import random_numbers
from initdiag.tracing import vocabulary

__all__ = ["Ensemble", "Interposer", "LayerLogs", "rowwise"]


class Ensemble(Protocol):
    """How an ensemble applies one linear layer to a batch of independent networks."""

    def apply(self, name: str, x: Tensor, tangent: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``W_i x_i`` and ``W_i t_i`` for each row ``i``; ``weight`` is the module's own, ``(fan_out, fan_in)``."""
        ...

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return the bias of layer ``name`` for each row, shape ``(rows, fan_out)`` or ``(fan_out,)``."""
        ...


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """Return ``values`` of shape ``(rows, n)`` or ``(rows,)`` with dimensions inserted so that they broadcast over ``like``."""
    inserted = like.dim() - values.dim()
    if values.dim() == 1:
        return values.reshape(-1, *[1] * inserted)
    return values.reshape(values.shape[0], *[1] * inserted, values.shape[1])


@dataclass(frozen=True, slots=True)
class LayerLogs:
    """Per-row logs at one linear call: mean square of its input, squared norm of its output tangent (float64)."""

    name: str
    activation: Tensor
    tangent: Tensor


@dataclass
class Interposer(TorchFunctionMode):
    """Catch the linear calls of one pass over ``len(draws)`` rows.

    Parameters
    ----------
    names : mapping
        The id of a parameter of the replica -> its name.
    ensemble : Ensemble
        What is done instead.
    draws : range
        The draws that the rows stand for.
    seed : int
        Of the dropout masks.
    rescale_tangent, rescale_primal : bool
        See the module's docstring.
    """

    names: Mapping[int, str]
    ensemble: Ensemble
    draws: range
    seed: int
    rescale_tangent: bool
    rescale_primal: bool
    logs: list[LayerLogs] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._transposed: dict[int, tuple[str, Tensor]] = {}
        self._last_linear = ""
        self._dropouts = 0
        self.tangent_log_scale: Tensor | float = 0.0
        self.primal_log_scale: Tensor | float = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = vocabulary.function_name(func)
        call = vocabulary.linear_call(name, args, kwargs)
        known = None if call is None else self._weight_of(call)
        if call is not None and known is not None:
            return self._linear(call, *known)
        summands = vocabulary.bias_added(name, args, kwargs)
        if summands is not None and any(id(s) in self.names for s in summands):
            return self._add_bias(*summands) if self.rescale_primal else func(*args, **kwargs)
        rate = vocabulary.dropout_rate(name, args, kwargs)
        if rate is not None and 0 < rate < 1 and self._has_rows(args[0]):
            return self._dropout(args[0], rate)
        out = func(*args, **kwargs)
        if name in ("t", "transpose_property") and args and id(args[0]) in self.names:
            self._transposed[id(out)] = (self.names[id(args[0])], out)
        return out

    def _has_rows(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and tensor.shape[:1] == (len(self.draws),)

    def _weight_of(self, call: vocabulary.LinearCall) -> tuple[str, Tensor] | None:
        """Name of the parameter behind the second factor, and the matrix as ``(fan_out, fan_in)``."""
        matrix = call.weight.T if call.is_transposed else call.weight
        if id(call.weight) in self.names:
            return self.names[id(call.weight)], matrix
        if id(call.weight) in self._transposed:
            return self._transposed[id(call.weight)][0], matrix
        return None

    def _linear(self, call: vocabulary.LinearCall, name: str, weight: Tensor) -> Tensor:
        if not self._has_rows(call.x):
            raise UnsupportedArchitecture(
                f"{name!r} is applied to a tensor of shape {tuple(call.x.shape)}, whose first dimension is not the batch of "
                f"{len(self.draws)} rows, so that rows cannot be separate networks. Keep the batch dimension first."
            )
        x, tangent = forward_ad.unpack_dual(call.x)
        tangent = torch.zeros_like(x) if tangent is None else tangent
        activation = self._log_mean_square(x)
        self._last_linear = name
        y, y_tangent = self.ensemble.apply(name, x, tangent, weight)
        y = self._with_bias(y, call.bias)
        y_tangent = self._rescaled_tangent(y_tangent)
        self.logs.append(LayerLogs(name, activation, self.log_square(y_tangent)))
        return _dual(y, y_tangent)

    def _with_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        rows = None if bias is None else self.ensemble.bias(self._last_linear, self.names.get(id(bias), ""), bias)
        rows = None if rows is None else rowwise(rows, y) if rows.dim() == 2 else rows
        if self.rescale_primal:
            return self._rescaled_primal(y, rows)
        return y if rows is None else y + rows

    def _add_bias(self, first: Any, second: Any) -> Tensor:
        """``x @ W + b`` written out: the bias belongs to the linear call before it."""
        dual, bias = (second, first) if id(first) in self.names else (first, second)
        y, tangent = forward_ad.unpack_dual(dual)
        total = self._with_bias(y, bias)
        return total if tangent is None else _dual(total, tangent)

    def _dropout(self, dual: Tensor, rate: float) -> Tensor:
        """Inverted dropout with the draw's own mask."""
        width = math.prod(dual.shape[1:])
        uniform = random_numbers.uniforms(self.seed, self.draws, self._dropouts, width)
        self._dropouts += 1
        keep = torch.from_numpy(uniform >= rate).reshape(dual.shape).to(dual.device)
        return torch.mul(dual, keep.to(dual.dtype) / (1 - rate))

    def _rescaled_tangent(self, tangent: Tensor) -> Tensor:
        if not self.rescale_tangent:
            return tangent
        log_size, tangent = _normalised(tangent)
        self.tangent_log_scale = self.tangent_log_scale + _finite(log_size)
        return tangent

    def _rescaled_primal(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """``y e^a + bias`` up to a new common scale: each part is taken at its own size before it is weighed."""
        log_y, y = _normalised(y)
        log_y = log_y + self.primal_log_scale
        if bias is None:
            self.primal_log_scale = _finite(log_y)
            return y
        log_bias, bias = _normalised(bias.expand_as(y))
        scale = self.primal_log_scale = _finite(torch.maximum(log_y, log_bias))
        return _weighed(y, log_y - scale) + _weighed(bias, log_bias - scale)

    def _log_mean_square(self, x: Tensor) -> Tensor:
        return x.double().square().flatten(1).mean(1).log() + 2 * self.primal_log_scale

    def log_square(self, tangent: Tensor) -> Tensor:
        """Return ``ln||t||^2`` of each row (float64), the kept scale included."""
        return tangent.double().square().flatten(1).sum(1).log() + 2 * self.tangent_log_scale


def _dual(primal: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(primal, tangent)
    return dual


def _normalised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log of each row's largest entry (float64, -inf for a row of zeros), and the rows divided by it."""
    peak = rows.abs().flatten(1).amax(1)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    return peak.double().log(), rows / rowwise(safe, rows)


def _finite(log_size: Tensor) -> Tensor:
    return torch.where(torch.isfinite(log_size), log_size, torch.zeros_like(log_size))


def _weighed(rows: Tensor, log_weight: Tensor) -> Tensor:
    return rows * rowwise(torch.exp(log_weight).to(rows.dtype), rows)
