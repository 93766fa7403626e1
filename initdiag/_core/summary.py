"""How a result shows itself: in a line at a prompt, as a small table in a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

__all__ = ["Summarised", "number", "preformatted", "with_error"]


class Summarised:
    """Base of the results that are too long to be printed field by field.

    A dataclass that derives from it is made with ``repr=False``.
    """

    __slots__ = ()

    def _summary(self) -> Mapping[str, str]:
        """Return what the result says in short: names, and values as text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._summary().items())
        return f"<initdiag.{type(self).__name__}: {facts}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td>{html.escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        return f"<table><caption>initdiag.{type(self).__name__}</caption>{rows}</table>"


def preformatted(text: str) -> str:
    """Return text as a notebook shows it: its columns stay in line."""
    return f"<pre>{html.escape(text)}</pre>"


def number(value: float | None) -> str:
    """Return a number in three digits; a dash for one that is not known."""
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def with_error(value: float | None, error: float | None) -> str:
    """Return a number with its standard error, where it has one."""
    return number(value) if not error else f"{number(value)} +- {error:.1g}"
