"""What to change, and what that change would do, from the law itself.

Remedies, in the order of what they cost: another initialiser; a lower learning rate,
where it is known; other widths under the budget there is (the same parameters, the same
sum of widths); more width; less depth; skip connections. Under a budget equal hidden
widths are tried, which are the best for a sum of widths (Hanin and Rolnick 2018, arXiv
1803.01719) and near the best for parameters; `initdiag.screening.sizing` searches
further. Skip connections are simulated (`initdiag.law.simulate.residual`).
Normalisation is not advised: simulated, a LayerNorm before each ReLU leaves the drift
that He initialisation has, and a larger fluctuation (40 layers of 14: log-variance 29
against 20).
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from initdiag.diagnosing.risk import Training, failure_risk, risk_of_moments
from initdiag.law.layer import dead_probability, layer_log_moments, without_own_draw
from initdiag.law.output import output_draw
from initdiag.law.predict import predict
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

__all__ = ["Advice", "advise"]

_WIDEST, _WIDEST_SIMULATED = 32, 4
"""Most times that hidden layers are widened, and the same where each trial is a
simulation: choices. A network 32 times as wide is no remedy that anyone would take;
simulations take their time.
"""

_TARGET = 0.5
"""A remedy is enough if the risk is then at most this share of the highest risk that
passes: a choice, so that what passes does so by more than the risk's own error.
"""

_DRAWS = 512
"""Draws of a simulation: its log-variance is known to ``sqrt(2/512)``, 6 %."""

_RESIDUAL_DEPTH = 3
"""Layers that a network with skip connections counts for in the risk's step: first,
last, and all blocks together, each of whose gradients has the share scale^2 = 1/blocks.
"""

_HALF_DECADES = 4
"""Down to a hundredth of the learning rate: below, 400 steps of the calibration study
do not start anything sooner.
"""

_WIDTHS = "widths = "
"""How the code of a shape begins."""

_LEAST_GAIN = 0.9
"""Share of the risk that a remedy must leave at most to be worth a line: a choice."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One remedy: what to do, code to paste, and the law before and after (natural log;
    risk for the judged optimiser).

    The code of an initialiser speaks of one layer's weight ``w`` and bias ``b``; that
    of a shape sets ``widths`` first, that of a learning rate ``lr``, then it does the
    same.
    """

    action: str
    code: str
    drift_before: float
    drift_after: float
    log_variance_before: float
    log_variance_after: float
    risk_before: float
    risk_after: float

    @property
    def is_snippet(self) -> bool:
        """Whether the action itself is code, not words."""
        return bool(self.code) and self.action.startswith("nn.init.")


@dataclass(frozen=True, slots=True)
class _Remedy:
    """A change, its cost (1 for two lines of code; a half more for another learning
    rate; shapes: 2 and more, times the share of parameters they take), its risk.
    """

    action: str
    code: str
    architecture: Architecture
    cost: float
    risk: float
    after: Prediction | None = None
    """What it makes of the network, where that is not the prediction for
    ``architecture``.
    """


def advise(
    architecture: Architecture, prediction: Prediction, training: Training, max_risk: float
) -> tuple[Advice, ...]:
    """Return remedies that lower the risk: first those that lower it enough, each kind
    by what it gains over what it costs.

    Enough is half the highest risk that passes. Where an initialiser alone is not
    enough, changes of shape are added, each with the best initialiser. Empty where the
    network is not a chain: an effect that cannot be predicted is not promised.
    """
    if prediction.coverage == "none" or architecture.gaps:
        return ()
    risk = _scorer(training)
    before, target = _risk(prediction, training), _TARGET * max_risk
    found = [
        _Remedy(action, code, arch, 1.0, risk(arch))
        for action, code, arch in _initialisers(architecture)
    ]
    best = _best(found, architecture)
    if best.risk > target:
        also = "" if _same_weights(best.architecture, architecture) else f", with {best.action}"
        more = (
            r
            for r in _beyond_initialisers(best, training, target)
            if r.risk < _LEAST_GAIN * best.risk
        )
        found += [dataclasses.replace(r, action=r.action + also) for r in more]
    worth = [r for r in found if r.risk < _LEAST_GAIN * before]
    worth.sort(
        key=lambda r: (r.risk > target, -round((before - r.risk) / r.cost, 1))
    )  # the listed order decides between equals
    return tuple(_advice(remedy, prediction, before) for remedy in worth)


def _best(found: Sequence[_Remedy], architecture: Architecture) -> _Remedy:
    """Return the initialiser of the least risk. The network's own stays unless another
    is clearly better.
    """
    best = min(found, key=lambda remedy: remedy.risk)
    own = (
        r
        for r in found
        if _same_weights(r.architecture, architecture) and best.risk >= _LEAST_GAIN * r.risk
    )
    return next(own, best)


def _beyond_initialisers(best: _Remedy, training: Training, target: float) -> Iterator[_Remedy]:
    """Yield what to change on top of the best initialiser."""
    yield from _slower(best, training, target)
    if _has_shape(best.architecture):
        yield from _shapes(best, _scorer(training), target)
        yield from _residual(best, training)


def _same_weights(one: Architecture, other: Architecture) -> bool:
    """Return whether every weight has the same law up to rounding. The initialiser then
    needs no mention.
    """
    pairs = zip(one.layers, other.layers, strict=True)
    return all(
        a.weight.family == b.weight.family
        and math.isclose(a.weight.variance, b.weight.variance, rel_tol=1e-6)
        for a, b in pairs
    )


def _risk(prediction: Prediction, training: Training) -> float:
    return failure_risk(prediction, training.optimizer, training.lr, training.loss)


def _scorer(training: Training) -> Callable[[Architecture], float]:
    """Return a function for the risk of an architecture whose weights are normal or
    Haar. It gives what `predict` gives, and looks at each distinct layer once.
    """

    def risk(architecture: Architecture) -> float:
        if any(layer.activation.gate is None for layer in architecture.layers):
            return _risk(predict(architecture, draws=_DRAWS), training)
        return risk_of_moments(*_totals(architecture), len(architecture.layers), training)

    return risk


def _totals(architecture: Architecture) -> tuple[float, float, float]:
    """Return hidden drift, log-variance and dead probability: see
    `Prediction.hidden_drift`.
    """
    *hidden, output = architecture.layers
    drift = variance = alive = 0.0
    if output.is_linear_output:
        kept = without_own_draw(output)
        drift, variance = kept.mean + math.log(output.fan_in / output.fan_out), kept.variance
    counted = hidden if output.is_linear_output else architecture.layers
    counts = Counter(map(id, counted))
    for layer in {id(layer): layer for layer in counted}.values():
        count, moments, gate = counts[id(layer)], layer_log_moments(layer), layer.activation.gate
        assert gate is not None
        drift += count * (moments.mean + math.log(layer.fan_in / layer.fan_out))
        variance += count * moments.variance
        alive += count * math.log1p(-dead_probability(gate, layer.fan_out))
    return drift, variance, -math.expm1(alive)


def _slower(best: _Remedy, training: Training, target: float) -> Iterator[_Remedy]:
    """Yield the largest lower learning rate, in half decades, at which the best
    initialiser is enough. Nothing is proposed where the rate is not known.
    """
    for halves in range(1, _HALF_DECADES + 1) if training.lr is not None else ():
        assert training.lr is not None
        lr = float(f"{training.lr * 10 ** (-halves / 2):.1g}")
        risk = _scorer(dataclasses.replace(training, lr=lr))(best.architecture)
        if risk <= target:
            action = f"lower the learning rate: {training.lr:g} -> {lr:g}"
            yield _Remedy(action, f"lr = {lr:g}; {best.code}", best.architecture, 1.5, risk)
            return


def _residual(best: _Remedy, training: Training) -> Iterator[_Remedy]:
    """Skip connections around the hidden layers, which are made equally wide where they
    are not, simulated.
    """
    widths = list(best.architecture.widths)
    equal = equal_widths(widths)
    architecture = best.architecture if equal == widths else _reshaped(best.architecture, equal)
    if not can_be_residual(architecture):
        return
    blocks = len(widths) - 3
    scale = float(f"{blocks**-0.5:.3g}")
    samples = simulate_residual(architecture, scale, _DRAWS, seed=0)
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
    yield _Remedy(
        action, f"{code}  # and: {action}", architecture, 2.0, _risk(after, training), after
    )


def _initialisers(architecture: Architecture) -> Iterator[tuple[str, str, Architecture]]:
    """Yield initialisers by the hidden layers: He and orthogonal for ReLU's family, by
    its slope, and for linear layers; Xavier, He and orthogonal of gain 1 for smooth
    ones.
    """
    hidden = list(_activations(architecture))[:-1] or list(_activations(architecture))
    slope = next((a.negative_slope for a in hidden if a.name == "leaky_relu"), 0.0)
    is_smooth, is_linear = (
        any(a.gate is None for a in hidden),
        all(a.name == "linear" for a in hidden),
    )
    slope = 1.0 if is_linear else slope
    gain = math.sqrt(1 / (1 + slope**2))
    he = f"nn.init.kaiming_normal_(w, {_nonlinearity(slope)})"
    if is_smooth:
        xavier = "nn.init.xavier_normal_(w)"
        yield xavier, f"{xavier}; nn.init.zeros_(b)", architecture.replace(init="xavier_normal")
    yield he, f"{he}; nn.init.zeros_(b)", architecture.replace(init="he_normal", gain=gain)
    factor = 1.0 if is_smooth else math.sqrt(2) * gain
    argument = "" if is_smooth or is_linear else f", {factor:.4g}" if slope else ", 2**0.5"
    haar = f"nn.init.orthogonal_(w{argument})"
    yield (
        haar,
        f"{haar}; nn.init.zeros_(b)",
        architecture.replace(init="orthogonal", gain=factor / math.sqrt(2)),
    )


def _nonlinearity(slope: float) -> str:
    if slope == 1:
        return 'nonlinearity="linear"'
    return f'a={slope:g}, nonlinearity="leaky_relu"' if slope else 'nonlinearity="relu"'


def _activations(architecture: Architecture) -> Iterator[Activation]:
    return (layer.activation for layer in architecture.layers)


def _has_shape(architecture: Architecture) -> bool:
    """Return whether there are hidden layers, all of one kind, so that they can be
    given other widths and numbers.
    """
    return len({layer.activation for layer in architecture.layers[:-1]}) == 1


def _shapes(
    best: _Remedy, risk: Callable[[Architecture], float], target: float
) -> Iterator[_Remedy]:
    """Yield changes of shape on top of the best initialiser.

    Whole-network ones by the least change that is enough.
    """
    widths = list(best.architecture.widths)

    def remedy(what: str, new: list[int], price: float = 2.0) -> _Remedy:
        arch = _reshaped(best.architecture, new)
        cost = price * max(parameters(new) / parameters(widths), 1.0)
        return _Remedy(what, f"{_WIDTHS}{written(new)}; {best.code}", arch, cost, risk(arch))

    def risk_of(new: list[int]) -> float:
        return risk(_reshaped(best.architecture, new))

    yield from (remedy(what, new) for what, new in same_budget(widths))
    narrow = _without_bottleneck(best.architecture)
    if narrow is not None:
        index, new = narrow
        yield remedy(
            f"widen the bottleneck, hidden layer {index}: {widths[index]} -> {new[index]}", new
        )
    is_simulated = any(activation.gate is None for activation in _activations(best.architecture))
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


def _advice(remedy: _Remedy, before: Prediction, risk_before: float) -> Advice:
    after = remedy.after or predict(remedy.architecture)
    was, becomes = before.known, after.known
    return Advice(
        remedy.action,
        remedy.code,
        was.rms_gain_log_mean,
        becomes.rms_gain_log_mean,
        was.log_variance,
        becomes.log_variance,
        risk_before,
        remedy.risk,
    )
