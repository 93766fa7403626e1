"""The ensembles' networks: which ones there are for a module, why not, and what is the
same in all of them.

Every ensemble answers the same questions: ``of(draws)``, how these draws' networks
apply their linear layers; ``notes()``, what was not varied.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.gaussian import GaussianLayers
from initdiag.measuring.ensembles.redraw import Loaded, Redrawn, Source
from initdiag.measuring.ensembles.resetting import is_law_of, own_source
from initdiag.measuring.ensembles.signs import SignFlips
from initdiag.measuring.passes.interposer import Ensemble, LinearUse
from initdiag.measuring.passes.log_norms import log_norms, log_norms_in_batch
from initdiag.measuring.passes.push_pull import Push
from initdiag.measuring.task import Task
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.weights import (
    DISTINCT_UNITS,
    EQUAL_NORMS,
    INDEPENDENT_OF,
    NOT_REARRANGED,
    UNCONSTRAINED,
    UNLIKE,
)
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.trace import require_layers

__all__ = ["Laws", "Redraws", "Signs", "can_be_stacked", "mixes_rows", "refuse_mixed_rows", "sizes"]


_ALIKE = 1e-6
"""Logs in double precision that differ by less are the same but for rounding."""

_COMPARED = 16
"""Draws that are run one by one as well: a branch that half of all weights take shows
in all but one run of 2^15.
"""


_CHANGED_BY_SIGNS = (
    "zero mean", "symmetry", f"rows{NOT_REARRANGED}", f"columns{NOT_REARRANGED}", UNLIKE,
    DISTINCT_UNITS, UNCONSTRAINED,
)  # fmt: skip
"""How the hypotheses begin without which random signs make other weights."""


_ABOUT_SIZES = frozenset(
    (
        "equal variances", "finite fourth moment", "row norms at random", "column norms at random",
        EQUAL_NORMS,
    )
)  # fmt: skip
"""Hypotheses without which the sizes of weights, which signs keep, are part of their
law: what the draws show is given these sizes.
"""


class _Networks:
    log_mean_error = 0.0
    """What the mean of the log-norms may be off by, however many draws there are."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @functools.cached_property
    def sizes(self) -> tuple[int, int]:
        """``n_0`` and ``n_L``, as `sizes` finds them."""
        return sizes(self._task)

    def notes(self) -> tuple[str, ...]:
        """Return what was taken for something else, or not varied."""
        return ()

    def _given(self, fixed: tuple[str, ...]) -> tuple[str, ...]:
        return (f"given the present {', '.join(fixed)}: not varied",) if fixed else ()


def _streams(layers: Sequence[Layer]) -> dict[str, int]:
    """Return the number of each weight's stream of signs. A layer whose values are
    another's takes that one's stream, if their shapes are alike.
    """
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
        _require_symmetry(task)
        layers = task.arch.layers
        self._order = _streams(layers)
        self._flipped = frozenset(
            layer.name for layer in layers if layer.bias is not None and layer.bias.symmetric
        )

    def of(self, draws: range) -> SignFlips:
        """Return how these draws' networks apply their linear layers."""
        return SignFlips(self._task.seed, draws, self._order, self._flipped)

    def loaded(self, draw: int) -> Loaded:
        """Return the network of one draw with its signs in the parameters
        themselves.
        """
        flips = self.of(range(draw, draw + 1))
        values = dict(self._task.module.named_parameters())
        buffers = dict(self._task.module.named_buffers())
        found: dict[str, Tensor] = {}
        for layer in {layer.name: layer for layer in self._task.arch.layers}.values():
            sources = [name for name in values if goes_into(name, layer.name)]
            flipped: dict[str, Tensor] = {}
            for name in sources:
                value = found.get(name, values[name])
                flipped |= _flipped(name, value, layer, flips, buffers)
            if not flipped:
                raise UnsupportedArchitecture(
                    f"{layer.name!r} is computed from {', '.join(sources)}, into which random "
                    "signs cannot be put. Use method='redraw' with an init or a factory."
                )
            found |= flipped
        return Loaded(found | self._flipped_biases(flips))

    def _flipped_biases(self, flips: SignFlips) -> dict[str, Tensor]:
        """Return the biases as one draw has them: a shared one is flipped with its
        first layer.
        """
        found: dict[str, Tensor] = {}
        for use, name, bias in self._biases:
            if name not in found:
                found[name] = flips.bias(use, name, bias).reshape(bias.shape)
        return found

    @functools.cached_property
    def _biases(self) -> list[tuple[LinearUse, str, Tensor]]:
        """Which bias follows which linear call, as one pass of the module shows."""
        tape = _Biases()
        once = dataclasses.replace(self._task, is_chain=False, is_repeatable=False)
        log_norms(once, tape, range(1))
        return tape.seen

    @functools.cached_property
    def fixed(self) -> tuple[str, ...]:
        """Names of what random signs leave as it is although it was drawn."""
        flipped = {name for use, name, _ in self._biases if use.name in self._flipped}
        uneven = {
            layer.name: None
            for layer in self._task.arch.layers
            if not _ABOUT_SIZES.isdisjoint(layer.weight.failed)
        }
        return (*uneven, *_not_varied(self._task, flipped))

    def notes(self) -> tuple[str, ...]:
        """Return what was not varied."""
        return self._given(self.fixed)


@dataclasses.dataclass(frozen=True, slots=True)
class _Biases(Loaded):
    """The module as it is, which keeps the biases that it was asked for."""

    seen: list[tuple[LinearUse, str, Tensor]] = dataclasses.field(default_factory=list)

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        if use is not None and name:
            self.seen.append((use, name, bias))
        return bias


def _singular_vectors(name: str, buffers: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Return the vectors ``u`` and ``v`` that torch's spectral norms keep of a matrix.

    They turn with its rows and columns: left as they are, they would be those of
    another matrix, whose norm they underestimate.
    """
    old, new = name.removesuffix("_orig"), name.removesuffix("original")
    return [
        (key, vector)
        for key, vector in buffers.items()
        if (old != name and key in (f"{old}_u", f"{old}_v"))
        or (new != name and key.startswith(new) and key.endswith(("._u", "._v")))
    ]


def _flipped(
    name: str,
    parameter: Tensor,
    layer: Layer,
    flips: SignFlips,
    buffers: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the parameter with the layer's signs in the first draw, if it is its
    matrix or a stack with it, and what turns with it.
    """
    index = layer.name.partition("[")[2].rstrip("]")
    is_stack = parameter.dim() == 3 and index.isdecimal()
    matrix = parameter[int(index)] if is_stack else parameter
    if set(matrix.shape) != {layer.fan_in, layer.fan_out} or matrix.dim() != 2:
        return {}
    is_transposed = matrix.shape != (layer.fan_out, layer.fan_in)
    use = LinearUse(layer.name, matrix.T if is_transposed else matrix, is_transposed)
    s, r = (signs[0] for signs in flips.signs(use, matrix.dtype))
    rows, columns = (s, r) if is_transposed else (r, s)
    flipped = matrix * (rows[:, None] * columns)
    if not is_stack:
        vectors = {"u": rows, "v": columns}
        turned = {
            key: vector * vectors[key[-1]] for key, vector in _singular_vectors(name, buffers)
        }
        return {name: flipped, **turned}
    whole = parameter.clone()
    whole[int(index)] = flipped
    return {name: whole}


class Laws(_Networks):
    """Networks whose linear layers are drawn from their Gaussian law."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        require_layers(task.arch)
        if task.derivative == "reverse":
            raise UnsupportedArchitecture(
                "the module has a backward pass of its own (a gradient hook or a custom function), "
                "which a simulated forward pass does not see. Use method='signs' or 'redraw'."
            )
        if task.changes == "weights":
            raise UnsupportedArchitecture(
                "the forward pass changes the weights, which their laws do not show. "
                "Use method='signs' or 'redraw'."
            )
        for layer in task.arch.layers:
            if layer.weight.failed or layer.weight.family == "haar":
                what = (
                    f"fail {' and '.join(layer.weight.failed)}"
                    if layer.weight.failed
                    else "are orthogonal"
                )
                raise UnsupportedArchitecture(
                    f"the weights of {layer.name!r} {what}: no Gaussian law stands for them. Use "
                    "method='signs' or 'redraw'."
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
        return (*taken, *self._given(self.fixed))

    @functools.cached_property
    def fixed(self) -> tuple[str, ...]:
        """Names of what the layers' laws leave as it is although it was drawn."""
        biases = {n for n, p in self._task.module.named_parameters() if p.dim() == 1}
        return _not_varied(self._task, biases)


class Redraws(_Networks):
    """Networks whose parameters are drawn afresh: by a factory, by ``init``, or by what
    drew them (`initdiag.measuring.ensembles.resetting`).
    """

    at_once = 1

    def __init__(
        self,
        task: Task,
        source: Source,
        log_mean_error: float = 0.0,
        shuffled: tuple[str, ...] = (),
    ) -> None:
        super().__init__(task)
        self.source, self.log_mean_error, self._shuffled = source, log_mean_error, shuffled

    @classmethod
    def of_task(
        cls, task: Task, factory: Callable[[], Any] | None, init: Callable[[nn.Module], Any] | None
    ) -> Redraws:
        """Return the redraws by a factory, by ``init``, or by the module's own
        initialisers.
        """
        weights = {layer.name for layer in task.arch.layers}
        if factory is not None or init is not None:
            return cls(task, Source(task.original, weights, factory, init))
        require_layers(task.arch)
        return cls(task, *own_source(task.original, task.arch.layers))

    def of(self, draws: range) -> Loaded:
        """Return the network of the one draw in ``draws``."""
        (draw,) = draws
        drawn = self.source.draws([random_numbers.draw_seed(self._task.seed, draw)])
        return Loaded({name: stack[0].to(self._task.dtype) for name, stack in drawn.items()})

    def stacked(
        self, draws: range, rows: int = 1, room: dict[str, Tensor] | None = None
    ) -> Redrawn:
        """Return these draws' networks side by side, so many rows each, made in
        ``room``.
        """
        seeds = [random_numbers.draw_seed(self._task.seed, draw) for draw in draws]
        drawn = self.source.draws(seeds, room)
        return Redrawn({n: stack.to(self._task.dtype) for n, stack in drawn.items()}, rows)

    @functools.cached_property
    def fixed(self) -> tuple[str, ...]:
        """Names of what was not drawn afresh although it was drawn once."""
        same, written = {*self.source.left, *self.source.kept}, _written(self._task.original)
        return tuple(n for n, _ in self._task.module.named_parameters() if n in same - written)

    def notes(self) -> tuple[str, ...]:
        """Return what was not drawn afresh, or only put in another order."""
        names = ", ".join(self._shuffled)
        shuffled = (f"the entries of {names} were shuffled: no initialiser is known",)
        return (*(shuffled if names else ()), *self._given(self.fixed))


def sizes(task: Task) -> tuple[int, int]:
    """Return ``n_0`` and ``n_L``, the entries of one row of input and output, as one
    pass of the replica shows them.
    """
    one = range(1)
    x = task.inputs(one)
    return task.rows[0].numel(), Push(task, Loaded(), one, x, torch.zeros_like(x)).output_size


def mixes_rows(task: Task, ensemble: Ensemble) -> bool:
    """Return whether the rows of a batch are mixed (BatchNorm in train mode): a tangent
    in row 0 of four reaches the others.
    """
    chunk = range(4)
    u = torch.zeros_like(task.inputs(chunk))
    u[0] = 1.0
    norms, _ = log_norms(task, ensemble, chunk, u)
    # an overflow (0 times infinity) tells nothing
    return bool(torch.isfinite(norms[1:]).any())


def can_be_stacked(task: Task, networks: Redraws, mixes: bool, most: int) -> bool:
    """Return whether some draws' networks give the same side by side as one by one.

    ``mixes``: on whole batches; ``most``: how many fit the memory.
    """
    plain = dataclasses.replace(task.as_it_is(), is_random=task.is_random)
    draws = range(min(_COMPARED, max(2, most)))
    run = log_norms_in_batch if mixes else log_norms
    drawn = networks.stacked(draws, len(task.rows) if mixes else 1)
    drawn = dataclasses.replace(
        drawn, stacks={name: stack.to(plain.dtype) for name, stack in drawn.stacks.items()}
    )
    try:
        together, logs = run(plain, drawn, draws)
        apart = [run(plain, drawn.one(i), range(i, i + 1)) for i in draws]
    # e.g. of what the module does with the rows of a batch
    except UnsupportedArchitecture:
        return task.is_chain and not mixes
    columns = zip(
        *([norms, *(layer.tangent for layer in logs)] for norms, logs in apart), strict=True
    )
    pairs = zip([together, *(layer.tangent for layer in logs)], columns, strict=True)
    return all(
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
            "the rows of a batch are mixed (BatchNorm in train mode?), so that they cannot be "
            "separate networks. "
            "Put those layers in eval mode, or measure by method='redraw'."
        )


def _require_symmetry(task: Task) -> None:
    own = dict(task.module.named_parameters())
    for layer in task.arch.layers:
        failed = [name for name in layer.weight.failed if name.startswith(_CHANGED_BY_SIGNS)]
        if failed == [UNCONSTRAINED] and _is_computed(layer, own):
            continue  # signs go into what it is computed from, which has no constraint
        if failed:
            raise UnsupportedArchitecture(
                f"the weights of {layer.name!r} fail {' and '.join(failed)}, so that flipping "
                "signs changes their law. "
                "Use method='redraw' with an init or a factory."
            )


def _is_computed(layer: Layer, own: Mapping[str, Tensor]) -> bool:
    """Return whether the weight is not a parameter, but made of one of its name."""
    parameter = own.get(layer.name)
    if parameter is None:
        return True
    return not is_law_of(layer.weight, parameter)


def _not_varied(task: Task, varied: Collection[str]) -> tuple[str, ...]:
    """Return the names of parameters that an ensemble of layers leaves as they were
    drawn.

    A parameter that somebody wrote was not drawn (`_written`).
    """
    written = _written(task.original)
    return tuple(
        name
        for name, p in task.module.named_parameters()
        if name not in varied
        and name not in written
        and not _is_unused(task.arch, name)
        and not (p.dim() > 1 and any(goes_into(name, layer.name) for layer in task.arch.layers))
    )


def _is_unused(architecture: Architecture, name: str) -> bool:
    """Return whether it belongs to a layer that no pass reaches."""
    owner = name.rpartition(".")[0]
    return any(other in (name, f"{owner}.weight") for other in architecture.unused)


def _written(module: nn.Module) -> set[str]:
    """Return the names of the parameters that somebody wrote rather than drew: all
    entries are one number, which is short, or which another parameter has, too.

    A random number of single precision has four digits at most in one of a thousand.
    """
    values = {
        name: float(p.detach().reshape(-1)[0])
        for name, p in module.named_parameters()
        if p.numel() and bool((p == p.reshape(-1)[:1]).all())
    }
    often = Counter(values.values())
    own = dict(module.named_parameters())
    return {
        name
        for name, value in values.items()
        if often[value] > 1 or float(own[name].new_tensor(float(f"{value:.4g}"))) == value
    }
