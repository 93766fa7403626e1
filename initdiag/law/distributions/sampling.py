"""Draws of ``ln||Ju||^2`` given not dead: explicit gates and chi-squares, independent
of the inversion that they check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag.law.distributions.transforms import kinds
from initdiag.law.prediction import LayerPrediction
from initdiag.network.architecture import Gate

__all__ = ["draw"]

Array = NDArray[np.float64]


def draw(layers: Sequence[LayerPrediction], size: int, random_state: Any) -> Array:
    """Return ``size`` draws of the sum of ``ln(v X)`` over the layers; the memory is a
    few arrays of that size.

    ``random_state`` is a ``numpy.random.Generator`` or ``RandomState``.
    """
    total = np.zeros(size)
    for layer, count in kinds(layers):
        for _ in range(count):
            total += _draw_layer(layer, size, random_state)
    return total


def _draw_layer(layer: LayerPrediction, size: int, random_state: Any) -> Array:
    """Draw ``ln(v sum d_i^2 z_i^2)``. For Haar weights the normals are the first ones
    of a vector of ``N`` that is scaled to length ``sqrt N``.
    """
    scale = math.log(2 * layer.weight_variance)
    assert layer.gate is not None, "a chain law has discrete gates"
    counts = _draw_counts(layer.gate, layer.fan_out, size, random_state)
    halves = [(d2, random_state.standard_gamma(k / 2)) for d2, k in counts]
    x = sum((d2 * half for d2, half in halves), start=np.zeros(size))
    if layer.haar:
        n = max(layer.fan_in, layer.fan_out)
        rest = n - sum((k for _, k in counts), start=np.zeros(size, dtype=int))
        x /= sum((half for _, half in halves), start=random_state.standard_gamma(rest / 2))
        scale += math.log(n / 2)
    return np.asarray(np.log(x) + scale)


def _draw_counts(
    gate: Gate, width: int, size: int, random_state: Any
) -> list[tuple[float, NDArray[np.int64]]]:
    """Return how many gates have each nonzero ``d^2``, given that one is open: ``[(d^2,
    counts), ...]``.
    """
    terms = [(d * d, p) for d, p in zip(gate.values, gate.probabilities, strict=True) if d and p]
    left = _draw_open(gate.closed_probability, width, size, random_state)
    mass = math.fsum(p for _, p in terms)
    counts = []
    for d2, p in terms[:-1]:
        taken = random_state.binomial(left, min(p / mass, 1.0))
        counts.append((d2, taken))
        left, mass = left - taken, mass - p
    return [*counts, (terms[-1][0], left)]


def _draw_open(closed: float, width: int, size: int, random_state: Any) -> NDArray[np.int64]:
    """Draw a binomial number that is at least 1: the first open gate's place is
    geometric, cut off at ``width``; the gates after it are free.
    """
    if closed == 0.0:
        return np.full(size, width)
    uniform = random_state.uniform(size=size)
    first = np.ceil(np.log1p(uniform * math.expm1(width * math.log(closed))) / math.log(closed))
    first = np.clip(first, 1, width).astype(np.int64)
    return np.asarray(1 + random_state.binomial(width - first, 1 - closed))
