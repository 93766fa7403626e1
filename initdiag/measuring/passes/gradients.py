"""What training will see: the norms of each layer's weight and bias gradients, by one
backward pass a chunk.

A row of the batch is a network of its own, with matrices ``W`` of its own. If ``y = W x
+ b`` then ``dL/dW = delta x^T`` and ``dL/db = delta`` with ``delta = dL/dy``, so that
the norms follow from what enters the layer and what comes back to it; no gradient is
formed. Several positions and several uses of one matrix add up before the norm is
taken. ``L`` is ``v . f(x)`` for a random unit ``v``, or the user's loss on the row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain, text_of
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.interposer import Ensemble, LinearUse
from initdiag.measuring.passes.modes import Parts
from initdiag.measuring.passes.push_pull import pulled
from initdiag.measuring.passes.rows import (
    Rows,
    Scales,
    flat,
    log_sum_squares,
    logs_of_rows,
    normalised,
)
from initdiag.measuring.passes.run import graph_forward
from initdiag.measuring.passes.underflow import LOWEST, SCALES, any_row
from initdiag.measuring.task import Task

__all__ = ["GradientLogs", "Gradients", "Loss", "gradient_logs"]


_DRAWS = 512
"""Draws whose gradients are looked at."""

_BUDGET = 1 << 28
"""Bytes that the graph of one backward pass may take, about."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The user's loss: ``function(output, target)`` on rows of the output and of
    ``target``, which is dealt out over the draws in turn.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    target: Tensor

    @classmethod
    def of(cls, function: Any, target: Any, rows: int) -> Loss | None:
        """Return the loss for inputs of so many rows; None if there is none.

        Raises
        ------
        InvalidInput
            If one of the two is missing, or the target has another number of rows.
        """
        if function is None and target is None:
            return None
        if not callable(function) or not isinstance(target, Tensor) or target.shape[:1] != (rows,):
            got = (
                f"{type(function).__name__}, "
                f"{tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__}"
            )
            raise InvalidInput(
                explain(
                    expected=(
                        "loss_fn and target: a function, and a tensor with a row for each "
                        f"of the {rows} input rows"
                    ),
                    got=got,
                    do="Pass both, and the example_input that the target belongs to.",
                )
            )
        return cls(function, target.detach())

    def _target(self, row: int, output: Tensor) -> Tensor:
        """Return one row in the output's precision, which off a chain is higher than
        the model's. A loss takes tensors of one dtype.
        """
        found = self.target[row : row + 1]
        return (
            found.to(output.dtype)
            if found.is_floating_point() and output.is_floating_point()
            else found
        )

    def gradient(self, out: Tensor, draws: range) -> Tensor:
        """Return ``dL/d(output)`` of each row, its loss taken as that of a batch of
        one.

        Raises
        ------
        InvalidInput
            If the function raises, or returns no scalar.
        """
        rows = []
        for row, draw in enumerate(draws):
            leaf = out[row : row + 1].detach().clone().requires_grad_()
            at = draw % len(self.target)
            try:
                with torch.enable_grad():
                    loss = self.function(leaf, self._target(at, leaf))
                    (gradient,) = torch.autograd.grad(loss, leaf)
            except Exception as error:
                raise InvalidInput(
                    explain(
                        expected=(
                            "loss_fn: a function (output, target) -> scalar tensor, and a "
                            "target it takes"
                        ),
                        got=f"{type(error).__name__}: {text_of(error)}",
                        do="Test it on model(example_input[:1]) and target[:1].",
                    )
                ) from error
            rows.append(gradient)
        return torch.cat(rows)


@dataclass(frozen=True, slots=True)
class GradientLogs:
    """Logs of one layer, per row (natural log, float64): mean square of its input,
    squared norms of its weight's and bias' gradients.
    """

    name: str
    activation: Tensor
    weight: Tensor
    bias: Tensor


class Gradients:
    """The backward passes of one measurement: over its first draws, in rows that fit
    the memory.

    Attributes
    ----------
    notes : tuple of str
        Why there are none, where the module cannot be differentiated backwards.
    """

    def __init__(self, task: Task, is_wanted: bool, loss: Loss | None) -> None:
        self._task, self._loss = task, loss
        self._left = _DRAWS if is_wanted else 0
        self.notes: tuple[str, ...] = ()

    def on(self, task: Task) -> Gradients:
        """Return the same passes of another task on the same module."""
        return Gradients(task, self._left > 0, self._loss)

    def __call__(
        self, ensemble_of: Callable[[range], Ensemble], draws: range
    ) -> list[GradientLogs]:
        """Return the logs of those among ``draws`` that are to be looked at."""
        stop = min(draws.stop, self._left)
        widths = sum(layer.fan_in + layer.fan_out for layer in self._task.arch.layers)
        step = max(1, _BUDGET // (16 * widths * self._task.dtype.itemsize))
        parts = [range(start, min(start + step, stop)) for start in range(draws.start, stop, step)]
        return [logs for part in parts for logs in self.at_once(ensemble_of(part), part)]

    def at_once(self, ensemble: Ensemble, draws: range) -> list[GradientLogs]:
        """Return the logs of all of ``draws``, if any of them is to be looked at."""
        if draws.start >= self._left:
            return []
        try:
            return gradient_logs(self._task, ensemble, draws, self._loss)
        except UnsupportedArchitecture as error:
            self._left, self.notes = 0, (f"gradients were not measured: {error}",)
            return []


def gradient_logs(
    task: Task, ensemble: Ensemble, draws: range, loss: Loss | None = None
) -> list[GradientLogs]:
    """Return the gradients' logs, one entry a matrix in the order of first use.

    Raises
    ------
    UnsupportedArchitecture
        If the module does not run under reverse-mode autograd.
    InvalidInput
        See `Loss`.
    """
    x = task.inputs(draws)
    recorder, rows = _Recorder(), Rows(draws, len(x), task.seed)
    scales = Scales(of_tangents=task.rescales_tangent, of_primals=task.rescales_primal)
    leaf = x.detach().clone().requires_grad_()
    graph = graph_forward(task, ensemble, rows, scales, leaf, recorder)
    out = graph.out
    scale = logs_of_rows(scales.primal, out)
    v, log_v = _cotangent(task, draws, out.detach(), scale, loss)
    log_square = 2 * (scale + log_v)
    pulled(graph, v)
    found = recorder.found(log_square)
    if (
        task.rescales_tangent
        or task.is_native
        or not any(any_row(logs.weight < LOWEST) for logs in found)
    ):
        return found
    # linear in v: what is lost at one scale is there at another
    pulled(graph, v * SCALES[0])
    return [
        _merged(logs, other)
        for logs, other in zip(
            found, recorder.found(log_square - 2 * math.log(SCALES[0])), strict=True
        )
    ]


def _merged(logs: GradientLogs, other: GradientLogs) -> GradientLogs:
    """Return ``logs``. Rows that underflow are taken from a larger cotangent, unless
    that overflows.
    """
    rows = (logs.weight < LOWEST) & other.weight.isfinite()
    weight, bias = (
        torch.where(rows, other.weight, logs.weight),
        torch.where(rows, other.bias, logs.bias),
    )
    return GradientLogs(logs.name, logs.activation, weight, bias)


def _cotangent(
    task: Task, draws: range, out: Tensor, scale: Tensor, loss: Loss | None
) -> tuple[Tensor, Tensor]:
    """Return ``dL/d(output)`` of each row over its largest entry, and the log of that
    entry. Outputs are ``out`` times ``e^scale``.
    """
    if loss is None:
        v = random_numbers.directions(task.seed, draws, out[0].numel(), "cotangent")
        return v.view(out.shape).to(out.device, out.dtype), torch.zeros_like(scale)
    factor = scale.exp().view(-1, *[1] * (out.dim() - 1))
    g = loss.gradient((out.double() * factor).to(out.dtype), draws).double()
    peak = flat(g).abs().amax(1)
    peak = torch.where(peak > 0, peak, torch.ones_like(peak))
    return (g / peak.view(factor.shape)).to(out.dtype), peak.log()


@dataclass(slots=True)
class _Use:
    """One linear call: what entered, the log it is to be scaled by, and what came back.

    Shapes ``(rows, positions, features)``.
    """

    name: str
    x: Tensor
    log_scale: Tensor | float
    is_transposed: bool
    delta: Tensor | None = None
    delta_log_scale: Tensor | float = 0.0


class _Recorder:
    """Keeps what enters every linear call, and what comes back to it: an `Observer`."""

    def __init__(self) -> None:
        self.uses: list[_Use] = []

    def __call__(self, use: LinearUse, entered: Parts, product: Parts, scales: Scales) -> None:
        x = entered[0].detach().clone()
        x = x.reshape(len(x), -1, x.shape[-1])
        seen = _Use(use.name, x, scales.primal, use.is_transposed)
        self.uses.append(seen)
        if product[0].requires_grad:
            product[0].register_hook(functools.partial(self._came_back, seen, scales))

    def _came_back(self, use: _Use, scales: Scales, delta: Tensor) -> None:
        use.delta = delta.detach().clone().reshape(len(delta), -1, delta.shape[-1])
        use.delta_log_scale = scales.cotangent

    def found(self, log_square: Tensor) -> list[GradientLogs]:
        """Return the logs of every matrix in the order of first use; ``log_square`` is
        to be added to every squared cotangent.
        """
        return [
            self._logs_of(name, log_square) for name in dict.fromkeys(use.name for use in self.uses)
        ]

    def _logs_of(self, name: str, log_square: Tensor) -> GradientLogs:
        uses = [use for use in self.uses if use.name == name]
        first = uses[0]
        activation = log_sum_squares(first.x) - math.log(first.x[0].numel()) + 2 * first.log_scale
        back = [use for use in uses if use.delta is not None]
        if not back:
            nothing = torch.full_like(activation, -math.inf)
            return GradientLogs(name, activation, nothing, nothing)
        # on a chain there is one use, and scales are one a row: its x is e^log_scale
        # too small, its delta as much too large
        shift = log_square + 2 * back[0].delta_log_scale
        weight = _outer_log_square([_sides(use) for use in back]) + shift
        alike = [
            use.delta
            for use in back
            if use.delta is not None and use.is_transposed == back[0].is_transposed
        ]
        delta = torch.cat([d.double().sum(1, keepdim=True) for d in alike], 1).sum(
            1
        )  # a transposed use has a bias of its own
        bias = log_sum_squares(delta) + shift - 2 * first.log_scale
        return GradientLogs(name, activation, weight, bias)


def _sides(use: _Use) -> tuple[Tensor, Tensor]:
    """Return the output side and the input side of ``delta x^T``."""
    assert use.delta is not None
    pair = use.delta.double(), use.x.double()
    return pair if not use.is_transposed else pair[::-1]


def _outer_log_square(sides: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return ``ln||sum_p d_p x_p^T||^2`` of each row, by whichever is smaller: the
    positions' Gram matrices or the sum itself.
    """
    d, x = (torch.cat(side, 1) for side in zip(*sides, strict=True))
    if d.shape[1] == 1:
        return log_sum_squares(d) + log_sum_squares(x)
    (log_d, d), (log_x, x) = normalised(d), normalised(x)
    scale = 2 * (log_d + log_x)
    if d.shape[1] ** 2 > d.shape[2] * x.shape[2]:
        return log_sum_squares(d.mT @ x) + scale
    return ((d @ d.mT) * (x @ x.mT)).sum((1, 2)).clamp_(min=0).log() + scale
