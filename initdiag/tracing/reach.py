"""Which weights the output depends on, as far as the autograd graph tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.tracing.inputs import Subject, inputs_to_try, is_meta
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.structures import tensors_in

__all__ = ["weights_without_gradient"]


def weights_without_gradient(subject: Subject, unused: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the weights without a gradient, if they are all, or all but one.

    Otherwise nothing is returned. Weights are trainable parameters of two dimensions or
    more; ``unused`` ones, which the forward pass never reaches, do not count. A single
    weight that learns in front of others that do not is a head on a body that is
    detached. The caller preserves random state.
    """
    if is_meta(subject.module):
        return ()
    module = replica(subject.module, copied)
    weights = {
        name: weight
        for name, weight in module.named_parameters()
        if weight.requires_grad and weight.dim() > 1 and name not in unused
    }
    outputs = _outputs(module, subject)
    if outputs is None:
        return ()
    reached = _leaves(outputs)
    idle = tuple(name for name, weight in weights.items() if id(weight) not in reached)
    return idle if idle and len(idle) >= len(weights) - 1 else ()


def _outputs(module: nn.Module, subject: Subject) -> list[Tensor] | None:
    """Return the tensors of a forward pass; None if it takes no input that is tried.

    Why it takes none is for `trace` to say, which runs first.
    """
    for x in inputs_to_try(module, subject.example, subject.size):
        try:
            with torch.enable_grad():
                return list(tensors_in(module(copied(x))))
        except Exception:
            continue
    return None


def _leaves(outputs: Iterable[Tensor]) -> set[int]:
    """Return the identities of the leaves that the outputs depend on."""
    found = {id(out) for out in outputs}
    waiting: list[Any] = [out.grad_fn for out in outputs if out.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        found.add(id(getattr(node, "variable", None)))
        onward = {following for following, _ in node.next_functions if following is not None}
        waiting.extend(onward - seen)
        seen |= onward
    return found
