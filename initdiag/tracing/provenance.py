"""Which parameters a tensor was computed from: ``W`` itself, ``W.t()``, or what
``weight_norm`` made of ``g`` and ``v``.

Parametrised weights are plain tensors when they reach ``F.linear``. Following the calls
that do not depend on the network's input gives them their name back, under any
parametrisation, PyTorch's or the user's own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

__all__ = ["Origin", "Provenance", "computed_name", "goes_into"]

_TRANSPOSES = frozenset(("t", "transpose_property", "transpose", "swapaxes"))
_PARAMETRISED = re.compile(r"parametrizations\.(\w+)\.original\d*$")
_HOOKED = re.compile(r"\.?(\w+)_(g|v|orig)$")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor comes from.

    Attributes
    ----------
    sources : frozenset of str
        Names of the parameters it was computed from.
    root : Tensor
        The parameter, or the computed tensor, in its own orientation.
    is_transposed : bool
        Whether the tensor is ``root``'s transpose.
    is_computed : bool
        False for a parameter itself.
    part : str
        ``"[i]"`` for the i-th matrix of a stack of matrices in one parameter.
    """

    sources: frozenset[str]
    root: Tensor
    is_transposed: bool = False
    is_computed: bool = True
    part: str = ""

    @property
    def name(self) -> str:
        """What the weight is called: the parameter's name, or that of the attribute it
        was computed for.
        """
        return (
            computed_name(self.sources) + self.part
            if self.is_computed
            else next(iter(self.sources))
        )


def computed_name(sources: Iterable[str]) -> str:
    """Return the name of what was computed from the parameters ``sources``.

    >>> parametrized = "0.parametrizations.weight"
    >>> computed_name([f"{parametrized}.original0", f"{parametrized}.original1"])
    '0.weight'
    >>> computed_name(["fc.weight_g", "fc.weight_v"]), computed_name(["u", "v"])
    ('fc.weight', 'u*v')
    """
    names = sorted({_attribute(source) for source in sources})
    return "*".join(names)


@functools.lru_cache(4096)
def _attribute(source: str) -> str:
    parametrised = _PARAMETRISED.sub(r"\1", source)
    if parametrised != source:
        return parametrised
    return _HOOKED.sub(lambda m: f"{'.' if m[0].startswith('.') else ''}{m[1]}", source)


def goes_into(parameter: str, weight: str) -> bool:
    """Return whether the weight of this name was computed from (or is) ``parameter``.

    >>> goes_into("0.weight_g", "0.weight"), goes_into("w", "w[2]")
    (True, True)
    >>> goes_into("v", "u*v"), goes_into("w", "v")
    (True, False)
    """
    return parameter == weight or _attribute(parameter) in weight.partition("[")[0].split("*")


class Provenance:
    """Know parameters, and what is computed from them, by identity.

    Parameters
    ----------
    parameters : mapping
        Name -> parameter, of the module that runs.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._origins = {
            id(p): Origin(frozenset((name,)), p, is_computed=False)
            for name, p in parameters.items()
        }
        self._parameters = parameters
        self._alive: list[Tensor] = []

    def of(self, tensor: Any) -> Origin | None:
        """Return where ``tensor`` comes from; None if no parameter went into it."""
        return self._origins.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def are_its_own(self, origin: Origin) -> bool:
        """Return whether the entries are a parameter's, or a view of some of them.

        What is computed from parameters has entries of another law.
        """
        memory = origin.root.untyped_storage().data_ptr()
        sources = (self._parameters[name] for name in origin.sources)
        return any(p.untyped_storage().data_ptr() == memory for p in sources)

    def follow(self, function: str, args: Sequence[Any], used: Iterable[Tensor], out: Any) -> None:
        """Take note of a call that does not depend on the network's input."""
        origins = [o for t in used if (o := self._origins.get(id(t))) is not None]
        if not origins:
            return
        first = origins[0]
        if isinstance(out, tuple):
            for index, part in enumerate(out):
                self._note(part, Origin(first.sources, part, part=f"[{index}]"))
        elif isinstance(out, Tensor) and function in _TRANSPOSES and first.root.dim() == 2:
            self._note(out, replace(first, is_transposed=not first.is_transposed))
        elif isinstance(out, Tensor):
            part = _stack_index(function, args, first.root)
            self._note(
                out, Origin(frozenset().union(*(o.sources for o in origins)), out, part=part)
            )

    def _note(self, tensor: Any, origin: Origin) -> None:
        if isinstance(tensor, Tensor) and id(tensor) not in self._origins:
            self._origins[id(tensor)] = origin
            self._alive.append(tensor)


def _stack_index(function: str, args: Sequence[Any], stack: Tensor) -> str:
    """Return ``"[i]"`` if the call takes the i-th matrix out of a stack of them, else
    nothing.
    """
    is_first = function == "getitem" or (function == "select" and args[1] == 0)
    index = args[-1] if is_first and args else None
    return f"[{index % len(stack)}]" if isinstance(index, int) and stack.dim() == 3 else ""
