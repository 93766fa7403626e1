"""The second witness: the true dataflow, read off the ``grad_fn`` graph of the output,
knowing nothing of the first.

Only what the gradient really passes is there: dead branches drop out, whatever python
did in between.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from initdiag.tracing.provenance import computed_name

__all__ = ["Branching", "steps_to_input"]

_SILENT = frozenset(
    "View UnsafeView ReshapeAlias Squeeze Unsqueeze Clone Alias ToCopy Expand Add AsStrided "
    "Reshape Unflatten".split()
)

_MODULE_HOOK = "BackwardHookFunctionBackward"
"""The identity that ``register_full_backward_hook`` puts before and after a module."""

_DROPOUTS = {"NativeDropout": "mul"}
"""The fused dropout, which a product with noise is elsewhere."""


class Branching(Exception):
    """The gradient reaches the input on more than one path, or on none."""


def steps_to_input(out: Tensor, x: Tensor, names: dict[int, str]) -> tuple[str, ...]:
    """Return what the gradient passes from input to output: weights' names, and the
    backward functions of the rest.

    Parameters
    ----------
    out, x : Tensor
        Output, and the leaf it was computed from.
    names : dict
        The id of a parameter -> its name.

    Raises
    ------
    Branching
        If there is not exactly one path.
    """
    walk = _Walk(x, names)
    steps: list[str] = []
    node = out.grad_fn
    while node is not None and not walk.is_input(node):
        onward = [n for n, _ in node.next_functions if n is not None and walk.reaches_input(n)]
        if len(onward) != 1:
            raise Branching(f"{node.name()} has {len(onward)} paths to the input")
        steps.extend(walk.step(node))
        node = onward[0]
    if node is None:
        raise Branching("the gradient does not reach the input")
    return tuple(reversed(steps))


class _Walk:
    def __init__(self, x: Tensor, names: dict[int, str]) -> None:
        self._input, self._names = x, names
        self._reaches: dict[Any, bool] = {}

    def is_input(self, node: Any) -> bool:
        return getattr(node, "variable", None) is self._input

    def reaches_input(self, node: Any) -> bool:
        """Return whether a path leads from ``node`` to the input. It is iterative,
        because a network may be deeper than Python's stack.
        """
        pending = [node]
        while pending:
            top = pending[-1]
            children = [n for n, _ in top.next_functions if n is not None]
            unknown = [] if self.is_input(top) else [n for n in children if n not in self._reaches]
            if top in self._reaches or not unknown:
                self._reaches[top] = self.is_input(top) or any(self._reaches[n] for n in children)
                pending.pop()
            else:
                pending.extend(unknown)
        return self._reaches[node]

    def step(self, node: Any) -> list[str]:
        """Return what passing ``node`` means: a weight's name for a matrix product,
        nothing for a view, else its function.
        """
        function = _function(node)
        if node.name() == _MODULE_HOOK:
            return []
        if function in ("Addmm", "Mm", "Linear", "Bmm", "Mv"):
            return [self._weight(node)]
        return [] if function in _SILENT else [_DROPOUTS.get(function, function.lower())]

    def _weight(self, node: Any) -> str:
        """Name of the factor beside the path: a parameter, at most transposed, or what
        was computed from parameters.
        """
        edges = [
            edge
            for edge in node.next_functions[-2:]
            if edge[0] is not None and not self.reaches_input(edge[0])
        ]
        if not edges:
            return "?"
        child, output = edges[-1]
        while _function(child) in ("T", "Transpose"):
            child, output = child.next_functions[0]
        leaf = getattr(child, "variable", None)
        if leaf is not None:
            return self._names.get(id(leaf), "?")
        return (computed_name(self._parameters_below(child)) or "?") + _stack_index(child, output)

    def _parameters_below(self, node: Any) -> set[str]:
        found, seen, pending = set(), {node}, [node]
        while pending:
            top = pending.pop()
            leaf = getattr(top, "variable", None)
            if leaf is not None:
                found.add(self._names.get(id(leaf), "?"))
            children = {child for child, _ in top.next_functions if child is not None} - seen
            seen |= children
            pending.extend(children)
        return found


def _function(node: Any) -> str:
    return str(node.name().partition("Backward")[0])


def _stack_index(node: Any, output: int) -> str:
    """Return ``"[i]"`` where the node takes the i-th matrix out of a parameter that is
    a stack of them.
    """
    leaf = getattr(node.next_functions[0][0], "variable", None) if node.next_functions else None
    if leaf is None or leaf.dim() != 3:
        return ""
    if _function(node) == "Unbind":
        return f"[{output}]"
    return f"[{node._saved_index % len(leaf)}]" if _function(node) == "Select" else ""
