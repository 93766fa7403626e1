"""Single values checked: what was expected, what came, what to do."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from initdiag.errors import InvalidInput, explain

__all__ = ["choice", "number_in", "positive_integer"]


def positive_integer(value: Any, what: str) -> int:
    """Return ``value`` as an int of at least 1.

    Raises
    ------
    InvalidInput
        If it is not an integer, or below 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise InvalidInput(
            explain(
                expected=f"{what}: a positive integer",
                got=repr(value),
                do="Give whole numbers >= 1.",
            )
        )
    return number


def number_in(
    value: Any, what: str, low: float, high: float = math.inf, *, low_open: bool = False
) -> float:
    """Return ``value`` as a finite float in ``[low, high)``, or above ``low`` (``low_open``).

    Raises
    ------
    InvalidInput
        If it is not.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (low <= number < high) or (low_open and number == low) or isinstance(value, bool | str):
        bounds = f"{'>' if low_open else '>='} {low:g}" + (
            f" and < {high:g}" if math.isfinite(high) else ""
        )
        raise InvalidInput(
            explain(
                expected=f"{what}: a finite number {bounds}", got=repr(value), do=f"Change {what}."
            )
        )
    return number


def choice(value: Any, what: str, choices: Sequence[str]) -> str:
    """Return ``value``, one of ``choices``.

    Raises
    ------
    InvalidInput
        If it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise InvalidInput(
            explain(
                expected=f"{what}: one of {', '.join(choices)}",
                got=repr(value),
                do="Choose one of these.",
            )
        )
    return value
