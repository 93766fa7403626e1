"""What to change, and what that change would do, from the law itself.

Remedies, in the order of what they cost: another initialiser; other widths under the budget there is (the same parameters, the same sum of widths); more
width; less depth. Under a budget equal hidden widths are tried, which are the best for a sum of widths (Hanin and Rolnick 2018, arXiv 1803.01719) and
near the best for parameters; `initdiag.widths` searches further. Residual sums and normalisation are no chains, the law does not speak of
them, and they are not advised.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from initdiag.architecture import Activation, Architecture, Layer, WeightLaw
from initdiag.law.chain import predict
from initdiag.law.finite_width import dead_probability, layer_log_moments
from initdiag.prediction import Prediction
from initdiag.risk import failure_risk, risk_of_moments

__all__ = ["Advice", "advise"]

_WIDEST = 32
"""Most times that hidden layers are widened."""

_TARGET = 0.5
"""A remedy is enough if the risk is then at most this share of the highest risk that passes."""

_WIDTHS = "widths = "
"""How the code of a shape begins."""

_LEAST_GAIN = 0.9
"""Share of the risk that a remedy must leave at most to be worth a line."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One remedy: what to do, code to paste, and the law before and after (natural log; risk for the judged optimiser).

    The code of an initialiser speaks of one layer's weight ``w`` and bias ``b``; that of a shape sets ``widths`` first, then does the same.
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
        return bool(self.code) and not self.code.startswith(_WIDTHS)


@dataclass(frozen=True, slots=True)
class _Remedy:
    """A change, its cost (1 for two lines of code; shapes: 2 and more, times the share of parameters they take), and its risk."""

    action: str
    code: str
    architecture: Architecture
    cost: float
    risk: float


def advise(architecture: Architecture, prediction: Prediction, optimizer: str, max_risk: float) -> tuple[Advice, ...]:
    """Return remedies that lower the risk: first those that lower it enough, each kind by what it gains over what it costs.

    Enough is half the highest risk that passes. Where an initialiser alone is not enough, changes of shape are added, each with the best initialiser.
    Empty where the network is no chain: an effect that cannot be predicted is not promised.
    """
    if prediction.coverage == "none" or architecture.gaps:
        return ()
    risk = _scorer(optimizer)
    before, target = failure_risk(prediction, optimizer), _TARGET * max_risk
    found = [_Remedy(action, code, arch, 1.0, risk(arch)) for action, code, arch in _initialisers(architecture)]
    best = min(found, key=lambda remedy: remedy.risk)
    if best.risk > target and _has_shape(architecture):
        found += [r for r in _shapes(best, risk, target) if r.risk < _LEAST_GAIN * best.risk]
    worth = [r for r in found if r.risk < _LEAST_GAIN * before]
    worth.sort(key=lambda r: (r.risk > target, -round((before - r.risk) / r.cost, 1)))  # of like ones, as listed
    return tuple(_advice(remedy, prediction, before) for remedy in worth)


def _scorer(optimizer: str) -> Callable[[Architecture], float]:
    """The risk of an architecture whose weights are normal or Haar: as by `predict`, with each distinct layer looked at once."""

    def risk(architecture: Architecture) -> float:
        if any(layer.activation.gate is None for layer in architecture.layers):
            return failure_risk(predict(architecture), optimizer)
        return risk_of_moments(*_totals(architecture), optimizer)

    return risk


def _totals(architecture: Architecture) -> tuple[float, float, float]:
    """Hidden drift, hidden log-variance and dead probability: see `Prediction`."""
    *hidden, output = architecture.layers
    linear_output = output.activation.name == "linear"
    drift = 2 * math.log(output.gain) if linear_output else 0.0
    variance = alive = 0.0
    counts = Counter(map(id, hidden if linear_output else architecture.layers))
    for layer in {id(layer): layer for layer in architecture.layers if id(layer) in counts}.values():
        count, moments, gate = counts[id(layer)], layer_log_moments(layer), layer.activation.gate
        assert gate is not None
        drift += count * (moments.mean + math.log(layer.fan_in / layer.fan_out))
        variance += count * moments.variance
        alive += count * math.log1p(-dead_probability(gate, layer.fan_out))
    return drift, variance, -math.expm1(alive)


def _initialisers(architecture: Architecture) -> Iterator[tuple[str, str, Architecture]]:
    """He and orthogonal for ReLU's family, by its slope; Xavier, He and orthogonal of gain 1 for other activations."""
    slope = next((a.negative_slope for a in _activations(architecture) if a.name == "leaky_relu"), 0.0)
    is_smooth = any(a.gate is None for a in _activations(architecture))
    gain = math.sqrt(1 / (1 + slope**2))
    he = f"nn.init.kaiming_normal_(w, {_nonlinearity(slope)})"
    if is_smooth:
        xavier = "nn.init.xavier_normal_(w)"
        yield xavier, f"{xavier}; nn.init.zeros_(b)", architecture.replace(init="xavier_normal")
    yield he, f"{he}; nn.init.zeros_(b)", architecture.replace(init="he_normal", gain=gain)
    factor = 1.0 if is_smooth else math.sqrt(2) * gain
    written = "" if is_smooth else f", {factor:.4g}" if slope else ", 2**0.5"
    haar = f"nn.init.orthogonal_(w{written})"
    yield haar, f"{haar}; nn.init.zeros_(b)", architecture.replace(init="orthogonal", gain=factor / math.sqrt(2))


def _nonlinearity(slope: float) -> str:
    return f'a={slope:g}, nonlinearity="leaky_relu"' if slope else 'nonlinearity="relu"'


def _activations(architecture: Architecture) -> Iterator[Activation]:
    return (layer.activation for layer in architecture.layers)


def _has_shape(architecture: Architecture) -> bool:
    """Whether there are hidden layers, all of one kind, so that they can be given other widths and numbers."""
    return len({layer.activation for layer in architecture.layers[:-1]}) == 1


def _shapes(best: _Remedy, risk: Callable[[Architecture], float], target: float) -> Iterator[_Remedy]:
    """Changes of shape on top of the best initialiser. Whole-network ones by the least change that is enough."""
    widths = list(best.architecture.widths)

    def remedy(what: str, new: list[int], price: float = 2.0) -> _Remedy:
        arch = _reshaped(best.architecture, new)
        cost = price * max(_parameters(new) / _parameters(widths), 1.0)
        return _Remedy(what, f"{_WIDTHS}{_written(new)}; {best.code}", arch, cost, risk(arch))

    def risk_of(new: list[int]) -> float:
        return risk(_reshaped(best.architecture, new))

    yield from (remedy(what, new) for what, new in _same_budget(widths))
    narrow = _without_bottleneck(best.architecture)
    if narrow is not None:
        index, new = narrow
        yield remedy(f"widen the bottleneck, hidden layer {index}: {widths[index]} -> {new[index]}", new)
    wide = _least(lambda m: risk_of(_widened(widths, m)) <= target, 1, (_WIDEST - 1) * min(widths[1:-1]))
    if wide is not None:
        new = _widened(widths, wide)
        yield remedy(f"also widen the hidden layers: {_summary(widths)} -> {_summary(new)}", new)
    fewer = _least(lambda m: risk_of(_shortened(widths, m)) <= target, 1, len(widths) - 3)
    if fewer is not None:
        new = _shortened(widths, fewer)
        yield remedy(f"or use fewer layers: {_summary(widths)} -> {_summary(new)}", new, price=3.0)


def _least(is_enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number in ``low..high`` that is enough, by bisection; None if ``high`` is not."""
    if high < low or not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def _widened(widths: list[int], more: int) -> list[int]:
    """Hidden widths all grown in proportion, the narrowest by ``more`` units."""
    least = min(widths[1:-1])
    return [widths[0], *(-(-n * (least + more) // least) for n in widths[1:-1]), widths[-1]]


def _shortened(widths: list[int], fewer: int) -> list[int]:
    """The last hidden layers left out."""
    return [*widths[: -1 - fewer], widths[-1]]


def _same_budget(widths: list[int]) -> Iterator[tuple[str, list[int]]]:
    """Equal hidden widths for the same sum of widths, and for the same number of parameters."""
    hidden = widths[1:-1]
    if len(set(hidden)) == 1:
        return
    of_sum = sum(hidden) // len(hidden)
    of_parameters = _equal_width(len(hidden), widths[0], widths[-1], _parameters(widths))
    for what, n in (("the same sum of widths", of_sum), ("the same parameters", of_parameters)):
        if n >= 1:
            yield (
                f"equal widths, {what}: {_summary(widths)} -> {len(hidden)} x {n}",
                [widths[0], *[n] * len(hidden), widths[-1]],
            )


def _equal_width(hidden: int, fan_in: int, fan_out: int, parameters: int) -> int:
    """Return the largest ``n`` for which ``hidden`` layers of ``n`` cost no more: ``(hidden - 1) n^2 + (fan_in + fan_out + hidden) n + fan_out``."""
    a, b, c = hidden - 1, fan_in + fan_out + hidden, parameters - fan_out
    return math.floor(2 * c / (b + math.sqrt(b * b + 4 * a * c)))


def _parameters(widths: Sequence[int]) -> int:
    return sum((m + 1) * n for m, n in itertools.pairwise(widths))


def _without_bottleneck(architecture: Architecture) -> tuple[int, list[int]] | None:
    """Index of the hidden layer of the largest log-variance, and the widths with it as wide as the median hidden layer; None if it is."""
    if any(layer.activation.gate is None for layer in architecture.layers):
        return None
    widths = list(architecture.widths)

    def fluctuation(layer: Layer) -> float:
        return layer_log_moments(layer).variance

    index = 1 + max(range(len(widths) - 2), key=lambda i: fluctuation(architecture.layers[i]))
    usual = math.ceil(statistics.median(widths[1:-1]))
    return None if widths[index] >= usual else (index, [*widths[:index], usual, *widths[index + 1 :]])


def _reshaped(architecture: Architecture, widths: list[int]) -> Architecture:
    """The same activations and initialisers on other widths; a layer that is left out is one of the last hidden ones."""
    layers = architecture.layers[: len(widths) - 2] + architecture.layers[-1:]
    changed = tuple(
        _layer(layer.weight.initializer, layer.weight.gain, layer.activation, *sizes)
        for layer, sizes in zip(layers, itertools.pairwise(widths), strict=True)
    )
    return Architecture(changed, widths[0], widths[-1], input_rms=architecture.input_rms)


@functools.lru_cache(maxsize=4096)
def _layer(initializer: str | None, gain: float, activation: Activation, fan_in: int, fan_out: int) -> Layer:
    """A layer without a bias; equal ones are one object."""
    law = WeightLaw.from_initializer(initializer or "he_normal", fan_in, fan_out, gain)
    return Layer(f"{fan_in} -> {fan_out}", fan_in, fan_out, law, activation)


def _summary(sizes: list[int]) -> str:
    hidden = sizes[1:-1]
    if not hidden:
        return "no hidden layer"
    low, high = min(hidden), max(hidden)
    return f"{len(hidden)} x {low}" if low == high else f"{len(hidden)} of {low} to {high}"


def _written(widths: list[int]) -> str:
    """Python for a list, runs of equal widths folded.

    >>> _written([64, 9, 9, 9, 2])
    '[64, *[9] * 3, 2]'
    """
    runs = [(n, len(list(run))) for n, run in itertools.groupby(widths)]
    return f"[{', '.join(f'*[{n}] * {k}' if k > 2 else ', '.join([str(n)] * k) for n, k in runs)}]"


def _advice(remedy: _Remedy, before: Prediction, risk_before: float) -> Advice:
    after = predict(remedy.architecture)
    assert before.rms_gain_log_mean is not None
    assert before.log_variance is not None
    assert after.rms_gain_log_mean is not None
    assert after.log_variance is not None
    return Advice(
        remedy.action,
        remedy.code,
        before.rms_gain_log_mean,
        after.rms_gain_log_mean,
        before.log_variance,
        after.log_variance,
        risk_before,
        remedy.risk,
    )
