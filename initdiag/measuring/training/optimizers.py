"""The user's optimiser, made anew on the parameters of a replica."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initdiag._core.choices import FAMILIES, Family, Loss
from initdiag.errors import InvalidInput, explain, shown

__all__ = ["Recipe", "recipe_of"]

_RATES: dict[Family, tuple[float, float]] = {
    "sgd": (0.1, 0.01),
    "momentum": (0.01, 0.001),
    "adam": (1e-3, 1e-3),
    "adamw": (1e-3, 1e-3),
}
"""Learning rates where none is given, for classification and for regression: near the
middle of those that the risk is calibrated on."""

_MOMENTUM = 0.9
"""What the optimiser called ``"momentum"`` has, as in the risk's calibration."""

_SHOWN = ("lr", "momentum", "weight_decay", "nesterov")
"""Options that a report names where they are not zero."""

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make an optimiser for a replica.

    Attributes
    ----------
    make : callable
        Takes the replica, returns its optimiser.
    text : str
        Class and options, e.g. ``"SGD(lr=0.1)"``.
    made_up, notes : tuple of str
        What was not the user's own, and what else there is to say.
    """

    make: Callable[[nn.Module], torch.optim.Optimizer]
    text: str
    made_up: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recipe_of(
    given: Family | torch.optim.Optimizer | None,
    lr: float | None,
    loss: Loss,
    module: nn.Module,
) -> Recipe:
    """Return how to make the optimiser that a caller named or handed in.

    Parameters
    ----------
    given : str, Optimizer or None
        None is plain SGD.
    lr : float or None
        A learning rate for a named one; an optimiser has its own.
    loss : str
        The kind of loss, which tells a usual learning rate.
    module : nn.Module
        The user's own, whose parameters the optimiser holds.

    Raises
    ------
    InvalidInput
        If it is neither a name nor an optimiser of the module's parameters.
    """
    if isinstance(given, torch.optim.Optimizer):
        return _remade(given, lr, module)
    if given is not None and given not in FAMILIES:
        do = f"Name one of {', '.join(FAMILIES)}, or pass a torch.optim optimiser."
        raise InvalidInput(explain(expected="an optimizer", got=shown(given), do=do))
    return _named(given or "sgd", lr, loss)


def _named(family: Family, lr: float | None, loss: Loss) -> Recipe:
    rate = _RATES[family][loss == "regression"] if lr is None else lr
    made_up = (f"a learning rate of {rate:g}",) if lr is None else ()
    options: dict[str, Any] = {"lr": rate}
    if family == "momentum":
        options["momentum"] = _MOMENTUM
    kinds: dict[Family, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind = kinds.get(family, torch.optim.SGD)
    return Recipe(lambda module: kind(_trained(module), **options), _text(kind, options), made_up)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _text(kind: type, options: Mapping[str, Any]) -> str:
    named = (f"{name}={float(options[name]):g}" for name in _SHOWN if options.get(name))
    return f"{kind.__name__}({', '.join(named)})"


def _remade(given: torch.optim.Optimizer, lr: float | None, module: nn.Module) -> Recipe:
    """Return the recipe of an optimiser of the same class, options and groups."""
    names = {id(p): name for name, p in module.named_parameters()}
    groups = [
        (_options(group), [names.get(id(p)) for p in group["params"]])
        for group in given.param_groups
    ]
    held = [name for _, part in groups for name in part if name is not None]
    notes = [*_of_schedule(given), *_of_others(groups, bool(held))]
    if lr is not None:
        notes.append(f"lr={lr:g} is left aside: the optimiser has its own")
    if given.state:
        notes.append("the optimiser has made steps before; the trial's begins afresh")

    def make(replica: nn.Module) -> torch.optim.Optimizer:
        by_name = dict(replica.named_parameters())
        if not held:  # another model's, such as another draw of the factory
            return _built(given, [(groups[0][0], _trained(replica))])
        mapped = [
            (options, [by_name[name] for name in part if name is not None])
            for options, part in groups
        ]
        return _built(given, [pair for pair in mapped if pair[1]])

    return Recipe(make, _text(type(given), groups[0][0]), (), tuple(notes))


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in group.items()
        if name != "params"
    }


def _built(
    given: torch.optim.Optimizer, groups: list[tuple[dict[str, Any], list[nn.Parameter]]]
) -> torch.optim.Optimizer:
    """Return an optimiser of the class of ``given`` with these groups.

    Every option stands in its group, so that the class's own defaults do not count.
    """
    known = inspect.signature(type(given).__init__).parameters
    is_open = any(p.kind is p.VAR_KEYWORD for p in known.values())
    usual = {name: value for name, value in given.defaults.items() if is_open or name in known}
    made = type(given)([{**options, "params": part} for options, part in groups], **usual)
    for group, (options, _) in zip(made.param_groups, groups, strict=True):
        group.update(options)
    return made


def _of_schedule(given: torch.optim.Optimizer) -> list[str]:
    is_scheduled = any("initial_lr" in group for group in given.param_groups)
    rate = float(given.param_groups[0]["lr"]) if "lr" in given.param_groups[0] else None
    if not is_scheduled or rate is None:
        return []
    return [f"the learning rate's schedule is ignored: it stays at {rate:g}"]


def _of_others(groups: list[tuple[dict[str, Any], list[str | None]]], is_held: bool) -> list[str]:
    """Say which parameters are not the module's own."""
    if not is_held:
        said = "the optimiser holds another model's parameters: its first group's options are used"
        return [said]
    others = sum(name is None for _, part in groups for name in part)
    return [f"{others} of the optimiser's parameters are not the model's"] if others else []
