"""The tensors that a forward pass is given, by their names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, explain
from initdiag.tracing.adapter import Call
from initdiag.tracing.structures import Path

__all__ = ["Named", "Perturbed", "is_integer", "meant", "named_tensors", "said_of"]

Perturbed = int | str | None
"""Which argument is perturbed: its name, or its position; by default all that float."""


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor of a call: its place among the call's tensors, its path, its name."""

    place: int
    path: Path
    name: str
    tensor: Tensor


def named_tensors(module: nn.Module, call: Call) -> list[Named]:
    """Return a call's tensors by names: the argument's, then keys and indices."""
    try:
        names = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        names = []
    found = []
    for place, (path, tensor) in enumerate(call.tensors()):
        kind, key, *rest = path
        is_known = kind == 0 and isinstance(key, int) and key < len(names)
        name = ".".join(map(str, [names[int(key)] if is_known else key, *rest]))
        found.append(Named(place, path, name, tensor))
    return found


def meant(named: Sequence[Named], perturbed: Perturbed) -> list[Named]:
    """Return the tensors that ``input=`` names; all of them if it is not given.

    Raises
    ------
    InvalidInput
        If it names none.
    """
    if perturbed is None:
        return list(named)
    found = [one for one in named if _is_meant(one, perturbed)]
    if not found:
        names = ", ".join(dict.fromkeys(one.name for one in named))
        raise InvalidInput(
            explain(
                expected=f"input: the name or the position of an argument, of {names}",
                got=repr(perturbed),
                do="Name one of these.",
            )
        )
    return found


def _is_meant(one: Named, perturbed: int | str) -> bool:
    if isinstance(perturbed, int):
        return one.path[:2] == (0, perturbed)
    return perturbed in (one.name, one.name.partition(".")[0], str(one.path[-1]))


def said_of(live: Sequence[Named], named: Sequence[Named]) -> tuple[str, ...]:
    """Return what is perturbed and what is not, in words."""
    together = " together" if len(live) > 1 else ""
    others = [one.name for one in named if one not in live]
    kept = f"; kept as they are: {', '.join(others)}" if others else ""
    return (f"perturbed: {', '.join(one.name for one in live)}{together}{kept}",)


def is_integer(tensor: Tensor) -> bool:
    """Return whether its numbers may be tokens."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
