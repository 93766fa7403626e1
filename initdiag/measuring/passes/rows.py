"""Rows of a batch, each of them a network, and the scales that keep them in range.

On a proved chain each row's tangent is divided by its largest entry after every linear
layer, and the log of that is kept. If the gates are positively homogeneous (linear,
ReLU, leaky ReLU) the primal is rescaled too, and the biases with it: ``W x + b`` times
``e^-a`` has the same gates. So depth can neither overflow nor underflow, and a tangent
of zeros is a dead draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from initdiag.measuring.ensembles import random_numbers

__all__ = [
    "LayerLogs",
    "Rows",
    "Scales",
    "flat",
    "log_sum_squares",
    "logs_of_rows",
    "normalised",
    "rowwise",
]


@dataclass(frozen=True, slots=True)
class LayerLogs:
    """Logs at one linear call, one a row (float64).

    Attributes
    ----------
    name : str
        The weight's.
    activation, tangent : Tensor
        Natural logs of the mean square of what enters, and of the squared norm of the
        tangent that leaves.
    """

    name: str
    activation: Tensor
    tangent: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of one pass stand for.

    Attributes
    ----------
    networks : range
        The draws, one a row; or a single draw, the same for all rows.
    count : int
        Rows in the batch.
    batch : int
        Consecutive rows that share one network, where that mixes the rows of its batch.
    seed : int
        Fixes dropout masks and random slopes: the seed of the measurement.
    """

    networks: range
    count: int
    seed: int
    batch: int = 1

    @property
    def index(self) -> Tensor:
        """Return the numbers of the rows: rows of an example are dealt out in turn."""
        if len(self.networks) == self.count:
            return torch.arange(self.networks.start, self.networks.stop)
        return torch.full((self.count,), self.networks.start)

    def are(self, tensor: Any) -> bool:
        """Return whether ``tensor`` has one entry a row."""
        return isinstance(tensor, Tensor) and tensor.shape[:1] == (self.count,)

    def uniforms(self, stream: int, like: Tensor) -> Tensor:
        """Return uniform numbers on [0, 1) of ``like``'s shape, the draws' own."""
        width = math.prod(like.shape[1:])
        uniform = torch.from_numpy(random_numbers.uniforms(self.seed, self.networks, stream, width))
        return uniform.reshape(-1, *like.shape[1:]).expand(like.shape).to(like.device)


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """Return ``(rows, n)`` or ``(rows,)`` values shaped to broadcast over ``like``."""
    inserted = like.dim() - values.dim()
    if values.dim() == 1:
        return values.reshape(-1, *[1] * inserted)
    return values.reshape(values.shape[0], *[1] * inserted, values.shape[1])


def flat(rows: Tensor) -> Tensor:
    """Return each row as one vector, ``(rows, n)``; a row may be a single number."""
    return rows.reshape(len(rows), -1)


def normalised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of each row's largest entry, and the rows divided by it.

    The logs are float64; that of a row of zeros is -inf, and the row stays as it is.
    """
    peak = flat(rows.abs()).amax(1)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    return peak.double().log(), rows / rowwise(safe, rows)


def log_sum_squares(rows: Tensor) -> Tensor:
    """Return ``ln sum x^2`` of each row (float64) at any scale.

    It is -inf for zeros only, and inf where an entry is infinite or NaN.
    """
    log_size, unit = normalised(flat(rows.double()))
    logs = unit.square().sum(1).log() + 2 * log_size
    return logs.masked_fill(logs.isnan(), math.inf)


def logs_of_rows(value: Tensor | float, rows: Tensor) -> Tensor:
    """Return a log scale as one float64 number a row."""
    logs = torch.as_tensor(value, dtype=torch.float64, device=rows.device)
    return logs.detach().expand(len(rows))


class Scales:
    """The logs of what the rows of one pass were divided by so far.

    Parameters
    ----------
    of_tangents, of_primals : bool
        Whether tangents (or cotangents) are rescaled, and whether values are.

    Attributes
    ----------
    primal, tangent, cotangent : Tensor or float
        The true value is ``exp`` of this times what the pass holds.
    """

    def __init__(self, *, of_tangents: bool, of_primals: bool) -> None:
        self.of_tangents, self.of_primals = of_tangents, of_primals
        self.primal: Tensor | float = 0.0
        self.tangent: Tensor | float = 0.0
        self.cotangent: Tensor | float = 0.0

    def rescaled_tangent(self, tangent: Tensor) -> Tensor:
        """Return the tangent divided by each row's largest entry."""
        if not self.of_tangents:
            return tangent
        log_size, tangent = normalised(tangent)
        self.tangent = self.tangent + _finite(log_size)
        return tangent

    def rescaling_cotangents(self, y: Tensor) -> Tensor:
        """Return ``y``, whose cotangents are rescaled on their way back."""
        if not (self.of_tangents and y.requires_grad):
            return y
        kept: Tensor = _Kept.apply(y, self)
        return kept

    def with_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``y + bias``, rescaled; scales are constants to the derivative."""
        if not self.of_primals:
            return y if bias is None else y + bias
        before = self.primal
        scaled = self._rescaled_primal(y.detach(), bias)
        if not y.requires_grad:
            return scaled
        factor = torch.exp(before - logs_of_rows(self.primal, y)).to(y.dtype)
        return scaled + rowwise(factor, y) * (y - y.detach())

    def _rescaled_primal(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``y e^a + bias`` up to a new scale, each weighed at its own size."""
        log_y, y = normalised(y)
        log_y = log_y + self.primal
        if bias is None:
            self.primal = _finite(log_y)
            return y
        log_bias, bias = normalised(bias.expand_as(y))
        scale = self.primal = _finite(torch.maximum(log_y, log_bias))
        return _weighed(y, log_y - scale) + _weighed(bias, log_bias - scale)

    def log_mean_square(self, x: Tensor) -> Tensor:
        """Return the log of the mean square of each row, the scale included."""
        return log_sum_squares(x) - math.log(x[0].numel()) + 2 * self.primal

    def log_square(self, tangent: Tensor) -> Tensor:
        """Return ``ln||t||^2`` of each row (float64), the scale included."""
        return log_sum_squares(tangent) + 2 * self.tangent


def _finite(log_size: Tensor) -> Tensor:
    return torch.where(torch.isfinite(log_size), log_size, torch.zeros_like(log_size))


def _weighed(rows: Tensor, log_weight: Tensor) -> Tensor:
    return rows * rowwise(torch.exp(log_weight).to(rows.dtype), rows)


class _Kept(torch.autograd.Function):
    """The identity, which divides each row's cotangent by its largest entry."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, scales: Scales) -> Tensor:
        ctx.scales = scales
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        (g,) = cotangents
        peak = g.abs().flatten(1).amax(1)
        peak = torch.where(peak > 0, peak, torch.ones_like(peak))
        ctx.scales.cotangent = ctx.scales.cotangent + peak.double().log()
        return g / rowwise(peak, g), None
