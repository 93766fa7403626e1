"""``ln||Ju||^2`` of a chunk of draws, by the derivative that training sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from initdiag.errors import UnsupportedArchitecture, brief
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.interposer import Ensemble, LinearUse
from initdiag.measuring.passes.modes import Parts
from initdiag.measuring.passes.rows import LayerLogs, Rows, Scales, flat, log_sum_squares, rowwise
from initdiag.measuring.passes.run import dual_forward, graph_forward
from initdiag.measuring.passes.underflow import Logs, any_row, rescued
from initdiag.tracing.forward_pass import paired

if TYPE_CHECKING:
    from initdiag.measuring.task import Task

__all__ = ["log_norms", "log_norms_in_batch", "product"]


def log_norms(task: Task, ensemble: Ensemble, draws: range, u: Tensor | None = None) -> Logs:
    """Return ``ln||Ju||^2`` of each draw (float64), and the logs of every linear call.

    The rows are separate networks.
    """
    x = task.inputs(draws)
    rows = Rows(draws, len(draws), task.seed)
    return _pass(task, ensemble, rows, x, task.directions(draws, x) if u is None else u)


def log_norms_in_batch(task: Task, ensemble: Ensemble, draws: range) -> Logs:
    """Return what `log_norms` does, for draws whose networks mix the rows of a batch.

    The derivative is then that of one row's output by its own input, in the whole
    batch.
    """
    rows = len(task.rows)
    own = torch.tensor(
        [index * rows + draw % rows for index, draw in enumerate(draws)], device=task.rows.device
    )
    x = task.rows.repeat(len(draws), *[1] * (task.rows.dim() - 1))
    u = torch.zeros_like(x)
    u[own] = task.directions(draws, x[own])
    all_rows = Rows(range(draws.start * rows, draws.stop * rows), len(x), task.seed, batch=rows)
    norms, logs = _pass(task, ensemble, all_rows, x, u)
    return norms[own], [LayerLogs(g.name, g.activation[own], g.tangent[own]) for g in logs]


def _pass(task: Task, ensemble: Ensemble, rows: Rows, x: Tensor, u: Tensor) -> Logs:
    """Pass, and pass again where tangents underflow that cannot be rescaled."""

    def run(of_input: float, scale: float) -> Logs:
        return _single_pass(task, ensemble, rows, x * of_input, u * scale)

    found = run(1.0, 1.0)
    if task.rescales_tangent or task.is_native or not task.is_repeatable:
        return found
    return rescued(found, run, flat(u).any(1))


def _single_pass(task: Task, ensemble: Ensemble, rows: Rows, x: Tensor, u: Tensor) -> Logs:
    scales = Scales(of_tangents=task.rescales_tangent, of_primals=task.rescales_primal)
    tangent, logs = product(task, ensemble, rows, scales, x, u)
    return scales.log_square(tangent), logs


def product(
    task: Task, ensemble: Ensemble, rows: Rows, scales: Scales, x: Tensor, u: Tensor
) -> tuple[Tensor, list[LayerLogs]]:
    """Return each row's ``J_i u_i`` up to its scale, and every linear call's logs.

    Where the module's backward pass is its own (``task.derivative``), ``J`` is what
    that pass is the transpose of.
    """
    if task.derivative == "reverse":
        return _product_by_pulling(task, ensemble, rows, scales, x, u)
    logs: list[LayerLogs] = []

    def observe(use: LinearUse, entered: Parts, image: Parts, scales: Scales) -> None:
        activation = scales.log_mean_square(entered[0])
        logs.append(LayerLogs(use.name, activation, scales.log_square(image[1])))

    out, tangent = dual_forward(task, ensemble, rows, scales, x, u, observe)
    return _unless_broken(tangent, out), logs


def _unless_broken(tangent: Tensor, out: Tensor) -> Tensor:
    """Return the tangent, which is NaN in rows whose output holds NaN or infinity.

    Minus infinity alone may be a mask, past which the tangent tells.
    """
    is_broken = flat(out.isnan() | out.isposinf()).any(1)
    return (
        tangent
        if not any_row(is_broken)
        else tangent.masked_fill(rowwise(is_broken, tangent), torch.nan)
    )


def _product_by_pulling(
    task: Task, ensemble: Ensemble, rows: Rows, scales: Scales, x: Tensor, u: Tensor
) -> tuple[Tensor, list[LayerLogs]]:
    """Return the same from backward passes alone.

    The backward pass makes ``g(v) = J^T v``, which is linear in ``v``, so that the
    gradient of ``<g(v), u>`` by ``v`` is ``J u``; by the cotangent that comes back to a
    layer it is the tangent that leaves it.
    """
    names: list[tuple[str, Tensor]] = []
    back: dict[int, Tensor] = {}

    def observe(use: LinearUse, entered: Parts, image: Parts, scales: Scales) -> None:
        index = len(names)
        names.append((use.name, scales.log_mean_square(entered[0].detach())))
        if image[0].requires_grad:
            image[0].register_hook(lambda delta: back.__setitem__(index, delta))

    leaf = x.detach().clone().requires_grad_()
    graph = graph_forward(task, ensemble, rows, scales, leaf, observe)
    out = graph.out
    v = random_numbers.directions(task.seed, range(rows.count), out[0].numel(), "cotangent")
    v = v.view(out.shape).to(out.device, out.dtype).requires_grad_()
    try:
        with graph.given.to_a_backward_pass():
            (g,) = torch.autograd.grad(
                paired(out, v), leaf, create_graph=True, allow_unused=True, materialize_grads=True
            )
            wanted = [v, *(back[index] for index in sorted(back))]
            tangent, *of_layers = torch.autograd.grad(
                (g * u).sum(), wanted, allow_unused=True, materialize_grads=True
            )
    except RuntimeError as error:
        raise UnsupportedArchitecture(
            "the module has a backward pass of its own (a gradient hook or a custom function), "
            f"which cannot itself be differentiated: {brief(error)}"
        ) from error
    found = dict(zip(sorted(back), of_layers, strict=True))
    dead = torch.full((rows.count,), -torch.inf, dtype=torch.float64, device=x.device)
    tangents = (
        log_sum_squares(found[i].detach()) if i in found else dead for i in range(len(names))
    )
    return _unless_broken(tangent.detach(), out.detach()), [
        LayerLogs(name, activation, logs)
        for (name, activation), logs in zip(names, tangents, strict=True)
    ]
