"""One pass of the replica, with tangents or the graph, which leaves it as it was."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from initdiag.errors import InvalidInput, UnsupportedArchitecture, brief
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.attention import attention_by_formula
from initdiag.measuring.passes.interposer import Ensemble, Interposer, Observer
from initdiag.measuring.passes.modes import FORWARD, REVERSE, Mode
from initdiag.measuring.passes.rows import Rows, Scales
from initdiag.measuring.passes.state import Given
from initdiag.tracing.adapter import run_on
from initdiag.tracing.guard import seed_generators
from initdiag.tracing.provenance import Provenance

if TYPE_CHECKING:
    from initdiag.measuring.task import Task

__all__ = ["Graph", "dual_forward", "graph_forward", "reached"]


@dataclass(frozen=True, slots=True)
class Graph:
    """A pass that can be gone back.

    Attributes
    ----------
    leaf, out : Tensor
        Its input and its output, the batch first.
    given : Given
        What the module has to hold while a backward pass runs.
    """

    leaf: Tensor
    out: Tensor
    given: Given


def dual_forward(
    task: Task,
    ensemble: Ensemble,
    rows: Rows,
    scales: Scales,
    x: Tensor,
    u: Tensor,
    observer: Observer,
) -> tuple[Tensor, Tensor]:
    """Return output and tangent of one pass of the networks at ``x`` along ``u``."""
    _warm_up()
    given = _given(task, ensemble.values)
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(x, u)
        out = _run(task, given, ensemble, rows, scales, FORWARD, dual, observer)
        primal, tangent = forward_ad.unpack_dual(out)
    if tangent is None:
        raise UnsupportedArchitecture(
            "the output does not depend differentiably on the input (detach, no_grad, rounding?)."
        )
    return _by_rows(primal, len(x)), _by_rows(tangent, len(x))


def graph_forward(
    task: Task,
    ensemble: Ensemble,
    rows: Rows,
    scales: Scales,
    leaf: Tensor,
    observer: Observer,
) -> Graph:
    """Return one pass at ``leaf``, with the graph for backward passes.

    It carries no tangents: PyTorch's forward-mode rule of attention's softmax
    overwrites what the backward pass needs.
    """
    given = _given(task, ensemble.values)
    with torch.enable_grad():
        copy = leaf.clone()  # a leaf may not be changed in place, as a ReLU may do
        out = _run(task, given, ensemble, rows, scales, REVERSE, copy, observer)
    return Graph(leaf, _by_rows(out, len(leaf)), given)


def reached(task: Task, leaf: Tensor) -> bool:
    """Return whether the replica's output requires a gradient of ``leaf``."""
    given = _given(task, {})
    with (
        torch.enable_grad(),
        given.to_a_pass(),
        attention_by_formula(),
        _explained(leaf, ""),
    ):
        index = torch.arange(len(leaf))
        return _one_tensor(run_on(task.module, leaf.clone(), index)).requires_grad


def _run(
    task: Task,
    given: Given,
    ensemble: Ensemble,
    rows: Rows,
    scales: Scales,
    mode: Mode,
    x: Tensor,
    observer: Observer,
) -> Tensor:
    """Return the first tensor that the replica returns.

    Random numbers that the module draws itself are a function of the seed and of the
    first draw, so that a pass that is made again is the same.
    """
    origins = Provenance(dict(task.module.named_parameters()))
    layers = frozenset(layer.name for layer in task.arch.layers)
    interposer = Interposer(origins, layers, ensemble, rows, mode, scales, observer)
    kind = "forward" if mode is FORWARD else "reverse"
    with given.to_a_pass(), attention_by_formula(), _explained(x, kind), interposer:
        seed_generators(random_numbers.draw_seed(task.seed, rows.networks.start, "own noise"))
        return _one_tensor(run_on(task.module, x, rows.index))


def _given(task: Task, values: Mapping[str, Tensor]) -> Given:
    return Given(task.module, values, is_changed=task.changes != "nothing")


@contextmanager
def _explained(x: Tensor, kind: str) -> Iterator[None]:
    """Say of what the module raises that it is the module's."""
    try:
        yield
    except (InvalidInput, UnsupportedArchitecture):
        raise
    except Exception as error:
        raise UnsupportedArchitecture(
            f"the module does not run on {len(x)} rows under {kind or 'reverse'}-mode autograd: "
            f"{brief(error)}"
        ) from error


def _by_rows(out: Tensor, rows: int) -> Tensor:
    """Return the output with the batch first; a batch of one owns all of it."""
    if out.shape[:1] == (rows,):
        return out
    if rows == 1:
        return out[None]
    raise UnsupportedArchitecture(
        f"the output has shape {tuple(out.shape)} for a batch of {rows} rows: it mixes the rows "
        "(a loss, or a mean over the batch?), so that no row has a gradient of its own. Return "
        "one output a row, the batch dimension first."
    )


@functools.cache
def _warm_up() -> None:
    """Make torch's first forward-mode call, which may warn of its own internals."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        zero = torch.zeros(1, device="cpu")
        forward_ad.make_dual(zero, zero.clone()).relu()


def _one_tensor(out: Any) -> Tensor:
    if isinstance(out, Tensor):
        if out.numel() == 0:
            raise UnsupportedArchitecture(
                f"the forward pass returns shape {tuple(out.shape)}, which has no entries."
            )
        return out
    raise UnsupportedArchitecture(
        f"the forward pass returns {type(out).__name__}, in which no tensor was found."
    )
