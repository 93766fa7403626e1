"""What a repair will do: which weight gets which scale, found by reading alone.

With a gate ``d``, entries of variance ``1/(fan_in E d^2)`` have a mean-square gain of 1
(He et al. 2015, arXiv 1502.01852), for any discrete gate: dropout and leaky slopes are
included. ``"rescale"`` brings each hidden layer's typical gain, ``exp E ln``, to 1.

Smooth activations take ``E d^2`` at pre-activations of variance 1. Their gain depends
on the scale of what comes in, so that the chain is then simulated until every layer's
share of the drift is 0. Bounded activations (tanh, sigmoid) saturate where weights are
made larger than that to force the drift to 0, and training diverges: their weights are
only ever made smaller. An output activation counts as linear.

A network that is not a chain gets the same weights, layer by layer. One factor on all
of them is then sought that brings the measured drift to 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law.gains import BOUNDED, DRAWS, factors, sought, std
from initdiag.law.predict import predict
from initdiag.measuring.measure import measure
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture, Layer
from initdiag.tracing.inputs import Subject
from initdiag.tracing.parameter_access import slot_of
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.trace import require_layers, trace_with_biases

__all__ = ["METHODS", "Basis", "Method", "Plan", "PlannedWeight", "planned", "rms", "values"]

Method = Literal["he_normal", "orthogonal", "rescale"]
METHODS: tuple[Method, ...] = get_args(Method)

Basis = Literal["law", "measurement"]


@dataclass(frozen=True, slots=True)
class PlannedWeight:
    """One weight matrix: its name, fans, and root mean square before and after."""

    name: str
    fan_in: int
    fan_out: int
    std_before: float
    std_after: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What `repair` will do to a module.

    Attributes
    ----------
    method, basis, seed, drift_before, drift_after
        See `Repair`.
    weights : tuple of PlannedWeight
        Each once, in the order of execution.
    biases : tuple of str
        Names of the biases that are set to zero.
    """

    method: Method
    basis: Basis
    seed: int
    drift_before: float
    drift_after: float
    weights: tuple[PlannedWeight, ...]
    biases: tuple[str, ...]

    def times(self, gains: Mapping[str, float]) -> Plan:
        """Return the plan with every weight multiplied by the gain of its name."""
        weights = (
            dataclasses.replace(weight, std_after=weight.std_after * gains[weight.name])
            for weight in self.weights
        )
        return dataclasses.replace(self, weights=tuple(weights))


def planned(work: nn.Module, method: Method, seed: int, subject: Subject) -> Plan:
    """Plan the repair of ``work``, the caller's replica, of which ``subject`` is the
    adapter; it is only read.

    Raises
    ------
    InvalidInput, UnsupportedArchitecture
        See `repair`.
    """
    arch, biases = trace_with_biases(subject)
    weights = _gain_1(require_layers(arch), work, method)
    before = _known_drift(arch, subject, seed)
    plan = Plan(method, "law", seed, before, math.nan, weights, biases)
    drawn = _drawn(arch, plan)
    if predict(drawn, draws=DRAWS).coverage != "none":
        return _by_law(plan, drawn)
    return _by_measurement(plan, drawn, subject)


def _gain_1(arch: Architecture, work: nn.Module, method: Method) -> tuple[PlannedWeight, ...]:
    """Draw weights of gain 1; a tied one counts for the layer that uses it first."""
    last = arch.layers[-1].name
    found: dict[str, PlannedWeight] = {}
    for layer in arch.layers:
        if layer.name in found:
            continue
        before, after = rms(slot_of(work, layer.name).get()), std(layer, layer.name == last)
        if method == "rescale" and not before > 0:
            expected = f"weights in {layer.name!r} that can be rescaled"
            raise InvalidInput(
                explain(expected=expected, got="all zero", do='Use method="he_normal".')
            )
        found[layer.name] = PlannedWeight(layer.name, layer.fan_in, layer.fan_out, before, after)
    return tuple(found.values())


def _known_drift(arch: Architecture, subject: Subject, seed: int) -> float:
    """Return the drift of the network as it came, NaN where it is not known."""
    drift = predict(arch, draws=DRAWS).hidden_drift
    if drift is not None:
        return drift
    try:
        return _measured(subject.module, arch, subject, seed).rms_gain_log_mean
    except UnsupportedArchitecture:
        return math.nan


def _drawn(arch: Architecture, plan: Plan) -> Architecture:
    """Return the architecture with the planned weights' laws, without biases."""
    stds = {weight.name: weight.std_after for weight in plan.weights}
    laws: dict[str, dict[str, Any]] = {
        "he_normal": {"family": "normal", "kurtosis": 3.0, "hypotheses": ()},
        "orthogonal": {"family": "haar", "hypotheses": ()},
        "rescale": {},
    }

    def drawn(layer: Layer) -> Layer:
        law = laws[plan.method]
        weight = dataclasses.replace(layer.weight, variance=stds[layer.name] ** 2, **law)
        return dataclasses.replace(layer, weight=weight, bias=None)

    return dataclasses.replace(arch, layers=tuple(map(drawn, arch.layers)))


def _by_law(plan: Plan, drawn: Architecture) -> Plan:
    """Bring each layer's share of the drift to 0, by its law or by simulation."""
    is_smooth = any(layer.activation.gate is None for layer in drawn.layers)
    if plan.method == "rescale" or is_smooth:
        gains = factors(drawn)
        plan = plan.times(gains)
        drawn = drawn.replace(gain=[gains[layer.name] for layer in drawn.layers])
    return dataclasses.replace(plan, drift_after=predict(drawn, draws=DRAWS).known.hidden_drift)


def _by_measurement(plan: Plan, drawn: Architecture, subject: Subject) -> Plan:
    """Seek the common factor that brings the measured drift to 0, within its error."""
    bench = replica(subject.module, copied)
    for name in plan.biases:
        slot = slot_of(bench, name)
        slot.set(torch.zeros_like(slot.get()))
    base = values(plan, bench)

    def drift_at(log_factor: float) -> tuple[float, float]:
        factor = math.exp(log_factor)
        for name, value in base.items():
            slot_of(bench, name).set(value * factor)
        found = _measured(bench, drawn.replace(gain=factor), subject, plan.seed)
        return found.rms_gain_log_mean, found.sampling_log_mean_se

    start = drift_at(0.0)
    saturates = start[0] < 0 and any(layer.activation.name in BOUNDED for layer in drawn.layers)
    slope = 2 * len(drawn.layers)
    log_factor, drift = (0.0, start[0]) if saturates else sought(drift_at, start, slope)
    scaled = plan.times(dict.fromkeys(base, math.exp(log_factor)))
    return dataclasses.replace(scaled, basis="measurement", drift_after=drift)


def _measured(module: nn.Module, arch: Architecture, subject: Subject, seed: int) -> Measurement:
    """Measure ``module``, whose trace is ``arch``, by the first possible ensemble."""
    reasons = []
    for ensemble in ("signs", "law"):
        try:
            return measure(
                module, subject.example, input_size=subject.size, draws=DRAWS, method=ensemble,
                seed=seed, architecture=arch, gradients=False,
            )  # fmt: skip
        except UnsupportedArchitecture as error:
            reasons.append(f"{ensemble}: {error}")
    raise UnsupportedArchitecture(
        f"the network cannot be repaired, because it cannot be measured. {' '.join(reasons)}"
    )


def values(plan: Plan, module: nn.Module) -> dict[str, Tensor]:
    """Return the planned weights by name; ``module`` holds those to be rescaled."""
    generator = torch.Generator().manual_seed(plan.seed)
    return {
        weight.name: _value(plan.method, weight, slot_of(module, weight.name).get(), generator)
        for weight in plan.weights
    }


def _value(
    method: Method, weight: PlannedWeight, present: Tensor, generator: torch.Generator
) -> Tensor:
    if method == "rescale":
        return present * (weight.std_after / weight.std_before)
    matrix = torch.empty(weight.fan_out, weight.fan_in)
    if method == "orthogonal":
        norm = weight.std_after * math.sqrt(max(weight.fan_in, weight.fan_out))
        fresh = nn.init.orthogonal_(matrix, norm, generator=generator)
    else:
        fresh = matrix.normal_(0.0, weight.std_after, generator=generator)
    return fresh if fresh.shape == present.shape else fresh.mT


def rms(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's entries, in float64."""
    return float(torch.linalg.vector_norm(tensor.detach().double())) / math.sqrt(tensor.numel())
