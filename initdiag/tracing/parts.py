"""A part of a model, and what the whole model's forward pass hands to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from initdiag.errors import InvalidInput, explain
from initdiag.tracing.adapter import Call
from initdiag.tracing.adapting import first_that_runs
from initdiag.tracing.replica import as_module, copied, replica
from initdiag.tracing.structures import mapped

__all__ = ["part_of", "received"]


def part_of(module: nn.Module, path: str) -> nn.Module:
    """Return the part of a module at ``path``.

    Raises
    ------
    InvalidInput
        If there is none.
    """
    try:
        return as_module(module.get_submodule(path))
    except AttributeError as error:
        names = [name for name, _ in module.named_children()]
        raise InvalidInput(
            explain(
                expected="module: the path of a submodule",
                got=repr(path),
                do=f"The first ones are {names}.",
            )
        ) from error


def received(module: nn.Module, path: str, calls: Sequence[Call]) -> Call:
    """Return how the whole model's forward pass calls the part, the first time.

    Raises
    ------
    InvalidInput
        If the model takes none of the calls, or does not call the part.
    """
    part_of(module, path)
    call, _ = first_that_runs(module, calls)
    whole = replica(module, copied)
    seen: list[Call] = []

    def note(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken = mapped((args, kwargs), lambda _, tensor: tensor.detach().clone())
        seen.append(Call(*taken))

    whole.get_submodule(path).register_forward_pre_hook(note, with_kwargs=True)
    args, kwargs = mapped((call.args, dict(call.kwargs)), lambda _, tensor: tensor.clone())
    with torch.no_grad():
        whole(*args, **kwargs)
    if not seen:
        raise InvalidInput(
            explain(
                expected=f"a forward pass that calls {path!r}",
                got="none that does",
                do="Choose a part that is called, or pass it alone with its own example_input.",
            )
        )
    times = (f"the part is called {len(seen)} times: judged on what it is given first",)
    return Call(seen[0].args, seen[0].kwargs, times if len(seen) > 1 else ())
