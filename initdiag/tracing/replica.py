"""The user's module on loan: everything runs on a replica, so that the module itself is
never touched.

A replica has its own module objects, tensors (what `convert` made of each parameter and
buffer), and all else that they lead to (`initdiag.tracing.copies`). What it shares with
the user, such as classes, is put back by `initdiag.tracing.guard`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, explain, text_of
from initdiag.tracing import guard
from initdiag.tracing.copies import Copies
from initdiag.tracing.wrappers import inner_of

__all__ = ["as_module", "call_depth", "copied", "own_modes", "replica"]


def as_module(model: Any) -> nn.Module:
    """Return the module that ``model`` is, unwrapped, or that the factory ``model``
    returns.

    Raises
    ------
    InvalidInput
        If it is neither a module nor a factory of one.
    """
    if not isinstance(model, nn.Module) and callable(model):
        built = _call_factory(model)
        if not isinstance(built, nn.Module):
            raise InvalidInput(
                explain(
                    expected="a factory that returns a torch.nn.Module",
                    got=f"{_name(model)}() -> {type(built).__name__}",
                    do="Return the module itself.",
                )
            )
        model = built
    if not isinstance(model, nn.Module):
        raise InvalidInput(
            explain(
                expected="a torch.nn.Module, or a function without arguments that returns one",
                got=repr(type(model).__name__),
                do="Pass the module that you are about to train.",
            )
        )
    guard.look_at(model)
    return _unwrapped(model)


def _call_factory(factory: Callable[[], Any]) -> Any:
    guard.draws_at_random()
    try:
        return factory()
    except Exception as error:
        wants_arguments = isinstance(error, TypeError) and "argument" in text_of(error)
        raise InvalidInput(
            explain(
                expected="a factory that can be called without arguments"
                if wants_arguments
                else "a factory that works",
                got=f"{type(error).__name__} from {_name(factory)}(): {text_of(error)}",
                do="Wrap it: lambda: MyNet(width=64)."
                if wants_arguments
                else "Call it alone, and fix what it raises.",
            )
        ) from error


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__name__))


def _unwrapped(module: nn.Module) -> nn.Module:
    while (name := inner_of(module)) is not None:
        module = module.get_submodule(name)
    return module


@contextmanager
def own_modes() -> Iterator[None]:
    """Run in ordinary autograd mode and uncompiled, whatever mode the caller is in."""
    is_compiling = (
        "torch._dynamo" in sys.modules
    )  # else nothing has been compiled yet, and the import is dear
    stance = torch.compiler.set_stance("force_eager") if is_compiling else nullcontext()
    depth = _DEPTH.set(call_depth() + 1)
    try:
        with torch.inference_mode(False), torch.enable_grad(), stance:
            yield
    finally:
        _DEPTH.reset(depth)


_DEPTH: ContextVar[int] = ContextVar(
    "initdiag's calls, one within another's forward pass", default=0
)


def call_depth() -> int:
    """Return how many calls run one within the forward pass of another."""
    return _DEPTH.get()


def copied(tensor: Tensor) -> Tensor:
    """Return a copy without history, for `replica`."""
    return tensor.detach().clone()


def replica(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a copy of ``module``, with all that it leads to, whose tensors are
    ``convert`` of the original ones.

    Tied tensors stay tied. Per-module train flags are kept. Hooks run on the copy.
    """
    copies = Copies(convert)
    copy = copies.of(module)
    assert isinstance(copy, nn.Module)
    if copies.held:
        copy.__dict__["_initdiag_held"] = copies.held
    return copy
