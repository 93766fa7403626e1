"""What to change, and what that change would do, from the law itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initdiag.architecture import Activation, Architecture
from initdiag.law.chain import predict
from initdiag.prediction import Prediction
from initdiag.risk import failure_risk

__all__ = ["Advice", "advise"]

_FACTORS = (1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 16, 32)
"""Widenings that are tried."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One remedy: what to do, code to paste, and the law before and after (natural log; risk for the judged optimiser)."""

    action: str
    code: str
    drift_before: float
    drift_after: float
    log_variance_before: float
    log_variance_after: float
    risk_before: float
    risk_after: float


def advise(architecture: Architecture, prediction: Prediction, optimizer: str, max_risk: float) -> tuple[Advice, ...]:
    """Return remedies that lower the risk, initialisers first (they cost nothing), then widths and depth.

    Empty where the network is no chain: an effect that cannot be predicted is not promised.
    """
    if prediction.coverage == "none" or architecture.gaps:
        return ()
    before = failure_risk(prediction, optimizer)
    remedies = list(_initialisers(architecture))
    best = min((arch for _, _, arch in remedies), key=lambda a: failure_risk(predict(a), optimizer))
    if failure_risk(predict(best), optimizer) > max_risk / 2:
        remedies.extend(_shapes(best, optimizer, max_risk / 2))
    found = [_advice(action, code, prediction, predict(arch), optimizer) for action, code, arch in remedies]
    return tuple(a for a in found if a.risk_after < 0.9 * before)


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


def _shapes(architecture: Architecture, optimizer: str, target: float) -> Iterator[tuple[str, str, Architecture]]:
    """Least widening, and greatest depth, that bring the risk under the target once the initialiser is right."""
    sizes = list(architecture.widths)
    widened = ([sizes[0], *(math.ceil(n * f) for n in sizes[1:-1]), sizes[-1]] for f in _FACTORS)
    shallower = ([*sizes[:keep], sizes[-1]] for keep in range(len(sizes) - 1, 1, -1))
    for what, candidates in (("also widen the hidden layers", widened), ("or use fewer layers", shallower)):
        for widths in candidates:
            changed = _reshaped(architecture, widths)
            if failure_risk(predict(changed), optimizer) < target:
                yield f"{what}: {_summary(sizes)} -> {_summary(widths)}", "", changed
                break


def _reshaped(architecture: Architecture, widths: list[int]) -> Architecture:
    """The same activations and initialisers on other widths; a layer that is left out is one of the last hidden ones."""
    layers = architecture.layers[: len(widths) - 2] + architecture.layers[-1:]
    hidden = layers[0].activation if len(layers) > 1 else layers[-1].activation
    return Architecture.from_widths(
        widths,
        activation=hidden.name,
        output=layers[-1].activation.name,
        init=[layer.weight.initializer or "he_normal" for layer in layers],
        gain=[layer.weight.gain for layer in layers],
        dropout=[layer.activation.dropout for layer in layers[:-1]],
        negative_slope=hidden.negative_slope,
    )


def _summary(sizes: list[int]) -> str:
    hidden = sizes[1:-1]
    if not hidden:
        return "no hidden layer"
    low, high = min(hidden), max(hidden)
    return f"{len(hidden)} x {low}" if low == high else f"{len(hidden)} of {low} to {high}"


def _advice(action: str, code: str, before: Prediction, after: Prediction, optimizer: str) -> Advice:
    assert before.rms_gain_log_mean is not None
    assert before.log_variance is not None
    assert after.rms_gain_log_mean is not None
    assert after.log_variance is not None
    return Advice(
        action,
        code,
        before.rms_gain_log_mean,
        after.rms_gain_log_mean,
        before.log_variance,
        after.log_variance,
        failure_risk(before, optimizer),
        failure_risk(after, optimizer),
    )
