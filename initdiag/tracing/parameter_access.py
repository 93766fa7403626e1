"""Where the weights of a trace live in a module, under their traced names: to be read,
and to be given other values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from initdiag.errors import UnsupportedArchitecture

__all__ = ["Slot", "slot_of", "slots_of"]

_TOLERANCE = 1e-3
"""Relative error up to which a parametrisation may miss the values it is given (or four
roundings, of the half types).
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """One weight or bias of a module.

    Attributes
    ----------
    name : str
        Name by which a trace calls it.
    get : callable
        Returns the values that the forward pass uses.
    put : callable
        Stores values, through the parametrisation where there is one.
    is_plain : bool
        Whether it is a parameter, which holds whatever it is given.
    """

    name: str
    get: Callable[[], Tensor]
    put: Callable[[Tensor], Any]
    is_plain: bool = False

    def set(self, value: Tensor) -> None:
        """Store ``value``, and make sure that it is what the forward pass will use.

        Raises
        ------
        UnsupportedArchitecture
            If the parametrisation cannot hold it (spectral_norm; orthogonal, other than
            orthogonal matrices).
        """
        with torch.no_grad():
            now = self.get()
            value = value.to(now.device, now.dtype)
            try:
                self.put(value)
            except (ValueError, RuntimeError, NotImplementedError) as error:
                raise _not_held(self.name) from error
            if self.is_plain:
                return
            error_norm = torch.linalg.vector_norm((self.get() - value).double())
            tolerance = max(_TOLERANCE, 4 * torch.finfo(now.dtype).eps)
            if not error_norm <= tolerance * torch.linalg.vector_norm(value.double()):
                raise _not_held(self.name)


def _not_held(name: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"the parametrisation of {name!r} cannot hold the weights that it needs. Remove it first "
        "(torch.nn.utils.parametrize.remove_parametrizations), or scale its output instead."
    )


def slot_of(module: nn.Module, name: str) -> Slot:
    """Return where the weight or bias of this traced name lives.

    Raises
    ------
    UnsupportedArchitecture
        If it is computed from parameters in a way that cannot be undone.
    """
    return slots_of(module)(name)


def slots_of(module: nn.Module) -> Callable[[str], Slot]:
    """Return `slot_of` for one module, whose parameters are then listed once."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    owners = dict(module.named_modules())

    def slot(name: str) -> Slot:
        whole, _, index = name.partition("[")
        if whole in parameters:
            stored = parameters[whole].detach()
            part = stored[int(index.rstrip("]"))] if index else stored
            return Slot(name, lambda: part, part.copy_, is_plain=True)
        return _computed(name, owners)

    return slot


def _computed(name: str, owners: Mapping[str, nn.Module]) -> Slot:
    """Return the slot of a weight that a parametrisation computes and can undo."""
    path, _, attribute = name.rpartition(".")
    owner = owners.get(path)
    if owner is not None and "[" not in name and "*" not in name:
        if parametrize.is_parametrized(owner, attribute):
            return _parametrised(name, owner, attribute)
        for hook in owner._forward_pre_hooks.values():
            if type(hook).__name__ == "WeightNorm" and getattr(hook, "name", None) == attribute:
                return _weight_normed(name, owner, hook)
    raise UnsupportedArchitecture(
        f"{name!r} is computed from parameters in a way that cannot be undone. "
        "Initialise those parameters yourself."
    )


def _parametrised(name: str, owner: nn.Module, attribute: str) -> Slot:
    return Slot(
        name,
        lambda: getattr(owner, attribute).detach(),
        lambda value: setattr(owner, attribute, value),
    )


def _weight_normed(name: str, owner: nn.Module, hook: Any) -> Slot:
    """Return the slot of the old ``weight_norm``: ``v`` is any matrix of the wanted
    directions, ``g`` has the norms.
    """

    def put(value: Tensor) -> None:
        getattr(owner, f"{hook.name}_v").copy_(value)
        getattr(owner, f"{hook.name}_g").copy_(torch.norm_except_dim(value, 2, hook.dim))

    return Slot(name, lambda: hook.compute_weight(owner).detach(), put)
