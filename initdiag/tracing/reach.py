"""What plain passes of a module show: whether its output is made of numbers, and which
weights get a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from initdiag.network.plain_pass import PlainPass
from initdiag.tracing.adapter import Adapter
from initdiag.tracing.forward_pass import paired
from initdiag.tracing.fresh_weights import normal
from initdiag.tracing.guard import seed_generators
from initdiag.tracing.inputs import Subject, inputs_to_try, is_meta
from initdiag.tracing.replica import copied, replica

__all__ = ["plain_pass"]

_ROWS = 16
"""Rows that are run backwards."""

_TRIES = 4
"""Sets of weights under which a gradient has to be 0 to be so for ever: the present
ones, and three that lie as far from them as they are large. One tells of a gradient
that is cut; the others guard against units that happen to be dead.
"""


def plain_pass(subject: Subject, unused: tuple[str, ...] = ()) -> PlainPass:
    """Run a replica as it is, forwards on the whole example and backwards on some rows.

    ``unused`` are weights that the forward pass never reaches, which do not count. What
    takes no input that is tried shows nothing: `trace`, which runs first, says why. The
    caller preserves random state.
    """
    if is_meta(subject.module):
        return PlainPass()
    module = replica(subject.module, copied)
    for x in inputs_to_try(module, subject.example, subject.size):
        try:
            with torch.no_grad():
                out = module(copied(x))
        except Exception:
            continue
        if isinstance(out, Tensor) and out.is_floating_point():
            return _seen(subject, x, out, unused)
        break
    return PlainPass()


def _seen(subject: Subject, x: Tensor, out: Tensor, unused: tuple[str, ...]) -> PlainPass:
    rows = out.reshape(len(out) if out.dim() else 1, -1)
    broken = ~torch.isfinite(rows)
    idle = _without_gradient(replica(subject.module, copied), x[:_ROWS], unused)
    return PlainPass(
        idle,
        int(broken.any(1).sum()),
        len(rows),
        is_masked=bool(torch.isneginf(rows[broken]).all()),
    )


def _without_gradient(module: nn.Module, x: Tensor, unused: tuple[str, ...]) -> tuple[str, ...]:
    """Return the weights whose gradient is missing, or exactly 0 under every set of
    weights that lets the input have one.
    """
    weights = {
        name: weight
        for name, weight in module.named_parameters()
        if weight.requires_grad
        and weight.dim() > 1
        and name not in unused
        and not _is_replaced(module, name)
    }
    generator = torch.Generator("cpu").manual_seed(0)
    idle: set[str] | None = None
    for number in range(_TRIES):
        if number:
            _move(module, generator)
        found = _gradients(module, x, weights)
        if found is None:
            break
        is_passed, gradients = found
        missing = {name for name, gradient in gradients.items() if gradient is None}
        if missing and len(missing) >= len(weights) - 1:
            return tuple(name for name in weights if name in missing)
        zero = {n for n, g in gradients.items() if g is None or not bool(g.any())}
        if len(zero) < len(weights) - 1 or not zero:
            return ()
        if is_passed:
            idle = zero if idle is None else idle & zero
    found_idle = idle or set()
    is_cut = bool(found_idle) and len(found_idle) >= len(weights) - 1
    return tuple(name for name in weights if name in found_idle) if is_cut else ()


def _is_replaced(module: nn.Module, name: str) -> bool:
    """Return whether a weight is that of the embedding whose place the rows take."""
    return isinstance(module, Adapter) and name.rpartition(".")[0] == module.entered


def _move(module: nn.Module, generator: torch.Generator) -> None:
    """Add normal numbers to the parameters, as large as they are themselves; where they
    are 0, of the size that keeps a layer's gain.
    """
    with torch.no_grad():
        for p in module.parameters():
            if p.is_floating_point() and p.numel():
                size = float(p.double().square().mean().sqrt())
                p.add_(normal(p, size or (p.numel() / len(p) if p.dim() else 1) ** -0.5, generator))


def _gradients(
    module: nn.Module, x: Tensor, weights: Mapping[str, Tensor]
) -> tuple[bool, dict[str, Tensor | None]] | None:
    """Return whether the input gets a gradient, and the weights' own; None where the
    module does not run, or nothing is differentiable.
    """
    seed_generators(0)
    leaf = copied(x).requires_grad_()
    try:
        with torch.enable_grad():
            out = module(leaf.clone())
            if not out.requires_grad:
                return False, dict.fromkeys(weights)
            cotangent = torch.linspace(1, 2, out.numel()).to(out).reshape(out.shape)
            of_input, *found = torch.autograd.grad(
                paired(out, cotangent), [leaf, *weights.values()], allow_unused=True
            )
    except Exception:
        return None
    is_passed = of_input is not None and bool(of_input.any())
    return is_passed, dict(zip(weights, found, strict=True))
