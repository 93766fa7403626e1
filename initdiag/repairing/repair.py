"""`repair`: the remedies applied to a module, in place, on demand.

A chain is repaired layer by layer, by the law. With a gate ``d``, entries of variance ``1/(fan_in E d^2)`` have a mean-square gain of 1 (He et al. 2015, arXiv
1502.01852, for any discrete gate: dropout and leaky slopes included); ``"rescale"`` brings each hidden layer's typical gain, ``exp E ln``, to 1. Smooth
activations take ``E d^2`` at pre-activations of variance 1; as their gain depends on the scale of what comes in, they are then simulated until every
layer's share of the drift is 0. Bounded ones (tanh, sigmoid) saturate where weights are made larger than that to force the drift to 0, and training
diverges: they are only ever made smaller. An output activation counts as linear. What is no chain gets the same weights, layer by layer, and one factor on
all of them is sought that brings the measured drift to 0.

All work is done on a replica; the user's parameters are written only at the end.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law.predict import predict
from initdiag.measuring.measure import measure
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture, Layer
from initdiag.repairing.gains import BOUNDED, DRAWS, factors, sought, std
from initdiag.tracing.inputs import Subject, is_meta, subject_of
from initdiag.tracing.parameter_access import slot_of
from initdiag.tracing.replica import as_module, copied, own_modes, replica, rng_preserved
from initdiag.tracing.trace import biases_of, require_layers, trace_subject

__all__ = ["Change", "Repair", "repair"]

METHODS = ("he_normal", "orthogonal", "rescale")


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter that was changed: its name, what was done, and its root mean square before and after."""

    name: str
    what: str
    std_before: float
    std_after: float


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` did.

    Attributes
    ----------
    method : str
        As asked for.
    basis : str
        ``"law"``: each layer by the law; ``"measurement"``: one factor for all weights, by measurement.
    seed : int
        Of the draws: the same seed makes the same repair.
    drift_before, drift_after : float
        Mean of ``ln[(n_0/n_L) ||Ju||^2]`` (natural log), by that basis; a linear output layer counts with its mean-square gain
        on a chain. NaN where nothing was known of the network as it was.
    changes : tuple of Change
        In the order of execution, weights first; a tied one once.
    """

    method: str
    basis: str
    seed: int
    drift_before: float
    drift_after: float
    changes: tuple[Change, ...]


def repair(
    model: nn.Module,
    method: str = "he_normal",
    seed: int | None = None,
    example_input: Tensor | None = None,
    input_size: Sequence[int] | None = None,
) -> Repair:
    """Give a network's linear layers weights of gain 1, in place, and zero their biases.

    Parameters
    ----------
    model : nn.Module
        Changed in place, all of it or, if anything raises, nothing. Devices, dtypes, ties, parametrisations and random states are kept.
    method : str
        ``"he_normal"``: fresh normal weights; ``"orthogonal"``: fresh orthogonal ones; ``"rescale"``: the weights that are there,
        times a factor.
    seed : int, optional
        Of the draws; left out: a fresh one, which the record tells.
    example_input, input_size
        As in `trace`.

    Returns
    -------
    Repair
        What was changed. On a chain the law's drift is then 0 layer by layer (for fresh weights the mean-square gain is 1, so that the mean of the log is
        minus half the log-variance). Elsewhere the measured drift is within its standard error of 0. Bounded activations may leave a negative one.

    Raises
    ------
    InvalidInput
        An unknown method, a factory, lazy or meta parameters, all-zero weights to rescale; and as `trace`.
    UnsupportedArchitecture
        If a parametrisation cannot hold the weights, or no factor brings the measured drift to 0.
    """
    _check(model, method, seed)
    seed = secrets.randbits(32) if seed is None else seed
    module = as_module(model)
    with rng_preserved(), own_modes():
        work = replica(module, copied)
        mended = _Mended.of(work, method, seed, example_input, input_size)
        _commit(module, work)
    return mended.record()


def _check(model: Any, method: Any, seed: Any) -> None:
    faults = []
    if not isinstance(model, nn.Module):
        faults.append(
            (
                "the module itself, which is changed in place",
                type(model).__name__,
                "Call the factory first.",
            )
        )
    elif any(map(nn.parameter.is_lazy, model.parameters())) or is_meta(model):
        faults.append(
            (
                "parameters that have values",
                "lazy or meta ones",
                "Run or materialise the module first.",
            )
        )
    if method not in METHODS:
        faults.append(
            (f"method: one of {', '.join(METHODS)}", repr(method), "Choose one of these.")
        )
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        faults.append(("seed: a non-negative int, or None", repr(seed), "Pass e.g. seed=0."))
    for expected, got, do in faults:
        raise InvalidInput(explain(expected=expected, got=got, do=do))


class _Mended:
    """The replica while it is mended: weights by traced name, their layers, and what was done."""

    def __init__(self, subject: Subject, arch: Architecture, method: str, seed: int) -> None:
        self.subject, self.arch, self.method, self.seed = subject, arch, method, seed
        self.layers: dict[str, Layer] = {}
        for layer in arch.layers:
            self.layers.setdefault(layer.name, layer)  # of a tied weight, its first use
        self.biases = biases_of(subject)
        self.before = {name: _rms(self._get(name)) for name in (*self.layers, *self.biases)}
        self.basis, self.drift_before, self.drift_after = "law", math.nan, math.nan

    @classmethod
    def of(cls, work: nn.Module, method: str, seed: int, example: Any, size: Any) -> _Mended:
        """Mend the replica ``work``."""
        subject = subject_of(work, example, size, None)
        mended = cls(subject, require_layers(trace_subject(subject)), method, seed)
        mended.drift_before = mended._known_drift()
        for name in mended.biases:
            mended._put(name, torch.zeros_like(mended._get(name)))
        mended._draw()
        if mended._is_covered():
            mended._by_law()
        else:
            mended._by_measurement()
        return mended

    def _get(self, name: str) -> Tensor:
        return slot_of(self.subject.module, name).get()

    def _put(self, name: str, value: Tensor) -> None:
        slot_of(self.subject.module, name).set(value)

    def _known_drift(self) -> float:
        """Drift of the network as it came, NaN where it is not known."""
        drift = predict(self.arch, draws=DRAWS).hidden_drift
        if drift is not None:
            return drift
        try:
            return self._measurement().rms_gain_log_mean
        except UnsupportedArchitecture:
            return math.nan

    def _draw(self) -> None:
        """Fresh weights of mean-square gain 1; to rescale, those that are there at that root mean square."""
        generator = torch.Generator().manual_seed(self.seed)
        last = self.arch.layers[-1].name
        for name, layer in self.layers.items():
            scale = std(layer, is_output=name == last)
            if self.method == "rescale":
                if not self.before[name] > 0:
                    raise InvalidInput(
                        explain(
                            expected=f"weights in {name!r} that can be rescaled",
                            got="all zero",
                            do='Use method="he_normal".',
                        )
                    )
                self._put(name, self._get(name) * (scale / self.before[name]))
                continue
            fresh = _fresh(self.method, layer, scale, generator)
            shape = self._get(name).shape
            self._put(name, fresh if fresh.shape == shape else fresh.mT)

    def _is_covered(self) -> bool:
        return predict(self._as_it_is(), draws=DRAWS).coverage != "none"

    def _by_law(self) -> None:
        """Bring each layer's share of the drift to 0: by its own law, or by simulation of the chain as far as it is smooth."""
        arch = self._as_it_is()
        is_smooth = any(layer.activation.gate is None for layer in arch.layers)
        if self.method == "rescale" or is_smooth:
            for name, factor in factors(arch).items():
                self._put(name, self._get(name) * factor)
            arch = self._as_it_is()
        drift = predict(arch, draws=DRAWS).hidden_drift
        assert drift is not None, "covered"
        self.drift_after = drift

    def _as_it_is(self) -> Architecture:
        """The chain with the weights' own variances, and no biases."""
        layers = []
        for layer in self.arch.layers:
            square = _rms(self._get(layer.name)) ** 2
            if self.method == "orthogonal":
                weight = dataclasses.replace(
                    layer.weight, family="haar", variance=square, hypotheses=()
                )
            elif self.method == "he_normal":
                weight = dataclasses.replace(
                    layer.weight, family="normal", kurtosis=3.0, variance=square, hypotheses=()
                )
            else:
                weight = dataclasses.replace(layer.weight, variance=square)
            layers.append(dataclasses.replace(layer, weight=weight, bias=None))
        return dataclasses.replace(self.arch, layers=tuple(layers))

    def _by_measurement(self) -> None:
        """Seek the common factor that brings the measured drift within its standard error of 0."""
        self.basis = "measurement"
        base = {name: self._get(name).clone() for name in self.layers}

        def drift_at(log_factor: float) -> tuple[float, float]:
            for name, value in base.items():
                self._put(name, value * math.exp(log_factor))
            found = self._measurement()
            return found.rms_gain_log_mean, found.log_mean_se

        drift, _ = drift_at(0.0)
        saturates = drift < 0 and any(
            layer.activation.name in BOUNDED for layer in self.arch.layers
        )
        self.drift_after = drift if saturates else sought(drift_at, 2 * len(self.arch.layers))

    def _measurement(self) -> Measurement:
        arch = trace_subject(self.subject)
        reasons = []
        for ensemble in ("signs", "law"):
            try:
                return measure(
                    self.subject.module, self.subject.example, input_size=self.subject.size, draws=DRAWS,
                    method=ensemble, seed=self.seed, architecture=arch, gradients=False,
                )  # fmt: skip
            except UnsupportedArchitecture as error:
                reasons.append(f"{ensemble}: {error}")
        raise UnsupportedArchitecture(
            f"no repair, for the network cannot be measured. {' '.join(reasons)}"
        )

    def record(self) -> Repair:
        """Return what was done."""
        done = {
            "he_normal": "drawn normal",
            "orthogonal": "drawn orthogonal",
            "rescale": "rescaled",
        }[self.method]
        after = {name: _rms(self._get(name)) for name in self.before}
        changes = tuple(
            Change(name, done if name in self.layers else "zeroed", self.before[name], after[name])
            for name in self.before
            if name in self.layers or self.before[name] > 0
        )
        return Repair(
            self.method, self.basis, self.seed, self.drift_before, self.drift_after, changes
        )


def _rms(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach().double())) / math.sqrt(tensor.numel())


def _fresh(method: str, layer: Layer, std: float, generator: torch.Generator) -> Tensor:
    """A matrix ``(fan_out, fan_in)`` of entries of this standard deviation."""
    matrix = torch.empty(layer.fan_out, layer.fan_in)
    if method == "orthogonal":
        larger = max(layer.fan_in, layer.fan_out)
        return nn.init.orthogonal_(matrix, std * math.sqrt(larger), generator=generator)
    return matrix.normal_(0.0, std, generator=generator)


def _commit(module: nn.Module, work: nn.Module) -> None:
    """Copy what changed in the replica to the user's module: all of it, or nothing."""
    named = [*module.named_parameters(), *module.named_buffers()]
    mended = dict([*work.named_parameters(), *work.named_buffers()])
    changed = [
        (tensor, mended[name]) for name, tensor in named if not torch.equal(tensor, mended[name])
    ]
    kept = [(tensor, tensor.detach().clone()) for tensor, _ in changed]
    done = 0
    try:
        with torch.no_grad():
            for tensor, value in changed:
                done += 1
                tensor.copy_(value)
    except BaseException:
        with torch.no_grad():
            for tensor, value in kept[: done - 1]:
                tensor.copy_(value)
        raise
