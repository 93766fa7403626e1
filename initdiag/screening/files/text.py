"""CSV and JSON lines: one candidate a line, and kept lines written as they came: the
risk is added to a line's own bytes.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from initdiag.errors import InvalidInput, TargetError, explain
from initdiag.law.batch.ragged import Ragged
from initdiag.screening.files.batches import RISK, Batch, Reject, widths_of_list, widths_of_text

__all__ = ["CsvFiles", "JsonLines"]

_ROWS = 20_000
_WIDTHS = 1 << 20
"""Most rows, and about most widths, of a batch."""

_LONGEST = 1 << 23
"""Bytes of a line; a longer one is rejected without being read at once."""


class _TextFiles(ABC):
    """Lines in, lines out: see `initdiag.screening.files.batches.Files`."""

    def __init__(self, source: Path, column: str) -> None:
        self._column = column
        self._in: BinaryIO = source.open("rb")
        self._out: BinaryIO | None = None
        self.size = os.fstat(self._in.fileno()).st_size
        self._first_line, self._header = 1, self._mark()

    def _mark(self) -> bytes:
        """Read the byte order mark that the file may begin with."""
        if self._in.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            return codecs.BOM_UTF8
        self._in.seek(0)
        return b""

    @abstractmethod
    def _widths(self, line: str) -> tuple[Any, list[int]]:
        """Return what is kept of a line, and its widths."""

    @abstractmethod
    def _line(self, row: Any, risk: float) -> str:
        """Return the line that is written for a row."""

    def batches(self) -> Iterator[Batch]:
        """Yield the lines, a number of rows or of widths at a time."""
        number = self._first_line
        while batch := self._batch(number):
            yield batch
            number += batch.count

    def _batch(self, first: int) -> Batch | None:
        """Read a batch, whose first line has this number; None at the end."""
        rows: list[Any] = []
        widths: list[list[int]] = []
        lines: list[int] = []
        rejects: list[Reject] = []
        number, total = first, 0
        while number - first < _ROWS and total < _WIDTHS and (raw := self._in.readline(_LONGEST)):
            try:
                row, found = self._widths(self._decoded(raw))
            except (InvalidInput, RecursionError) as error:
                reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
                rejects.append(Reject(number, reason, _beginning(raw)))
            else:
                rows.append((row, "\r\n" if raw.endswith(b"\r\n") else "\n"))
                widths.append(found)
                lines.append(number)
                total += len(found)
            number += 1
        if number == first:
            return None
        numbers = np.array(lines, dtype=np.int64)
        architectures = Ragged.of(widths)
        return Batch(number - first, architectures, rows, numbers, self._in.tell(), rejects)

    def _decoded(self, raw: bytes) -> str:
        if len(raw) == _LONGEST and not raw.endswith(b"\n"):
            while (more := self._in.readline(_LONGEST)) and not more.endswith(b"\n"):
                pass
            raise InvalidInput(f"a line of more than {_LONGEST:,} bytes")
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"not UTF-8: {error.reason} at byte {error.start}") from None
        if not line.strip():
            raise InvalidInput("an empty line")
        return line

    def begin(self, partial: Path) -> None:
        """Open the output, with the input's header."""
        self._out = partial.open("wb")
        self._out.write(self._header)

    def write(self, rows: Any, kept: NDArray[np.bool_], risk: NDArray[np.float64]) -> None:
        """Write the rows that are kept, each with its own line's end."""
        assert self._out is not None
        for index in np.flatnonzero(kept):
            row, end = rows[index]
            self._out.write((self._line(row, float(risk[index])) + end).encode())

    def close(self) -> None:
        """Close both files."""
        self._in.close()
        if self._out is not None:
            self._out.close()


def _beginning(raw: bytes) -> str:
    return raw[:200].decode("utf-8", "replace").rstrip("\r\n")


class JsonLines(_TextFiles):
    """A list of widths a line, or an object that has one under the column's name; kept
    as objects, with the risk.
    """

    def _widths(self, line: str) -> tuple[str, list[int]]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"not JSON: {error}") from None
        text = line.strip()
        if not isinstance(value, dict):
            text, value = f"{{{json.dumps(self._column)}: {text}}}", {self._column: value}
        if self._column not in value:
            raise InvalidInput(f"an object without {self._column!r}")
        found = value[self._column]
        widths = widths_of_text(found) if isinstance(found, str) else widths_of_list(found)
        return _without_risk(text) if RISK in value else text, widths

    def _line(self, row: Any, risk: float) -> str:
        return f"{row[:-1].rstrip()}, {json.dumps(RISK)}: {risk!r}}}"


_DECODER = json.JSONDecoder()


def _without_risk(text: str) -> str:
    """Return an object's text without its members named `RISK`; the rest as it came."""
    members, place = [], _after_space(text, 1)
    while text[place] != "}":
        name, colon = _DECODER.raw_decode(text, place)
        value = _after_space(text, _after_space(text, colon) + 1)
        _, end = _DECODER.raw_decode(text, value)
        if name != RISK:
            members.append(text[place:end])
        place = _after_space(text, end)
        if text[place] == ",":
            place = _after_space(text, place + 1)
    return f"{{{', '.join(members)}}}"


def _after_space(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


class CsvFiles(_TextFiles):
    """A header and a row a line (no line breaks inside of quotes); widths such as
    ``784,256x8,10`` in the named column.
    """

    def __init__(self, source: Path, column: str) -> None:
        super().__init__(source, column)
        try:
            raw = self._in.readline(_LONGEST)
            names = self._names(raw, source)
        except TargetError:
            self._in.close()
            raise
        self._place, self._count = names.index(column), len(names)
        self._earlier = names.index(RISK) if RISK in names else None
        self._first_line = 2
        header = self._without_earlier(raw.rstrip(b"\r\n").decode("utf-8"), names)
        end = "\r\n" if raw.endswith(b"\r\n") else "\n"
        self._header += f"{header},{RISK}{end}".encode()

    def _names(self, header: bytes, source: Path) -> list[str]:
        """Return the columns' names: the widths' is among them, and an earlier risk's
        may be.
        """
        try:
            names = self._fields(header.decode("utf-8").rstrip("\r\n"))
        except (UnicodeDecodeError, InvalidInput) as error:
            raise TargetError(f"{source}: the header cannot be read: {error}") from error
        if self._column not in names or names.count(RISK) > 1:
            named = f"Name the column of the widths with --column, and have at most one {RISK!r}."
            do = (
                named
                if any(map(_is_name, names))
                else "Write a header as the first line: the columns' names."
            )
            raise TargetError(
                explain(
                    expected=f"a header with a column {self._column!r} in {source}",
                    got=str(names[:20]),
                    do=do,
                )
            )
        return names

    def _without_earlier(self, line: str, fields: list[str]) -> str:
        """Return a line without the risk that an earlier screening wrote, else as it
        came.
        """
        if self._earlier is None:
            return line
        if self._earlier == self._count - 1 and not line.endswith('"'):
            return line.rpartition(",")[0]
        rest = io.StringIO()
        csv.writer(rest, lineterminator="").writerow(
            fields[: self._earlier] + fields[self._earlier + 1 :]
        )
        return rest.getvalue()

    @staticmethod
    def _fields(line: str) -> list[str]:
        if '"' not in line:
            return line.split(",")
        try:
            return next(csv.reader([line], strict=True))
        except (csv.Error, StopIteration) as error:
            raise InvalidInput(f"not CSV: {error}") from None

    def _widths(self, line: str) -> tuple[Any, list[int]]:
        fields = self._fields(line)
        if len(fields) != self._count:
            raise InvalidInput(
                f"{len(fields)} fields, the header has {self._count} (quote widths that have "
                "commas)"
            )
        return self._without_earlier(line, fields), widths_of_text(fields[self._place])

    def _line(self, row: Any, risk: float) -> str:
        return f"{row},{risk!r}"


def _is_name(field: str) -> bool:
    """Return whether a field looks like a column's name and not like a value."""
    return any(letter.isalpha() for letter in field.replace("x", ""))
