"""The redraw ensemble: every row is a network whose parameters were drawn afresh by its
own initialiser.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain, text_of
from initdiag.measuring.passes.interposer import LinearUse
from initdiag.measuring.passes.modes import Parts
from initdiag.tracing.guard import seed_generators
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.replica import as_module, copied, replica

__all__ = ["Loaded", "Redrawn", "Source", "reset_parameters", "values_of"]


def reset_parameters(module: nn.Module) -> None:
    """Call the module's own ``reset_parameters`` (or ``_reset_parameters``), if it has
    one: an ``init`` for ``Module.apply``.
    """
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()


def values_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point parameters and buffers of ``module`` by name."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: value.detach() for name, value in named if value.is_floating_point()}


class Source:
    """Fresh parameters, one seed a draw: from a factory, or from an ``init`` on a
    replica.

    Draws are made where they are used, in rows of one stack a parameter: the replica's
    parameters are pointed at a draw's rows, and initialised there. One draw is made at
    the beginning to see what ``init`` leaves as it is: its rows hold NaN before, and
    what is NaN after was not drawn. Those keep the user's own values.

    Parameters
    ----------
    module : nn.Module
        The user's own.
    weights : iterable of str
        Names of the layers' weights, which may not be left as they are.
    factory, init : callable or None
        One of the two makes the draws.
    laws : mapping
        Name -> function that fills a parameter in place, used after ``init``.
    kept : collection of str
        Names of parameters that are given back their own values after ``init``.

    Attributes
    ----------
    left : tuple of str
        Names of the parameters that ``init`` does not draw.
    kept : tuple of str
        Names of those that it draws, but that have their own values.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Iterable[str],
        factory: Callable[[], Any] | None,
        init: Callable[[nn.Module], Any] | None,
        laws: Mapping[str, Callable[[Tensor], Any]] | None = None,
        kept: Collection[str] = (),
    ) -> None:
        self._factory, self._init, self._laws = factory, init, laws or {}
        self.kept = tuple(kept)
        self._fresh = replica(module, copied)
        self._own = values_of(module)
        self._name_of = {
            id(p): name for name, p in self._fresh.named_parameters() if p.is_floating_point()
        }
        self._slots = [
            (self._name_of[id(p)], owner._parameters, key, p)
            for owner in self._fresh.modules()
            for key, p in owner._parameters.items()
            if p is not None and id(p) in self._name_of
        ]
        self.left: tuple[str, ...] = ()
        if factory is None:
            self.left = self._left_by_init(tuple(weights))

    def draw(self, seed: int) -> dict[str, Tensor]:
        """Return every parameter of the draw with this seed."""
        return {name: stack[0] for name, stack in self.draws([seed]).items()}

    def draws(
        self, seeds: Sequence[int], room: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return every parameter (and buffer, from a factory) of these draws, stacked.

        They are made in ``room``, where it has enough rows, and it is enlarged where
        not: large stacks are slow to allocate. The caller preserves the global random
        state.
        """
        room = {} if room is None else room
        names = self._own if self._factory is not None else self._name_of.values()
        for name in names:
            if len(room.get(name, ())) < len(seeds):
                own = self._own[name]
                room[name] = own.new_empty((len(seeds), *own.shape))
        stacks = {name: room[name][: len(seeds)] for name in names}
        for row, seed in enumerate(seeds):
            seed_generators(seed, is_used=True)
            into = {name: stack[row] for name, stack in stacks.items()}
            self._build(into) if self._factory is not None else self._initialise(into)
            for name in self.left:
                into[name].copy_(self._own[name])
        return stacks

    def _build(self, into: Mapping[str, Tensor]) -> None:
        assert self._factory is not None
        built = values_of(as_module(self._factory))
        for name, row in into.items():
            if name not in built or built[name].shape != row.shape:
                shape = tuple(built[name].shape) if name in built else "nothing"
                raise InvalidInput(
                    explain(
                        expected=f"a factory that builds the same network each time ({name!r} of shape {tuple(row.shape)})",
                        got=f"{shape} of that name",
                        do="Let only the random numbers differ from call to call.",
                    )
                )
            row.copy_(built[name])

    def _initialise(self, into: Mapping[str, Tensor]) -> None:
        assert self._init is not None
        for name, _, _, parameter in self._slots:
            parameter.data = into[name].fill_(torch.nan)
        try:
            self._fresh.apply(self._init)
        except Exception as error:
            raise InvalidInput(
                explain(
                    expected="init: a function of a module, as model.apply takes it",
                    got=f"{type(error).__name__}: {text_of(error)}",
                    do="Test it with model.apply(init) on a copy of the model.",
                )
            ) from error
        for name, owner, key, parameter in self._slots:
            held = owner.get(key)
            if (
                held is not parameter or held.data_ptr() != into[name].data_ptr()
            ):  # init put another tensor in its place
                if held is not None:
                    into[name].copy_(held.detach())
                owner[key] = parameter
        for name, law in self._laws.items():
            law(into[name])
        for name in self.kept:
            into[name].copy_(self._own[name])

    def _left_by_init(self, weights: tuple[str, ...]) -> tuple[str, ...]:
        """Return what one draw leaves as it is.

        Raises
        ------
        UnsupportedArchitecture
            If a layer's weight is among them.
        """
        drawn = self.draws([0])
        left = tuple(name for name, stack in drawn.items() if bool(torch.isnan(stack).any()))
        kept = next(
            (n for n in left if self._own[n].dim() > 1 and any(goes_into(n, w) for w in weights)),
            None,
        )
        if kept is not None:
            raise UnsupportedArchitecture(
                f"init leaves {kept!r} as it is (a raw or parametrised weight?), so that its draws would all be the same network. "
                "Initialise it in init, or pass a factory in place of the model."
            )
        return left


@dataclass(frozen=True, slots=True)
class Loaded:
    """One network for all rows: the module with these parameters, else its own."""

    values: Mapping[str, Tensor] = field(default_factory=dict)

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        """Return ``W x`` for each of ``parts``."""
        return tuple(part @ use.weight.T for part in parts)

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        """Return the bias."""
        return bias


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Freshly drawn weights: each network has its own matrices, stacked to one product.

    Attributes
    ----------
    stacks : mapping
        Name -> values, ``(draws, ...)``.
    rows : int
        Consecutive rows that one network takes: 1, or a whole batch that mixes its
        rows.
    """

    stacks: Mapping[str, Tensor]
    rows: int = 1

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Return the first network's parameters: what is not asked for is taken from
        it.
        """
        return {name: stack[0] for name, stack in self.stacks.items()}

    def one(self, index: int) -> Loaded:
        """Return one of the networks by itself."""
        return Loaded({name: stack[index] for name, stack in self.stacks.items()})

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        """Return ``W_i x_i`` for each of ``parts``."""
        matrices = self.stacks[use.name].mT if use.is_transposed else self.stacks[use.name]
        fan_in, x = parts[0].shape[-1], parts[0]
        shape = (*x.shape[:-1], use.weight.shape[0])
        rows = [part.reshape(len(matrices), -1, fan_in) for part in parts]
        if self.rows > 1:
            x, *tangents = rows
            images = (x @ matrices.mT, *(_sparse_product(t, matrices.mT) for t in tangents))
            return tuple(image.reshape(shape) for image in images)
        images = (torch.cat(rows, 1) @ matrices.mT).chunk(len(rows), 1)
        return tuple(image.reshape(shape) for image in images)

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        """Return each row's own bias."""
        if name not in self.stacks:
            return bias
        return self.stacks[name].repeat_interleave(self.rows, 0)


def _sparse_product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Return ``vectors @ matrices`` where most vectors may be 0, as they are in a batch
    of which one row is moved.
    """
    is_moved = (vectors != 0).any(2)
    count = int(is_moved.sum(1).max())
    if 2 * count > vectors.shape[1]:
        return vectors @ matrices
    rows = is_moved.byte().topk(count, 1).indices[..., None]
    images = vectors.gather(1, rows.expand(-1, -1, vectors.shape[2])) @ matrices
    out = images.new_zeros(*vectors.shape[:2], images.shape[2])
    return out.scatter_(1, rows.expand_as(images), images)
