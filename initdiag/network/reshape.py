"""Widths of a chain changed as advice changes them, and said in words and in code.

All take and return ``n_0, ..., n_L``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

__all__ = [
    "equal_widths",
    "parameters",
    "same_budget",
    "shortened",
    "summary",
    "widened",
    "written",
]


def widened(widths: list[int], more: int) -> list[int]:
    """Return widths whose hidden layers all grow in proportion, the narrowest by
    ``more`` units.
    """
    least = min(widths[1:-1])
    return [widths[0], *(-(-n * (least + more) // least) for n in widths[1:-1]), widths[-1]]


def shortened(widths: list[int], fewer: int) -> list[int]:
    """Return the widths without their last hidden layers."""
    return [*widths[: -1 - fewer], widths[-1]]


def same_budget(widths: list[int]) -> Iterator[tuple[str, list[int]]]:
    """Yield equal hidden widths, once for the same sum of widths and once for the same
    number of parameters.
    """
    hidden = widths[1:-1]
    if len(set(hidden)) == 1:
        return
    of_sum = sum(hidden) // len(hidden)
    of_parameters = _equal_width(len(hidden), widths[0], widths[-1], parameters(widths))
    for what, n in (("the same sum of widths", of_sum), ("the same parameters", of_parameters)):
        if n >= 1:
            yield (
                f"equal widths, {what}: {summary(widths)} -> {len(hidden)} x {n}",
                [widths[0], *[n] * len(hidden), widths[-1]],
            )


def equal_widths(widths: list[int]) -> list[int]:
    """Return equal hidden widths that need no more parameters than these."""
    hidden = widths[1:-1]
    n = (
        hidden[0]
        if len(set(hidden)) == 1
        else _equal_width(len(hidden), widths[0], widths[-1], parameters(widths))
    )
    return [widths[0], *[max(n, 1)] * len(hidden), widths[-1]]


def _equal_width(hidden: int, fan_in: int, fan_out: int, parameters: int) -> int:
    """Return the largest ``n`` for which ``hidden`` layers of ``n`` cost no more:
    ``(hidden - 1) n^2 + (fan_in + fan_out + hidden) n + fan_out``.
    """
    a, b, c = hidden - 1, fan_in + fan_out + hidden, parameters - fan_out
    return math.floor(2 * c / (b + math.sqrt(b * b + 4 * a * c)))


def parameters(widths: Sequence[int]) -> int:
    """Return the number of weights and biases."""
    return sum((m + 1) * n for m, n in itertools.pairwise(widths))


def summary(sizes: list[int]) -> str:
    """Return the hidden widths in words, e.g. ``12 x 64`` or ``12 of 8 to 64``."""
    hidden = sizes[1:-1]
    if not hidden:
        return "no hidden layer"
    low, high = min(hidden), max(hidden)
    return f"{len(hidden)} x {low}" if low == high else f"{len(hidden)} of {low} to {high}"


def written(widths: list[int]) -> str:
    """Return the widths as a Python expression, runs of equal ones folded.

    >>> written([64, 9, 9, 9, 2])
    '[64, *[9] * 3, 2]'
    """
    runs = [(n, len(list(run))) for n, run in itertools.groupby(widths)]
    return f"[{', '.join(f'*[{n}] * {k}' if k > 2 else ', '.join([str(n)] * k) for n, k in runs)}]"
