"""The steps of one draw of a trial, and what they did to every weight matrix."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.training.objective import Objective
from initdiag.measuring.trial_record import LossTerm, TrialStopped, fall_of
from initdiag.tracing.adapter import Adapter

__all__ = ["Run", "matrices", "run"]

_CLEAR_FALL, _CLEAR_STEPS = 0.5, 10
"""A loss that has fallen by half after so many steps needs no further ones: five times
what counts as a start."""


@dataclass(slots=True)
class Run:
    """What the steps of one draw did (natural log)."""

    losses: list[float] = field(default_factory=list)
    gradients: list[list[float]] = field(default_factory=list)
    updates: list[list[float]] = field(default_factory=list)
    dead: list[list[float]] = field(default_factory=list)
    terms: tuple[LossTerm, ...] = ()
    cotangent: float = math.nan
    nonfinite: int | None = None
    stopped: TrialStopped = "steps"
    is_cut: bool = False

    def fall(self, constant: float) -> float:
        """Return by how much the loss has fallen; see `fall_of`."""
        return -math.inf if self.nonfinite is not None else fall_of(self.array, constant)

    @property
    def array(self) -> NDArray[np.float64]:
        """The losses."""
        return np.array(self.losses, dtype=np.float64)


def matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights whose gradients are followed: matrices that are trained."""
    return {
        name: p
        for name, p in module.named_parameters()
        if p.dim() > 1 and p.requires_grad and p.is_floating_point()
    }


def run(
    adapter: Adapter,
    x: Tensor,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    steps: int,
    deadline: float,
    on_step: Callable[[], None],
) -> Run:
    """Train a replica, which is changed, for some steps.

    Raises
    ------
    UnsupportedArchitecture
        If the loss has no gradient.
    """
    found, watched = Run(), matrices(adapter)
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    try:
        for step in range(steps):
            if step and time.perf_counter() > deadline:
                found.stopped, found.is_cut = "time", True
                break
            _step(found, adapter, x, objective, optimizer, parameters, watched)
            on_step()
            if found.stopped != "steps" or _is_clear(found, objective):
                break
    except KeyboardInterrupt:
        if not found.losses:
            raise
        found.stopped, found.is_cut = "interrupted", True
    if found.stopped not in ("not finite", "interrupted"):
        _finish(found, adapter, x, objective)
    return found


def _is_clear(found: Run, objective: Objective) -> bool:
    if len(found.losses) <= _CLEAR_STEPS or found.fall(objective.constant) < _CLEAR_FALL:
        return False
    found.stopped = "clear"
    return True


def _step(
    found: Run,
    adapter: Adapter,
    x: Tensor,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    watched: dict[str, nn.Parameter],
) -> None:
    """Make one step, and note what it was."""
    is_noted = False

    def closure() -> Any:
        nonlocal is_noted
        terms, out = objective.terms(adapter, x)
        loss = torch.stack(list(terms.values())).sum()
        if not loss.requires_grad:
            raise UnsupportedArchitecture(_NO_GRADIENT)
        if not is_noted and not found.losses:
            _note_first(found, terms, out, watched)
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        if not is_noted:
            _note(found, float(loss.detach()), watched)
        is_noted = True
        return loss.detach()

    before = [p.detach().clone() for p in watched.values()]
    optimizer.step(closure)
    after = [p.detach() for p in watched.values()]
    moved = [_ratio(new - old, old) for new, old in zip(after, before, strict=True)]
    found.updates.append(torch.stack(moved).tolist() if moved else [])
    if found.nonfinite is not None:
        found.stopped = "not finite"


_NO_GRADIENT = (
    "the loss does not depend on the model's parameters through autograd (a detach, a no_grad, "
    "an argmax). Use a loss that has a gradient."
)


def _ratio(change: Tensor, weight: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(weight.double())
    ratio: Tensor = (torch.linalg.vector_norm(change.double()) / size).log()
    return ratio


def _note(found: Run, loss: float, watched: dict[str, nn.Parameter]) -> None:
    logs = [_log_square(p.grad) for p in watched.values()]
    gradients = torch.stack(logs).tolist() if logs else []
    is_finite = math.isfinite(loss) and not any(g == math.inf or math.isnan(g) for g in gradients)
    if not is_finite and found.nonfinite is None:
        found.nonfinite = len(found.losses)
    found.losses.append(loss)
    found.gradients.append(gradients)
    shares = [_dead_share(p.grad) for p in watched.values()]
    found.dead = [*found.dead[:1], torch.stack(shares).tolist() if shares else []]


def _log_square(grad: Tensor | None) -> Tensor:
    if grad is None:
        return torch.tensor(-math.inf, dtype=torch.float64)
    norm: Tensor = torch.linalg.vector_norm(grad.detach().to_dense().double())
    return 2 * norm.log().cpu()


def _dead_share(grad: Tensor | None) -> Tensor:
    """Return the share of a matrix's rows that got no gradient at all."""
    if grad is None:
        return torch.tensor(1.0)
    return (grad.detach().to_dense().flatten(1) == 0).all(1).float().mean().cpu()


def _note_first(
    found: Run, terms: dict[str, Tensor], out: Tensor | None, watched: dict[str, nn.Parameter]
) -> None:
    """Note the gradient at the output, and that of each term of several."""
    loss = torch.stack(list(terms.values())).sum()
    if out is not None and out.requires_grad:
        (back,) = torch.autograd.grad(loss, out, retain_graph=True, allow_unused=True)
        found.cotangent = math.nan if back is None else _row_square(back)
    if len(terms) > 1:
        parameters = list(watched.values())
        found.terms = tuple(_term(name, term, parameters) for name, term in terms.items())


def _row_square(back: Tensor) -> float:
    """Return the mean over rows of ``||d(row's loss)/d(output)||^2``, where the loss is
    the rows' mean.
    """
    rows = back.detach().double().flatten(1) * len(back)
    return float(rows.square().sum(1).mean())


def _term(name: str, term: Tensor, parameters: list[nn.Parameter]) -> LossTerm:
    value = float(term.detach())
    grads: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if term.requires_grad:
        grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    logs = np.array([float(_log_square(grad)) for grad in grads], dtype=np.float64)
    total = float(np.logaddexp.reduce(logs)) if len(logs) else -math.inf
    return LossTerm(name, value, value, total, logs)


def _finish(found: Run, adapter: Adapter, x: Tensor, objective: Objective) -> None:
    """Take the loss after the last step."""
    terms, _ = objective.terms(adapter, x)
    loss = float(torch.stack(list(terms.values())).detach().sum())
    if not math.isfinite(loss):
        found.nonfinite, found.stopped = len(found.losses), "not finite"
    found.losses.append(loss)
    found.terms = tuple(
        dataclasses.replace(one, last=float(terms[one.name].detach())) for one in found.terms
    )
