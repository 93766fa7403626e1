"""What the theory does not cover in a network, one entry for each kind of part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from initdiag.network.architecture import Gap

__all__ = ["RESIDUAL_SUM", "Uncovered", "uncovered"]

RESIDUAL_SUM = "residual sum"
"""What a person calls a sum of two values that both depend on the input."""

_NAMES = {
    "abs": "absolute value",
    "add": "sum",
    "alpha_dropout": "alpha dropout",
    "batch_norm": "batch norm",
    "bmm": "product of values",
    "cat": "concatenation",
    "computed": "weight computed in the forward pass",
    "concat": "concatenation",
    "conv1d": "convolution",
    "conv2d": "convolution",
    "conv3d": "convolution",
    "dataflow": "unclear dataflow",
    "div": "quotient",
    "einsum": "product of values",
    "getitem": "selection of entries",
    "gradients": "unexpected gradient",
    "group_norm": "group norm",
    "iadd": "sum",
    "imul": "product",
    "instance_norm": "instance norm",
    "isub": "difference",
    "layer_norm": "layer norm",
    "matmul": "product of values",
    "mul": "product",
    "multi_head_attention_forward": "attention",
    "no linear layer": "forward pass without a linear layer",
    "output": "unclear output",
    "parameters": "parameter changed by the forward pass",
    "path": "change of path",
    "positions": "layer applied to each position",
    "preprocessing": "fixed map of the input",
    "proof": "chain that cannot be run by itself",
    "radd": "sum",
    "random": "random forward pass",
    "relu": "ReLU",
    "reused": "weight used more than once",
    "rms_norm": "RMS norm",
    "rmul": "product",
    "rsub": "difference",
    "scaled_dot_product_attention": "attention",
    "shared": "weight that shares its values",
    "state": "forward pass that keeps a state",
    "sub": "difference",
    "tangents": "unexpected derivative",
    "truediv": "quotient",
    "weight's gradient": "unexpected gradient of a weight",
    "values": "unexpected value",
    "weights": "law of the present weights alone",
}
"""What a person calls the kinds of `Gap`, by the kind or the torch function it names.

Any other kind is called by its function, e.g. ``sin call``.
"""

_PLURALS = {
    "chain that cannot be run by itself": "chains that cannot be run by themselves",
    "change of path": "changes of path",
    "forward pass that keeps a state": "forward passes that keep a state",
    "law of the present weights alone": "laws of the present weights alone",
    "parameter changed by the forward pass": "parameters changed by the forward pass",
    "random forward pass": "random forward passes",
    "weight computed in the forward pass": "weights computed in the forward pass",
    "bias": "biases",
    "fixed map of the input": "fixed maps of the input",
    "forward pass without a linear layer": "forward passes without a linear layer",
    "layer applied to each position": "layers applied to each position",
    "product of values": "products of values",
    "selection of entries": "selections of entries",
    "weight that shares its values": "weights that share their values",
    "weight used more than once": "weights used more than once",
}
"""Plurals that are not made by an s at the end."""

_AS_THEY_ARE = ("bias", "dropout", "lstm", "gru", "rnn", "softmax", "embedding", "sigmoid", "tanh")
"""Functions that a person calls by their own name."""

_MOST_NAMED = 3
"""Places that a sentence names; the rest is counted. Three fill an 80-column line."""


@dataclass(frozen=True, slots=True)
class Uncovered:
    """All gaps of one kind.

    Attributes
    ----------
    name, plural : str
        What a person calls the kind, e.g. ``layer norm``.
    gaps : tuple of Gap
        In the order of execution.
    """

    name: str
    plural: str
    gaps: tuple[Gap, ...]

    @property
    def counted(self) -> str:
        """The kind with its number, e.g. ``7 layer norms``."""
        return f"{len(self.gaps)} {self.name if len(self.gaps) == 1 else self.plural}"

    @property
    def path(self) -> str | None:
        """Where it is, if all gaps of the kind are in one place."""
        paths = {gap.path for gap in self.gaps}
        return paths.pop() if len(paths) == 1 else None

    @property
    def message(self) -> str:
        """The finding's text: what is not covered, where, and why."""
        if self.path is not None:
            return f"not covered by the theory: {self.reason}"
        return f"{self.counted} not covered by the theory ({self.places}): {self.reason}"

    @property
    def places(self) -> str:
        """Where they are: the first few paths, and how many more there are."""
        paths = list(dict.fromkeys(gap.path for gap in self.gaps))
        more = len(paths) - _MOST_NAMED
        named = ", ".join(paths[:_MOST_NAMED])
        return f"{named} and {more} more" if more > 0 else named

    @property
    def places_by_reason(self) -> dict[str, dict[str, int]]:
        """All places under each reason, with how many gaps are in each of them."""
        found: dict[str, dict[str, int]] = {}
        for gap in self.gaps:
            places = found.setdefault(gap.reason, {})
            places[gap.path] = places.get(gap.path, 0) + 1
        return found

    @property
    def reason(self) -> str:
        """Why the first of them is not covered, and how many more reasons there are."""
        reasons = list(dict.fromkeys(gap.reason for gap in self.gaps))
        others = len(reasons) - 1
        return f"{reasons[0]}; {others} more such reasons" if others else reasons[0]


def uncovered(gaps: Iterable[Gap]) -> tuple[Uncovered, ...]:
    """Group gaps by kind, each kind where its first gap is."""
    groups: dict[str, list[Gap]] = {}
    for gap in gaps:
        groups.setdefault(_name(gap), []).append(gap)
    return tuple(
        Uncovered(name, _PLURALS.get(name, f"{name}s"), tuple(found))
        for name, found in groups.items()
    )


def _name(gap: Gap) -> str:
    name = _NAMES.get(gap.kind)
    if name is None:
        return gap.kind if gap.kind in _AS_THEY_ARE else f"{gap.kind} call"
    if name == "sum" and " joins " in gap.reason:
        return RESIDUAL_SUM
    return name
