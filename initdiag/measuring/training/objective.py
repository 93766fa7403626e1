"""What the steps of a trial lower: the user's own loss on the user's own targets, or
the usual loss of a kind on targets that are made up, and said to be.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from initdiag._core.choices import Loss
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain, text_of
from initdiag.measuring.training.targets import class_dimension, labels, values
from initdiag.tracing.adapter import Adapter
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.structures import mapped

__all__ = ["LossFunction", "Objective", "objective_of"]

LossFunction = Callable[..., Any]
"""``loss_fn(output, target)``, or ``loss_fn(model, x)``: a scalar tensor, or a mapping
of names to the terms whose sum is the loss."""

_MODELS = ("model", "net", "network", "module")
"""Names by which a loss function's first argument is the model, not its output."""

_ENTIRE = "loss"
"""The name of a loss that has no terms."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss that can be taken of any replica.

    Attributes
    ----------
    kind : str
        ``"classification"`` or ``"regression"``: what it is most like.
    text : str
        It in words.
    function : callable
        Takes the replica's adapter, the rows and the judged output (None where the
        function runs the model itself); returns what the user's function does.
    takes_model : bool
        Whether the function runs the model itself.
    constant : float
        The loss of the best constant guess; NaN if unknown.
    made_up : tuple of str
        What was not the user's own.
    """

    kind: Loss
    text: str
    function: Callable[[Adapter, Tensor, Any], Any]
    takes_model: bool
    constant: float
    made_up: tuple[str, ...] = ()

    def terms(self, adapter: Adapter, x: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the terms of the loss, and the judged output if it is known.

        Raises
        ------
        InvalidInput
            If the function raises, or returns no scalar.
        """
        out = None if self.takes_model else _output(adapter, x)
        try:
            found = self.function(adapter, x, out)
            named = dict(found) if isinstance(found, Mapping) else {_ENTIRE: found}
            terms = {str(name): _scalar(value) for name, value in named.items()}
        except Exception as error:
            raise InvalidInput(
                explain(
                    expected="loss_fn: a function (output, target), or (model, x), -> scalar "
                    "tensor, or a mapping of names to such",
                    got=f"{type(error).__name__}: {text_of(error)}",
                    do="Call it alone on what the model returns, and fix what it raises.",
                )
            ) from error
        judged = None if out is None else adapter.judged(out, len(x))
        return terms, judged if isinstance(judged, Tensor) else None


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"not a scalar tensor but {got}")
    return value.reshape(())


def _output(adapter: Adapter, x: Tensor) -> Any:
    args, kwargs = adapter.own_call(x)
    return adapter.inner(*args, **kwargs)


def objective_of(
    adapter: Adapter, x: Tensor, target: Any, loss_fn: Any, loss: Loss | None, seed: int
) -> Objective:
    """Return what is lowered.

    Parameters
    ----------
    adapter : Adapter
        A replica's, which may be run.
    x : Tensor
        The rows.
    target, loss_fn
        The user's, or None. A function without a target, or whose first argument is
        called ``model``, is given the model and the inputs.
    loss : str or None
        The kind, where the user states it.
    seed : int
        For targets that are made up.

    Raises
    ------
    InvalidInput
        If the forward pass's output has no such part as is asked for.
    UnsupportedArchitecture
        If the output is no tensor and there is no function that takes it.
    """
    if isinstance(loss_fn, nn.Module):
        loss_fn = replica(loss_fn, copied)
    if loss_fn is not None and _takes_model(loss_fn, target):
        return _of_model(loss_fn, target, loss)
    with torch.enable_grad():  # as in a training: the forward pass may need gradients itself
        whole = _output(adapter, x)
        whole = whole.detach() if isinstance(whole, Tensor) else whole
    out = adapter.judged(whole, len(x))
    out = out.detach() if isinstance(out, Tensor) else out
    target = _on(target, x.device)
    if loss_fn is not None and not isinstance(loss_fn, nn.Module):
        constant = math.nan if not isinstance(whole, Tensor) else _least(loss_fn, whole, target)
        kind = loss or _kind(target, out)
        return Objective(kind, _name(loss_fn), lambda d, x, o: loss_fn(o, target), False, constant)
    if not isinstance(out, Tensor) or out.dim() < 1 or not len(out):
        raise UnsupportedArchitecture(
            f"no loss is known for an output of {type(out).__name__}. Pass loss_fn=, or output=."
        )
    return _usual(loss_fn, x, out, target, loss, seed)


def _takes_model(loss_fn: Any, target: Any) -> bool:
    if isinstance(loss_fn, nn.Module):
        return False
    try:
        first = next(iter(inspect.signature(loss_fn).parameters), "")
    except (TypeError, ValueError):  # a function of C tells no signature
        first = ""
    return target is None or first in _MODELS


def _of_model(loss_fn: LossFunction, target: Any, loss: Loss | None) -> Objective:
    def function(adapter: Adapter, x: Tensor, out: Any) -> Any:
        args, kwargs = adapter.own_call(x)
        more = () if target is None else (_on(target, x.device),)
        return loss_fn(adapter.inner, *args, *more, **kwargs)

    return Objective(loss or "regression", _name(loss_fn), function, True, math.nan)


def _name(loss_fn: Any) -> str:
    return str(getattr(loss_fn, "__name__", type(loss_fn).__name__)).replace("<lambda>", "loss_fn")


def _on(target: Any, device: torch.device) -> Any:
    return mapped(target, lambda _, tensor: tensor.detach().to(device))


def _kind(target: Any, out: Any) -> Loss:
    """Return the kind that targets tell, or without any the size of the output."""
    if isinstance(target, Tensor):
        return "regression" if target.is_floating_point() else "classification"
    is_wide = isinstance(out, Tensor) and out.dim() > 1 and out.shape[class_dimension(out)] > 1
    return "classification" if is_wide else "regression"


def _usual(
    module: nn.Module | None, x: Tensor, out: Tensor, target: Any, loss: Loss | None, seed: int
) -> Objective:
    """Return a loss of PyTorch's, the user's module or the usual one of the kind."""
    kind = loss or _kind(target, out)
    made_up: tuple[str, ...] = ()
    if target is None and kind == "classification":
        target, made_up = labels(out, seed), ("random labels",)
    elif target is None:
        target, made_up = values(x, out, seed), ("targets of a random linear function",)
    if module is None:  # the user's own is called on the user's targets as they are
        target = _fitting(target, out, kind)
    of_kind = _cross_entropy if kind == "classification" else _squared_error
    taken = of_kind if module is None else module

    def function(adapter: Adapter, x: Tensor, whole: Any) -> Any:
        return taken(adapter.judged(whole, len(x)), target)

    if module is None:
        text = "cross entropy" if kind == "classification" else "squared error"
    else:
        text = _name(module)
    return Objective(kind, text, function, False, _least(taken, out, target), made_up)


def _fitting(target: Any, out: Tensor, kind: Loss) -> Any:
    """Return targets in the shape and dtype of the output, where only these differ."""
    if not isinstance(target, Tensor):
        return target
    if kind == "classification" and out.shape[class_dimension(out)] > 1:
        is_column = not target.is_floating_point() and target.dim() == out.dim() == 2
        return target.reshape(len(target), -1).squeeze(1) if is_column else target
    is_alike = target.numel() == out.numel()
    return (target.reshape(out.shape) if is_alike else target).to(out.dtype)


def _cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    where = class_dimension(out, tuple(target.shape))
    if target.shape == out.shape:  # one score of two classes, or probabilities
        if out.shape[-1] == 1:
            return functional.binary_cross_entropy_with_logits(out, target)
        return functional.cross_entropy(out, target)
    return functional.cross_entropy(out if where == 1 else out.movedim(-1, 1), target)


def _squared_error(out: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(out, target)


_LEAST_STEPS = 60
"""Iterations in which the best constant guess is looked for: L-BFGS needs a few for
losses as smooth as the usual ones."""


def _least(loss_fn: LossFunction, out: Tensor, target: Any) -> float:
    """Return the loss of the best guess that is the same for every row.

    NaN for a loss that does not take such a guess, or has several terms.
    """
    guess = out.detach().mean(0, keepdim=True).nan_to_num(0.0, 0.0, 0.0).clone()
    guess.requires_grad_()
    search = torch.optim.LBFGS([guess], max_iter=_LEAST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        found = loss_fn(guess.expand_as(out), target)
        parts = found.values() if isinstance(found, Mapping) else (found,)
        return torch.stack([_scalar(part) for part in parts]).sum()

    def closure() -> float:
        search.zero_grad()
        value = loss()
        (guess.grad,) = torch.autograd.grad(value, guess)
        return float(value.detach())

    try:
        search.step(closure)
        return float(loss().detach())
    except Exception:  # no constant is a guess for it; a fault of its own is met by a step
        return math.nan
