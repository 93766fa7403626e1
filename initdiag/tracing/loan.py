"""The user's module on loan: everything runs on a replica, so that the module itself is never touched.

A replica has its own module objects, containers and tensors (what `convert` made of each parameter and buffer) and shares
only what is immutable or foreign to torch. Nothing has to be put back, whatever raises or interrupts.
"""

from __future__ import annotations

import random
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, explain

__all__ = ["as_module", "copied", "own_modes", "replica", "rng_preserved"]

_ONE_AT_A_TIME = threading.RLock()


def as_module(model: Any) -> nn.Module:
    """Return the module that ``model`` is, unwrapped, or that the factory ``model`` returns.

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
    return _unwrapped(model)


def _call_factory(factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except Exception as error:
        raise InvalidInput(
            explain(
                expected="a factory that can be called without arguments",
                got=f"{type(error).__name__} from {_name(factory)}(): {error}",
                do="Wrap it: lambda: MyNet(width=64).",
            )
        ) from error


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__name__))


def _inner(module: nn.Module) -> str | None:
    """Name of the child that ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` wraps; None for another module."""
    if "_orig_mod" in module._modules:
        return "_orig_mod"
    return "module" if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


def _unwrapped(module: nn.Module) -> nn.Module:
    while (name := _inner(module)) is not None:
        module = module.get_submodule(name)
    return module


class _Unwrapped(nn.Module):
    """Stands in a replica for a wrapper inside the model: runs what it wraps, under the same names."""

    inner_name: str

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_submodule(self.inner_name)(*args, **kwargs)


@contextmanager
def rng_preserved() -> Iterator[None]:
    """Leave the random state of torch (every initialised device), NumPy and Python as it was.

    CUDA's state is not touched before CUDA is initialised, so that a seed the user has queued for it stays queued. One thread at a
    time: random states, compilation stance and forward-mode levels belong to the process.
    """
    with _ONE_AT_A_TIME:
        states = (torch.get_rng_state(), np.random.get_state(), random.getstate())
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        try:
            yield
        finally:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)


@contextmanager
def own_modes() -> Iterator[None]:
    """Run in ordinary autograd mode and uncompiled, whatever mode the caller is in."""
    is_compiling = "torch._dynamo" in sys.modules  # else nothing has been compiled yet, and the import is dear
    stance = torch.compiler.set_stance("force_eager") if is_compiling else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), stance:
        yield


def copied(tensor: Tensor) -> Tensor:
    """Return a copy without history, for `replica`."""
    return tensor.detach().clone()


def replica(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a structural copy of ``module`` whose parameters and buffers are ``convert`` of the original ones.

    Tied tensors stay tied. Per-module train flags are kept. Hooks run on the copy.
    """
    memo: dict[int, Any] = {}
    copy = _replicate(module, convert, memo)
    assert isinstance(copy, nn.Module)
    for original in list(module.modules()):
        _fill(original, memo[id(original)], convert, memo)
    return copy


def _replicate(value: Any, convert: Callable[[Tensor], Tensor], memo: dict[int, Any]) -> Any:
    """The replica of a module, tensor or plain container; anything else is shared."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Module):
        kind = type(value) if _inner(value) is None else _Unwrapped
        memo[id(value)] = kind.__new__(kind)
        for child in value.children():
            _replicate(child, convert, memo)
        return memo[id(value)]
    if isinstance(value, Tensor):
        tensor = convert(value)
        memo[id(value)] = _as_parameter(tensor, value) if isinstance(value, nn.Parameter) else tensor
        return memo[id(value)]
    if type(value) in (list, tuple, set):
        return type(value)(_replicate(v, convert, memo) for v in value)
    if type(value) in (dict, OrderedDict):
        items = {k: _replicate(v, convert, memo) for k, v in value.items()}
        return type(value)(items)
    if isinstance(value, types.MethodType) and id(value.__self__) in memo:
        return types.MethodType(value.__func__, memo[id(value.__self__)])
    return value


def _as_parameter(tensor: Tensor, original: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=original.requires_grad and tensor.is_floating_point())


def _fill(original: nn.Module, copy: nn.Module, convert: Callable[[Tensor], Tensor], memo: dict[int, Any]) -> None:
    state = dict(original.__dict__)
    inner = _inner(original)
    if inner is not None:
        state = {
            **nn.Module().__dict__,
            "_modules": original._modules,
            "training": original.training,
            "inner_name": inner,
        }
    state["_compiled_call_impl"] = None  # of module.compile(): it would run the original
    copy.__dict__.update({name: _replicate(value, convert, memo) for name, value in state.items()})
