"""Whether biases are computed from the weights of their own layer.

A regression asks how much of a bias the rows of its layer's weights explain: by some
sums over each row, in all layers together, and by the columns, in each layer alone and
in all of one width together. For normal biases that are independent of the weights the
explained share is a Beta variable exactly; what is a function of the weights is
explained to rounding.

A bias that is an odd function of its row changes its sign with it: gates stay fair
coins, and a chain whose gates ask for signs alone (ReLU) is as exact as without it. So
only what is even (``|w|``, squares, ranges) is looked at there, and both elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

__all__ = ["BiasedLayer", "explained"]

_ROWS, _COLUMNS = 1024, 128
"""Units that are looked at, and columns up to which a matrix is: a choice, for time."""

_LEAST = 8
"""Units of a layer from which on its bias is looked at: two centred ones differ by a
sign alone.
"""

_FREE = 2
"""Least degrees of freedom that a regression leaves."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BiasedLayer:
    """A layer's matrix ``(fan_out, fan_in)``, a bias of its units, and whether its sign
    alone is no matter.
    """

    index: int
    weight: Tensor
    bias: Tensor
    is_odd_allowed: bool


@dataclass(frozen=True, slots=True)
class _Regression:
    """A bias and what may explain it, centred and in standard deviations."""

    index: int
    bias: Matrix
    by: Matrix

    @classmethod
    def of(cls, index: int, bias: Matrix, by: Matrix) -> _Regression:
        centred = by / max(float(np.abs(by).max(initial=0.0)), 1e-300)  # its square is in range
        centred = centred - centred.mean(0)
        scale = max(float(np.sqrt(np.mean(centred * centred))), 1e-300)
        own = bias - bias.mean()
        return cls(index, own / max(float(np.linalg.norm(own)), 1e-300), centred / scale)


def explained(layers: Sequence[BiasedLayer], level: float) -> Iterator[tuple[int, float]]:
    """Yield the indices of the layers whose bias is explained, with the p-value."""
    groups = [group for way in _ways(layers) for group in way if group]
    for group in groups:
        p = len(groups) * _p_value(group)
        if p < level:
            yield from ((one.index, p) for one in group)


def _ways(layers: Sequence[BiasedLayer]) -> Iterator[list[list[_Regression]]]:
    """Yield what is regressed together: sums over rows, of all layers; columns, of one
    and of all of one width.
    """
    values = [(one, *_values(one)) for one in layers if one.bias.numel() >= _LEAST]
    for sums_of, part, is_odd in ((_even_sums, np.abs, False), (_odd_sums, np.positive, True)):
        kind = [v for v in values if not (is_odd and v[0].is_odd_allowed)]
        yield [[r for o, w, b in kind for r in _by_sums(o.index, w, b, sums_of)]]
        alone = [_Regression.of(o.index, b, part(w)) for o, w, b in kind if w.shape[1] <= _COLUMNS]
        widths: dict[int, list[_Regression]] = defaultdict(list)
        for one in alone:
            widths[one.by.shape[1]].append(one)
        yield [[one] for one in alone]
        yield [group for group in widths.values() if len(group) > 1]


def _values(layer: BiasedLayer) -> tuple[Matrix, Matrix]:
    """Return matrix and bias in units of their largest entry."""
    tensors = layer.weight[:_ROWS], layer.bias.reshape(-1)[:_ROWS]
    w, b = (t.detach().double().cpu().numpy() for t in tensors)
    return w / (np.abs(w).max() or 1.0), b / (np.abs(b).max() or 1.0)


def _by_sums(
    index: int, w: Matrix, bias: Matrix, sums_of: Callable[[Matrix], list[Matrix]]
) -> Iterator[_Regression]:
    """Yield the regression on sums over each row, each in its own unit."""
    sums = [s - s.mean() for s in sums_of(w)]
    units = [s / max(float(np.std(s)), 1e-300) for s in sums]
    yield _Regression.of(index, bias, np.stack(units, 1))


def _even_sums(w: Matrix) -> list[Matrix]:
    sizes, squares = np.abs(w), w * w
    return [sizes.sum(1), squares.sum(1), sizes.max(1), np.ptp(w, 1), (squares * squares).sum(1)]


def _odd_sums(w: Matrix) -> list[Matrix]:
    return [w.sum(1), (w**3).sum(1), w.max(1) + w.min(1)]


def _p_value(group: Sequence[_Regression]) -> float:
    """Return the probability that independent biases are explained as well."""
    bias = np.concatenate([one.bias for one in group])
    by = np.concatenate([one.by for one in group])
    count, explaining = len(bias) - len(group), by.shape[1]
    if count - explaining < _FREE or not np.any(bias):
        return 1.0
    basis, triangle = np.linalg.qr(by)
    sizes = np.abs(np.diag(triangle))
    used = basis[:, sizes > 1e-9 * sizes.max(initial=0.0)]
    left = bias - used @ (used.T @ bias)
    share = float(left @ left) / float(bias @ bias)
    free = count - used.shape[1]
    return float(special.betainc(free / 2, max(used.shape[1], 1) / 2, min(share, 1.0)))
