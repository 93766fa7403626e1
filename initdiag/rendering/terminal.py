"""What fits a terminal: tables and histograms of any width, text of any encoding.

Each is a rich renderable, which learns the width and the encoding when it is printed.
Numbers and headers are never cut: what has no room goes to lines of its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from initdiag._core.console import (
    Console,
    ConsoleOptions,
    Padding,
    RenderableType,
    RenderResult,
    Segment,
    Table,
    Text,
    cell_len,
)
from initdiag.rendering.curves import Array

__all__ = ["BARS", "Encodable", "Grid", "Histogram", "plain_text"]

_GAP = 2
"""Columns between two columns of a table."""

_INDENT = (0, 0, 0, 2)
"""Padding of a line that belongs to the one above it: top, right, bottom, left."""

BARS = " ▁▂▃▄▅▆▇█"
_FEWESTBARS = 8
"""Bars that a histogram keeps however narrow the terminal is: fewer show no shape."""

_SIMPLER = str.maketrans("▁▂▃▄▅▆▇█─…", ".:-=+*#@-.")
"""Signs of one column for encodings that lack ours, the bars by rising ink."""


def plain_text(renderable: RenderableType, width: int) -> str:
    """Return what a terminal of ``width`` columns without colours shows."""
    file = io.StringIO()
    console = Console(file=file, width=width, no_color=True, highlight=False, legacy_windows=False)
    console.print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


@dataclass(frozen=True)
class Grid:
    """Rows of words in columns; lines below one another where they have no room.

    Attributes
    ----------
    headers : sequence of str
        One for each column; empty for a table without headers.
    rows : sequence of sequences of str
        The cells.
    justify : str
        A letter for each column, ``l`` or ``r``.
    titles : int
        The first columns that name a row: its first line where there is no room.
    flexible : int, optional
        The column that may wrap, or end in an ellipsis (``is_cut``), down to ``least``
        columns; the others never do.
    drops : sequence of int
        Columns that are left out, in this order, before rows become lines.
    style : str
        The headers' style.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    justify: str
    titles: int = 1
    flexible: int | None = None
    least: int = 16
    is_cut: bool = False
    drops: Sequence[int] = ()
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table if it fits, a narrower one if columns may go, else lines."""
        columns, dropped = list(range(len(self.justify))), []
        for column in self.drops:
            if self._width(columns) > options.max_width:
                columns.remove(column)
                dropped.append(column)
        if self._width(columns) > options.max_width:
            yield from self._lines()
            return
        yield self._table(columns)
        if dropped:
            names = ", ".join(self.headers[column] for column in sorted(dropped))
            yield Text(f"left out in a terminal this narrow: {names}", style="dim")

    def _width(self, columns: Sequence[int]) -> int:
        """Return the columns that a table of these columns needs at least."""
        return sum(map(self._needed, columns)) + _GAP * (len(columns) - 1)

    def _needed(self, column: int) -> int:
        cells = [row[column] for row in self.rows]
        if self.headers:
            cells.append(self.headers[column])
        widest = max(map(cell_len, cells), default=0)
        return min(widest, self.least) if column == self.flexible else widest

    def _table(self, columns: Sequence[int]) -> Table:
        table = Table.grid(padding=(0, _GAP))
        for column in columns:
            table.add_column(
                justify="right" if self.justify[column] == "r" else "left",
                no_wrap=column != self.flexible,
                overflow="fold",
            )
        if self.headers:
            table.add_row(*self._cells(self.headers, columns), style=self.style)
        for row in self.rows:
            table.add_row(*self._cells(row, columns))
        return table

    def _cells(self, row: Sequence[str], columns: Sequence[int]) -> Iterator[Text]:
        """Return the cells as plain words, which rich does not read as markup."""
        for column in columns:
            is_cut = self.is_cut and column == self.flexible
            yield (
                Text(row[column], no_wrap=True, overflow="ellipsis")
                if is_cut
                else Text(row[column])
            )

    def _lines(self) -> Iterator[RenderableType]:
        """Yield a line for the name of each row, then one for each of its cells."""
        names = [*self.headers[self.titles :]]
        longest = max(map(cell_len, names), default=0)
        title = "  ".join(filter(None, self.headers[: self.titles]))
        if title:
            yield Text(title, style=self.style)
        for row in self.rows:
            yield Text("  ".join(filter(None, row[: self.titles])))
            for index, cell in enumerate(row[self.titles :]):
                name = f"{names[index]:<{longest}}  " if names else ""
                if cell:
                    yield Padding(Text(f"{name}{cell}"), _INDENT)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Bars between two numbers, as many as there is room for.

    Attributes
    ----------
    heights : array
        At the finest resolution that is shown; neighbours are added up to have fewer.
    ends : (str, str)
        What stands at either end.
    label : str
        What is counted; it goes to a line of its own where there is no room.
    """

    heights: Array
    ends: tuple[str, str]
    label: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the bars and their label."""
        room = options.max_width - sum(map(cell_len, self.ends)) - 2
        heights = _merged(self.heights, max(room, _FEWESTBARS))
        levels = np.ceil(heights / heights.max() * (len(BARS) - 1)).astype(int)
        bars = "".join(BARS[max(level, 0)] for level in levels)
        line = f"{self.ends[0]} {bars} {self.ends[1]}"
        if cell_len(line) + _GAP + cell_len(self.label) <= options.max_width:
            yield Text(f"{line}{' ' * _GAP}{self.label}")
        else:
            yield Text(line)
            yield Text(self.label)


def _merged(heights: Array, most: int) -> Array:
    """Add up neighbours, equally many each, until at most ``most`` bars are left."""
    size = -(-len(heights) // most)
    short = -len(heights) % size
    merged: Array = np.pad(heights, (0, short)).reshape(-1, size).sum(axis=1)
    return merged


@dataclass(frozen=True)
class Encodable:
    """A renderable in the signs that the terminal's encoding has."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the inner renderable, with a simpler sign for each it cannot write."""
        for segment in console.render(self.inner, options):
            text = _encodable(segment.text, options.encoding)
            yield Segment(text, segment.style, segment.control)


def _encodable(text: str, encoding: str) -> str:
    if text.isascii() or encoding.startswith("utf"):
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_SIMPLER).encode(encoding, "replace").decode(encoding)
    return text
