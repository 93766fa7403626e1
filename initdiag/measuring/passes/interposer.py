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
from initdiag.measuring.ensembles import random_numbers
from initdiag.tracing import torch_calls
from initdiag.tracing.provenance import Origin, Provenance
from initdiag.tracing.recorder import tensors_in

__all__ = [
    "Ensemble",
    "Interposer",
    "LayerLogs",
    "flat",
    "log_sum_squares",
    "normalised",
    "rowwise",
]


class Ensemble(Protocol):
    """How an ensemble applies one linear layer to a batch of independent networks."""

    def apply(
        self, name: str, x: Tensor, tangent: Tensor, weight: Tensor, is_transposed: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ``W_i x_i`` and ``W_i t_i`` for each row ``i``.

        ``weight`` is the module's own as this call uses it, ``(fan_out, fan_in)``: the parameter, or its transpose.
        """
        ...

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return the bias of layer ``name`` for each row, shape ``(rows, fan_out)`` or ``(fan_out,)``."""
        ...

    def again(self) -> Ensemble:
        """Return the same networks for another pass."""
        ...


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """Return ``values`` of shape ``(rows, n)`` or ``(rows,)`` with dimensions inserted so that they broadcast over ``like``."""
    inserted = like.dim() - values.dim()
    if values.dim() == 1:
        return values.reshape(-1, *[1] * inserted)
    return values.reshape(values.shape[0], *[1] * inserted, values.shape[1])


def flat(rows: Tensor) -> Tensor:
    """Return each row as one vector, ``(rows, n)``; a row may be a single number."""
    return rows.reshape(len(rows), -1)


def normalised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of each row's largest entry (float64, -inf for a row of zeros), and the rows divided by it."""
    peak = flat(rows.abs()).amax(1)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    return peak.double().log(), rows / rowwise(safe, rows)


def log_sum_squares(rows: Tensor) -> Tensor:
    """Return ``ln sum x^2`` of each row (float64) at any scale: -inf for zeros only, inf where an entry is infinite or NaN."""
    log_size, unit = normalised(flat(rows.double()))
    logs = unit.square().sum(1).log() + 2 * log_size
    return logs.masked_fill(logs.isnan(), math.inf)


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
    origins : Provenance
        Of the parameters of the replica.
    layers : frozenset of str
        Names of the weights between input and output; linear calls on others are side branches, and run as they are.
    ensemble : Ensemble
        What is done instead.
    draws : range
        The draws that the rows stand for.
    seed : int
        Of dropout masks and random slopes.
    rescale_tangent, rescale_primal : bool
        See the module's docstring.
    """

    origins: Provenance
    layers: frozenset[str]
    ensemble: Ensemble
    draws: range
    seed: int
    rescale_tangent: bool
    rescale_primal: bool
    batch: int = 1
    """Consecutive rows that share one network, where that mixes the rows of its batch."""
    logs: list[LayerLogs] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._last_linear = ""
        self._last_output: Tensor | None = None
        self._noises = 0
        self.tangent_log_scale: Tensor | float = 0.0
        self.primal_log_scale: Tensor | float = 0.0

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
        if name == "batch_norm" and 1 < self.batch < len(self.draws) and self._depends(x):
            return self._batch_norm(*_normalisation(*args, **kwargs))
        noisy = self._with_noise(name, x, args, kwargs) if self._has_rows(x) else None
        if noisy is not None:
            return x.copy_(noisy) if _is_in_place(func, kwargs) else noisy
        out = func(*args, **kwargs)
        used = list(tensors_in((args, kwargs)))
        if any(self.origins.of(t) for t in used) and not any(map(self._depends, used)):
            self.origins.follow(name, args, used, out)
        return out

    def _depends(self, value: Any) -> bool:
        """Whether the derivative flows through this value."""
        return _is_dual(value)

    def _parts(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Primal and tangent of what the derivative flows through."""
        primal, tangent = forward_ad.unpack_dual(value)
        assert tangent is not None, "checked by _depends"
        return primal, tangent

    def _joined(self, primal: Tensor, tangent: Tensor) -> Tensor:
        """The value of these two."""
        dual: Tensor = forward_ad.make_dual(primal, tangent)
        return dual

    def _is_bias_added(self, first: Any, second: Any) -> bool:
        """Whether a layer's bias is added: on a chain whatever parameter is, elsewhere a vector right after the product."""
        dual, bias = (second, first) if self.origins.of(first) else (first, second)
        if not (self._depends(dual) and self.origins.of(bias)):
            return False
        return self.rescale_primal or (dual is self._last_output and bias.dim() == 1)

    def _has_rows(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and tensor.shape[:1] == (len(self.draws),)

    def _weight_of(self, call: torch_calls.LinearCall) -> Origin | None:
        """Where the second factor comes from, if it is a layer's weight applied to what the tangent flows through."""
        origin = self.origins.of(call.weight)
        return (
            origin
            if origin is not None and origin.name in self.layers and self._depends(call.x)
            else None
        )

    def _linear(self, call: torch_calls.LinearCall, origin: Origin) -> Tensor:
        name = origin.name
        if not self._has_rows(call.x):
            raise UnsupportedArchitecture(
                f"{name!r} is applied to a tensor of shape {tuple(call.x.shape)}, whose first dimension is not the batch of "
                f"{len(self.draws)} rows, so that rows cannot be separate networks. Keep the batch dimension first."
            )
        if self.rescale_tangent and any(log.name == name for log in self.logs):
            raise UnsupportedArchitecture(
                f"{name!r} is run once more on the side, so that the scale of rows cannot be kept."
            )
        x, tangent = self._parts(call.x)
        activation = self._log_mean_square(x)
        self._last_linear = name
        weight = call.weight.T if call.is_transposed else call.weight
        y, y_tangent = self.ensemble.apply(
            name, x, tangent, weight, origin.is_transposed != call.is_transposed
        )
        y = self._with_bias(y, call.bias)
        y_tangent = self._rescaled_tangent(y_tangent)
        self.logs.append(LayerLogs(name, activation, self.log_square(y_tangent)))
        self._last_output = self._joined(y, y_tangent)
        return self._last_output

    def _with_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        origin = self.origins.of(bias)
        bias_name = "" if origin is None else origin.name
        rows = None if bias is None else self.ensemble.bias(self._last_linear, bias_name, bias)
        rows = None if rows is None else rowwise(rows, y) if rows.dim() == 2 else rows
        if self.rescale_primal:
            return self._rescaled_primal(y, rows)
        return y if rows is None else y + rows

    def _add_bias(self, first: Any, second: Any) -> Tensor:
        """``x @ W + b`` written out: the bias belongs to the linear call before it."""
        dual, bias = (second, first) if self.origins.of(first) else (first, second)
        y, tangent = self._parts(dual)
        return self._joined(self._with_bias(y, bias), tangent)

    def _batch_norm(self, x: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
        """Batch normalisation of every network by its own batch's statistics."""
        parts = x.reshape(-1, self.batch, x.shape[1], math.prod(x.shape[2:]))
        centred = parts - parts.mean((1, 3), keepdim=True)
        unit = centred / (centred.square().mean((1, 3), keepdim=True) + eps).sqrt()
        unit = unit.reshape(len(x), x.shape[1], -1)
        unit = unit if weight is None else unit * self._of_each_row(weight)
        return (unit if bias is None else unit + self._of_each_row(bias)).reshape(x.shape)

    def _of_each_row(self, parameter: Tensor) -> Tensor:
        origin = self.origins.of(parameter)
        values = self.ensemble.bias(
            self._last_linear, "" if origin is None else origin.name, parameter
        )
        return values.to(parameter.dtype)[..., None]

    def _with_noise(self, name: str, x: Tensor, args: Any, kwargs: Any) -> Tensor | None:
        """The call's output if it is a random one (dropout, RReLU in train mode), with the draw's own noise."""
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
        """Uniform numbers on [0, 1) of ``like``'s shape: each random call has its own stream."""
        width = math.prod(like.shape[1:])
        uniform = random_numbers.uniforms(self.seed, self.draws, self._noises, width)
        self._noises += 1
        return torch.from_numpy(uniform).reshape(like.shape).to(like.device)

    def _rescaled_tangent(self, tangent: Tensor) -> Tensor:
        if not self.rescale_tangent:
            return tangent
        log_size, tangent = normalised(tangent)
        self.tangent_log_scale = self.tangent_log_scale + _finite(log_size)
        return tangent

    def _rescaled_primal(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """``y e^a + bias`` up to a new common scale: each part is taken at its own size before it is weighed."""
        log_y, y = normalised(y)
        log_y = log_y + self.primal_log_scale
        if bias is None:
            self.primal_log_scale = _finite(log_y)
            return y
        log_bias, bias = normalised(bias.expand_as(y))
        scale = self.primal_log_scale = _finite(torch.maximum(log_y, log_bias))
        return _weighed(y, log_y - scale) + _weighed(bias, log_bias - scale)

    def _log_mean_square(self, x: Tensor) -> Tensor:
        return log_sum_squares(x) - math.log(x[0].numel()) + 2 * self.primal_log_scale

    def log_square(self, tangent: Tensor) -> Tensor:
        """Return ``ln||t||^2`` of each row (float64), the kept scale included."""
        return log_sum_squares(tangent) + 2 * self.tangent_log_scale


def _is_dual(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _normalisation(
    x: Tensor, mean: Any, variance: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> tuple[Tensor, Any, Any, float]:  # fmt: skip
    """What `torch.nn.functional.batch_norm` takes, of which these matter where the batch's own statistics are used."""
    if not training:
        raise UnsupportedArchitecture("batch normalisation by running statistics is not stacked.")
    return x, weight, bias, eps


def _is_in_place(function: Any, kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("inplace")) or getattr(function, "__name__", "").endswith("_")


def _finite(log_size: Tensor) -> Tensor:
    return torch.where(torch.isfinite(log_size), log_size, torch.zeros_like(log_size))


def _weighed(rows: Tensor, log_weight: Tensor) -> Tensor:
    return rows * rowwise(torch.exp(log_weight).to(rows.dtype), rows)
