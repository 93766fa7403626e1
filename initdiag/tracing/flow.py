"""Reading a recorded flow: is it a plain chain, and if not, where and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from initdiag.network.architecture import Activation, ActivationName, Gap, InputMap
from initdiag.tracing import torch_calls
from initdiag.tracing.recorder import Call

__all__ = ["Flow"]

_HOMOGENEOUS = ("linear", "relu", "leaky_relu", "rrelu")
"""Activations with ``phi(s x) = s phi(x)`` for ``s > 0``."""


_ROW_NORMS = ("layer_norm", "rms_norm", "group_norm", "instance_norm")
"""Norms of each row by itself: in front of all layers they take the unit out."""


class Flow:
    """The calls of a forward pass that its output depends on, in the order of
    execution.

    Parameters
    ----------
    calls : tuple of Call
        Everything recorded.
    last : int or None
        The call that made the output; None if the output is not one tensor that depends
        on the input.
    input_shape : tuple of int
        Shape of the batch that was run.
    learnt : frozenset of str
        Paths of the modules that hold parameters themselves.
    """

    def __init__(
        self,
        calls: tuple[Call, ...],
        last: int | None,
        input_shape: tuple[int, ...],
        learnt: frozenset[str] = frozenset(("",)),
    ) -> None:
        self._last, self._rows, self._learnt = last, input_shape[0], learnt
        self.live = self._reached(calls) if last is not None else list(calls)
        self._by_index = {call.index: call for call in self.live}
        self._uses = Counter(source for call in self.live for source in call.inputs)
        self._after = {source: call for call in self.live for source in call.inputs}

    def _reached(self, calls: tuple[Call, ...]) -> list[Call]:
        """Return the calls that the output depends on. The others (monitoring, dead
        branches) are not part of the network.
        """
        live: set[int] = set()
        pending = [self._last] if self._last is not None else []
        while pending:
            index = pending.pop()
            if index >= 0 and index not in live:
                live.add(index)
                pending.extend(calls[index].inputs)
        return [call for call in calls if call.index in live]

    @property
    def linear_calls(self) -> list[Call]:
        """The linear maps, in the order of execution."""
        return [call for call in self.live if call.kind == "linear"]

    def gaps(self) -> tuple[Gap, ...]:
        """Return what keeps the flow from being a plain chain, each with its path;
        empty for a chain.
        """
        found = list(self._output_gaps())
        first = self.input_map_calls()
        if first:
            functions = dict.fromkeys(call.function for call in first if call.kind != "reshape")
            found.append(InputMap(tuple(functions)).gap)
        for call in self.live:
            found.extend(self._call_gaps(call) if call not in first else ())
        found.extend(
            gap for call in self.linear_calls if isinstance(gap := self._composed(call), Gap)
        )
        counts = Counter(call.weight for call in self.linear_calls)
        found.extend(
            Gap(name, "reused", f"the weight is used {count} times")
            for name, count in counts.items()
            if name and count > 1
        )
        shared = Counter(name for call in self.linear_calls for name in self.biases_of(call))
        found.extend(
            Gap(name, "shared", f"this one bias is added after {count} layers")
            for name, count in shared.items()
            if count > 1
        )
        return tuple(found)

    def input_map_calls(self) -> tuple[Call, ...]:
        """Return the calls of the `InputMap`: those in front of the first linear map
        where everything passes through them and none of them has a parameter, but for
        a norm's; most networks have none.
        """
        if not self.linear_calls or self._last is None or self.linear_calls[0].inputs == (-1,):
            return ()
        entries = {self.linear_calls[0].inputs[0]}
        before = self._ancestors(entries)
        for call in reversed(before):
            if call.index in entries and call.kind == "reshape":
                entries.update(call.inputs)
        inside = {call.index for call in before}
        passed = inside | {-1}
        around = (set(call.inputs) & passed for call in self.live if call.index not in inside)
        is_fixed = all(
            call.kind not in ("linear", "bias", "dropout")
            and (call.path not in self._learnt or call.function in _ROW_NORMS)
            for call in before
        )
        changes = any(call.kind != "reshape" for call in before)
        return (
            tuple(before)
            if changes and is_fixed and all(sources <= entries for sources in around)
            else ()
        )

    def _ancestors(self, indices: set[int]) -> list[Call]:
        """Return the calls of these indices and all that they depend on, in the order
        of execution.
        """
        known, pending = set(indices), list(indices)
        while pending:
            call = self._by_index.get(pending.pop())
            new = set(call.inputs) - known if call is not None else set()
            known |= new
            pending.extend(new)
        return [call for call in self.live if call.index in known]

    def shortest(self) -> int | None:
        """Return the linear maps on the shortest way from input to output (skip
        connections go around the others); None where the output is not known.
        """
        if self._last is None:
            return None
        ways = {-1: 0}
        for call in self.live:
            ways[call.index] = min(ways.get(source, 0) for source in call.inputs) + (
                call.kind == "linear"
            )
        return ways[self._last]

    def _output_gaps(self) -> Iterator[Gap]:
        if self._last is None:
            yield Gap("output", "output", "the output is not one tensor that depends on the input")
        elif self._last == -1:
            yield Gap("output", "output", "the output is the input itself")

    def _call_gaps(self, call: Call) -> Iterator[Gap]:
        path = call.path or "forward"
        if len(call.inputs) != 1:
            yield Gap(
                path,
                call.function,
                f"{call.function} joins {len(call.inputs)} values: a residual sum, product or "
                "concatenation",
            )
        elif call.kind == "other":
            yield Gap(path, call.function, _unknown(call.function))
        elif (call.kind == "linear" and any(n != 1 for n in call.shape_in[1:-1])) or len(
            call.shape_in
        ) < 2:
            yield Gap(
                path,
                "positions",
                f"the layer is applied to each position of a {call.shape_in} tensor",
            )
        elif call.shape[:1] != (self._rows,) or call.shape_in[:1] != (self._rows,):
            yield Gap(
                path, call.function, f"{call.function} mixes the batch dimension into {call.shape}"
            )
        elif call.kind == "bias":
            yield from self._bias_gaps(call, path)
        elif call.kind in ("activation", "dropout"):
            yield from self._order_gaps(call, path)

    def _bias_gaps(self, call: Call, path: str) -> Iterator[Gap]:
        earlier = next((c for c in self._before(call) if c.kind != "reshape"), None)
        if earlier is None or earlier.kind not in ("linear", "bias"):
            yield Gap(path, "bias", f"{call.bias} is added elsewhere than right after a linear map")
        elif earlier.bias is not None:
            yield Gap(
                path,
                "bias",
                f"{call.bias} is added to a layer that has the bias {earlier.bias} already",
            )

    def _order_gaps(self, call: Call, path: str) -> Iterator[Gap]:
        earlier = next((c for c in self._before(call) if c.kind in ("linear", "other")), None)
        if earlier is None:
            yield Gap(path, call.function, f"{call.function} comes before the first linear layer")
        elif earlier.kind == "other":
            reason = (
                f"{call.function} acts on what {earlier.function} made, with no linear "
                "layer between"
            )
            yield Gap(path, call.function, reason)

    def _before(self, call: Call) -> Iterator[Call]:
        """Yield the calls before this one on its path, nearest first."""
        while len(call.inputs) == 1 and call.inputs[0] in self._by_index:
            call = self._by_index[call.inputs[0]]
            yield call

    def _onward(self, linear: Call) -> Iterator[Call]:
        """Yield the calls after a linear map up to the next one, as long as there is
        one way on.
        """
        call = linear
        while self._uses[call.index] == 1:
            call = self._after[call.index]
            if call.kind in ("linear", "other") or len(call.inputs) != 1:
                return
            yield call

    def activation_after(self, linear: Call) -> Activation | None:
        """Return activation and dropout after a linear map as one `Activation`; None if
        they do not compose to one.
        """
        composed = self._composed(linear)
        return composed if isinstance(composed, Activation) else None

    def _composed(self, linear: Call) -> Activation | Gap:
        """Return one `Activation`, or why there is none.

        Dropout commutes with what lets a positive scale through, with no smooth one.
        """
        name: ActivationName = "linear"
        slope = dropout = 0.0
        for call in self._onward(linear):
            if call.activation is None:
                continue
            if call.kind == "activation":
                repeats_relu = name == call.activation.name == "relu"
                if name != "linear" and not repeats_relu:
                    return Gap(
                        call.path or "forward",
                        call.function,
                        f"{call.function} follows another activation",
                    )
                if dropout and call.activation.name not in _HOMOGENEOUS:
                    reason = (
                        f"dropout comes before {call.function}, and changes the scale that it sees"
                    )
                    return Gap(call.path or "forward", call.function, reason)
                name, slope = call.activation.name, call.activation.negative_slope
            dropout = _either(dropout, call.activation.dropout)
        return Activation(name, slope, dropout)

    def biases_of(self, linear: Call) -> tuple[str, ...]:
        """Return the names of the biases added by the linear map, and after it up to
        the next one.
        """
        added = (
            call.bias for call in (linear, *self._onward(linear)) if call.kind in ("linear", "bias")
        )
        return tuple(name for name in added if name is not None)

    def dropouts_after(self, linear: Call) -> tuple[float, ...]:
        """Return the rates of the active dropouts after a linear map, in
        their order.
        """
        rates = (call.activation.dropout for call in self._onward(linear) if call.activation)
        return tuple(rate for rate in rates if rate > 0)

    def steps(self) -> tuple[str, ...]:
        """Return what the autograd graph must show if this is the true dataflow:
        weights' names and activations.
        """
        found: list[str] = []
        for call in self.live:
            if call.kind == "linear":
                found.append(call.weight or "?")
            elif call.kind in ("activation", "dropout"):
                step = torch_calls.autograd_step(call.function, call.activation)
                found.extend([step] if step else [])
        return tuple(found)


def _unknown(function: str) -> str:
    """Return why a call is a gap, in words."""
    if function == "multi_head_attention_forward":
        return "attention mixes positions by weights that depend on the input"
    if torch_calls.is_parametric(function):
        return f"the activation {function} has no exact law with these parameters"
    return f"{function} has no exact law"


def _either(first: float, second: float) -> float:
    """Return the rate of two dropouts in a row. If one of them is absent, the other's
    rate is kept exactly.
    """
    return max(first, second) if min(first, second) == 0 else 1 - (1 - first) * (1 - second)
