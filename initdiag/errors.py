"""The errors of initdiag: each message says what was expected, what came, and what to
do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AtRisk",
    "InitdiagError",
    "InvalidInput",
    "TargetError",
    "UnsupportedArchitecture",
    "WorkersLost",
    "brief",
    "explain",
    "said",
    "shown",
    "text_of",
]


class InitdiagError(Exception):
    """Base of every error that initdiag raises on purpose."""


class InvalidInput(InitdiagError, ValueError):
    """A usage fault: a wrong type, shape or value, or a forward pass that raised.

    The cause of a forward pass that raised is chained.
    """


class TargetError(InvalidInput):
    """A command-line target or a configuration that could not be loaded."""


class UnsupportedArchitecture(InitdiagError):
    """A module that the called stage can neither cover nor measure.

    The message names the operation.
    """


class AtRisk(InitdiagError, AssertionError):
    """The network is at risk, and the caller asked for that to be an error.

    Attributes
    ----------
    report : initdiag.Report
        The whole report, for a caller that wants more than its text.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.report)


class WorkersLost(InitdiagError, RuntimeError):
    """An engine's workers died with candidates in their hands.

    There is no other engine to run them on.

    Attributes
    ----------
    missing : tuple of int
        The candidates' indices; those after the last of them were not begun.
    """

    def __init__(self, message: str, missing: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.missing)


def explain(*, expected: str, got: str, do: str) -> str:
    """Compose an error message in the one form that all of initdiag's messages have.

    >>> explain(expected="a width of at least 1", got="0", do="Give positive integers.")
    'expected a width of at least 1, got 0. Give positive integers.'
    """
    return f"expected {expected}, got {got}. {do}"


_LONGEST_SHOWN = 60
"""Characters of a value that a message shows: about a line of a terminal of 80 columns.
"""


def shown(value: object, most: int = _LONGEST_SHOWN) -> str:
    """Return how a message shows a value: its ``repr``, cut; its type if it has none.

    >>> shown("784;10"), shown([1] * 100, most=12)
    ("'784;10'", '[1, 1, 1,...')
    """
    if type(value) is int and value.bit_length() > 4 * most:
        return f"an integer of about {int(value.bit_length() * 0.30103) + 1:,} digits"
    try:
        text = repr(value)
    except Exception as error:
        return f"a {type(value).__name__} (its repr raises {type(error).__name__})"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def said(error: Exception) -> str:
    """Return an error in one line; of one that was not raised on purpose, also its
    type.
    """
    if isinstance(error, InitdiagError):
        return str(error)
    return f"unexpected {type(error).__name__}: {' '.join(text_of(error).split())}"


def text_of(error: BaseException) -> str:
    """Return what an error says; the user's own may raise another when it is asked.

    >>> text_of(ValueError("no such layer"))
    'no such layer'
    """
    try:
        return str(error)
    except Exception as fault:
        return f"no text (its __str__ raises {type(fault).__name__})"


def brief(error: Exception) -> str:
    """Return kind and first line of an error, without PyTorch's hints."""
    line = next(iter(text_of(error).splitlines()), "").partition(" Hint: ")[0]
    return f"{type(error).__name__}: {line.rstrip('.')}"
