"""What of the process a forward pass may change: settings, and the random generators
that belong to no object.
"""

from __future__ import annotations

import decimal
import os
import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["as_it_is", "comparable", "random_states", "seed", "set_random_states"]


def as_it_is() -> Callable[[], None]:
    """Remember the settings, and return the function that puts them back."""
    settings = [(read(), read, write) for read, write in _SETTINGS]

    def put_back() -> None:
        for was, read, write in settings:
            if read() != was:
                write(was)

    return put_back


def _set_cudnn(was: tuple[bool, bool]) -> None:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = was


def _set_environment(was: dict[str, str]) -> None:
    for name in os.environ.keys() - was.keys():
        del os.environ[name]
    os.environ.update(was)


def _set_filters(was: list[Any]) -> None:
    module: Any = warnings
    module.filters[:] = was
    # what Python's own functions call after a change, by its names of two versions
    names = ("_filters_mutated", "_filters_mutated_lock_held")
    next(getattr(module, name) for name in names if hasattr(module, name))()


def _decimals() -> dict[str, Any]:
    context: Any = decimal.getcontext()
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    both = {name: dict(getattr(context, name)) for name in ("flags", "traps")}
    return both | {name: getattr(context, name) for name in names}


def _set_decimals(was: dict[str, Any]) -> None:
    for name, value in was.items():
        setattr(decimal.getcontext(), name, value)


def _of_all_modules() -> list[dict[Any, Any]]:
    """The tables of hooks that run with every module of the process."""
    tables = vars(nn.modules.module).items()
    return [
        table for name, table in tables if name.startswith("_global") and type(table) in _TABLES
    ]


def _set_hooks(was: list[list[tuple[Any, Any]]]) -> None:
    for table, items in zip(_of_all_modules(), was, strict=True):
        table.clear()
        table.update(items)


_TABLES = (dict, OrderedDict)

_PRINTED: Any = torch._tensor_str.PRINT_OPTS
"""How torch prints tensors."""

_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda was: torch.set_anomaly_enabled(*was),
    ),
    (lambda: (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark), _set_cudnn),
    (lambda: dict(vars(_PRINTED)), lambda was: vars(_PRINTED).update(was)),
    (lambda: [list(hooks.items()) for hooks in _of_all_modules()], _set_hooks),
    (np.geterr, lambda was: np.seterr(**was)),
    (np.get_printoptions, lambda was: np.set_printoptions(**was)),
    (_decimals, _set_decimals),
    (lambda: list(sys.path), lambda was: sys.path.__setitem__(slice(None), was)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (os.getcwd, os.chdir),
    (lambda: dict(os.environ), _set_environment),
    (lambda: list(warnings.filters), _set_filters),
)
"""How each setting is read and set."""


def random_states() -> tuple[Any, ...]:
    """Return the states of torch's, NumPy's and Python's own generators.

    CUDA is left alone before it is initialised, so that a seed that the user has queued
    for it stays queued.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda


def set_random_states(states: tuple[Any, ...]) -> None:
    """Set the states that `random_states` has returned."""
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])


def comparable(states: tuple[Any, ...]) -> tuple[object, ...]:
    """Return states that can be compared by ``==``; torch's comes first."""
    of_torch, (kind, keys, *rest), of_python, cuda = states
    tensors = [of_torch, *(cuda or [])]
    return (
        *(state.cpu().numpy().tobytes() for state in tensors),
        kind, np.asarray(keys).tobytes(), tuple(rest), of_python,
    )  # fmt: skip


def seed(number: int) -> None:
    """Seed every one of these generators."""
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    np.random.seed(number % 2**32)
    random.seed(number)
