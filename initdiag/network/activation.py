"""Activations, and the discrete law of their derivatives where they have one."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, get_args

from initdiag._core.validation import choice, number_in
from initdiag.errors import InvalidInput, explain

__all__ = ["ACTIVATIONS", "Activation", "ActivationName", "Gate"]

_LARGEST_SLOPE = 1e30
"""Moments of a gate up to the tenth are finite in float64."""

ActivationName = Literal[
    "linear", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "elu", "selu",
    "softplus", "hardtanh", "relu6", "rrelu",
]  # fmt: skip
"""The name of an activation that the theory knows."""

ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)
"""The activations that an ``Activation`` may name; the first three have a discrete
gate, which the laws are exact for.

``rrelu`` is the one in train mode, whose slope is drawn from a range: in eval mode it
is ``leaky_relu`` with the mean slope.
"""


@dataclass(frozen=True, slots=True)
class Gate:
    """The finite discrete law of an activation's derivative ``d``: ``values`` with
    ``probabilities``.

    ReLU is ``Gate((0, 1), (1/2, 1/2))`` (Hanin and Nica 2018, Proposition 2: for
    symmetric weights the gates may be replaced by independent fair coins).
    """

    values: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        total = math.fsum(self.probabilities)
        if len(self.values) != len(self.probabilities) or not self.values or abs(total - 1) > 1e-12:
            raise InvalidInput(
                explain(
                    expected="as many gate values as probabilities, which sum to 1",
                    got=f"{self.values} with {self.probabilities}",
                    do="Give every value its probability.",
                )
            )
        for p in self.probabilities:
            number_in(p, "a gate probability", 0.0, math.nextafter(1.0, 2.0))
        if not all(math.isfinite(d) for d in self.values) or self.second_moment == 0.0:
            raise InvalidInput(
                explain(
                    expected="finite gate values that are not all 0",
                    got=str(self.values),
                    do="A gate that is never open makes a network without gradient.",
                )
            )

    def moment(self, order: int) -> float:
        """Return E d^order."""
        return _moment(self, order)

    @property
    def second_moment(self) -> float:
        """E d^2."""
        return self.moment(2)

    @property
    def kurtosis(self) -> float:
        """``c = E d^4 / (E d^2)^2``; ``1/p`` for a gate that is open with probability
        ``p``.
        """
        return self.moment(4) / self.moment(2) ** 2

    @property
    def closed_probability(self) -> float:
        """P(d = 0)."""
        return math.fsum(
            p for d, p in zip(self.values, self.probabilities, strict=True) if d == 0.0
        )

    @property
    def is_linear(self) -> bool:
        """Whether no activation made this gate: nothing at all, or inverted dropout.

        Inverted dropout has the value ``1/q`` with its probability ``q`` to keep, so
        that the one value that is not 0 times its probability is 1. An activation's
        gate is not 0 half the time for each of its branches, and never has such a
        product.
        """
        branches = [d * p for d, p in zip(self.values, self.probabilities, strict=True) if d != 0.0]
        return len(branches) == 1 and math.isclose(branches[0], 1.0, rel_tol=1e-12)


@functools.lru_cache(maxsize=1024)
def _moment(gate: Gate, order: int) -> float:
    return math.fsum(p * d**order for d, p in zip(gate.values, gate.probabilities, strict=True))


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation, with the inverted dropout that follows it (or precedes the next
    layer).

    Attributes
    ----------
    name : str
        One of ``ACTIVATIONS``.
    negative_slope : float
        Slope on the negative side; used by ``leaky_relu`` alone, 0 elsewhere.
    dropout : float
        Rate of an active dropout, in [0, 1); 0 in eval mode.
    """

    name: ActivationName
    negative_slope: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choice(self.name, "activation", ACTIVATIONS)
        number_in(self.dropout, "dropout", 0.0, 1.0)
        if not abs(self.negative_slope) <= _LARGEST_SLOPE or (
            self.negative_slope and self.name != "leaky_relu"
        ):
            raise InvalidInput(
                explain(
                    expected="a finite negative_slope of at most 1e30, of leaky_relu alone",
                    got=f"{self.negative_slope} for {self.name}",
                    do="Leave negative_slope out.",
                )
            )

    @property
    def gate(self) -> Gate | None:
        """The discrete law of the derivative, dropout included; None where it is not
        discrete (tanh, GELU ...).
        """
        return _gate(self)

    @property
    def label(self) -> str:
        """The name in words for a report, e.g. ``leaky ReLU 0.01, dropout 0.1``."""
        words = {
            "relu": "ReLU",
            "leaky_relu": f"leaky ReLU {self.negative_slope:g}",
            "relu6": "ReLU6",
            "rrelu": "RReLU",
        }
        text = words.get(self.name, self.name)
        return f"{text}, dropout {self.dropout:g}" if self.dropout else text


@functools.lru_cache(maxsize=1024)
def _gate(activation: Activation) -> Gate | None:
    """Return `Activation.gate`, cached: there are few activations and many calls."""
    branches = {
        "linear": (1.0,),
        "relu": (0.0, 1.0),
        "leaky_relu": (activation.negative_slope, 1.0),
    }.get(activation.name)
    if branches is None:
        return None
    keep, share = 1.0 - activation.dropout, 1.0 / len(branches)
    law: dict[float, float] = {}
    for value in branches:
        law[value / keep] = law.get(value / keep, 0.0) + share * keep
        if activation.dropout:
            law[0.0] = law.get(0.0, 0.0) + share * activation.dropout
    return Gate(tuple(law), tuple(law.values()))
