"""The networks that a spectrum is measured on: one draw of an ensemble at a time, or several in the rows of one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring import random_numbers
from initdiag.measuring.interposer import Ensemble
from initdiag.measuring.jacobian import Pass
from initdiag.measuring.redraw import Loaded, Source, reset_parameters, values_of
from initdiag.measuring.runner import _mixed_rows, _mixes_rows, _not_varied, _require_default_weights, _why_not_signs
from initdiag.measuring.signs import SignFlips
from initdiag.measuring.task import Task

__all__ = ["Redraws", "Signs", "sizes"]


def sizes(task: Task) -> tuple[int, int]:
    """Return ``n_0`` and ``n_L``, the entries of one row of input and output, as one pass of the replica shows them."""
    one = range(1)
    return task.rows[0].numel(), Pass(task, Loaded(), one, task.inputs(one), None, with_graph=False).output_size


class Signs:
    """Networks with random signs around the module's weights."""

    at_once = 256
    """Networks that may share one pass, a row each."""

    def __init__(self, task: Task) -> None:
        reason = _why_not_signs(task.arch)
        if reason is not None:
            raise UnsupportedArchitecture(f"{reason}. Use method='redraw' with an init or a factory.")
        layers = task.arch.layers
        self._task = task
        self._order = {name: i for i, name in enumerate(dict.fromkeys(layer.name for layer in layers))}
        self._flipped = frozenset(layer.name for layer in layers if layer.bias is not None and layer.bias.symmetric)
        _refuse_mixed_rows(task, self.of(range(4)))
        self.sizes = sizes(task)

    def of(self, draws: range) -> Ensemble:
        """Return how these draws' networks apply their linear layers."""
        return SignFlips(self._task.seed, draws, self._order, self._flipped)

    def notes(self) -> tuple[str, ...]:
        """Return what was not varied."""
        left = _not_varied(self._task)
        return (f"left as they are, not varied: {', '.join(left)}",) if left else ()


class Redraws:
    """Networks whose parameters are drawn afresh, and loaded into the replica one after the other."""

    at_once = 1

    def __init__(self, task: Task, factory: Callable[[], Any] | None, init: Callable[[nn.Module], Any] | None) -> None:
        if factory is None and init is None:
            _require_default_weights(task.arch)
            init = reset_parameters
        self._task = task
        self._source = Source(task.original, {layer.name for layer in task.arch.layers}, factory, init)
        _refuse_mixed_rows(task, Loaded())
        self.sizes = sizes(task)

    def of(self, draws: range) -> Ensemble:
        """Load the network of the one draw in ``draws``, and return how it applies its linear layers: as it is."""
        (draw,) = draws
        own = values_of(self._task.module)
        with torch.no_grad():
            for name, value in self._source.draw(random_numbers.draw_seed(self._task.seed, draw)).items():
                own[name].copy_(value)
        return Loaded()

    def notes(self) -> tuple[str, ...]:
        """Return what was not drawn afresh."""
        return (f"not drawn afresh: {', '.join(self._source.left)}",) if self._source.left else ()


def _refuse_mixed_rows(task: Task, ensemble: Ensemble) -> None:
    if not task.is_chain and _mixes_rows(task, ensemble):
        raise _mixed_rows()
