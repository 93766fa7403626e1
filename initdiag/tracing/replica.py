"""The user's module on loan: everything runs on a replica, so that the module itself is
never touched.

A replica has its own module objects, containers and tensors (what `convert` made of
each parameter and buffer) and shares only what is immutable or foreign to torch.
Nothing has to be put back, whatever raises or interrupts.
"""

from __future__ import annotations

import random
import sys
import threading
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, explain

__all__ = ["as_module", "copied", "own_modes", "replica", "rng_preserved"]

_ONE_AT_A_TIME = threading.RLock()

_CONTAINERS: tuple[Any, ...] = (OrderedDict, defaultdict, dict, list)
"""Mutable containers, the more special first."""


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
    return _unwrapped(model)


def _call_factory(factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except Exception as error:
        wants_arguments = isinstance(error, TypeError) and "argument" in str(error)
        raise InvalidInput(
            explain(
                expected="a factory that can be called without arguments"
                if wants_arguments
                else "a factory that works",
                got=f"{type(error).__name__} from {_name(factory)}(): {error}",
                do="Wrap it: lambda: MyNet(width=64)."
                if wants_arguments
                else "Call it alone, and fix what it raises.",
            )
        ) from error


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__name__))


def _inner(module: nn.Module) -> str | None:
    """Name of the child that ``torch.compile``, ``DataParallel`` or
    ``DistributedDataParallel`` wraps; None for another module.
    """
    if "_orig_mod" in module._modules:
        return "_orig_mod"
    return (
        "module"
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
        else None
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    while (name := _inner(module)) is not None:
        module = module.get_submodule(name)
    return module


class _Unwrapped(nn.Module):
    """Stands in a replica for a wrapper inside the model: runs what it wraps, under the
    same names.
    """

    inner_name: str

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_submodule(self.inner_name)(*args, **kwargs)


@contextmanager
def rng_preserved() -> Iterator[None]:
    """Leave the random state of torch (every initialised device), NumPy and Python as
    it was.

    CUDA's state is not touched before CUDA is initialised, so that a seed the user has
    queued for it stays queued. One thread at a time: random states, compilation stance
    and forward-mode levels belong to the process.
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
    is_compiling = (
        "torch._dynamo" in sys.modules
    )  # else nothing has been compiled yet, and the import is dear
    stance = torch.compiler.set_stance("force_eager") if is_compiling else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), stance:
        yield


def copied(tensor: Tensor) -> Tensor:
    """Return a copy without history, for `replica`."""
    return tensor.detach().clone()


def replica(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a structural copy of ``module`` whose parameters and buffers are
    ``convert`` of the original ones.

    Tied tensors stay tied. Per-module train flags are kept. Hooks run on the copy.
    """
    replicas = _Replicas(convert)
    copy = replicas.of(module)
    assert isinstance(copy, nn.Module)
    # grows while it runs, by modules that are no submodules
    for original in replicas.modules:
        replicas.fill(original)
    return copy


class _Replicas:
    """What was made of each object that has been met."""

    def __init__(self, convert: Callable[[Tensor], Tensor]) -> None:
        self._convert = convert
        self._memo: dict[int, Any] = {}
        self.modules: list[nn.Module] = []

    def of(self, value: Any) -> Any:
        """Return the replica of a module, tensor, container or plain object with
        tensors; anything else is shared.
        """
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Tensor):
            tensor = self._convert(value)
            return self._kept(
                value, _as_parameter(tensor, value) if isinstance(value, nn.Parameter) else tensor
            )
        if isinstance(value, tuple | set | deque):
            return self._collection(value)
        if isinstance(value, list | dict):
            return self._container(value)
        if isinstance(value, types.MethodType) and id(value.__self__) in self._memo:
            return types.MethodType(value.__func__, self._memo[id(value.__self__)])
        return self._plain_object(value) if _is_plain_with_tensors(value) else value

    def _kept(self, value: Any, new: Any) -> Any:
        self._memo[id(value)] = new
        return new

    def _module(self, value: nn.Module) -> nn.Module:
        kind = type(value) if _inner(value) is None else _Unwrapped
        new: nn.Module = self._kept(value, kind.__new__(kind))
        self.modules.append(value)
        for child in value.children():
            self.of(child)
        return new

    def _collection(self, value: Any) -> Any:
        """Of a set, a deque or a tuple, named or not; one of the user's own kind is
        shared where nothing in it changes.
        """
        items = [self.of(v) for v in value]
        if type(value) in (tuple, set):
            return type(value)(items)
        if type(value) is deque:
            return deque(items, value.maxlen)
        changes = any(new is not old for new, old in zip(items, value, strict=True))
        return tuple.__new__(type(value), items) if changes and isinstance(value, tuple) else value

    def _container(self, value: Any) -> Any:
        """Of a list or a dict of any kind that is made as its base is."""
        kind: Any = type(value)
        base = next(one for one in _CONTAINERS if isinstance(value, one))
        if kind.__new__ is not base.__new__:
            return value
        new = self._kept(value, base.__new__(kind))
        if isinstance(value, defaultdict):
            new.default_factory = value.default_factory
        if isinstance(value, list):
            list.extend(new, [self.of(v) for v in value])
        else:
            for key, item in base.items(value):
                base.__setitem__(new, key, self.of(item))
        for name, item in getattr(value, "__dict__", {}).items():
            new.__dict__[name] = self.of(item)
        return new

    def _plain_object(self, value: Any) -> Any:
        """Its tensors are replicated; the rest of what it holds, unless met elsewhere,
        is foreign and shared.
        """
        new = self._kept(value, object.__new__(type(value)))
        for name, item in vars(value).items():
            is_ours = id(item) in self._memo or any(True for _ in _tensors_in(item))
            new.__dict__[name] = self.of(item) if is_ours else item
        return new

    def fill(self, original: nn.Module) -> None:
        """Give a module's replica the state of the original."""
        state = dict(original.__dict__)
        inner = _inner(original)
        if inner is not None:
            state = {
                **nn.Module().__dict__,
                "_modules": original._modules,
                "training": original.training,
                "inner_name": inner,
            }
        # of module.compile(): it would run the original
        state["_compiled_call_impl"] = None
        self.of(original).__dict__.update({name: self.of(value) for name, value in state.items()})


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a value and in the containers it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | set | deque | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(item)


def _is_plain_with_tensors(value: Any) -> bool:
    """Whether it is an object of attributes alone, made and copied as python does by
    default, and some of them tensors.
    """
    kind = type(value)
    special = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__")
    is_plain = "__dict__" in dir(kind) and all(
        getattr(kind, name) is getattr(object, name) for name in special
    )
    if not is_plain or any(getattr(base, "__slots__", ()) for base in kind.__mro__):
        return False
    return any(True for item in vars(value).values() for _ in _tensors_in(item))


def _as_parameter(tensor: Tensor, original: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=original.requires_grad and tensor.is_floating_point())
