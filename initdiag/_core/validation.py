"""Single values checked: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Collection, Iterable
from typing import Any, TypeVar, cast

from initdiag.errors import InvalidInput, explain, shown

__all__ = [
    "DEEPEST",
    "LARGEST_COUNT",
    "choice",
    "did_you_mean",
    "number_in",
    "optional_choice",
    "positive_integer",
    "positive_number",
    "probability",
    "seed_integer",
]

Name = TypeVar("Name", bound=str)

LARGEST_COUNT = 1 << 53
"""The largest count that is taken: above it, float64 does not tell neighbours apart."""

DEEPEST = 100_000
"""The most linear layers of an architecture that widths may state."""

_LARGEST_SEED = 1 << 63
"""Seeds lie below it: that is what torch's and NumPy's generators take alike."""


def positive_integer(value: Any, what: str, most: int = LARGEST_COUNT) -> int:
    """Return ``value``, of any integer type, as an int from 1 to ``most``.

    Raises
    ------
    InvalidInput
        If it is not an integer, or out of range.
    """
    number = _integer(value)
    if number is None or number < 1:
        wanted, do = "a positive integer", "Give whole numbers >= 1."
    elif number > most:
        wanted, do = f"a positive integer of at most {most:,}", "Give a smaller one."
    else:
        return number
    raise InvalidInput(explain(expected=f"{what}: {wanted}", got=shown(value), do=do))


def seed_integer(value: Any, what: str = "seed") -> int:
    """Return a seed, of any integer type, as an int from 0 to 2**63 - 1.

    Raises
    ------
    InvalidInput
        If it is not an integer, or out of range.
    """
    number = _integer(value)
    if number is None or not 0 <= number < _LARGEST_SEED:
        expected = f"{what}: a non-negative int below 2**63"
        raise InvalidInput(explain(expected=expected, got=shown(value), do="Pass e.g. seed=0."))
    return number


def _integer(value: Any) -> int | None:
    """Return what is an integer, NumPy's included, as an int; True is not one."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError):
        return None


def number_in(
    value: Any, what: str, low: float, high: float = math.inf, *, low_open: bool = False
) -> float:
    """Return ``value`` as a finite float in ``[low, high)``, or above ``low``
    (``low_open``).

    Raises
    ------
    InvalidInput
        If it is not.
    """
    number = _number(value)
    if not (low <= number < high) or (low_open and number == low):
        bounds = f"{'>' if low_open else '>='} {low:g}" + (
            f" and < {high:g}" if math.isfinite(high) else ""
        )
        raise InvalidInput(
            explain(
                expected=f"{what}: a finite number {bounds}",
                got=shown(value),
                do=f"Change {what}.",
            )
        )
    return number


def probability(value: Any, what: str) -> float:
    """Return ``value``, a number from 0 to 1 with both ends, as a float.

    Raises
    ------
    InvalidInput
        If it is not.
    """
    number = _number(value)
    if not 0 <= number <= 1:
        raise InvalidInput(
            explain(
                expected=f"{what} in [0, 1]", got=shown(value), do="Give a probability, e.g. 0.5."
            )
        )
    return number


def positive_number(value: Any, what: str, do: str = "Give a finite one.") -> float:
    """Return ``value``, a finite number above 0, as a float.

    Raises
    ------
    InvalidInput
        If it is not.
    """
    number = _number(value)
    if not 0 < number < math.inf:
        raise InvalidInput(explain(expected=f"{what}: a positive number", got=shown(value), do=do))
    return number


def _number(value: Any) -> float:
    """Return a number, NumPy's included, as a float; NaN for anything else."""
    if isinstance(value, bool | str | bytes):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def choice(
    value: Any, what: str, choices: Collection[Name], do: str = "Choose one of these."
) -> Name:
    """Return ``value``, one of ``choices``.

    Raises
    ------
    InvalidInput
        If it is not; the message names the nearest one, if any is near.
    """
    if isinstance(value, str) and value in choices:
        return cast("Name", value)
    raise InvalidInput(
        explain(
            expected=f"{what}: one of {', '.join(choices)}",
            got=shown(value),
            do=did_you_mean(value, choices) or do,
        )
    )


def optional_choice(
    value: Any, what: str, choices: Collection[Name], do: str = "Or leave it out."
) -> Name | None:
    """Return ``value``, one of ``choices`` or None.

    Raises
    ------
    InvalidInput
        If it is neither.
    """
    return None if value is None else choice(value, what, choices, do)


def did_you_mean(value: Any, choices: Iterable[str]) -> str:
    """Return the question that names the choice nearest to ``value``; empty if none is
    near.

    >>> did_you_mean("orthogonl", ("he_normal", "orthogonal"))
    "Did you mean 'orthogonal'?"
    """
    if not isinstance(value, str):
        return ""
    by_key = {_key(one): one for one in choices}
    near = difflib.get_close_matches(_key(value), list(by_key), n=1, cutoff=0.6)
    return f"Did you mean {by_key[near[0]]!r}?" if near else ""


def _key(name: str) -> str:
    """Return a name as a typist may have meant it: in lower case, with one kind of
    dash.
    """
    return name.lower().replace("-", "_").removeprefix("nn.init.").rstrip("_")
