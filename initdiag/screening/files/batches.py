"""What every kind of file gives and takes: batches of rows, and rejects with their
reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from initdiag._core.validation import DEEPEST, positive_integer
from initdiag.errors import InvalidInput, shown
from initdiag.law.batch.ragged import Ragged
from initdiag.law.batch.tables import WIDEST

__all__ = ["RISK", "Batch", "Files", "Reject", "widths_of_list", "widths_of_text"]

RISK = "initdiag_risk"
"""The column that is added to the rows that are kept; one from an earlier screening
gives way to it.
"""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is not an architecture: its line (its number from 1, in Parquet), why,
    and how it begins.
    """

    line: int
    reason: str
    row: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows of a file.

    Attributes
    ----------
    count : int
        Rows that were read: those of ``architectures`` and those of ``rejects``.
    architectures : Ragged
        Without faults.
    rows : list or Arrow batch
        What is written if they are kept, one for each architecture.
    lines : int array
        Their numbers in the file.
    read : int
        How far reading is, in units of `Files.size`.
    rejects : list of Reject
        The others.
    """

    count: int
    architectures: Ragged
    rows: Any
    lines: NDArray[np.int64]
    read: int
    rejects: list[Reject] = field(default_factory=list)


class Files(Protocol):
    """One format: reads candidates, and writes those that are kept."""

    size: int
    """Size of the input, in bytes or rows."""

    def batches(self) -> Iterator[Batch]:
        """Yield all rows of the input."""

    def begin(self, partial: Path) -> None:
        """Open the output."""

    def write(self, rows: Any, kept: NDArray[np.bool_], risk: NDArray[np.float64]) -> None:
        """Write the rows that are kept."""

    def close(self) -> None:
        """Let go of all files."""


def widths_of_list(value: Any) -> list[int]:
    """Return ``value`` as an architecture's widths.

    Raises
    ------
    InvalidInput
        If it is not one, with the reason.
    """
    if not isinstance(value, list):
        got = value[:60] if isinstance(value, str) else shown(value)
        raise InvalidInput(f"expected a list of widths, got {got!r}")
    if not 2 <= len(value) <= DEEPEST + 1:
        raise InvalidInput(f"{len(value)} widths: 2 to {DEEPEST + 1:,} are an architecture")
    for place, width in enumerate(value):
        if type(width) is not int or not 1 <= width <= WIDEST:
            number = positive_integer(width, f"width {place}")
            raise InvalidInput(f"width {place} is {number}: 1 to {WIDEST:,} are screened")
    return value


_PART = re.compile(r"(-?[0-9]{1,12})(?:x([0-9]{1,6}))?")


def widths_of_text(text: str) -> list[int]:
    """Return widths from ``784,256x8,10``, ``784 256 10``, ``[784, 256, 10]`` or
    ``784;256;10``.

    Raises
    ------
    InvalidInput
        If it says no architecture, with the reason.
    """
    widths: list[int] = []
    for part in re.split(r"[,;\s]+", text.strip().strip("[]()").strip()):
        found = _PART.fullmatch(part)
        if not found or int(found[2] or 1) == 0:
            raise InvalidInput(f"expected widths such as 784,256x8,10, got the part {part[:60]!r}")
        widths += [int(found[1])] * min(
            int(found[2] or 1), DEEPEST + 2 - min(len(widths), DEEPEST + 2)
        )
    return widths_of_list(widths)
