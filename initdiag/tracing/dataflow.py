"""The first witness: every torch call of one forward pass, as a graph of values.

A `Recorder` is a ``TorchFunctionMode``: it sees each call that depends on the input, with the module that made it. What the
graph means (a chain, or where not) is read off afterwards, by `Flow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from initdiag.architecture import Activation
from initdiag.tracing import vocabulary

__all__ = ["Call", "Recorder", "modules_named", "tensors_in"]


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
        Indices of the calls whose values it uses, -1 for the network's input; one entry a use.
    shape_in, shape : tuple of int
        Of the first input and of the output.
    kind : str
        ``"linear"``, ``"bias"``, ``"activation"``, ``"dropout"``, ``"reshape"`` or ``"other"``.
    weight, bias : str or None
        Names of the parameters that a linear (or bias) call uses.
    activation : Activation or None
        Of an activation or dropout call.
    """

    index: int
    function: str
    path: str
    inputs: tuple[int, ...]
    shape_in: tuple[int, ...]
    shape: tuple[int, ...]
    kind: str
    weight: str | None = None
    bias: str | None = None
    is_transposed: bool = False
    activation: Activation | None = None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value and in the plain containers it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


@contextmanager
def modules_named(module: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the path of the running submodule on top of ``stack`` (hooks on ``module``, which must be a replica)."""
    handles = []
    for path, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda m, a, path=path: stack.append(path)))
        handles.append(part.register_forward_hook(lambda m, a, o: (stack.pop(), None)[1], always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Recorder(TorchFunctionMode):
    """Record the calls that depend on ``x``. ``names`` maps the id of a parameter to its name."""

    names: dict[int, str]
    x: Tensor
    stack: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._values: dict[int, int] = {id(self.x): -1}
        self._alive: list[Tensor] = [self.x]
        self._transposed: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        used = list(tensors_in((args, kwargs)))
        inputs = tuple(self._values[id(t)] for t in used if id(t) in self._values)
        shape_in = next((tuple(t.shape) for t in used if id(t) in self._values), ())
        out = func(*args, **kwargs)
        name = vocabulary.function_name(func)
        if inputs:
            self._record(name, args, kwargs, inputs, shape_in, out)
        elif isinstance(out, Tensor) and used:
            self._follow_weight(name, used[0], out)
        return out

    def source_of(self, tensor: Tensor) -> int | None:
        """Return the index of the call that made ``tensor``, -1 for the input, None if it does not depend on it."""
        return self._values.get(id(tensor))

    def _follow_weight(self, name: str, source: Tensor, out: Tensor) -> None:
        """Know ``W.t()`` and ``W.T`` for what they are."""
        if name in ("t", "transpose_property") and id(source) in self.names:
            self._transposed[id(out)] = id(source)
            self._alive.append(out)

    def _record(
        self, name: str, args: Any, kwargs: Any, inputs: tuple[int, ...], shape_in: tuple[int, ...], out: Any
    ) -> None:
        results = list(tensors_in(out))
        if not results or name == "property" or not results[0].is_floating_point():
            if results and name != "property":
                self._keep(results, self._add(name, inputs, shape_in, results[0], {"kind": "other"}))
            return
        self._keep(results, self._add(name, inputs, shape_in, results[0], self._meaning(name, args, kwargs)))

    def _add(
        self, name: str, inputs: tuple[int, ...], shape_in: tuple[int, ...], out: Tensor, meaning: dict[str, Any]
    ) -> int:
        index = len(self.calls)
        path = self.stack[-1] if self.stack else ""
        self.calls.append(Call(index, name, path, inputs, shape_in, tuple(out.shape), **meaning))
        return index

    def _keep(self, results: list[Tensor], index: int) -> None:
        for tensor in results:
            self._values[id(tensor)] = index
            self._alive.append(tensor)

    def _meaning(self, name: str, args: Any, kwargs: Any) -> dict[str, Any]:
        linear = vocabulary.linear_call(name, args, kwargs)
        if linear is not None and id(linear.x) in self._values:
            return self._linear_meaning(linear)
        summands = vocabulary.bias_added(name, args, kwargs)
        if summands is not None:
            bias = next((self.names[id(s)] for s in summands if id(s) in self.names), None)
            return {"kind": "bias", "bias": bias} if bias else {"kind": "other"}
        activation = vocabulary.activation_of(name, args, kwargs)
        if activation is not None:
            return {"kind": "activation", "activation": activation}
        rate = vocabulary.dropout_rate(name, args, kwargs)
        if rate is not None and rate < 1:
            return {"kind": "dropout", "activation": Activation("linear", dropout=rate)}
        return {"kind": "reshape" if vocabulary.is_reshape(name) else "other"}

    def _linear_meaning(self, call: vocabulary.LinearCall) -> dict[str, Any]:
        key, is_transposed = id(call.weight), call.is_transposed
        if key in self._transposed:
            key, is_transposed = self._transposed[key], not is_transposed
        bias = None if call.bias is None else self.names.get(id(call.bias))
        if key not in self.names or (call.bias is not None and bias is None):
            return {"kind": "other"}
        return {"kind": "linear", "weight": self.names[key], "bias": bias, "is_transposed": is_transposed}
