"""`repair`: reinitialise a module's linear layers in place, all of it or nothing.

A plan is made first (`initdiag.repairing.plan`) and carried out on a replica. The
user's parameters are written only at the end, when nothing is left that could be
refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initdiag._core.summary import Summarised, number
from initdiag._core.validation import seed_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.repairing.plan import METHODS, Basis, Method, Plan, planned, rms, values
from initdiag.tracing.adapter import Output
from initdiag.tracing.guard import untouched
from initdiag.tracing.inputs import is_meta, subject_of
from initdiag.tracing.parameter_access import slot_of
from initdiag.tracing.replica import as_module, copied, own_modes, replica

__all__ = ["Change", "Repair", "repair"]

_DONE = {"he_normal": "drawn normal", "orthogonal": "drawn orthogonal", "rescale": "rescaled"}


@dataclass(frozen=True, slots=True)
class Change:
    """One changed parameter: its name, what was done, and its root mean square."""

    name: str
    what: str
    std_before: float
    std_after: float


@dataclass(frozen=True, slots=True, repr=False)
class Repair(Summarised):
    """What `repair` did.

    Attributes
    ----------
    method : {"he_normal", "orthogonal", "rescale"}
        What was asked for.
    basis : {"law", "measurement"}
        ``"law"``: each layer was scaled by the law; ``"measurement"``: one factor on
        all weights was found by measuring.
    seed : int
        Seed of the draws; the same seed makes the same repair.
    drift_before, drift_after : float
        Mean of ``ln[(n_0/n_L) ||Ju||^2]`` (natural log), by that basis; a linear output
        layer of a chain counts with its mean-square gain. ``drift_before`` is NaN where
        nothing was known of the network as it was.
    changes : tuple of Change
        In the order of execution, weights first; a tied weight is listed once.
    """

    method: Method
    basis: Basis
    seed: int
    drift_before: float
    drift_after: float
    changes: tuple[Change, ...]

    def _summary(self) -> dict[str, str]:
        return {
            "method": f"{self.method} by {self.basis}",
            "drift": f"{number(self.drift_before)} -> {number(self.drift_after)}",
            "parameters changed": str(len(self.changes)),
        }


def repair(
    model: nn.Module,
    method: Method = "he_normal",
    seed: int | None = None,
    example_input: Any = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input: int | str | None = None,
    output: Output = None,
) -> Repair:
    """Give a network's linear layers weights of gain 1 and zero biases, in place.

    Parameters
    ----------
    model : nn.Module
        It is changed in place, all of it or, if anything raises, nothing. Devices,
        dtypes, ties, parametrisations and random states are kept.
    method : {"he_normal", "orthogonal", "rescale"}
        Fresh normal weights, fresh orthogonal ones, or the present weights times a
        factor.
    seed : int, optional
        Seed of the draws; by default a fresh one, which the record tells.
    example_input, input_size, example_args, example_kwargs, input, output
        See `trace`.

    Returns
    -------
    Repair
        What was changed. On a chain the law's drift is then 0 layer by layer (for fresh
        weights the mean-square gain is 1, so that the mean of the log is minus half the
        log-variance). Elsewhere the measured drift is within its standard error of 0.
        Bounded activations may leave a negative one.

    Raises
    ------
    InvalidInput
        An unknown method, a factory, lazy or meta parameters, all-zero weights to
        rescale; and as `trace`.
    UnsupportedArchitecture
        If a parametrisation cannot hold the weights, if no factor brings the measured
        drift to 0, or if a parameter cannot be written (its cause is chained).
    """
    _check(model, method)
    seed = secrets.randbits(32) if seed is None else seed_integer(seed)
    with untouched(), own_modes():
        module = as_module(model)
        work = replica(module, copied)
        subject = subject_of(
            work, example_input, input_size, None, args=example_args, kwargs=example_kwargs,
            perturbed=input, output=output,
        )  # fmt: skip
        plan = planned(work, method, seed, subject)
        changes = _applied(plan, work)
        _commit(module, work)
    return Repair(method, plan.basis, seed, plan.drift_before, plan.drift_after, changes)


def _check(model: Any, method: Any) -> None:
    faults = []
    if not isinstance(model, nn.Module):
        expected = "the module itself, which is changed in place"
        faults.append((expected, type(model).__name__, "Call the factory first."))
    elif any(map(nn.parameter.is_lazy, model.parameters())) or is_meta(model):
        do = "Run or materialise the module first."
        faults.append(("parameters that have values", "lazy or meta ones", do))
    if method not in METHODS:
        expected = f"method: one of {', '.join(METHODS)}"
        faults.append((expected, repr(method), "Choose one of these."))
    for expected, got, do in faults:
        raise InvalidInput(explain(expected=expected, got=got, do=do))


def _applied(plan: Plan, work: nn.Module) -> tuple[Change, ...]:
    """Carry out the plan on the replica, and return what was changed."""
    changes = []
    for name, value in values(plan, work).items():
        changes.append(_written(work, name, value, _DONE[plan.method]))
    for name in plan.biases:
        zeros = torch.zeros_like(slot_of(work, name).get())
        changes.append(_written(work, name, zeros, "zeroed"))
    return tuple(c for c in changes if c.what != "zeroed" or c.std_before > 0)


def _written(work: nn.Module, name: str, value: Tensor, what: str) -> Change:
    slot = slot_of(work, name)
    before = rms(slot.get())
    slot.set(value)
    return Change(name, what, before, rms(slot.get()))


def _commit(module: nn.Module, work: nn.Module) -> None:
    """Copy what changed in the replica to the user's module: all of it, or nothing.

    Values are written behind autograd's back, through ``.data``, and version counters
    move only once every value is in place. A failure half-way leaves them as they were.
    """
    repaired = {**dict(work.named_parameters()), **dict(work.named_buffers())}
    changes = [
        (tensor, repaired[name], tensor.detach().clone())
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if not torch.equal(tensor, repaired[name])
    ]
    try:
        for tensor, value, _ in changes:
            tensor.data.copy_(value.detach())
    except BaseException as error:
        for tensor, _, old in changes:
            if not torch.equal(tensor, old):
                tensor.data.copy_(old)
        if isinstance(error, Exception):
            raise UnsupportedArchitecture(
                f"nothing was repaired, because a parameter cannot be written ({error}). The "
                "model is as it was. "
                "Give it memory of its own, e.g. with tensor.clone()."
            ) from error
        raise
    for tensor, _, _ in changes:
        torch.autograd.graph.increment_version(tensor)
