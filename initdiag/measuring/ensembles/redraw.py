"""The redraw ensemble: every row is a network whose parameters were drawn afresh by its own initialiser."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measuring.ensembles import random_numbers
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.replica import as_module, copied, replica

__all__ = ["Loaded", "Redrawn", "Source", "reset_parameters", "values_of"]


def reset_parameters(module: nn.Module) -> None:
    """Call the module's own ``reset_parameters`` (or ``_reset_parameters``), if it has one: an ``init`` for ``Module.apply``."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()


def values_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point parameters and buffers of ``module`` by name."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: value.detach() for name, value in named if value.is_floating_point()}


class Source:
    """Fresh parameters, one seed a draw: from a factory, or from an ``init`` callable applied to a replica.

    Draws are made where they are used, in rows of one stack a parameter: the replica's parameters are pointed at a draw's rows, and
    initialised there. The rows hold NaN before: what is NaN after was not drawn. Those keep the user's own values, and ``left`` names
    them; a layer's weight may not be among them.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Iterable[str],
        factory: Callable[[], Any] | None,
        init: Callable[[nn.Module], Any] | None,
    ) -> None:
        self._weights, self._factory, self._init = tuple(weights), factory, init
        self._fresh = replica(module, copied)
        self._own = values_of(module)
        self._slots = [
            (self._name_of[id(p)], owner._parameters, key, p)
            for owner in self._fresh.modules()
            for key, p in owner._parameters.items()
            if p is not None and id(p) in self._name_of
        ]
        self._stacks: dict[str, Tensor] = {}
        self.left: tuple[str, ...] = ()

    @functools.cached_property
    def _name_of(self) -> dict[int, str]:
        return {id(p): name for name, p in self._fresh.named_parameters() if p.is_floating_point()}

    def draw(self, seed: int) -> dict[str, Tensor]:
        """Return every parameter of the draw with this seed."""
        return {name: stack[0].clone() for name, stack in self.draws([seed]).items()}

    def draws(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return every parameter (and buffer, from a factory) of these draws, stacked; the next call overwrites them.

        The caller preserves the global random state.
        """
        names = self._own if self._factory is not None else self._name_of.values()
        stacks = {name: self._room(name, len(seeds)) for name in names}
        for row, seed in enumerate(seeds):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            into = {name: stack[row] for name, stack in stacks.items()}
            self._build(into) if self._factory is not None else self._initialise(into)
        if self._factory is None:
            self._keep_what_was_left(stacks)
        return stacks

    def _room(self, name: str, rows: int) -> Tensor:
        if len(self._stacks.get(name, ())) < rows:
            own = self._own[name]
            self._stacks[name] = own.new_empty((rows, *own.shape))
        return self._stacks[name][:rows]

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
                    got=f"{type(error).__name__}: {error}",
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

    def _keep_what_was_left(self, stacks: Mapping[str, Tensor]) -> None:
        self.left = tuple(
            name
            for name, stack in stacks.items()
            if bool(torch.isnan(stack.sum(dtype=stack.dtype)))
        )
        kept = next(
            (
                n
                for n in self.left
                if self._own[n].dim() > 1 and any(goes_into(n, w) for w in self._weights)
            ),
            None,
        )
        if kept is not None:
            raise UnsupportedArchitecture(
                f"init leaves {kept!r} as it is (a raw or parametrised weight?), so that its draws would all be the same network. "
                "Initialise it in init, or pass a factory in place of the model."
            )
        for name in self.left:
            stacks[name].copy_(self._own[name].expand_as(stacks[name]))


class Loaded:
    """The weights as they are in the replica: for networks that are loaded with one draw's parameters after the other."""

    def apply(
        self, name: str, x: Tensor, tangent: Tensor, weight: Tensor, is_transposed: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ``W x`` and ``W t``."""
        return x @ weight.T, tangent @ weight.T

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return the bias."""
        return bias

    def again(self) -> Loaded:
        """Return itself: it is the same in every pass."""
        return self


class Redrawn:
    """Freshly drawn weights for one chunk: each network has its own matrices, stacked to one batched product.

    Parameters
    ----------
    source, draws, seed, dtype
        Of the parameters.
    rows : int
        Consecutive rows that one network takes: 1, or the whole batch where it mixes the rows.

    Attributes
    ----------
    stacks : mapping
        Name -> values, ``(draws, ...)``.
    """

    def __init__(
        self, source: Source, draws: Iterable[int], seed: int, dtype: torch.dtype, rows: int = 1
    ) -> None:
        drawn = source.draws([random_numbers.draw_seed(seed, draw) for draw in draws])
        self.stacks: Mapping[str, Tensor] = {name: stack.to(dtype) for name, stack in drawn.items()}
        self._rows = rows
        self._used: set[str] = set()

    @property
    def unused(self) -> list[str]:
        """Names of what differs from network to network, and was not asked for: passes took one value for all."""
        others = (name for name in self.stacks if name not in self._used)
        return [
            name
            for name in others
            if not torch.equal(
                self.stacks[name], self.stacks[name][:1].expand_as(self.stacks[name])
            )
        ]

    def apply(
        self, name: str, x: Tensor, tangent: Tensor, weight: Tensor, is_transposed: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ``W_i x_i`` and ``W_i t_i``."""
        self._used.add(name)
        matrices = self.stacks[name].mT if is_transposed else self.stacks[name]
        x_parts, parts = (part.reshape(len(matrices), -1, x.shape[-1]) for part in (x, tangent))
        shape = (*x.shape[:-1], weight.shape[0])
        if self._rows > 1:
            return (x_parts @ matrices.mT).reshape(shape), _sparse_product(
                parts, matrices.mT
            ).reshape(shape)
        out, out_tangent = (torch.cat([x_parts, parts], 1) @ matrices.mT).chunk(2, 1)
        return out.reshape(shape), out_tangent.reshape(shape)

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return each row's own bias."""
        if bias_name not in self.stacks:
            return bias
        self._used.add(bias_name)
        return self.stacks[bias_name].repeat_interleave(self._rows, 0)

    def again(self) -> Redrawn:
        """Return itself: it is the same in every pass."""
        return self


def _sparse_product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """``vectors @ matrices`` where most vectors may be 0, as they are in a batch of which one row is moved."""
    is_moved = (vectors != 0).any(2)
    count = int(is_moved.sum(1).max())
    if 2 * count > vectors.shape[1]:
        return vectors @ matrices
    rows = is_moved.byte().topk(count, 1).indices[..., None]
    images = vectors.gather(1, rows.expand(-1, -1, vectors.shape[2])) @ matrices
    out = images.new_zeros(*vectors.shape[:2], images.shape[2])
    return out.scatter_(1, rows.expand_as(images), images)
