"""`measure_spectrum`: singular values of the true Jacobian of the user's own module, over an ensemble of initialisations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from initdiag.architecture import Architecture, positive_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.measurement import SpectralMeasurement
from initdiag.measuring import random_numbers
from initdiag.measuring.interposer import Ensemble
from initdiag.measuring.jacobian import Pass
from initdiag.measuring.redraw import Loaded, Source, reset_parameters, values_of
from initdiag.measuring.runner import (
    _checked_seed,
    _mixed_rows,
    _mixes_rows,
    _not_varied,
    _require_default_weights,
    _why_not_signs,
)
from initdiag.measuring.signs import SignFlips
from initdiag.measuring.task import Task, prepared
from initdiag.tracing.loan import own_modes, rng_preserved
from initdiag.tracing.subject import subject_of
from initdiag.tracing.trace import trace_subject

__all__ = ["measure_spectrum"]

_BUDGET = 1 << 28
"""Bytes that the tensors of one pass may take, about."""


def measure_spectrum(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Tensor | None = None,
    *,
    input_size: Sequence[int] | None = None,
    draws: int = 16,
    method: str = "signs",
    init: Callable[[nn.Module], Any] | None = None,
    seed: int = 0,
    architecture: Architecture | None = None,
    module: str | None = None,
) -> SpectralMeasurement:
    """Measure the squared singular values of the input-output Jacobian of the user's own module, in float64.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit.
    example_input, input_size
        As in `trace`. Rows are dealt out over the draws in turn: draw ``i`` is the Jacobian at one row. Random normal rows where none are given.
    draws : int
        How many networks.
    method : str
        ``"signs"``: random signs around the real weights; ``"redraw"``: parameters drawn afresh. As in `measure`.
    init : callable, optional
        As ``model.apply`` takes it; for redraws.
    seed : int
        Draw ``i`` depends on nothing but the seed and ``i``.
    architecture : Architecture, optional
        What `trace` returned for this model, to spare a second look.
    module : str, optional
        Path of a part that is measured alone, as in `trace`.

    Returns
    -------
    SpectralMeasurement
        Compare with `predict_spectrum`.

    Raises
    ------
    InvalidInput
        As `trace`; an unknown method; an ``init`` that raises.
    UnsupportedArchitecture
        If the ensemble does not exist for this module, or its rows are mixed; the message says why and what to do.
    """
    draws, seed = positive_integer(draws, "draws"), _checked_seed(seed)
    if method not in ("signs", "redraw"):
        raise InvalidInput(
            explain(
                expected="method: signs or redraw", got=repr(method), do="Choose one: singular values need weights."
            )
        )
    with rng_preserved(), own_modes():
        subject = subject_of(model, example_input, input_size, module)
        arch = architecture or trace_subject(subject)
        task = prepared(subject.module, arch, subject.example, subject.size, seed, None, torch.float64)
        networks = _Signs(task) if method == "signs" else _Redraws(task, subject.factory, init)
        log_nodes = np.stack([_dense(task, networks.at(draw), draw) for draw in range(draws)])
    n_0, n_1 = task.rows[0].numel(), task.arch.output_size
    return SpectralMeasurement(
        method=method,
        draws=draws,
        seed=seed,
        input_size=n_0,
        output_size=n_1,
        log_nodes=log_nodes,
        weights=None,
        log_largest=log_nodes[:, 0].copy(),
        log_smallest=log_nodes[:, -1].copy(),
        log_resolution=2 * math.log(max(n_0, n_1) * np.finfo(np.float64).eps),
        notes=networks.notes(),
    )


class _Signs:
    """Networks with random signs around the module's weights."""

    def __init__(self, task: Task) -> None:
        reason = _why_not_signs(task.arch)
        if reason is not None:
            raise UnsupportedArchitecture(f"{reason}. Use method='redraw' with an init or a factory.")
        layers = task.arch.layers
        self._task = task
        self._order = {name: i for i, name in enumerate(dict.fromkeys(layer.name for layer in layers))}
        self._flipped = frozenset(layer.name for layer in layers if layer.bias is not None and layer.bias.symmetric)
        _refuse_mixed_rows(task, self.of(range(4)))

    def of(self, draws: range) -> SignFlips:
        """Return the signs of these draws."""
        return SignFlips(self._task.seed, draws, self._order, self._flipped)

    def at(self, draw: int) -> Ensemble:
        """Return one draw's network."""
        return self.of(range(draw, draw + 1))

    def notes(self) -> tuple[str, ...]:
        """Return what was not varied."""
        left = _not_varied(self._task)
        return (f"left as they are, not varied: {', '.join(left)}",) if left else ()


class _Redraws:
    """Networks whose parameters are drawn afresh, and loaded into the replica one after the other."""

    def __init__(self, task: Task, factory: Callable[[], Any] | None, init: Callable[[nn.Module], Any] | None) -> None:
        if factory is None and init is None:
            _require_default_weights(task.arch)
            init = reset_parameters
        self._task = task
        self._source = Source(task.original, {layer.name for layer in task.arch.layers}, factory, init)
        _refuse_mixed_rows(task, Loaded())

    def at(self, draw: int) -> Ensemble:
        """Load one draw's network, and return how its layers act."""
        own = values_of(self._task.module)
        with torch.no_grad():
            for name, value in self._source.draw(random_numbers.draw_seed(self._task.seed, draw)).items():
                own[name].copy_(value)
        return Loaded()

    def notes(self) -> tuple[str, ...]:
        """Return what was not drawn afresh."""
        return (f"not drawn afresh: {', '.join(self._source.left)}",) if self._source.left else ()


def _refuse_mixed_rows(task: Task, ensemble: Ensemble) -> None:
    if not task.is_chain and _mixes_rows(task, ensemble):
        raise _mixed_rows()


def _dense(task: Task, ensemble: Ensemble, draw: int) -> NDArray[np.float64]:
    """``ln sigma^2`` of one draw's Jacobian, descending: its columns by forward mode or its rows by reverse mode, whichever are fewer."""
    pieces = [*_sides(task, ensemble, range(draw, draw + 1))]
    rows, logs = torch.cat([rows for rows, _ in pieces]), torch.cat([logs for _, logs in pieces])
    scale = logs.max()
    matrix = rows * torch.exp(logs - scale)[:, None]
    if not bool(torch.isfinite(matrix).all()):
        raise UnsupportedArchitecture(
            "the Jacobian is not finite at this input. Check it for entries of NaN or infinity."
        )
    singular = torch.linalg.svdvals(matrix).cpu().numpy()
    with np.errstate(divide="ignore"):
        return np.asarray(2 * (np.log(singular) + float(scale)))


def _sides(task: Task, ensemble: Ensemble, network: range) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of ``J^T`` or of ``J``, with the logs of their factors, as many at a time as the budget allows."""
    x, n_1 = task.inputs(network), task.arch.output_size
    n_0 = x.numel()
    forward = n_0 <= n_1
    step = max(1, _BUDGET // (64 * task.dtype.itemsize * _width(task, forward)))
    for start in range(0, min(n_0, n_1), step):
        unit = torch.eye(min(n_0, n_1), dtype=task.dtype, device=x.device)[start : start + step]
        many = x.expand(len(unit), *x.shape[1:])
        if forward:
            yield Pass(task, ensemble, network, many, unit.reshape(many.shape), with_graph=False).pushed()
        else:
            yield Pass(task, ensemble, network, many, None, with_graph=True).pull(unit)


def _width(task: Task, forward: bool) -> int:
    """Entries of one row that are alive at once: of the widest layer, or of all layers where the graph is kept."""
    widths = [task.arch.input_size, *(layer.fan_out for layer in task.arch.layers)]
    return max(widths) if forward else sum(widths)
