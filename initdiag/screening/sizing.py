r"""The best hidden widths under a budget: of all that it buys, those of the smallest
fluctuation.

Hanin and Nica's log-variance (arXiv 1812.05994) is ``sum_l c/n_l`` with one ``c`` for
all hidden layers, whatever the gate: so ``sum_l 1/n_l`` over the hidden layers is
minimised, under ``sum_l (a n_{l-1} + b) n_l <= budget`` (``a = b = 1``: parameters).

*Real widths.* Posynomials: convex in ``x_l = ln n_l``. Stationary: ``n_l^2 = 1/(mu (a
(n_{l-1} + n_{l+1}) + b))``, which in ``x`` is a contraction by 1/2 for a given
multiplier ``mu``; ``mu`` is a root, found by ``brentq``. *Whole widths.* Layer by
layer, the partial networks that no other one beats at the same last width (in cost and
in value) and whose bound ``value + mu (cost - budget)``, the rest at its best, is below
a network in hand. That is exact as long as it need not forget any: at small depths and
widths. Elsewhere it keeps those of the best bounds, and the real optimum says how
little is lost.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from initdiag._core.validation import positive_integer
from initdiag.errors import InvalidInput, explain

__all__ = ["UNITS", "Budget", "Unit", "best_widths", "real_widths"]

Array = NDArray[np.float64]

Unit = Literal["parameters", "sum_of_widths", "flops"]
"""What a budget may be in."""

UNITS: dict[Unit, tuple[int, int]] = {
    "parameters": (1, 1),
    "sum_of_widths": (0, 1),
    "flops": (2, 0),
}
"""What a weight and a unit of a layer cost, in each."""

_LOG_MULTIPLIERS = (-80.0, 10.0)
"""Bracket of ``ln mu``: hidden layers below one unit at its end, above 10^11 units at
its beginning, which is more than any budget (at most 2^53) buys.
"""

_CONTRACTIONS = 45
"""Steps that halve the error of ``ln n``, which begins below 45: to 1e-12."""

_FULL_WINDOW = 48
"""Up to this real width every whole width up to twice of it is tried; above, those this
far below and above.
"""

_LABELS = 40_000
"""Partial networks kept, over all layers."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What widths cost, ``sum_l (product n_{l-1} + unit) n_l`` (the output layer's unit
    term included), and how much there is.

    Attributes
    ----------
    limit : int
        The budget.
    product, unit : int
        Cost of a weight, and of a unit.
    what : str
        In words.
    """

    limit: int
    product: int
    unit: int
    what: str

    @classmethod
    def of(
        cls,
        *,
        parameters: int | None = None,
        sum_of_widths: int | None = None,
        flops: int | None = None,
    ) -> Budget:
        """Return the one budget that is given; see `best_widths`.

        Raises
        ------
        InvalidInput
            Unless exactly one is given, a positive integer.
        """
        limits: dict[Unit, int | None] = {
            "parameters": parameters,
            "sum_of_widths": sum_of_widths,
            "flops": flops,
        }
        given = {unit: limit for unit, limit in limits.items() if limit is not None}
        if len(given) != 1:
            raise InvalidInput(
                explain(
                    expected="one budget: parameters, sum_of_widths or flops",
                    got=", ".join(given) or "none",
                    do="Give one.",
                )
            )
        ((what, value),) = given.items()
        product, unit = UNITS[what]
        return cls(positive_integer(value, what), product, unit, what)

    def cost(self, widths: list[int]) -> int:
        """Return what ``n_0, ..., n_L`` cost; the output's own units are free under
        ``sum_of_widths``.
        """
        units = sum(widths[1:-1]) + widths[-1] * (self.product > 0)
        return self.product * sum(a * b for a, b in itertools.pairwise(widths)) + self.unit * units


def best_widths(
    depth: int,
    fan_in: int,
    fan_out: int,
    *,
    parameters: int | None = None,
    sum_of_widths: int | None = None,
    flops: int | None = None,
) -> list[int]:
    """Return the widths ``n_0, ..., n_L`` of the smallest ``sum 1/n_l`` over hidden
    layers that the budget buys.

    Parameters
    ----------
    depth : int
        Linear layers, the output's included: ``depth - 1`` hidden ones.
    fan_in, fan_out : int
        Widths of input and output.
    parameters, sum_of_widths, flops : int
        One of them. Weights and biases; hidden units; floating-point operations of a
        forward pass for one row, ``2 n_{l-1} n_l`` a layer (a multiply and an add for
        each weight, the bias included).

    Raises
    ------
    InvalidInput
        If a number is not a positive integer, not one budget is given, or hidden layers
        of one unit already cost more.

    Examples
    --------
    >>> best_widths(4, 10, 10, sum_of_widths=96)
    [10, 32, 32, 32, 10]
    >>> best_widths(4, 784, 10, parameters=100_000)
    [784, 77, 142, 186, 10]
    """
    budget = Budget.of(parameters=parameters, sum_of_widths=sum_of_widths, flops=flops)
    depth, fan_in, fan_out = (
        positive_integer(n, name)
        for n, name in ((depth, "depth"), (fan_in, "fan_in"), (fan_out, "fan_out"))
    )
    least = budget.cost([fan_in, *[1] * (depth - 1), fan_out])
    if least > budget.limit:
        raise InvalidInput(
            explain(
                expected=f"{budget.what} of at least {least}, hidden layers of one unit",
                got=str(budget.limit),
                do="Give more, or fewer layers.",
            )
        )
    if depth == 1:
        return [fan_in, fan_out]
    real, multiplier = real_widths(depth, fan_in, fan_out, budget)
    return [fan_in, *_whole_widths(real, multiplier, fan_in, fan_out, budget), fan_out]


def real_widths(depth: int, fan_in: int, fan_out: int, budget: Budget) -> tuple[Array, float]:
    """Return the best hidden widths as real numbers, and the multiplier ``mu``: what
    one more of the budget takes from ``sum 1/n_l``.
    """
    spare = budget.limit - (budget.unit * fan_out if budget.product else 0)

    def excess(log_multiplier: float) -> float:
        n = _stationary(depth, log_multiplier, fan_in, fan_out, budget)
        weights = budget.product * float(n[:-1] @ n[1:])
        return math.log((weights + budget.unit * float(n[1:-1].sum())) / spare)

    log_multiplier = float(optimize.brentq(excess, *_LOG_MULTIPLIERS, xtol=1e-12))
    n = _stationary(depth, log_multiplier, fan_in, fan_out, budget)
    return n[1:-1], math.exp(log_multiplier)


def _stationary(
    depth: int, log_multiplier: float, fan_in: int, fan_out: int, budget: Budget
) -> Array:
    """Return ``n_0, ..., n_L`` where the multiplier leaves nothing to gain, by the
    contraction above.
    """
    x = np.zeros(depth - 1)
    for _ in range(_CONTRACTIONS):
        n = np.concatenate([[fan_in], np.exp(x), [fan_out]])
        x = -0.5 * (log_multiplier + np.log(budget.product * (n[:-2] + n[2:]) + budget.unit))
    return np.concatenate([[fan_in], np.exp(x), [fan_out]])


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """Partial networks: last width, cost and value so far, and where each came from."""

    width: NDArray[np.int64]
    cost: NDArray[np.int64]
    value: Array
    parent: NDArray[np.int64]

    def take(self, index: NDArray[np.intp]) -> _Labels:
        return _Labels(self.width[index], self.cost[index], self.value[index], self.parent[index])


def _whole_widths(
    real: Array, multiplier: float, fan_in: int, fan_out: int, budget: Budget
) -> list[int]:
    windows = [_window(n, len(real)) for n in real]
    rest = _rest(windows, multiplier, fan_out, budget)
    cheapest = _rest([w[:1] for w in windows], 1.0, fan_out, budget, value=0.0)
    in_hand = _in_hand(real, fan_in, fan_out, budget)
    best = sum(1 / n for n in in_hand)
    start = np.zeros(1, dtype=np.int64)
    labels = _Labels(start + fan_in, start, np.zeros(1), start)
    history: list[_Labels] = []
    for window, value, least in zip(windows, rest, cheapest, strict=True):
        labels = _extended(labels, window, budget)
        least_cost = least[0] + budget.product * (labels.width - window[0]) * _next_least(
            windows, history, fan_out
        )
        bound = labels.value + value[np.searchsorted(window, labels.width)]
        bound += multiplier * (labels.cost - budget.limit)
        kept = np.flatnonzero(
            (labels.cost + least_cost <= budget.limit) & (bound <= best * (1 + 1e-12))
        )
        kept = _undominated(labels, kept)
        most = max(_LABELS // len(real), 8)
        if len(kept) > most:
            kept = kept[np.argsort(bound[kept], kind="stable")[:most]]
        labels = labels.take(kept)
        history.append(labels)
        if not len(kept):
            return in_hand
    found = _unwound(history, int(np.argmin(labels.value)))
    return found if sum(1 / n for n in found) < best else in_hand


def _next_least(windows: list[NDArray[np.int64]], history: list[_Labels], fan_out: int) -> int:
    following = len(history) + 1
    return int(windows[following][0]) if following < len(windows) else fan_out


def _window(real: float, layers: int) -> NDArray[np.int64]:
    """Return the whole widths that are tried around a real one."""
    reach = max(min(_FULL_WINDOW, 4000 // layers), 2)
    if real <= reach:
        return np.arange(1, 2 * math.ceil(real) + 3, dtype=np.int64)
    middle = round(real)
    return np.arange(max(1, middle - reach), middle + reach + 1, dtype=np.int64)


def _rest(
    windows: list[NDArray[np.int64]],
    multiplier: float,
    fan_out: int,
    budget: Budget,
    value: float = 1.0,
) -> list[Array]:
    """Return, for each layer and width, the least ``value sum 1/n + multiplier cost``
    of the layers after it, without a budget.
    """
    own = budget.unit * fan_out if budget.product else 0
    after = [
        np.asarray(
            multiplier * (budget.product * windows[-1] * float(fan_out) + own), dtype=np.float64
        )
    ]
    for this, following in zip(windows[-2::-1], windows[:0:-1], strict=True):
        steps = value / following + multiplier * following * (
            budget.product * this[:, None] + float(budget.unit)
        )
        after.append(np.asarray((steps + after[-1]).min(axis=1), dtype=np.float64))
    return after[::-1]


def _extended(labels: _Labels, window: NDArray[np.int64], budget: Budget) -> _Labels:
    """Return every label followed by every width of the window."""
    cost = labels.cost[:, None] + window * (budget.product * labels.width[:, None] + budget.unit)
    value = labels.value[:, None] + 1 / window
    parent = np.repeat(np.arange(len(labels.width)), len(window))
    return _Labels(np.tile(window, len(labels.width)), cost.ravel(), value.ravel(), parent)


def _undominated(labels: _Labels, kept: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return those of ``kept`` that are not beaten, in cost and in value, by another
    one of the same last width.
    """
    order = kept[np.lexsort((labels.value[kept], labels.cost[kept], labels.width[kept]))]
    width, value = labels.width[order], labels.value[order]
    # A running minimum within each width: values are below `span`, so that shifting by
    # width separates the widths.
    span = 2 * float(value.max(initial=0.0)) + 1
    rank = np.unique(width, return_inverse=True)[1]
    shifted = value - span * rank
    before = np.concatenate([[np.inf], np.minimum.accumulate(shifted)[:-1]])
    return order[shifted < before - 1e-12]


def _in_hand(real: Array, fan_in: int, fan_out: int, budget: Budget) -> list[int]:
    """Return the real widths rounded down. If layers of one unit then cost too much,
    the widest gives the difference.
    """
    widths = [max(1, math.floor(n)) for n in real]
    while budget.cost([fan_in, *widths, fan_out]) > budget.limit:
        widths[widths.index(max(widths))] -= 1
    return widths


def _unwound(history: list[_Labels], index: int) -> list[int]:
    widths = []
    for labels in reversed(history):
        widths.append(int(labels.width[index]))
        index = int(labels.parent[index])
    return widths[::-1]
