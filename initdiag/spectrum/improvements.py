"""What would make a chain's Jacobian better conditioned, and by how much: the predicted
spectrum of the changed chain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from initdiag._core.serialization import Record
from initdiag.network.architecture import Architecture, Layer, WeightLaw
from initdiag.spectrum.conditions import Conditions, conditions_of
from initdiag.spectrum.mean_field import SMOOTH, squared_gates
from initdiag.spectrum.predict import predict_spectrum

__all__ = [
    "Improvement",
    "bottlenecks",
    "improvements",
    "log_mean_square",
    "orthogonal",
    "rescaled",
    "widened",
]

_TRIED = [1.1**power for power in range(-15, 16)]
"""Factors for the weights that are tried, 0.24 to 4.2 in steps of 10 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Improvement(Record):
    """One change, in words, and the conditions for training after it."""

    action: str
    after: Conditions


def improvements(architecture: Architecture, before: Conditions) -> tuple[Improvement, ...]:
    """Return changes that bring the spectrum nearer to isometry: orthogonal weights,
    then wider bottlenecks.

    Every one is predicted, and left out if it does not help: nothing is promised from a
    rule of thumb.
    """
    found = [
        Improvement(action, conditions_of(predict_spectrum(arch)))
        for action, arch in _changes(architecture, before)
    ]
    return tuple(i for i in found if i.after.isometry_distance < 0.95 * before.isometry_distance)


def _changes(architecture: Architecture, before: Conditions) -> Iterator[tuple[str, Architecture]]:
    """Yield orthogonal weights, and wider layers. A smooth activation's spectrum takes
    seconds, so that wider layers are tried there only if need be.
    """
    is_haar = all(layer.weight.family == "haar" for layer in architecture.layers)
    if not is_haar:
        yield _orthogonal_words(architecture), orthogonal(architecture)
    is_smooth = any(layer.activation.name in SMOOTH for layer in architecture.layers)
    if len(architecture.layers) > 1 and (is_haar or not is_smooth or before.rank_share < 1):
        chosen = bottlenecks(architecture)
        yield _widened_words(architecture, chosen), widened(architecture, chosen)


def orthogonal(architecture: Architecture) -> Architecture:
    """Return the chain with orthogonal (Haar) weights, every entry's variance as it is:
    the mean eigenvalue stays.
    """
    return dataclasses.replace(
        architecture, layers=tuple(map(_orthogonal_layer, architecture.layers))
    )


def _orthogonal_layer(layer: Layer) -> Layer:
    larger = max(layer.fan_in, layer.fan_out)
    weight = WeightLaw("haar", layer.weight.variance, 3 * larger / (larger + 2))
    return dataclasses.replace(layer, weight=weight)


def _orthogonal_words(architecture: Architecture) -> str:
    """Return `nn.init.orthogonal_` with its gain ``sqrt(v max(fan_in, fan_out))``, if
    that is one for all layers.
    """
    gains = [
        math.sqrt(layer.weight.variance * max(layer.fan_in, layer.fan_out))
        for layer in architecture.layers
    ]
    if max(gains) < 1.01 * min(gains):
        return f"nn.init.orthogonal_(w, {gains[0]:.4g}) in every layer"
    return "orthogonal weights (nn.init.orthogonal_) with every layer's variance kept"


def bottlenecks(architecture: Architecture) -> tuple[int, ...]:
    """Return the indices of the narrowest hidden layers."""
    hidden = architecture.layers[:-1]
    least = min(layer.fan_out for layer in hidden)
    return tuple(index for index, layer in enumerate(hidden) if layer.fan_out == least)


def widened(architecture: Architecture, chosen: tuple[int, ...], factor: int = 2) -> Architecture:
    """Return the chain with the outputs of the chosen layers ``factor`` times as many,
    initialisers and gains as they are.
    """
    sizes = list(architecture.widths)
    for index in chosen:
        sizes[index + 1] *= factor
    layers = tuple(
        dataclasses.replace(
            layer, fan_in=fan_in, fan_out=fan_out, weight=_resized(layer, fan_in, fan_out)
        )
        for layer, fan_in, fan_out in zip(architecture.layers, sizes[:-1], sizes[1:], strict=True)
    )
    return dataclasses.replace(architecture, layers=layers)


def _resized(layer: Layer, fan_in: int, fan_out: int) -> WeightLaw:
    """Return the initialiser's law for the new shape. If none is known, the gain
    (variance times fan_in) is kept.
    """
    weight = layer.weight
    if weight.initializer is not None:
        return WeightLaw.from_initializer(weight.initializer, fan_in, fan_out, weight.gain)
    return WeightLaw(weight.family, weight.variance * layer.fan_in / fan_in, weight.kurtosis)


def _widened_words(architecture: Architecture, chosen: tuple[int, ...]) -> str:
    hidden = architecture.layers[:-1]
    where = f"the {len(chosen)} narrowest layers"
    if len(chosen) == len(hidden):
        where = "the hidden layers"
    elif len(chosen) == 1:
        where = f"layer {hidden[chosen[0]].name}"
    width = hidden[chosen[0]].fan_out
    return f"widen {where} from {width} to {2 * width}"


def rescaled(architecture: Architecture) -> tuple[float, float]:
    """Return the factor for every weight that brings ``(1/n_L) sum sigma^2`` nearest to
    1, and the natural log of that with it.

    In closed form where the gates do not depend on the scale of the weights; by trial
    elsewhere.
    """
    log = log_mean_square(architecture)
    factors = [math.exp(-log / (2 * len(architecture.layers)))]
    if any(layer.activation.gate is None for layer in architecture.layers):
        factors += _TRIED
    trials = [(factor, log_mean_square(architecture.replace(gain=factor))) for factor in factors]
    return min(trials, key=lambda trial: abs(trial[1]))


def log_mean_square(architecture: Architecture) -> float:
    """Return ``ln((1/n_L) sum sigma^2)``: the sum over layers of ``ln(v fan_in E
    d^2)``.
    """
    gates = squared_gates(architecture, architecture.input_rms**2)
    return math.fsum(
        math.log(
            layer.weight.variance
            * layer.fan_in
            * math.fsum(p * d2 for d2, p in zip(squares, shares, strict=True))
        )
        for layer, (squares, shares, _) in zip(architecture.layers, gates, strict=True)
    )
