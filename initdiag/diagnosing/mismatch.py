"""Weights of a gain that was made for another gate, in words."""

from __future__ import annotations

import math
import statistics
from collections import Counter

from initdiag.law.gains import std
from initdiag.network.architecture import Architecture, Layer

__all__ = ["gain_remedy", "mismatch"]

_CLOSE = 0.1
"""Relative distance of two gains that count as one: a choice. Sixteen weights a row
already tell a gain to a tenth.
"""

_KNOWN = (
    (math.sqrt(2), "He's, made for ReLU"),
    (5 / 3, "PyTorch's recommendation for tanh"),
    (1.0, "Xavier's and LeCun's, made for linear layers and tanh"),
    (1 / math.sqrt(3), "PyTorch's default for linear layers"),
)
"""Gains, as ``sqrt(fan_in x variance)``, and whose they are (He et al. 2015, arXiv
1502.01852; Glorot and Bengio 2010; `torch.nn.init.calculate_gain`;
`torch.nn.Linear.reset_parameters`).
"""

_GATE_WORDS = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "gelu": "GELU", "silu": "SiLU",
               "elu": "ELU", "selu": "SELU", "linear": "linear layers"}  # fmt: skip
_UNIT_SLOPE = ("tanh", "hardtanh", "elu", "linear")
"""Gates of slope 1 at 0: gain 1 passes small values on as they are."""


def mismatch(architecture: Architecture, drift: float) -> str:
    """Return what is wrong with the gain of a chain's hidden weights, as a clause;
    empty where it is not what makes the drift.
    """
    hidden = _of_main_gate(architecture)
    if not hidden:
        return ""
    gain = statistics.median(math.sqrt(x.fan_in * x.weight.variance) for x in hidden)
    name = hidden[0].activation.name
    wanted = 1.0 if name in _UNIT_SLOPE else std(hidden[0], False) * math.sqrt(hidden[0].fan_in)
    if abs(gain - wanted) <= _CLOSE * wanted or (gain > wanted) != (drift > 0):
        return ""
    whose = next((f" ({who})" for known, who in _KNOWN if abs(gain / known - 1) < _CLOSE), "")
    word = _GATE_WORDS.get(name, name)
    if name == "sigmoid":
        return f"weights of gain {gain:.3g}{whose} stand before sigmoids, of slope at most 1/4"
    return f"weights of gain {gain:.3g}{whose} stand before {word}, which takes {wanted:.3g}"


def gain_remedy(architecture: Architecture) -> str:
    """Return how the gain of a network's weights is mended, by its gates."""
    hidden = _of_main_gate(architecture)
    name = hidden[0].activation.name if hidden else "relu"
    if name == "sigmoid":
        return "a gate that is centred at 0 (tanh, ReLU) in place of the sigmoids"
    if name in ("tanh", "hardtanh"):
        return "make each layer's gain 1: Xavier or orthogonal initialisation"
    if name in ("relu", "leaky_relu", "linear"):
        return "make each layer's gain 1: He or orthogonal initialisation"
    return "make each layer's gain 1: initdiag.repair(model) finds it for smooth gates"


def _of_main_gate(architecture: Architecture) -> list[Layer]:
    """Return the hidden layers before the gate that most of a chain have."""
    chain = architecture.chain
    hidden = [] if chain is None else [x for x in chain.layers[:-1] if x.weight.variance > 0]
    if not hidden:
        return []
    main = Counter(layer.activation for layer in hidden).most_common(1)[0][0]
    return [layer for layer in hidden if layer.activation == main]
