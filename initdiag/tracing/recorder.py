"""The first witness: every torch call of one forward pass, as a graph of values.

A `Recorder` is a ``TorchFunctionMode``: it sees each call that depends on the input,
with the module that made it. What the graph means (a chain, or where not) is read off
afterwards, by `Flow`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from initdiag.network.architecture import Activation
from initdiag.tracing import torch_calls
from initdiag.tracing.provenance import Origin, Provenance
from initdiag.tracing.structures import tensors_in

__all__ = ["Call", "CallKind", "Recorder", "modules_named"]


CallKind = Literal["linear", "bias", "activation", "dropout", "reshape", "other"]
"""What a call does to the value that passes: a linear map, a bias added, ..."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that depends on the network's input.

    Attributes
    ----------
    index : int
        In the order of execution.
    function : str
        Plain name, e.g. ``"relu"``.
    path : str
        Module that made the call, ``""`` for the outermost.
    inputs : tuple of int
        Indices of the calls whose values it uses, -1 for the network's input; one entry
        a use.
    shape_in, shape : tuple of int
        Shapes of the first input and of the output.
    kind : CallKind
        What it does to the value.
    weight, bias : str or None
        Names of the parameters that a linear (or bias) call uses.
    activation : Activation or None
        What an activation or dropout call computes.
    ordinal : int
        The number of linear maps, on whatever, that were called before.
    """

    index: int
    function: str
    path: str
    inputs: tuple[int, ...]
    shape_in: tuple[int, ...]
    shape: tuple[int, ...]
    kind: CallKind
    weight: str | None = None
    bias: str | None = None
    is_transposed: bool = False
    activation: Activation | None = None
    ordinal: int = 0


@contextmanager
def modules_named(module: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the path of the running submodule on top of ``stack`` (hooks on ``module``,
    which must be a replica).
    """
    handles = []
    for path, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda m, a, path=path: stack.append(path)))
        handles.append(
            part.register_forward_hook(lambda m, a, o: (stack.pop(), None)[1], always_call=True)
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Recorder(TorchFunctionMode):
    """Record the calls that depend on ``x``.

    Parameters
    ----------
    origins : Provenance
        Where the parameters of the module that runs come from.
    originals : mapping
        Name -> parameter whose values may be read (those that run may be fake).
    x : Tensor
        The network's input.
    """

    origins: Provenance
    originals: Mapping[str, Tensor]
    x: Tensor
    stack: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    computed: dict[str, Origin] = field(default_factory=dict)
    products: int = 0
    """Linear maps that were called so far, on whatever."""

    def __post_init__(self) -> None:
        super().__init__()
        self._values: dict[int, int] = {id(self.x): -1}
        self._alive: list[Tensor] = [self.x]
        self._zeros: set[int] = set()
        self._masks: dict[int, tuple[int, bool]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = torch_calls.function_name(func)
        is_reshaped = torch_calls.is_reshape(name) and bool(
            args
        )  # what it is shaped as lends no values
        used = list(tensors_in(args[:1] if is_reshaped else (args, kwargs)))
        inputs = tuple(self._values[id(t)] for t in used if id(t) in self._values)
        shape_in = next((tuple(t.shape) for t in used if id(t) in self._values), ())
        out = func(*args, **kwargs)
        self.products += torch_calls.linear_call(name, args, kwargs) is not None
        if torch_calls.is_constant(name):
            self._note_zeros(name, out)
        elif inputs:
            self._record(name, args, kwargs, inputs, shape_in, out)
        else:
            self.origins.follow(name, args, used, out)
        return out

    def source_of(self, tensor: Tensor) -> int | None:
        """Return the index of the call that made ``tensor``, -1 for the input, None if
        it does not depend on it.
        """
        return self._values.get(id(tensor))

    def _note_zeros(self, name: str, out: Any) -> None:
        if "zeros" in name and isinstance(out, Tensor):
            self._zeros.add(id(out))
            self._alive.append(out)

    def _record(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        inputs: tuple[int, ...],
        shape_in: tuple[int, ...],
        out: Any,
    ) -> None:
        results = list(tensors_in(out))
        if not results or name == "property":
            return
        meaning = self._meaning(name, args, kwargs, results[0])
        index = len(self.calls)
        path = self.stack[-1] if self.stack else ""
        self.calls.append(
            Call(
                index,
                name,
                path,
                shape_in=shape_in,
                shape=tuple(results[0].shape),
                ordinal=self.products - 1,
                **{"inputs": inputs, **meaning},
            )
        )
        self._note_mask(name, args, kwargs, results[0])
        for tensor in results:
            self._values[id(tensor)] = index
            self._alive.append(tensor)

    def _note_mask(self, name: str, args: Any, kwargs: Any, out: Tensor) -> None:
        """Note that a call is ``x > 0``, also through casts and negation."""
        compared = torch_calls.compared_with_zero(name, args, kwargs)
        first = self._masks.get(id(args[0] if args else kwargs.get("input")))
        if compared is not None and id(compared[0]) in self._values:
            self._masks[id(out)] = self._values[id(compared[0])], compared[1]
        elif first is not None and name in ("invert", "logical_not"):
            self._masks[id(out)] = first[0], not first[1]
        elif first is not None and torch_calls.is_reshape(name):
            self._masks[id(out)] = first

    def _meaning(self, name: str, args: Any, kwargs: Any, out: Tensor) -> dict[str, Any]:
        if not out.is_floating_point():
            return {"kind": "other"}
        linear = torch_calls.linear_call(name, args, kwargs)
        if linear is not None and id(linear.x) in self._values:
            return self._linear_meaning(linear)
        summands = torch_calls.bias_added(name, args, kwargs)
        if summands is not None:
            return self._bias_meaning(summands)
        activation = torch_calls.activation_of(name, args, kwargs) or self._prelu(
            name, args, kwargs
        )
        if activation is not None:
            return {"kind": "activation", "activation": activation}
        rate = torch_calls.dropout_rate(name, args, kwargs)
        if rate is not None and rate < 1:
            return {"kind": "dropout", "activation": Activation("linear", dropout=rate)}
        if torch_calls.is_reshape(name):
            return {"kind": "reshape"}
        return self._relu_of_several(name, args, kwargs, out) or {"kind": "other"}

    def _bias_origin(self, bias: Any) -> Origin | None:
        """Return where a bias comes from; None if a weight matrix gives it."""
        origin = self.origins.of(bias)
        if origin is None or not origin.is_computed:
            return origin
        return None if any(self.originals[n].dim() > 1 for n in origin.sources) else origin

    def _linear_meaning(self, call: torch_calls.LinearCall) -> dict[str, Any]:
        weight, bias = self.origins.of(call.weight), self._bias_origin(call.bias)
        is_known = (
            weight is not None and weight.root.dim() == 2 and id(call.weight) not in self._values
        )
        if weight is None or not is_known or (call.bias is not None and bias is None):
            return {"kind": "other"}
        return {
            "kind": "linear",
            "weight": self._named(weight),
            "bias": None if bias is None else self._named(bias),
            "is_transposed": weight.is_transposed != call.is_transposed,
        }

    def _named(self, origin: Origin) -> str:
        """Return the origin's name. The value of a computed one is kept under it."""
        if origin.is_computed:
            self.computed[origin.name] = origin
        return origin.name

    def _bias_meaning(self, summands: tuple[Any, Any]) -> dict[str, Any]:
        constants = [s for s in summands if isinstance(s, Tensor) and id(s) not in self._values]
        bias = next((o for s in constants if (o := self._bias_origin(s)) is not None), None)
        return {"kind": "other"} if bias is None else {"kind": "bias", "bias": self._named(bias)}

    def _prelu(self, name: str, args: Any, kwargs: Any) -> Activation | None:
        """Return a leaky ReLU with the learned slope, if all channels share one and it
        can be read.
        """
        origin = self.origins.of(torch_calls.prelu_weight(name, args, kwargs))
        weight = (
            None if origin is None or origin.is_computed else self.originals[origin.name].detach()
        )
        if weight is None or weight.is_meta or not bool((weight == weight.reshape(-1)[0]).all()):
            return None
        return Activation("leaky_relu", float(weight.reshape(-1)[0]))

    def _relu_of_several(
        self, name: str, args: Any, kwargs: Any, out: Tensor
    ) -> dict[str, Any] | None:
        """Return a ReLU that is made of several calls, e.g. ``where(x > 0, x, 0)``,
        which depends on ``x`` alone.
        """
        for reading in torch_calls.relu_readings(name, args, kwargs):
            source = self._values.get(id(reading.x))
            gate = (source, reading.kept)
            is_gated = reading.mask is None or self._masks.get(id(reading.mask)) == gate
            is_relu = source is not None and is_gated and reading.x.shape == out.shape
            if is_relu and (id(reading.zero) in self._zeros or torch_calls.is_zero(reading.zero)):
                return {"kind": "activation", "activation": Activation("relu"), "inputs": (source,)}
        return None
