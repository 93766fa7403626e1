"""The user's batch through a replica, once and a few times more, before training.

Everything is read off the calls that the forward pass makes, so that it works for any
module that runs. Nothing here raises for what a module does: what cannot be had is
absent from the record, which says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from initdiag._core.choices import LOSSES, Loss
from initdiag.errors import UnsupportedArchitecture, text_of
from initdiag.measuring.curvature import Curvature
from initdiag.measuring.neighbours import Seen, mean_cosine, torn
from initdiag.measuring.passes.attention import attention_by_formula
from initdiag.measuring.probe_record import BatchProbe, GateProbe
from initdiag.tracing.guard import seed_generators
from initdiag.tracing.recorder import modules_named
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.torch_calls import function_name

__all__ = ["probe_batch", "standardised"]

_ROWS = 64
"""Rows that are run at most: shares of values and pairs are then known to percents."""

_NEIGHBOURS = 1024
"""Rows among which the nearest is looked for at most."""

_LARGEST = 1 << 27
"""Parameters from which on a replica in double precision is not made for this."""

_STILL = 0.01
"""Share of its largest value under which a gate's derivative counts as saturated."""

_ALIKE = 1e-6
"""Rows that differ by less, relative to the largest number, are one row."""

_LINEAR = frozenset(
    "linear matmul mm addmm bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d "
    "conv_transpose3d".split()
)

_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda y: 1 - y.square(),
    "sigmoid": lambda y: 4 * y * (1 - y),
    "hardtanh": lambda y: (y.abs() < 1).to(y.dtype),
    "relu6": lambda y: ((y > 0) & (y < 6)).to(y.dtype),
    "hardsigmoid": lambda y: ((y > 0) & (y < 1)).to(y.dtype),
    "softsign": lambda y: (1 - y.abs()).square(),
    "softmax": lambda y: 4 * y * (1 - y),
}
"""Derivative from the value, relative to its largest, of gates with two flat ends.

That of a softmax is the diagonal of its Jacobian.
"""

_ADDING = frozenset(("add", "iadd", "radd"))
_NORMS = frozenset(
    "layer_norm batch_norm group_norm instance_norm rms_norm local_response_norm normalize".split()
)

_CLOSING = frozenset(("relu", "relu6", "threshold", "clamp_min"))
_OPEN = frozenset("leaky_relu elu selu gelu silu softplus mish hardswish prelu sin cos exp".split())


@dataclass
class _Watch(TorchFunctionMode):
    """Keep what each gate returned, and what went into the last linear map."""

    rows: int
    buffers: frozenset[int] = frozenset()
    stack: list[str] = field(default_factory=list)
    gates: list[tuple[str, str, Tensor, int]] = field(default_factory=list)
    hidden: Tensor | None = None
    mapped: Tensor | None = None
    products: int = 0
    sums: int = 0
    norms: int = 0
    out: Tensor | None = None

    @property
    def seen(self) -> Seen:
        """What went into the first linear map, and into the last of several."""
        hidden = self.hidden if self.products > 1 else None
        return Seen(self.mapped, None if hidden is None else hidden.flatten(1))

    def ends_in(self, function: str) -> bool:
        """Return whether this function is the last, behind all linear maps."""
        last = self.gates[-1] if self.gates else None
        return last is not None and last[1] == function and last[3] == self.products

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function_name(func)
        out = func(*args, **(kwargs or {}))
        if name in _LINEAR and args and self._is_of_rows(args[0]):
            self.hidden = args[0].detach().clone()
            if self.mapped is None and not any(map(self._is_buffer, args[1:])):
                self.mapped = self.hidden
            self.products += 1
        elif (name in _SLOPES or name in _CLOSING or name in _OPEN) and self._is_of_rows(out):
            path = self.stack[-1] if self.stack else ""
            self.gates.append((path, name, out.detach().clone(), self.products))
        elif name in _ADDING and len(args) > 1 and all(map(self._is_of_rows, args[:2])):
            self.sums += 1
        elif name in _NORMS:
            self.norms += 1
        return out

    def _is_buffer(self, value: Any) -> bool:
        """Return whether a product's other factor is fixed, as in an encoding."""
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self.buffers

    def _is_of_rows(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor) and value.dim() > 1 and value.is_floating_point()
        ) and len(value) == self.rows


def probe_batch(module: nn.Module, example: Any, loss: Loss | None = None) -> BatchProbe | None:
    """Return what the batch shows; None where there is no batch of numbers to run.

    Parameters
    ----------
    module : nn.Module
        The user's own (behind its adapter); a replica of it runs.
    example : Tensor or None
        The batch as its adapter takes it.
    loss : str, optional
        ``"classification"`` or ``"regression"``; without it curvature is had for both.
    """
    if not isinstance(example, Tensor) or example.device.type == "meta":
        return None
    if sum(p.numel() for p in module.parameters()) > _LARGEST:
        return None
    copy, others = replica(module, _in_double), example[:_NEIGHBOURS].detach().double()
    x = others[:_ROWS]
    try:
        watch = _watched(copy, x)
    except Exception as error:
        reason = f"the batch does not run in double precision: {text_of(error)}"
        return _record(x, _Watch(len(x)), _NO_ANGLES, _Bends(absent=(reason,)))
    return _record(x, watch, _angles(copy, x, others, watch), _curvature(copy, x, watch, loss))


def _watched(module: nn.Module, x: Tensor) -> _Watch:
    buffers = (buffer.untyped_storage().data_ptr() for buffer in module.buffers())
    watch = _Watch(len(x), frozenset(buffers))
    with _running(module), modules_named(module, watch.stack), watch, torch.no_grad():
        out = module(x.clone())
    if not isinstance(out, Tensor) or not out.is_floating_point():
        raise UnsupportedArchitecture("the output is not one floating tensor")
    watch.out = out
    return watch


def standardised(example: Tensor) -> Tensor:
    """Return the batch with mean 0 and variance 1 over all of its numbers."""
    x = example.detach().double()
    std = x.std(correction=0)
    return ((x - x.mean()) / (std if std > 0 else 1.0)).to(example.dtype)


def _in_double(tensor: Tensor) -> Tensor:
    return copied(tensor).double() if tensor.is_floating_point() else copied(tensor)


_NO_PAIRS = "no angles: three rows that differ, and a finite hidden layer, are wanted"


def _are_alike(x: Tensor) -> bool:
    """Return whether there are no rows to tell apart, as in a batch of ones."""
    return len(x) < 3 or bool((x - x[:1]).abs().max() <= _ALIKE * x.abs().max())


@contextmanager
def _running(module: nn.Module) -> Iterator[None]:
    """Run with the same random numbers at every pass."""
    with attention_by_formula():
        seed_generators(0)
        yield


@dataclass(frozen=True, slots=True)
class _Bends:
    """What the passes beyond the first gave, or why they gave nothing."""

    sharpness: dict[Loss, float] = field(default_factory=dict)
    contrast: dict[Loss, float] = field(default_factory=dict)
    sign_step: float | None = None
    absent: tuple[str, ...] = ()


def _curvature(module: nn.Module, x: Tensor, watch: _Watch, loss: Loss | None) -> _Bends:
    """Return the curvature of the batch's mean loss, for each kind that it may be."""

    def forward() -> Tensor:
        with _running(module):
            result = module(x.clone())
        assert isinstance(result, Tensor)
        return result

    if watch.out is None or not bool(torch.isfinite(watch.out).all()):
        return _Bends(absent=("no curvature: the output is not finite",))
    kinds = [loss] if loss else list(LOSSES)
    try:
        curvature = Curvature.of(module, forward, watch.ends_in("sigmoid"))
        if curvature is None:
            return _Bends(absent=("no curvature: no parameter gets a gradient",))
        sharp = {kind: curvature.largest(kind, centred=False) for kind in kinds}
        apart = {} if _are_alike(x) else {k: curvature.largest(k, centred=True) for k in kinds}
        step = curvature.sign_step(kinds[0])
    except Exception as error:
        return _Bends(absent=(f"no curvature: {type(error).__name__}: {text_of(error)}",))
    return _Bends(sharp, apart, step)


@dataclass(frozen=True, slots=True)
class _Angles:
    """How rows stand to one another in the last hidden layer."""

    collapse: float | None = None
    torn: float | None = None
    absent: tuple[str, ...] = ()


_NO_ANGLES = _Angles()


def _angles(module: nn.Module, x: Tensor, others: Tensor, watch: _Watch) -> _Angles:
    hidden = watch.seen.hidden
    if hidden is None or _are_alike(x) or not bool(torch.isfinite(hidden).all()):
        return _Angles(absent=(_NO_PAIRS,))

    try:
        found = torn(x, others, watch.seen, lambda rows: _watched(module, rows).seen)
    except Exception as error:
        return _Angles(
            mean_cosine(hidden), absent=(f"rows between rows do not run: {text_of(error)}",)
        )
    return _Angles(mean_cosine(hidden), found)


def _record(x: Tensor, watch: _Watch, angles: _Angles, bends: _Bends) -> BatchProbe:
    return BatchProbe(
        rows=len(x),
        input_mean=float(x.mean()),
        input_std=float(x.std(correction=0)),
        gates=tuple(_gate(*gate, watch.products) for gate in watch.gates),
        collapse=angles.collapse,
        torn=angles.torn,
        output_rms=None if watch.out is None else float(watch.out.square().mean().sqrt()),
        sharpness=bends.sharpness,
        contrast=bends.contrast,
        sign_step=bends.sign_step,
        absent=(*angles.absent, *bends.absent),
        sums=watch.sums,
        norms=watch.norms,
    )


def _gate(path: str, name: str, value: Tensor, before: int, products: int) -> GateProbe:
    slope = _SLOPES.get(name)
    saturated = None if slope is None else float((slope(value) < _STILL).double().mean())
    dead = None
    if name in _CLOSING:
        unit = 1 if value.dim() != 3 else 2
        others = [axis for axis in range(value.dim()) if axis != unit]
        dead = float((value <= 0).all(dim=others[0]).double().mean()) if len(others) == 1 else None
        if dead is None:
            dead = float((value <= 0).movedim(unit, 0).flatten(1).all(1).double().mean())
    return GateProbe(path, name, before == products, saturated, dead)
