"""What can be changed in a chain, each change with what the law makes of it: weights,
gates, the output; and a lower learning rate beside. `initdiag.diagnosing.shapes` has
the changes of shape.

Normalisation is not advised: simulated, a LayerNorm before each ReLU leaves the drift
that He initialisation has, and a larger fluctuation (40 layers of 14: log-variance 29
against 20).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from initdiag.diagnosing.calibration import Training
from initdiag.diagnosing.risk import risk_of_moments
from initdiag.errors import UnsupportedArchitecture
from initdiag.law.gains import of_gain_1
from initdiag.law.layer import dead_probability, layer_log_moments, without_own_draw
from initdiag.law.predict import predict
from initdiag.law.prediction import Prediction
from initdiag.network.architecture import Activation, Architecture

__all__ = [
    "DRAWS",
    "Remedy",
    "activations",
    "at_output",
    "gated",
    "initialisers",
    "moments_of",
    "on_chain",
    "repaired",
    "slower",
]

DRAWS = 512
"""Draws of a simulation: its log-variance is known to ``sqrt(2/512)``, 6 %."""

_HALF_DECADES = 4
"""Down to a hundredth of the learning rate: below, 400 steps of the calibration study
do not start anything sooner.
"""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change, its cost, and what it makes of the network.

    Attributes
    ----------
    action, code, script : str
        As in `Advice`.
    training : Training
        How the network is then trained.
    cost : float
        1 for two lines of code; a half more for another learning rate; shapes: 2 and
        more, times the share of parameters they take.
    moments : tuple
        Hidden drift, log-variance, dead probability and layers that count in a step.
    architecture : Architecture or None
        The chain as it is then; None where it stays as it is.
    skip : float or None
        The factor of skip connections around its hidden layers.
    after : Prediction or None
        What it makes of the network, where that is not `predict`'s answer.
    """

    action: str
    code: str
    training: Training
    cost: float
    moments: tuple[float, float, float, int]
    architecture: Architecture | None = None
    skip: float | None = None
    after: Prediction | None = None
    script: str = ""

    def risk(self, training: Training | None = None) -> float:
        """Return the risk by the law's numbers, perhaps under another training."""
        return risk_of_moments(*self.moments, training or self.training)


def on_chain(
    action: str, code: str, architecture: Architecture, training: Training, cost: float = 1.0
) -> Remedy:
    """Return a remedy that makes a chain what it says."""
    moments = (*_moments(architecture), len(architecture.layers))
    return Remedy(action, code, training, cost, moments, architecture)


def _moments(architecture: Architecture) -> tuple[float, float, float]:
    """Return what `predict` gives: hidden drift, log-variance, dead probability; it
    looks at each distinct layer once where all weights are normal or Haar.
    """
    if all(layer.activation.gate is not None for layer in architecture.layers):
        return _totals(architecture)
    return moments_of(predict(architecture, draws=DRAWS))


def moments_of(prediction: Prediction) -> tuple[float, float, float]:
    """Return a covered prediction's hidden drift, log-variance and dead probability."""
    drift, variance = prediction.hidden_drift, prediction.hidden_log_variance
    dead = prediction.hidden_dead_probability
    assert drift is not None
    assert variance is not None
    assert dead is not None
    return drift, variance, dead


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


def slower(remedy: Remedy, target: float, risk: Callable[[Training], float]) -> Remedy | None:
    """Return the remedy at the largest lower learning rate, in half decades, at which
    it is enough; None where the rate is not known, or there is none.
    """
    training = remedy.training
    if training.lr is None:
        return None
    for halves in range(1, _HALF_DECADES + 1):
        lr = float(f"{training.lr * 10 ** (-halves / 2):.1g}")
        other = dataclasses.replace(training, lr=lr)
        if risk(other) <= target:
            also = f", with {remedy.action}" if remedy.action else ""
            return dataclasses.replace(
                remedy, training=other, cost=remedy.cost + 0.5,
                action=f"lower the learning rate: {training.lr:g} -> {lr:g}{also}",
                code=f"lr = {lr:g}" + (f"; {remedy.code}" if remedy.code else ""),
                script=f"{remedy.script}lr = {lr:g}\n" if remedy.script or not remedy.code else "",
            )  # fmt: skip
    return None


def initialisers(architecture: Architecture, training: Training) -> Iterator[Remedy]:
    """Yield initialisers by the hidden layers: He and orthogonal for ReLU's family, by
    its slope, and for linear layers; Xavier, He and orthogonal of gain 1 for smooth
    ones.
    """
    hidden = list(activations(architecture))[:-1] or list(activations(architecture))
    slope = next((a.negative_slope for a in hidden if a.name == "leaky_relu"), 0.0)
    is_smooth = any(a.gate is None for a in hidden)
    is_linear = all(a.name == "linear" for a in hidden)
    slope = 1.0 if is_linear else slope
    gain = math.sqrt(1 / (1 + slope**2))
    factor = 1.0 if is_smooth else math.sqrt(2) * gain
    argument = "" if is_smooth or is_linear else f", {factor:.4g}" if slope else ", 2**0.5"
    ways = [
        (f"nn.init.kaiming_normal_(w, {_nonlinearity(slope)})", "he_normal", gain),
        (f"nn.init.orthogonal_(w{argument})", "orthogonal", factor / math.sqrt(2)),
    ]
    if is_smooth:
        ways.insert(0, ("nn.init.xavier_normal_(w)", "xavier_normal", 1.0))
    for call, init, times in ways:
        changed = architecture.replace(init=init, gain=times)
        one = on_chain(call, f"{call}; nn.init.zeros_(b)", changed, training)
        method = None if is_smooth else "orthogonal" if init == "orthogonal" else "he_normal"
        yield dataclasses.replace(one, script=_script_of(call, method))


def _script_of(call: str, method: str | None) -> str:
    """Return an initialiser as code that runs: `initdiag.repair` by a method, where it
    draws the same and sets the gain by the gate, with the loop that it stands for.
    """
    loop = (
        "for module in model.modules():\n"
        "    if isinstance(module, torch.nn.Linear):\n"
        f"        torch.{call.replace('(w', '(module.weight', 1)}\n"
        "        if module.bias is not None:\n"
        "            torch.nn.init.zeros_(module.bias)\n"
    )
    if method is None:
        return f"import torch\n\n{loop}"
    comment = "".join(f"# {line}\n" for line in loop.splitlines())
    return (
        f'import initdiag\n\ninitdiag.repair(model, "{method}")\n'
        f"# It stands for this, and then sets each layer's gain to 1:\n{comment}"
    )


def repaired(architecture: Architecture, training: Training) -> Iterator[Remedy]:
    """Yield the weights that `initdiag.repair` finds where gates are smooth, whose gain
    hangs on the scale of what comes in.
    """
    if all(a.gate is not None for a in activations(architecture)):
        return
    for argument, family in (("", "normal"), (', "orthogonal"', "haar")):
        try:
            changed = of_gain_1(architecture, family)  # type: ignore[arg-type]
        except UnsupportedArchitecture:
            continue
        call = f"initdiag.repair(model{argument})"
        one = on_chain(call, call, changed, training)
        yield dataclasses.replace(one, script=f"import initdiag\n\n{call}\n")


def gated(architecture: Architecture, training: Training) -> Iterator[Remedy]:
    """Yield gates that are centred at 0 in place of sigmoids, with their weights."""
    if all(a.name != "sigmoid" for a in list(activations(architecture))[:-1]):
        return
    for name, call, init in (
        ("tanh", "nn.init.xavier_normal_(w)", "xavier_normal"),
        ("relu", 'nn.init.kaiming_normal_(w, nonlinearity="relu")', "he_normal"),
    ):
        changed = architecture.replace(activation=name, init=init)  # type: ignore[arg-type]
        word = "ReLU" if name == "relu" else name
        action = f"{word} in place of the hidden sigmoids, with {call}"
        code = f"{call}; nn.init.zeros_(b)  # and: {word} in place of the hidden sigmoids"
        yield on_chain(action, code, changed, training, 1.5)


def at_output(architecture: Architecture, training: Training) -> Iterator[Remedy]:
    """Yield a linear output in place of a gate behind the last layer."""
    name = architecture.layers[-1].activation.name
    if name != "linear":
        action = f"a linear output: leave out the {name} behind the last layer"
        yield on_chain(action, "", architecture.replace(output="linear"), training)


def _nonlinearity(slope: float) -> str:
    if slope == 1:
        return 'nonlinearity="linear"'
    return f'a={slope:g}, nonlinearity="leaky_relu"' if slope else 'nonlinearity="relu"'


def activations(architecture: Architecture) -> Iterator[Activation]:
    """Yield the layers' activations."""
    return (layer.activation for layer in architecture.layers)
