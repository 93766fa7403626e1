"""The redraw ensemble: every row is a network whose parameters were drawn afresh by its own initialiser."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measuring import random_numbers
from initdiag.tracing.loan import as_module, copied, replica
from initdiag.tracing.provenance import goes_into

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

    The replica's parameters are filled with NaN first: what the initialiser leaves NaN it does not draw. Those keep the
    user's own values, and ``left`` names them; a layer's weight may not be among them.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Iterable[str],
        factory: Callable[[], Any] | None,
        init: Callable[[nn.Module], Any] | None,
    ) -> None:
        self._module, self._weights, self._factory, self._init = module, tuple(weights), factory, init
        self.left: tuple[str, ...] = ()

    def draw(self, seed: int) -> dict[str, Tensor]:
        """Return every parameter (and buffer, from a factory), drawn with ``seed``. The caller preserves the global random state."""
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        if self._factory is not None:
            return values_of(as_module(self._factory))
        return self._initialised()

    def _initialised(self) -> dict[str, Tensor]:
        assert self._init is not None
        fresh = replica(self._module, copied)
        with torch.no_grad():
            for parameter in fresh.parameters():
                if parameter.is_floating_point():
                    parameter.fill_(torch.nan)
        try:
            fresh.apply(self._init)
        except Exception as error:
            raise InvalidInput(
                explain(
                    expected="init: a function of a module, as model.apply takes it",
                    got=f"{type(error).__name__}: {error}",
                    do="Test it with model.apply(init) on a copy of the model.",
                )
            ) from error
        drawn = {name: p.detach() for name, p in fresh.named_parameters()}
        own = dict(self._module.named_parameters())
        self.left = tuple(name for name, p in drawn.items() if bool(torch.isnan(p).any()))
        kept = next((n for n in self.left if own[n].dim() > 1 and any(goes_into(n, w) for w in self._weights)), None)
        if kept is not None:
            raise UnsupportedArchitecture(
                f"init leaves {kept!r} as it is (a raw or parametrised weight?), so that its draws would all be the same network. "
                "Initialise it in init, or pass a factory in place of the model."
            )
        return drawn | {name: own[name].detach().clone() for name in self.left}


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


class Redrawn:
    """Freshly drawn weights for one chunk: row ``i`` has its own matrices, stacked to one batched product."""

    def __init__(self, source: Source, draws: Iterable[int], seed: int, dtype: torch.dtype) -> None:
        drawn = [source.draw(random_numbers.draw_seed(seed, draw)) for draw in draws]
        self._stacks: Mapping[str, Tensor] = {
            name: torch.stack([d[name] for d in drawn]).to(dtype) for name in drawn[0]
        }

    def apply(
        self, name: str, x: Tensor, tangent: Tensor, weight: Tensor, is_transposed: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ``W_i x_i`` and ``W_i t_i``."""
        matrices = self._stacks[name].mT if is_transposed else self._stacks[name]
        out = torch.stack([x.flatten(1), tangent.flatten(1)], dim=1) @ matrices.mT
        shape = (*x.shape[:-1], weight.shape[0])
        return out[:, 0].reshape(shape), out[:, 1].reshape(shape)

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return each row's own bias."""
        return self._stacks.get(bias_name, bias)
