"""Products with the Jacobian of one draw's network, and with its transpose, at any scale.

A pass of the user's forward carries tangents (forward mode) or keeps the graph for cotangents (reverse mode). Its rows are either
independent networks, or many directions through one network. On a proved chain tangents and cotangents are divided by their largest entry
after every linear layer, row by row, and the logs are kept: a Jacobian of norm 1e-5000 is as good as one of norm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from initdiag.errors import UnsupportedArchitecture, explain
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.interposer import Ensemble, Interposer, flat, rowwise
from initdiag.measuring.task import Task, brief, dual_forward, graph_forward
from initdiag.tracing.provenance import Provenance

__all__ = ["Backwards", "Forwards", "Gram", "Pull", "Push", "Scaled", "pulled", "unit_rows"]

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
        interposer = Forwards(
            task, _Shared(ensemble) if len(networks) == 1 else ensemble, networks, len(x)
        )
        _, tangent = dual_forward(task, interposer, x.clone(), u)
        self.rows: Scaled = flat(tangent), _logs(interposer.tangent_log_scale, tangent)

    @property
    def output_size(self) -> int:
        """Entries of one row of the output."""
        return self.rows[0].shape[1]


class Pull:
    """A pass that keeps the graph: ``J_i^T v_i``, of as many ``v`` as are asked for.

    Parameters
    ----------
    task, ensemble, networks, x
        As for `Push`.
    """

    def __init__(self, task: Task, ensemble: Ensemble, networks: range, x: Tensor) -> None:
        self._interposer = Backwards(task, ensemble, networks, len(x))
        self._leaf = x.detach().clone().requires_grad_()
        self._out = graph_forward(task, self._interposer, self._leaf)

    def __call__(self, v: Tensor) -> Scaled:
        """Return ``J_i^T v_i``, ``(rows, n_0)``, for cotangents ``(rows, n_L)``."""
        self._interposer.cotangent_log_scale = 0.0
        (g,) = pulled(self._out, self._leaf, v.reshape(self._out.shape))
        logs = self._interposer.cotangent_log_scale + self._interposer.primal_log_scale
        return g.flatten(1), _logs(logs, self._out)


def pulled(out: Tensor, leaf: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient of ``v . out`` at ``leaf``; the graph is kept.

    Raises
    ------
    UnsupportedArchitecture
        If the module's own operations cannot be differentiated backwards.
    """
    try:
        return torch.autograd.grad(
            out, leaf, v, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    except RuntimeError as error:
        raise UnsupportedArchitecture(
            explain(
                expected="a module that loss.backward() runs through",
                got=brief(error),
                do="Call model(x).sum().backward(): what raises there is to be mended first.",
            )
        ) from error


class Gram:
    """``J_i^T J_i``, or ``J_i J_i^T`` where that is smaller, of independent networks, one a row; no matrix is formed.

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
        Log of what the products are divided by, a constant of each matrix: set by the first product, so that its largest entry is 1.
    """

    def __init__(self, task: Task, ensemble: Ensemble, networks: range, *, inner: bool) -> None:
        self._task, self._ensemble, self._networks, self._inner = task, ensemble, networks, inner
        self._x = task.inputs(networks)
        self._pull_back: Pull | None = None
        self._is_scaled = False
        self.log_scale = np.zeros(len(networks))

    def __call__(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the product of row ``i`` with its network's matrix, divided by ``exp(log_scale[i])``."""
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
    """Return the rows divided by their largest entries, and the logs with these: -inf for a row of zeros, whatever its factor was.

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


def _logs(value: Tensor | float, rows: Tensor) -> Tensor:
    return (
        torch.as_tensor(value, dtype=torch.float64, device=rows.device).detach().expand(len(rows))
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """One network and one input for all rows: the primal is computed once. Cotangents would need it row by row."""

    network: Ensemble

    def apply(
        self, name: str, x: Tensor, tangent: Tensor, weight: Tensor, is_transposed: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ``W x``, the same in every row, and ``W t``."""
        y, y_tangent = self.network.apply(name, x[:1], tangent, weight, is_transposed)
        return y.repeat(len(x), *[1] * (y.dim() - 1)), y_tangent

    def bias(self, name: str, bias_name: str, bias: Tensor) -> Tensor:
        """Return the network's bias."""
        return self.network.bias(name, bias_name, bias)

    def again(self) -> _Shared:
        """Return the same network for another pass."""
        return _Shared(self.network.again())


class Forwards(Interposer):
    """An interposer whose rows may share one network."""

    def __init__(self, task: Task, ensemble: Ensemble, networks: range, rows: int) -> None:
        origins = Provenance(dict(task.module.named_parameters()))
        layers = frozenset(layer.name for layer in task.arch.layers)
        super().__init__(
            origins,
            layers,
            ensemble,
            range(rows),
            task.seed,
            task.rescales_tangent,
            task.rescales_primal,
        )
        self._networks = networks

    def _uniforms(self, like: Tensor) -> Tensor:
        uniform = random_numbers.uniforms(self.seed, self._networks, self._noises, like[0].numel())
        self._noises += 1
        return (
            torch.from_numpy(uniform)
            .reshape(-1, *like.shape[1:])
            .expand(like.shape)
            .to(like.device)
        )


class Backwards(Forwards):
    """One whose passes carry no tangents, and are differentiated backwards.

    Scales are constants to the derivative: of the primal they are taken without the graph, of the cotangents when these pass.
    """

    def __init__(self, task: Task, ensemble: Ensemble, networks: range, rows: int) -> None:
        super().__init__(task, ensemble, networks, rows)
        self.cotangent_log_scale: Tensor | float = 0.0

    def _depends(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.requires_grad

    def _parts(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value, torch.zeros_like(value, requires_grad=False)

    def _joined(self, primal: Tensor, tangent: Tensor) -> Tensor:
        return primal

    def _log_mean_square(self, x: Tensor) -> Tensor:
        return super()._log_mean_square(x.detach())

    def _with_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        return super()._with_bias(
            _Kept.apply(y, self) if self.rescale_tangent and y.requires_grad else y, bias
        )

    def _rescaled_primal(self, y: Tensor, bias: Tensor | None) -> Tensor:
        before = self.primal_log_scale
        scaled = super()._rescaled_primal(y.detach(), bias)
        if not y.requires_grad:
            return scaled
        factor = torch.exp(before - _logs(self.primal_log_scale, y)).to(y.dtype)
        return scaled + rowwise(factor, y) * (y - y.detach())


class _Kept(torch.autograd.Function):
    """The identity, which divides the cotangent of each row by its largest entry and keeps the log."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, keeper: Backwards) -> Tensor:
        ctx.keeper = keeper
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        (g,) = cotangents
        peak = g.abs().flatten(1).amax(1)
        peak = torch.where(peak > 0, peak, torch.ones_like(peak))
        ctx.keeper.cotangent_log_scale = ctx.keeper.cotangent_log_scale + peak.double().log()
        return g / rowwise(peak, g), None
