"""The proof by running: a chain is exact only if the module's own numbers obey it.

Reading the calls of one forward pass proposes a chain ``J = D_L W_L ... D_1 W_1``.
The proof runs a replica of the module again, on rows of several kinds, under several
random states, and with other weights. In every run it takes from the module the input
``h_l`` of each linear map, and in some the tangent ``t_l`` there (forward mode) or the
gradient ``g_l`` there (reverse mode), and asks whether one step of the chain, evaluated
plainly, gives the next::

    h_(l+1) = phi(W h_l + b)      t_(l+1) = D W t_l      g_l = W^T D g_(l+1)

with ``D`` the derivative of the activation ``phi`` and of the dropout after it. What
does not agree is a `Gap` that says what differs, how much, and where it does first.
Going step by step keeps rounding errors from growing with depth in a chaotic network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.network.architecture import Gap, Layer
from initdiag.tracing.activated import activated
from initdiag.tracing.flow import Flow
from initdiag.tracing.fresh_weights import drawn, normal
from initdiag.tracing.guard import seed_generators
from initdiag.tracing.looks import Reads
from initdiag.tracing.observed import (
    Array,
    BackwardFails,
    Observed,
    PathDiffers,
    Places,
    Trial,
    afresh,
    array,
    observed,
    trials,
)
from initdiag.tracing.parameter_access import Slot, slots_of
from initdiag.tracing.relative_errors import error_of_outer, relative_error
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.structures import are_equal

__all__ = ["disproof"]

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Relative error that one step may show: some thousand roundings of its size."""

_HALF_TOLERANCE = 0.1
"""Error allowed in a half-precision type: bfloat16 rounds to one part in 256."""

_VANISHED = {torch.float64: 1e-280, torch.float32: 1e-30}
"""Norms below this have lost digits to underflow, and count as equal."""

_UNDECIDED = 100.0
"""Roundings of a row's largest pre-activation that leave a gate undecided."""

_OFTEN, _LEAST_OFTEN, _REDRAWN = 150, 20, 10**8
"""Redraws of a module that reads its weights, so many at least, and the weights that
may be drawn for them. A branch that 3 % of networks take shows in 99 of 100 proofs.
"""

_LARGE = 1 << 20
"""Bytes of parameters above which the replica keeps the module's own precision."""


def disproof(
    module: nn.Module, flow: Flow, layers: Sequence[Layer], products: int, x: Tensor
) -> Gap | None:
    """Return the first way in which a module is not its chain; None if it is one.

    Parameters
    ----------
    module : nn.Module
        The user's own, which is left alone. A replica runs, in float64 where it can.
    flow : Flow
        The calls that were read as the chain.
    layers : sequence of Layer
        The chain.
    products : int
        How many linear maps the forward pass called, on whatever.
    x : Tensor
        The batch that was traced.
    """
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    failure: Exception | None = None
    for convert in (_doubled, copied) if size <= _LARGE else (copied,):
        copy = replica(module, convert)
        try:
            return _Prover(copy, flow, layers, products).first_difference(
                module, convert, convert(x)
            )
        except UnsupportedArchitecture as error:
            return Gap("forward", "computed", str(error))
        # a module may run in no other precision than its own
        except Exception as error:
            failure = error
    return Gap("forward", "proof", f"the chain cannot be run beside the module: {failure}")


def _doubled(tensor: Tensor) -> Tensor:
    return copied(tensor).double() if tensor.is_floating_point() else copied(tensor)


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer of the proposed chain, and where the replica keeps its parameters."""

    layer: Layer
    weight: Slot
    biases: tuple[Slot, ...]
    dropouts: tuple[float, ...]

    def matrix(self, used: Tensor) -> Array:
        """Return the present weight ``(fan_out, fan_in)``, turned as the one that was
        used.
        """
        now = self.weight.get().detach()
        either = [w for w in (now, now.T) if w.shape == used.shape] or [now]
        same = [w for w in either if _is_same(w, used)]
        return array(same[0] if same else _nearest(either, used))

    def redraw(self, generator: torch.Generator) -> None:
        """Draw weight and biases afresh from the laws they are taken for."""
        self.weight.set(drawn(self.layer.weight, self.weight.get().detach(), generator))
        for bias in self.biases:
            now = bias.get().detach()
            bias.set(normal(now, float(now.square().mean().sqrt()), generator))

    def negate(self, generator: torch.Generator) -> None:
        """Turn the sign of weight and biases, which leaves a symmetric law as it is."""
        for slot in (self.weight, *self.biases):
            slot.set(-slot.get().detach())


class _Prover:
    """Runs one replica in all trials."""

    def __init__(self, copy: nn.Module, flow: Flow, layers: Sequence[Layer], products: int) -> None:
        self._copy = copy
        for parameter in copy.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        ordinals = tuple(call.ordinal for call in flow.linear_calls)
        own = dict(copy.named_parameters())
        parameters = tuple(own.get(layer.name) for layer in layers)
        self._places = Places(products, ordinals, bool(flow.input_map_calls()), parameters)
        slot = slots_of(copy)
        self._steps = [
            _Step(
                layer,
                slot(layer.name),
                tuple(map(slot, flow.biases_of(call))),
                flow.dropouts_after(call),
            )
            for call, layer in zip(flow.linear_calls, layers, strict=True)
        ]

    @np.errstate(over="ignore", invalid="ignore")  # huge weights leave the range; that is seen
    def first_difference(
        self, module: nn.Module, convert: Callable[[Tensor], Tensor], x: Tensor
    ) -> Gap | None:
        """Return what differs first: under the present weights, then under others."""
        ran: list[Trial] = []
        reads = Reads(self._copy)
        for number, trial in enumerate(trials(x)):
            watching = None if number else reads
            found, has_run = self._in_trial(trial, is_optional=number > 0, watching=watching)
            if found is not None:
                changed = self._changed(module, convert)
                return changed or self._with_cause(found, ran[0] if ran else trial)
            ran += [trial] if has_run else []
        changed = self._changed(module, convert)
        if changed is not None:
            return changed
        generator = torch.Generator("cpu").manual_seed(0)
        changes = [(ran[-1], _Step.redraw), (ran[0], _Step.negate)]
        if reads.found:
            size = sum(p.numel() for p in self._copy.parameters())
            often = min(_OFTEN, max(_LEAST_OFTEN, _REDRAWN // max(1, size)))
            changes += [(replace(ran[-1], has_gradients=False), _Step.redraw)] * often
        for number, (trial, change) in enumerate(changes):
            for step in self._steps:
                change(step, generator)
            found, _ = self._in_trial(afresh(trial, 50 + number), is_optional=False)
            if found is not None:
                return Gap(found.path, "weights", f"{found.reason} (as it is now, it agrees)")
        return None

    def _changed(self, module: nn.Module, convert: Callable[[Tensor], Tensor]) -> Gap | None:
        """Return a gap if the forward pass changes a parameter."""
        original = dict(module.named_parameters())
        for name, now in self._copy.named_parameters():
            if name not in original or not torch.equal(now, convert(original[name])):
                return Gap(name, "parameters", "the forward pass changes this parameter")
        return None

    def _in_trial(
        self, trial: Trial, *, is_optional: bool, watching: Reads | None = None
    ) -> tuple[Gap | None, bool]:
        """Return what differs first, and whether the module ran: it may refuse odd
        rows.
        """
        try:
            with watching or nullcontext():
                run = observed(self._copy, trial, self._places)
        except PathDiffers as error:
            return Gap("forward", "path", f"on {trial.name}, {error}"), True
        except BackwardFails as error:
            return Gap("forward", "gradients", f"the backward pass raises: {error}"), True
        except Exception:
            if is_optional:
                return None, False
            raise
        if run.backward_fault:
            return Gap("forward", "gradients", run.backward_fault), True
        seed_generators(trial.seed)  # the same dropout masks as in the run
        return next(self._differences(run, trial.name), None), True

    def _differences(self, run: Observed, where: str) -> Iterator[Gap]:
        """Yield a gap for every step that differs from the module's own numbers."""
        limit = _TOLERANCES.get(run.dtype, _HALF_TOLERANCE)
        for index, step in enumerate(self._steps):
            for kind, error in self._errors(run, index, step):
                if not error <= limit:
                    yield Gap(step.layer.name, kind, _reason(kind, step.layer, error, where))

    def _errors(self, run: Observed, index: int, step: _Step) -> Iterator[tuple[str, float]]:
        """Yield the relative errors of one step, by what is compared."""
        matrix, eps = step.matrix(run.weights[index]), torch.finfo(run.dtype).eps
        vanished = _VANISHED.get(run.dtype, 0.0)
        before, after = run.values[index] @ matrix.T, run.values[index + 1]
        for bias in step.biases:
            before = before + array(bias.get()).reshape(-1)
        like = run.weights[index]
        found = activated(step.layer.activation, step.dropouts, before, after, like)
        yield "values", relative_error(after, found.value, before, vanished)
        room = _UNDECIDED * eps * np.abs(before).max(1, keepdims=True)
        is_open = ~found.is_kinked | (np.abs(before) > room)
        if run.tangents:
            pushed, actual = run.tangents[index] @ matrix.T, run.tangents[index + 1]
            expected = found.slope * pushed
            yield (
                "tangents",
                relative_error(actual * is_open, expected * is_open, pushed, vanished),
            )
        if run.gradients:
            rows = is_open.all(1)
            actual = run.gradients[index][rows]
            expected = (found.slope * run.gradients[index + 1])[rows] @ matrix
            yield "gradients", relative_error(actual, expected, expected, vanished)
            came_back = found.slope * run.gradients[index + 1]
            own = run.weight_gradients[index]
            if own is not None and rows.all():
                error = error_of_outer(own, came_back, run.values[index], vanished)
                yield "weight's gradient", error

    def _with_cause(self, gap: Gap, trial: Trial) -> Gap:
        """Return the gap; if the module does not repeat itself, as one of that kind."""
        outputs = []
        for seed in (trial.seed, trial.seed, trial.seed + 1):
            seed_generators(seed)
            with torch.no_grad():
                out = self._copy(trial.rows.clone())
            outputs.append(out if isinstance(out, Tensor) else trial.rows)
        first, again, other = outputs
        if not are_equal(first, again):
            return Gap(gap.path, "state", f"the forward pass does not repeat itself; {gap.reason}")
        has_dropout = any(step.dropouts for step in self._steps)
        if not has_dropout and not are_equal(first, other):
            return Gap(gap.path, "random", f"the forward pass is random; {gap.reason}")
        return gap


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Return whether both look at one memory in one way."""
    return first.data_ptr() == second.data_ptr() and first.stride() == second.stride()


def _nearest(either: Sequence[Tensor], used: Tensor) -> Tensor:
    if len(either) == 1:
        return either[0]
    return min(either, key=lambda w: float((w.double() - used.double()).norm()))


def _reason(kind: str, layer: Layer, error: float, where: str) -> str:
    shown = {
        "values": "what follows the layer is not its activation of W h + b",
        "tangents": "the forward-mode derivative is not that of the layer and its activation",
        "gradients": "the backward pass is not that of the layer and its activation",
        "weight's gradient": "the gradient of the weight is not that of the layer",
    }[kind]
    return f"{shown} ({layer.activation.label}): off by {error:.2g} of its size on {where}"
