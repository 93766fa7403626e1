"""The ensembles' networks: which ones there are for a module, why not, and what is the same in all of them.

Every ensemble answers the same questions: ``of(draws)``, how these draws' networks apply their linear layers; ``notes()``, what was not varied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.gaussian import GaussianLayers
from initdiag.measuring.ensembles.redraw import Loaded, Redrawn, Source, reset_parameters, values_of
from initdiag.measuring.ensembles.signs import SignFlips
from initdiag.measuring.passes.interposer import Ensemble
from initdiag.measuring.passes.push_pull import Push
from initdiag.measuring.task import Task, log_norms, log_norms_in_batch
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.weights import INDEPENDENT_OF
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.trace import require_layers

__all__ = ["Laws", "Redraws", "Signs", "can_be_stacked", "mixes_rows", "refuse_mixed_rows", "sizes"]


_ALIKE = 1e-9
"""Logs that differ by less are the same but for rounding."""


class _Networks:
    def __init__(self, task: Task) -> None:
        self._task = task

    @functools.cached_property
    def sizes(self) -> tuple[int, int]:
        """``n_0`` and ``n_L``, as `sizes` finds them."""
        return sizes(self._task)


def _streams(layers: Sequence[Layer]) -> dict[str, int]:
    """Weight name -> the number of its stream of signs: a layer whose values are another's has that one's, where shapes are alike."""
    own = {
        layer.name: i for i, layer in enumerate({layer.name: layer for layer in layers}.values())
    }
    shapes = {layer.name: (layer.fan_in, layer.fan_out) for layer in layers}
    for layer in layers:
        for name in layer.weight.failed:
            earlier = name.removeprefix(INDEPENDENT_OF)
            if earlier != name and shapes.get(earlier) == shapes[layer.name]:
                own[layer.name] = own[earlier]
    return own


class Signs(_Networks):
    """Networks with random signs around the module's weights."""

    at_once = 256
    """Networks that may share one pass of many products."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        require_layers(task.arch)
        _require_symmetry(task.arch)
        layers = task.arch.layers
        self._order = _streams(layers)
        self._flipped = frozenset(
            layer.name for layer in layers if layer.bias is not None and layer.bias.symmetric
        )

    def of(self, draws: range) -> SignFlips:
        """Return how these draws' networks apply their linear layers."""
        return SignFlips(self._task.seed, draws, self._order, self._flipped)

    def notes(self) -> tuple[str, ...]:
        """Return what was not varied."""
        return _not_varied(self._task)


class Laws(_Networks):
    """Networks whose linear layers are drawn from their Gaussian law."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        require_layers(task.arch)
        for layer in task.arch.layers:
            if layer.weight.failed or layer.weight.family == "haar":
                what = (
                    f"fail {' and '.join(layer.weight.failed)}"
                    if layer.weight.failed
                    else "are orthogonal"
                )
                raise UnsupportedArchitecture(
                    f"the weights of {layer.name!r} {what}: no Gaussian law stands for them. Use method='signs' or 'redraw'."
                )
        self._layers = {layer.name: layer for layer in task.arch.layers}

    def of(self, draws: range) -> GaussianLayers:
        """Return how these draws' networks apply their linear layers: once."""
        return GaussianLayers(self._task.seed, draws, self._layers)

    def notes(self) -> tuple[str, ...]:
        """Return what was taken for something else, or not varied."""
        others = sorted({layer.weight.family for layer in self._task.arch.layers} - {"normal"})
        taken = (
            f"{family} weights: taken for Gaussian ones of their variance" for family in others
        )
        return (*taken, *_not_varied(self._task))


class Redraws(_Networks):
    """Networks whose parameters are drawn afresh: by a factory, by ``init``, or by ``reset_parameters`` where the weights look like it."""

    at_once = 1

    def __init__(
        self, task: Task, factory: Callable[[], Any] | None, init: Callable[[nn.Module], Any] | None
    ) -> None:
        super().__init__(task)
        if factory is None and init is None:
            require_layers(task.arch)
            _require_default_weights(task.arch)
            init = reset_parameters
        self._source = Source(
            task.original, {layer.name for layer in task.arch.layers}, factory, init
        )

    def of(self, draws: range) -> Ensemble:
        """Load the network of the one draw in ``draws``, and return how it applies its linear layers: as it is."""
        (draw,) = draws
        own = values_of(self._task.module)
        with torch.no_grad():
            for name, value in self._source.draws(
                [random_numbers.draw_seed(self._task.seed, draw)]
            ).items():
                own[name].copy_(value[0])
        return Loaded()

    def stacked(self, draws: range, rows: int = 1) -> Redrawn:
        """Return how these draws' networks apply their linear layers, so many rows each; the replica is loaded with the first one's parameters."""
        drawn, own = (
            Redrawn(self._source, draws, self._task.seed, self._task.dtype, rows),
            values_of(self._task.module),
        )
        with torch.no_grad():
            for name, stack in drawn.stacks.items():
                own[name].copy_(stack[0])
        return drawn

    def notes(self) -> tuple[str, ...]:
        """Return what was not drawn afresh."""
        return (f"not drawn afresh: {', '.join(self._source.left)}",) if self._source.left else ()


def sizes(task: Task) -> tuple[int, int]:
    """Return ``n_0`` and ``n_L``, the entries of one row of input and output, as one pass of the replica shows them."""
    one = range(1)
    x = task.inputs(one)
    return task.rows[0].numel(), Push(task, Loaded(), one, x, torch.zeros_like(x)).output_size


def mixes_rows(task: Task, ensemble: Ensemble) -> bool:
    """Return whether the rows of a batch are mixed (BatchNorm in train mode): a tangent in row 0 of four reaches the others."""
    chunk = range(4)
    u = torch.zeros_like(task.inputs(chunk))
    u[0] = 1.0
    norms, _ = log_norms(task, ensemble, chunk, u)
    return bool(torch.isfinite(norms[1:]).any())  # an overflow (0 times infinity) tells nothing


def can_be_stacked(task: Task, networks: Redraws, mixes: bool) -> bool:
    """Return whether the first draws' networks give the same side by side as one by one; ``mixes``: on whole batches."""
    two = range(2)
    run = log_norms_in_batch if mixes else log_norms
    drawn = networks.stacked(two, len(task.rows) if mixes else 1)
    try:
        together, logs = run(task, drawn, two)
    except (
        UnsupportedArchitecture
    ):  # it may be what the module does with rows of other networks beside its own
        return False
    apart = [run(task, networks.of(range(draw, draw + 1)), range(draw, draw + 1)) for draw in two]
    columns = zip(
        *([norms, *(layer.tangent for layer in logs)] for norms, logs in apart), strict=True
    )
    pairs = zip([together, *(layer.tangent for layer in logs)], columns, strict=True)
    return not drawn.unused and all(
        torch.allclose(a, torch.cat(b), rtol=0, atol=_ALIKE, equal_nan=True) for a, b in pairs
    )


def refuse_mixed_rows(task: Task, ensemble: Ensemble) -> None:
    """Raise where rows cannot be separate networks; ``ensemble`` is one of four draws.

    Raises
    ------
    UnsupportedArchitecture
        If the rows of a batch are mixed.
    """
    if not task.is_chain and mixes_rows(task, ensemble):
        raise UnsupportedArchitecture(
            "the rows of a batch are mixed (BatchNorm in train mode?), so that they cannot be separate networks. "
            "Put those layers in eval mode, or measure by method='redraw'."
        )


def _require_symmetry(arch: Architecture) -> None:
    for layer in arch.layers:
        failed = [name for name in layer.weight.failed if name in ("zero mean", "symmetry")]
        if failed:
            raise UnsupportedArchitecture(
                f"the weights of {layer.name!r} fail {' and '.join(failed)}, so that flipping signs changes their law. "
                "Use method='redraw' with an init or a factory."
            )


def _require_default_weights(arch: Architecture) -> None:
    other = next(
        (layer for layer in arch.layers if layer.weight.initializer != "torch_default"), None
    )
    if other is not None:
        raise UnsupportedArchitecture(
            f"the weights of {other.name!r} were not drawn by reset_parameters, so that it is not known how to draw them afresh. "
            "Pass init=, as model.apply takes it, or a factory in place of the model."
        )


def _not_varied(task: Task) -> tuple[str, ...]:
    """The matrices and kernels that go into no layer: an ensemble of layers leaves them as they are."""
    matrices = [name for name, p in task.module.named_parameters() if p.dim() > 1]
    left = [
        name
        for name in matrices
        if not any(goes_into(name, layer.name) for layer in task.arch.layers)
    ]
    return (f"left as they are, not varied: {', '.join(left)}",) if left else ()
