"""The errors of initdiag: each message says what was expected, what came, and what to do."""

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
    "explain",
]


class InitdiagError(Exception):
    """Base of every error that initdiag raises on purpose."""


class InvalidInput(InitdiagError, ValueError):
    """A usage fault: a wrong type, shape or value, or a forward pass that raised (its cause is chained)."""


class TargetError(InvalidInput):
    """A command-line target or a configuration that could not be loaded."""


class UnsupportedArchitecture(InitdiagError):
    """A module that the called stage can neither cover nor measure; the message names the operation."""


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
    """An engine's workers died with candidates in their hands, and there is no other engine to run them on.

    Attributes
    ----------
    missing : tuple of int
        Their indices; candidates after the last of them were not begun.
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
