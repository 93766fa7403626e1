"""Products with the Jacobian of one draw's network, and with its transpose, at any
scale.

A pass of the user's forward carries tangents (forward mode) or keeps the graph for
cotangents (reverse mode). Its rows are either independent networks, or many directions
through one network. On a proved chain tangents and cotangents are divided by their
largest entry after every linear layer, row by row, and the logs are kept: a Jacobian of
norm 1e-5000 is as good as one of norm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from initdiag.errors import UnsupportedArchitecture, brief, explain
from initdiag.measuring.passes.interposer import Ensemble, LinearUse, unseen
from initdiag.measuring.passes.log_norms import product
from initdiag.measuring.passes.modes import Parts
from initdiag.measuring.passes.rows import Rows, Scales, flat, logs_of_rows
from initdiag.measuring.passes.run import Graph, graph_forward
from initdiag.measuring.task import Task
from initdiag.tracing.forward_pass import paired

__all__ = ["Gram", "Pull", "Push", "Scaled", "pulled", "unit_rows"]

Scaled = tuple[Tensor, Tensor]
"""Rows, and the log of the factor (float64) that each is to be multiplied with."""


class Push:
    """A forward-mode pass of a network, or of one network a row: ``J_i u_i``.

    Parameters
    ----------
    task, ensemble
        The replica and how its linear layers act.
    networks : range
        The draws of the rows; or a single draw, the same for all rows.
    x, u : Tensor
        Inputs and their tangents, ``(rows, ...)``.
    """

    def __init__(
        self, task: Task, ensemble: Ensemble, networks: range, x: Tensor, u: Tensor
    ) -> None:
        is_shared = len(networks) == 1 and task.derivative == "forward"
        rows = Rows(networks, len(x), task.seed)
        scales = Scales(of_tangents=task.rescales_tangent, of_primals=task.rescales_primal)
        tangent, _ = product(
            task, _Shared(ensemble) if is_shared else ensemble, rows, scales, x.clone(), u
        )
        self.rows: Scaled = flat(tangent), logs_of_rows(scales.tangent, tangent)

    @property
    def output_size(self) -> int:
        """Entries of one row of the output."""
        return self.rows[0].shape[1]


class Pull:
    """A pass that keeps the graph: ``J_i^T v_i``, of as many ``v`` as are asked for.

    Parameters
    ----------
    task, ensemble, networks, x
        See `Push`.
    """

    def __init__(self, task: Task, ensemble: Ensemble, networks: range, x: Tensor) -> None:
        self._scales = Scales(of_tangents=task.rescales_tangent, of_primals=task.rescales_primal)
        leaf = x.detach().clone().requires_grad_()
        rows = Rows(networks, len(x), task.seed)
        self._graph = graph_forward(task, ensemble, rows, self._scales, leaf, unseen)

    def __call__(self, v: Tensor) -> Scaled:
        """Return ``J_i^T v_i``, ``(rows, n_0)``, for cotangents ``(rows, n_L)``."""
        self._scales.cotangent = 0.0
        out = self._graph.out
        g = pulled(self._graph, v.reshape(out.shape))
        return g.flatten(1), logs_of_rows(self._scales.cotangent + self._scales.primal, out)


def pulled(graph: Graph, v: Tensor) -> Tensor:
    """Return the gradient of ``v . out`` at the graph's leaf; the graph is kept.

    Raises
    ------
    UnsupportedArchitecture
        If the module's own operations cannot be differentiated backwards.
    """
    try:
        with graph.given.to_a_backward_pass():
            (gradient,) = torch.autograd.grad(
                paired(graph.out, v),
                graph.leaf,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
    except RuntimeError as error:
        raise UnsupportedArchitecture(
            explain(
                expected="a module that loss.backward() runs through",
                got=brief(error),
                do="Call model(x).sum().backward(): fix first what raises there.",
            )
        ) from error
    return gradient


class Gram:
    """``J_i^T J_i``, or ``J_i J_i^T`` where that is smaller, of independent networks,
    one a row; no matrix is formed.

    Parameters
    ----------
    task, ensemble
        The replica and how its linear layers act.
    networks : range
        The draws of the rows.
    inner : bool
        Whether it is ``J^T J``.

    Attributes
    ----------
    log_scale : ndarray of shape (rows,)
        Log of what the products are divided by, a constant of each matrix: set by the
        first product, so that its largest entry is 1.
    """

    def __init__(self, task: Task, ensemble: Ensemble, networks: range, *, inner: bool) -> None:
        self._task, self._ensemble, self._networks, self._inner = task, ensemble, networks, inner
        self._x = task.inputs(networks)
        self._pull_back: Pull | None = None
        self._is_scaled = False
        self.log_scale = np.zeros(len(networks))

    def __call__(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the product of row ``i`` with its network's matrix, divided by
        ``exp(log_scale[i])``.
        """
        v = torch.from_numpy(np.ascontiguousarray(vectors)).to(self._x.device, self._x.dtype)
        half, first = unit_rows(*(self._push(v) if self._inner else self._pull(v)))
        whole, second = self._pull(half) if self._inner else self._push(half)
        rows, second = unit_rows(whole, second)
        logs = (first + second).cpu().numpy()
        if not self._is_scaled:
            self.log_scale, self._is_scaled = np.where(np.isfinite(logs), logs, 0.0), True
        return np.asarray(rows.double().cpu().numpy() * np.exp(logs - self.log_scale)[:, None])

    def _push(self, v: Tensor) -> Scaled:
        return Push(
            self._task, self._ensemble, self._networks, self._x, v.reshape(self._x.shape)
        ).rows

    def _pull(self, v: Tensor) -> Scaled:
        if self._pull_back is None:
            self._pull_back = Pull(self._task, self._ensemble, self._networks, self._x)
        return self._pull_back(v)


def unit_rows(rows: Tensor, logs: Tensor) -> Scaled:
    """Return the rows divided by their largest entries, and the logs with these: -inf
    for a row of zeros, whatever its factor was.

    Raises
    ------
    UnsupportedArchitecture
        If an entry is NaN or infinite.
    """
    peak = rows.abs().amax(1)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    logs = logs + peak.double().log()
    if bool((logs.isnan() | logs.isposinf()).any()):
        raise UnsupportedArchitecture(
            "the Jacobian has entries that are NaN or infinite at this input. Check the input."
        )
    return rows / safe[:, None], logs


@dataclass(frozen=True, slots=True)
class _Shared:
    """One network and one input for all rows: what is not a tangent is
    computed once.
    """

    network: Ensemble

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Return the network's own."""
        return self.network.values

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        """Return ``W x``, the same in every row, and ``W t``."""
        x, *tangents = parts
        y, *images = self.network.apply(use, (x[:1], *tangents))
        return (y.repeat(len(x), *[1] * (y.dim() - 1)), *images)

    def bias(self, use: LinearUse | None, name: str, bias: Tensor) -> Tensor:
        """Return the network's bias."""
        return self.network.bias(use, name, bias)
