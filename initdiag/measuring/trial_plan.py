"""What a caller asks of a trial. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from initdiag._core.choices import Family, Loss
from initdiag._core.validation import positive_integer
from initdiag.errors import InvalidInput, explain, shown

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["TrialPlan"]


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What a caller asks for.

    Attributes
    ----------
    steps : int
        How many.
    target, loss_fn
        The training's own, or None.
    optimizer : str, Optimizer or None
        A name, or the user's own.
    lr, loss
        A learning rate and a kind of loss, or None.

    Raises
    ------
    InvalidInput
        Unless ``steps`` is a positive integer.
    """

    steps: int
    target: Any = None
    loss_fn: Any = None
    optimizer: Family | Optimizer | None = None
    lr: float | None = None
    loss: Loss | None = None

    def __post_init__(self) -> None:
        positive_integer(self.steps, "trial")
        if self.loss_fn is not None and not callable(self.loss_fn):
            do = "Pass e.g. torch.nn.MSELoss(), or a function (output, target) -> scalar."
            got = shown(self.loss_fn)
            raise InvalidInput(explain(expected="loss_fn: a function", got=got, do=do))

    @classmethod
    def of(
        cls,
        steps: int | None,
        target: Any,
        loss_fn: Any,
        optimizer: Any,
        lr: float | None,
        loss: Any,
        kind: Loss | None,
    ) -> TrialPlan | None:
        """Return the plan of a diagnosis; None where no trial is asked for.

        A ``loss`` that is a module is the loss function; a target that is a text is the
        network's name, and no target. ``kind`` is the loss's kind, as far as it is
        known.

        Raises
        ------
        InvalidInput
            For a loss function without a trial, which alone would call it.
        """
        module = None if loss is None or isinstance(loss, str) else loss
        if steps is not None:
            given = None if isinstance(target, str) else target
            return cls(steps, given, loss_fn or module, optimizer, lr, kind)
        if loss_fn is not None:
            do = "Add trial=50, or leave loss_fn out."
            raise InvalidInput(explain(expected="loss_fn with a trial", got="none", do=do))
        return None
