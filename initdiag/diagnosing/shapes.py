"""Other shapes of a chain, and skip connections, each with what the law makes of it.

In the order of what they cost: other widths under the budget there is (the same
parameters, the same sum of widths); more width; less depth; skip connections. Under a
budget equal hidden widths are tried, which are the best for a sum of widths (Hanin and
Rolnick 2018, arXiv 1803.01719) and near the best for parameters;
`initdiag.screening.sizing` searches further. Skip connections are simulated
(`initdiag.law.simulate.residual`).
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterator

from initdiag.diagnosing.remedies import DRAWS, Remedy, activations, moments_of, on_chain
from initdiag.law.layer import layer_log_moments
from initdiag.law.output import output_draw
from initdiag.law.prediction import Prediction
from initdiag.law.simulate.residual import can_be_residual, simulate_residual
from initdiag.network.architecture import Activation, Architecture, Layer, WeightLaw
from initdiag.network.reshape import (
    equal_widths,
    parameters,
    same_budget,
    shortened,
    summary,
    widened,
    written,
)

__all__ = ["reshaped"]

_WIDEST, _WIDEST_SIMULATED = 32, 4
"""Most times that hidden layers are widened, and the same where each trial is a
simulation: choices. A network 32 times as wide is no remedy that anyone would take;
simulations take their time.
"""

_RESIDUAL_DEPTH = 3
"""Layers that a network with skip connections counts for in the risk's step: first,
last, and all blocks together, each of whose gradients has the share scale^2 = 1/blocks.
"""

_WIDTHS = "widths = "
"""How the code of a shape begins."""


def reshaped(best: Remedy, target: float) -> Iterator[Remedy]:
    """Yield changes of shape on top of an initialiser, then skip connections."""
    assert best.architecture is not None
    if len({layer.activation for layer in best.architecture.layers[:-1]}) == 1:
        yield from _shapes(best, best.architecture, target)
        yield from _residual(best, best.architecture)


def _residual(best: Remedy, architecture: Architecture) -> Iterator[Remedy]:
    """Skip connections around the hidden layers, which are made equally wide where they
    are not, simulated. There are none before sigmoids: their mean of 1/2 adds up along
    the sum, and 20 such layers of 100 diverged in every run at SGD 0.1.
    """
    if architecture.layers[0].activation.name == "sigmoid":
        return
    widths = list(architecture.widths)
    equal = equal_widths(widths)
    architecture = architecture if equal == widths else _reshaped(architecture, equal)
    if not can_be_residual(architecture):
        return
    blocks = len(widths) - 3
    scale = float(f"{blocks**-0.5:.3g}")
    samples = simulate_residual(architecture, scale, DRAWS, seed=0)
    sizes = architecture.input_size, architecture.output_size
    draw = output_draw(architecture, as_gaussian=True)
    after = Prediction.simulated(
        samples, ("skip connections, simulated",), *sizes, draw, _RESIDUAL_DEPTH
    )
    activation = "relu" if architecture.layers[0].activation.name == "relu" else "activation"
    action = (
        f"skip connections around {blocks} hidden layers, x + {scale:g} * layer({activation}(x))"
    )
    code = best.code
    if equal != widths:
        action, code = f"{action}, all of {equal[1]} units", f"{_WIDTHS}{written(equal)}; {code}"
    yield Remedy(
        action, f"{code}  # and: {action}", best.training, 2.0,
        (*moments_of(after), _RESIDUAL_DEPTH), architecture, scale, after,
    )  # fmt: skip


def _shapes(best: Remedy, architecture: Architecture, target: float) -> Iterator[Remedy]:
    """Yield changes of shape on top of an initialiser.

    Whole-network ones by the least change that is enough.
    """
    widths = list(architecture.widths)

    def remedy(what: str, new: list[int], price: float = 2.0) -> Remedy:
        cost = price * max(parameters(new) / parameters(widths), 1.0)
        code = f"{_WIDTHS}{written(new)}; {best.code}"
        return on_chain(what, code, _reshaped(architecture, new), best.training, cost)

    def risk_of(new: list[int]) -> float:
        return on_chain("", "", _reshaped(architecture, new), best.training).risk()

    yield from (remedy(what, new) for what, new in same_budget(widths))
    narrow = _without_bottleneck(architecture)
    if narrow is not None:
        index, new = narrow
        yield remedy(
            f"widen the bottleneck, hidden layer {index}: {widths[index]} -> {new[index]}", new
        )
    is_simulated = any(activation.gate is None for activation in activations(architecture))
    most = _WIDEST_SIMULATED if is_simulated else _WIDEST
    wide = _least(
        lambda m: risk_of(widened(widths, m)) <= target, 1, (most - 1) * min(widths[1:-1])
    )
    if wide is not None:
        new = widened(widths, wide)
        yield remedy(f"widen the hidden layers: {summary(widths)} -> {summary(new)}", new)
    fewer = _least(lambda m: risk_of(shortened(widths, m)) <= target, 1, len(widths) - 3)
    if fewer is not None:
        new = shortened(widths, fewer)
        yield remedy(f"use fewer layers: {summary(widths)} -> {summary(new)}", new, price=3.0)


def _least(is_enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number in ``low..high`` that is enough, by bisection; None if
    ``high`` is not.
    """
    if high < low or not is_enough(high):
        return None
    return low + bisect.bisect_left(range(low, high), True, key=is_enough)


def _without_bottleneck(architecture: Architecture) -> tuple[int, list[int]] | None:
    """Return the index of the hidden layer of the largest log-variance, and the widths
    with that layer widened to the median. None if it is not narrower.
    """
    if any(layer.activation.gate is None for layer in architecture.layers):
        return None
    widths = list(architecture.widths)

    def fluctuation(layer: Layer) -> float:
        return layer_log_moments(layer).variance

    index = 1 + max(range(len(widths) - 2), key=lambda i: fluctuation(architecture.layers[i]))
    usual = math.ceil(statistics.median(widths[1:-1]))
    return (
        None if widths[index] >= usual else (index, [*widths[:index], usual, *widths[index + 1 :]])
    )


def _reshaped(architecture: Architecture, widths: list[int]) -> Architecture:
    """Keep activations and initialisers on other widths. A layer that is left out is
    one of the last hidden ones.
    """
    layers = architecture.layers[: len(widths) - 2] + architecture.layers[-1:]
    changed = tuple(
        _layer(layer.weight.initializer, layer.weight.gain, layer.activation, *sizes)
        for layer, sizes in zip(layers, itertools.pairwise(widths), strict=True)
    )
    return Architecture(changed, widths[0], widths[-1], input_rms=architecture.input_rms)


@functools.lru_cache(maxsize=4096)
def _layer(
    initializer: str | None, gain: float, activation: Activation, fan_in: int, fan_out: int
) -> Layer:
    """Return a layer without a bias; equal layers are one object."""
    law = WeightLaw.from_initializer(initializer or "he_normal", fan_in, fan_out, gain)
    return Layer(f"{fan_in} -> {fan_out}", fan_in, fan_out, law, activation)
