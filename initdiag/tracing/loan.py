"""The user's module on loan: everything runs on a replica, so that the module itself is never touched.

A replica has its own module objects, containers and tensors (what `convert` made of each parameter and buffer) and shares
only what is immutable or foreign to torch. Nothing has to be put back, whatever raises or interrupts.
"""

from __future__ import annotations

import random
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``."""
    while True:
        inner = module._modules.get("_orig_mod")
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner


@contextmanager
def rng_preserved() -> Iterator[None]:
    """Leave the random state of torch (every initialised device), NumPy and Python as it was.

    CUDA's state is not touched before CUDA is initialised, so that a seed the user has queued for it stays queued. These states
    and torch's forward-mode levels belong to the process: one thread at a time.
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
    """Run in ordinary autograd mode, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.enable_grad():
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
        memo[id(value)] = type(value).__new__(type(value))
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
    copy.__dict__.update({name: _replicate(value, convert, memo) for name, value in original.__dict__.items()})
