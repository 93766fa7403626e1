"""Singular values of the Jacobians of an ensemble's networks: all of them, or, at large
width, a quadrature and the extremes.

At large width nothing of the Jacobian's size is ever allocated: Lanczos' iteration and
ARPACK take products with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.networks import Redraws, Signs
from initdiag.measuring.passes.push_pull import Gram, Pull, Push, unit_rows
from initdiag.measuring.task import Task
from initdiag.spectrum.lanczos import gauss_quadrature, lanczos

__all__ = ["Found", "all_values", "fits_dense", "quadratures"]

_BUDGET = 1 << 28
"""Bytes that a Jacobian, or the tensors of one pass, may take, about."""

_DENSE_SIDE = 1024
"""Smaller side of a Jacobian up to which all its singular values are computed unasked:
about a second a draw.
"""

_EXTREMES = 2
"""Draws whose extremes ARPACK is asked for: some hundred products each."""

_TOLERANCE = 1e-4
"""Error of the extremes, relative to the largest eigenvalue."""

_RESTARTS = 30
"""Restarts of ARPACK at most, with 20 products each."""

_SMALL = 20
"""Sides up to which ARPACK's Krylov space would be the whole space."""

_EPS = float(np.finfo(np.float64).eps)


class Found(NamedTuple):
    """The fields of a `SpectralMeasurement` that are measured."""

    log_nodes: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    log_largest: NDArray[np.float64]
    log_smallest: NDArray[np.float64]
    log_resolution: float


def fits_dense(n_0: int, n_1: int) -> bool:
    """Return whether Jacobians of these sides are formed unasked."""
    return min(n_0, n_1) <= _DENSE_SIDE and n_0 * n_1 * 8 <= _BUDGET


def all_values(task: Task, networks: Signs | Redraws, draws: int) -> Found:
    """Return every singular value of every draw."""
    log_nodes = np.stack([_values(task, networks, range(draw, draw + 1)) for draw in range(draws)])
    resolution = 2 * math.log(max(networks.sizes) * _EPS)
    largest, smallest = log_nodes[:, 0].copy(), log_nodes[:, -1].copy()
    smallest[smallest <= largest + resolution] = -math.inf
    return Found(log_nodes, None, largest, smallest, resolution)


def _values(task: Task, networks: Signs | Redraws, network: range) -> NDArray[np.float64]:
    """Return ``ln sigma^2`` of one draw's Jacobian, descending. Its columns come by
    forward mode or its rows by reverse mode, whichever are fewer.
    """
    pieces = [unit_rows(*piece) for piece in _sides(task, networks, network)]
    rows, logs = torch.cat([rows for rows, _ in pieces]), torch.cat([logs for _, logs in pieces])
    scale = torch.nan_to_num(logs.max(), neginf=0.0)
    matrix = rows * torch.exp(logs - scale)[:, None]
    singular = torch.linalg.svdvals(matrix).cpu().numpy()
    with np.errstate(divide="ignore"):
        return np.asarray(2 * (np.log(singular) + float(scale)))


def _sides(
    task: Task, networks: Signs | Redraws, network: range
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of ``J^T`` or of ``J``, with the logs of their factors, as many at a
    time as the budget allows.
    """
    x, ensemble, (n_0, n_1) = task.inputs(network), networks.of(network), networks.sizes
    forward = n_0 <= n_1 and task.derivative == "forward"
    sides = n_0 if forward else n_1
    step = max(1, _BUDGET // (64 * task.dtype.itemsize * _width(task, forward)))
    for start in range(0, sides, step):
        index = torch.arange(start, min(start + step, sides), device=x.device)
        unit = torch.nn.functional.one_hot(index, sides).to(task.dtype)
        many = x.expand(len(unit), *x.shape[1:])
        if forward:
            yield Push(task, ensemble, network, many, unit.reshape(many.shape)).rows
        else:
            yield Pull(task, ensemble, network, many)(unit)


def _width(task: Task, forward: bool) -> int:
    """Return how many entries of one row are alive at once: those of the widest layer,
    or of all layers where the graph is kept.
    """
    widths = [task.arch.input_size, *(layer.fan_out for layer in task.arch.layers)]
    return max(widths) if forward else sum(widths)


def quadratures(task: Task, networks: Signs | Redraws, draws: int, steps: int) -> Found:
    """Return one Gauss quadrature a draw, for the distribution of its squared singular
    values, and extremes of the first draws.
    """
    n_0 = networks.sizes[0]
    n = min(networks.sizes)
    steps = min(steps, n)
    nodes, weights, extremes = [], [], []
    for chunk in _chunks(task, networks, draws, steps):
        gram, probes = _gram(task, networks, chunk), _probes(task.seed, chunk, n)
        node, weight = gauss_quadrature(*lanczos(gram, probes, steps))
        nodes.append(_log(node) + gram.log_scale[:, None])
        weights.append(weight * (n / n_0))
        for row, draw in enumerate(range(chunk.start, min(chunk.stop, _EXTREMES))):
            extremes.append(_extremes(task, networks, draw, probes[row]))
    rounding = math.log(n * _EPS)
    resolution = rounding if steps == n else max(2 * math.log(math.pi / (4 * steps)), rounding)
    largest, smallest = np.array(extremes).T
    return Found(
        np.concatenate(nodes), np.concatenate(weights), largest.copy(), smallest.copy(), resolution
    )


def _probes(seed: int, draws: range, n: int) -> NDArray[np.float64]:
    """Draw uniform unit vectors, to double precision."""
    vectors = random_numbers.directions(seed, draws, n).double()
    return np.asarray((vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)).numpy())


def _gram(task: Task, networks: Signs | Redraws, draws: range) -> Gram:
    return Gram(task, networks.of(draws), draws, inner=networks.sizes[0] <= networks.sizes[1])


def _chunks(task: Task, networks: Signs | Redraws, draws: int, steps: int) -> Iterator[range]:
    entries = max(steps * min(networks.sizes), 64 * _width(task, forward=False))
    step = max(1, min(networks.at_once, _BUDGET // (8 * entries)))
    for start in range(0, draws, step):
        yield range(start, min(start + step, draws))


def _extremes(
    task: Task, networks: Signs | Redraws, draw: int, start: NDArray[np.float64]
) -> tuple[float, float]:
    """Return ``ln`` of the largest and the smallest eigenvalue of one draw's ``J^T J``
    (or ``J J^T``), by ARPACK.
    """
    network = range(draw, draw + 1)
    gram = _gram(task, networks, network)
    largest = _top(lambda v: gram(v[None])[0], start)
    smallest = largest - _top(lambda v: largest * v - gram(v[None])[0], start)
    if smallest <= _TOLERANCE * largest:
        smallest = 0.0
    logs = _log(np.array([largest, smallest])) + gram.log_scale[0]
    return float(logs[0]), float(logs[1])


def _top(
    product: Callable[[NDArray[np.float64]], NDArray[np.float64]], start: NDArray[np.float64]
) -> float:
    """Return the largest eigenvalue of a non-negative operator; NaN where ARPACK does
    not converge.
    """
    if len(start) <= _SMALL:
        return float(
            np.linalg.eigvalsh(np.stack([product(unit) for unit in np.eye(len(start))]))[-1]
        )
    image = product(start)
    if not image.any():
        return 0.0
    operator = LinearOperator((len(start), len(start)), matvec=product, dtype=np.float64)
    try:
        found = eigsh(
            operator,
            1,
            which="LA",
            v0=image,
            tol=_TOLERANCE,
            maxiter=_RESTARTS,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence:
        return math.nan
    return float(found[0])


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0)))
