"""How the network is going to be trained, from what a caller hands in: names, or the
optimiser and the loss themselves.

Nothing here loads torch: what is handed in has loaded it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from initdiag._core.choices import Family, Loss
from initdiag.diagnosing.calibration import FAMILIES, Training
from initdiag.errors import InvalidInput, explain

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["kind_of_loss", "training_of"]

_ALIKE: dict[str, Family] = {
    "SGD": "sgd", "ASGD": "sgd", "Adam": "adam", "AdamW": "adamw", "NAdam": "adam",
    "RAdam": "adam", "Adamax": "adam", "Adafactor": "adam", "Adagrad": "adam", "RMSprop": "adam",
}  # fmt: skip
"""The optimiser that the risk is known for and that a class of torch.optim is most
like: those that divide by the gradient's size are like Adam."""

_LIKE_MOMENTUM = 0.5
"""Momentum from which on SGD is judged as with 0.9: a step is then nearer to ten times
as large than to one, in its logarithm (1/(1 - m) is over the root of ten from 0.68 on;
a half is on the safe side)."""

_LOSSES: dict[Loss, tuple[str, ...]] = {
    "classification": (
        "CrossEntropyLoss", "NLLLoss", "BCELoss", "BCEWithLogitsLoss", "MultiMarginLoss",
        "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "SoftMarginLoss", "CTCLoss",
    ),
    "regression": (
        "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "GaussianNLLLoss", "PoissonNLLLoss",
    ),
}  # fmt: skip
"""Names of torch's loss modules, by what they are like."""


def training_of(optimizer: Any, lr: float | None, loss: Any) -> Training:
    """Return the training that the risk is judged for.

    Parameters
    ----------
    optimizer : str, torch.optim.Optimizer or None
        An optimiser tells its learning rate, that of its largest group, itself.
    lr : float or None
        A named one's.
    loss : str, torch loss module or None
        A module of another kind than the known ones leaves the loss open.

    Raises
    ------
    InvalidInput
        For what is neither a name nor an optimiser, or an optimiser that is like none.
    """
    family: Any = optimizer
    kind: Any = loss if loss is None or isinstance(loss, str) else kind_of_loss(loss)
    if optimizer is None or isinstance(optimizer, str):
        return Training.of(family, lr, kind)
    if not hasattr(optimizer, "param_groups"):
        do = f"Name one of {', '.join(FAMILIES)}, or pass a torch.optim optimiser."
        got = repr(type(optimizer).__name__)
        raise InvalidInput(explain(expected="an optimizer", got=got, do=do))
    group = max(optimizer.param_groups, key=lambda one: sum(p.numel() for p in one["params"]))
    rate = group.get("lr")
    return Training.of(_family(optimizer, group), None if rate is None else float(rate), kind)


def _family(optimizer: Optimizer, group: dict[str, Any]) -> Family:
    names = (kind.__name__ for kind in type(optimizer).__mro__)
    plain: Family = "sgd"
    family = next((_ALIKE[name] for name in names if name in _ALIKE), plain)
    is_heavy = family == "sgd" and group.get("momentum", 0) >= _LIKE_MOMENTUM
    return "momentum" if is_heavy else family


def kind_of_loss(loss: Any) -> Loss | None:
    """Return the kind of a loss module of torch's, or of a class derived from one."""
    names = {kind.__name__ for kind in type(loss).__mro__}
    return next((kind for kind, known in _LOSSES.items() if names & set(known)), None)
