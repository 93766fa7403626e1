"""Proved plain chains under random signs, at the limit of the hardware.

One watched pass of the module yields its linear maps as it really uses them (`taped`).
Primal and tangent then go through one matrix product a layer. All that lies between two
products is one factor: with ``R`` the output signs of a layer and ``S`` the input signs
of the next, ``S phi(R h)`` and ``S phi'(R h) R t`` are ``h`` and ``t`` times ``S R``,
and times the slope where the gate is not open. The gate is open where the signs of
``h`` and of ``R`` agree: bits, compared as bits.

Rows are rescaled only where the weights' own gains could have left the range since the
last time. The results are those of the general path,
`initdiag.measuring.passes.interposer`, row by row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.signs import SignFlips
from initdiag.measuring.passes.interposer import LinearUse
from initdiag.measuring.passes.log_norms import log_norms
from initdiag.measuring.passes.modes import Parts
from initdiag.measuring.passes.rows import LayerLogs
from initdiag.measuring.task import Task
from initdiag.network.architecture import Activation

__all__ = ["Step", "fast_log_norms", "taped"]

_RANGE = 15.0
"""Nats that norms may grow or shrink by on average between two rescalings; single
precision holds e^-87 to e^88.
"""

_LEAST_BIAS = 1e-20
"""A chain with smaller biases than this takes the general path, which weighs them
against the signal.
"""

_SLOPES = {"linear": 1.0, "relu": 0.0}


@dataclass(frozen=True, slots=True)
class Step:
    """One layer as the module uses it: ``x -> activation(x weight^T + bias)``, and the
    log of its root mean square factor on norms.
    """

    use: LinearUse
    bias: Tensor | None
    activation: Activation
    log_gain: float

    @property
    def slope(self) -> float:
        """The slope of the activation below zero."""
        return _SLOPES.get(self.activation.name, self.activation.negative_slope)


class _Tape:
    """An ensemble of one network, the module as it is, that keeps what it was asked
    for.
    """

    values: Mapping[str, Tensor] = {}

    def __init__(self) -> None:
        self.uses: list[LinearUse] = []
        self.biases: dict[str, Tensor] = {}

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        self.uses.append(dataclasses.replace(use, weight=use.weight.contiguous()))
        return tuple(part @ use.weight.T for part in parts)

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        if use is not None:
            self.biases[use.name] = bias
        return bias


def taped(task: Task) -> tuple[Step, ...] | None:
    """Return the chain's steps; None if it is not one that the fast path knows: gaps,
    smooth or random slopes, vanishing biases.
    """
    known = all(
        layer.activation.name in ("linear", "relu", "leaky_relu") for layer in task.arch.layers
    )
    if not (task.rescales_primal and known):
        return None
    tape = _Tape()
    log_norms(task, tape, range(1))
    if [use.name for use in tape.uses] != [layer.name for layer in task.arch.layers]:
        return None
    biases = {name: bias for name, bias in tape.biases.items() if bool((bias != 0).any())}
    if any(float(bias[bias != 0].abs().min()) < _LEAST_BIAS for bias in biases.values()):
        return None
    return tuple(
        Step(use, biases.get(use.name), layer.activation, _log_gain(use.weight, layer.activation))
        for use, layer in zip(tape.uses, task.arch.layers, strict=True)
    )


def _log_gain(weight: Tensor, activation: Activation) -> float:
    gate = activation.gate
    assert gate is not None, "checked by taped"
    mean_square = float(weight.double().square().mean()) * weight.shape[0] * gate.second_moment
    return math.log(mean_square) / 2 if mean_square > 0 else 0.0


class _Rows:
    """Primal and tangent of a chunk of draws, one above the other, and the logs of what
    they were divided by.
    """

    def __init__(self, x: Tensor, u: Tensor) -> None:
        self.count = len(x)
        self.both = torch.cat([x.flatten(1), u.flatten(1)])
        self.log_scales = torch.zeros(2, self.count, dtype=torch.float64, device=x.device)
        self.growth = 0.0
        self.is_rescaled = False

    @property
    def halves(self) -> Tensor:
        return self.both.view(2, self.count, -1)

    def log_squares(self) -> Tensor:
        """Return ``ln|x|^2`` and ``ln|t|^2`` of each row (float64)."""
        norms: Tensor = torch.linalg.vector_norm(self.halves, dim=2)
        return 2 * (norms.double().log() + self.log_scales)

    def rescale(self, has_biases: bool) -> None:
        """Divide each row by its largest entry.

        With biases the primal never shrinks for long, and is only ever divided.
        """
        peaks = self.halves.abs().amax(2)
        peaks = torch.where(peaks > 0, peaks, torch.ones_like(peaks))
        if has_biases:
            peaks[0].clamp_(min=1.0)
        self.both = (self.halves / peaks[..., None]).view(2 * self.count, -1)
        self.log_scales += peaks.double().log()
        self.growth = 0.0
        self.is_rescaled = True


def fast_log_norms(
    steps: Sequence[Step], task: Task, flips: SignFlips, draws: range, *, with_layers: bool
) -> tuple[Tensor, list[LayerLogs]]:
    """Return ``ln||Ju||^2`` of each draw (float64), and the layers' logs if asked for
    (they cost passes of their own).
    """
    x = task.inputs(draws)
    rows = _Rows(x, task.directions(draws, x))
    has_biases = any(step.bias is not None for step in steps)
    bits = [flips.bits(step.use) for step in steps]
    rows.halves.mul_(_signs(bits[0][0], rows.both))
    logs: list[LayerLogs] = []
    dropouts = 0
    for index, step in enumerate(steps):
        before = rows.log_squares()[0] - math.log(rows.both.shape[1]) if with_layers else None
        rows.both = torch.nn.functional.linear(rows.both, step.use.weight)
        _add_bias(rows, step, bits[index][1], flips)
        if before is not None:
            logs.append(LayerLogs(step.use.name, before, rows.log_squares()[1]))
        following = bits[index + 1][0] if index + 1 < len(steps) else None
        rows.halves.mul_(_factor(rows.halves[0], step, bits[index][1], following))
        if step.activation.dropout:
            rows.halves.mul_(_mask(rows, step, task, draws, dropouts))
            dropouts += 1
        rows.growth += step.log_gain
        if abs(rows.growth) > _RANGE:
            rows.rescale(has_biases)
    tangent = rows.halves[1].double().square().sum(1).log() + 2 * rows.log_scales[1]
    return tangent, logs


def _signs(bits: Tensor, like: Tensor) -> Tensor:
    return (1 - 2 * bits.view(torch.int8)).to(like.dtype)


def _add_bias(rows: _Rows, step: Step, output: Tensor, flips: SignFlips) -> None:
    """Return ``R (W S x + b)`` where the bias is flipped, and ``R W S x + b`` where it
    is not: ``R b`` is then added before ``R``.
    """
    if step.bias is None:
        return
    bias = step.bias if flips.flips_bias(step.use.name) else step.bias * _signs(output, rows.both)
    if rows.is_rescaled:
        bias = bias * torch.exp(-rows.log_scales[0]).to(bias.dtype)[:, None]
    rows.halves[0].add_(bias)


def _factor(h: Tensor, step: Step, output: Tensor, following: Tensor | None) -> Tensor:
    """Return the slope at ``R h``, times ``R``, times the signs with which the next
    layer takes it.
    """
    sign = output if following is None else output ^ following
    if step.slope == 1.0:
        return _signs(sign, h)
    is_flipped = output.view(torch.bool)
    # at 0, neither sign opens a gate
    is_open = ((h > 0) & ~is_flipped) | ((h < 0) & is_flipped)
    if step.slope == 0.0:
        return (is_open.view(torch.int8) * (1 - 2 * sign.view(torch.int8))).to(h.dtype)
    slope = torch.where(is_open, h.new_tensor(1.0), h.new_tensor(step.slope))
    return slope * _signs(sign, h)


def _mask(rows: _Rows, step: Step, task: Task, draws: range, index: int) -> Tensor:
    uniform = random_numbers.uniforms(task.seed, draws, index, rows.both.shape[1])
    keep = torch.from_numpy(uniform >= step.activation.dropout).to(rows.both.device)
    return keep.to(rows.both.dtype) / (1 - step.activation.dropout)
