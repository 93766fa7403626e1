"""Many architectures at once: their widths one after another, and where each begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag._core.validation import DEEPEST, positive_integer
from initdiag.errors import InvalidInput, explain
from initdiag.law.batch.tables import WIDEST

__all__ = ["Ragged"]

_FORMS = (
    "a list of architectures (lists of widths), a 2-d integer array, (flat, offsets), or an "
    "Arrow list array"
)


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Architecture ``i`` has the widths ``flat[offsets[i]:offsets[i + 1]]``, ``n_0,
    ..., n_L``.

    Attributes
    ----------
    flat : integer array
        All widths.
    offsets : int64 array
        One more than there are architectures; from 0, not decreasing, to ``len(flat)``.
    """

    flat: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, widths: Any) -> Ragged:
        """Return the architectures of a list of lists, a 2-d array, ``(flat,
        offsets)``, or an Arrow ListArray (also chunked).

        The widths themselves are not checked but for their type: see `faults`.

        Raises
        ------
        InvalidInput
            For anything else, naming the first row that is not a list of whole numbers.
        """
        if isinstance(widths, Ragged):
            return widths
        if isinstance(widths, np.ndarray) and widths.dtype != object:
            return _of_table(widths)
        if (
            isinstance(widths, tuple)
            and len(widths) == 2
            and all(isinstance(a, np.ndarray) for a in widths)
        ):
            return _of_parts(*widths)
        if hasattr(widths, "chunks") and hasattr(widths, "type"):
            parts = [_of_arrow(chunk) for chunk in widths.chunks]
            return parts[0] if len(parts) == 1 else _joined(parts)
        if (
            hasattr(widths, "offsets")
            and hasattr(widths, "values")
            and hasattr(widths, "null_count")
        ):
            return _of_arrow(widths)
        return _of_lists(widths)

    def row(self, index: int) -> NDArray[Any]:
        """Return the widths of one architecture."""
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    def chunks(self, layers: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of architectures of about ``layers`` widths together, at least
        one each.
        """
        start = 0
        while start < len(self):
            stop = (
                int(np.searchsorted(self.offsets, self.offsets[start] + layers, side="right")) - 1
            )
            stop = min(max(stop, start + 1), len(self))
            yield start, stop
            start = stop

    def faults(self) -> NDArray[np.intp]:
        """Return the rows that are not an architecture, in order: see `fault`."""
        lengths = np.diff(self.offsets)
        bad = (lengths < 2) | (lengths > DEEPEST + 1)
        for start, stop in self.chunks(1 << 18):
            flat = self.flat[self.offsets[start] : self.offsets[stop]]
            if len(flat) and (flat.min() < 1 or flat.max() > WIDEST):
                places = np.flatnonzero((flat < 1) | (flat > WIDEST)) + self.offsets[start]
                bad[np.searchsorted(self.offsets, places, side="right") - 1] = True
        return np.flatnonzero(bad)

    def fault(self, index: int) -> str:
        """Return what is wrong with a row, in words; empty if nothing is."""
        row = self.row(index)
        if not 2 <= len(row) <= DEEPEST + 1:
            return f"{len(row)} widths: 2 to {DEEPEST + 1:,} are an architecture"
        wrong = np.flatnonzero((row < 1) | (row > WIDEST))
        return (
            f"width {wrong[0]} is {row[wrong[0]]}: 1 to {WIDEST:,} are screened"
            if len(wrong)
            else ""
        )

    def without(self, rows: NDArray[np.intp]) -> Ragged:
        """Return the architectures but for some."""
        kept = np.ones(len(self), dtype=bool)
        kept[rows] = False
        lengths = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
        return Ragged(self.flat[np.repeat(kept, lengths)], offsets)


def _wrong(got: str) -> InvalidInput:
    return InvalidInput(
        explain(expected=_FORMS, got=got, do="For one architecture: initdiag.accepts(widths).")
    )


def _of_table(table: NDArray[Any]) -> Ragged:
    if table.ndim != 2 or table.dtype.kind not in "iu":
        raise _wrong(f"a {table.ndim}-d array of {table.dtype}")
    rows, columns = table.shape
    return Ragged(table.reshape(-1), np.arange(rows + 1, dtype=np.int64) * columns)


def _of_parts(flat: NDArray[Any], offsets: NDArray[Any]) -> Ragged:
    if (
        flat.ndim != 1
        or offsets.ndim != 1
        or flat.dtype.kind not in "iu"
        or offsets.dtype.kind not in "iu"
    ):
        raise _wrong(
            f"(flat, offsets) of {flat.ndim}-d {flat.dtype} and {offsets.ndim}-d {offsets.dtype}"
        )
    offsets = offsets.astype(np.int64, copy=False)
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(flat) or len(falls):
        at = f"; they fall at row {falls[0]}" if len(falls) else ""
        raise InvalidInput(
            explain(
                expected=(
                    f"offsets from 0 to len(flat) = {len(flat)}, not decreasing, one more "
                    "than architectures"
                ),
                got=f"{len(offsets)} from {offsets[:1]} to {offsets[-1:]}{at}",
                do="Correct the offsets.",
            )
        )
    return Ragged(flat, offsets)


def _of_arrow(array: Any) -> Ragged:
    values = array.values
    if values.null_count:
        values = values.fill_null(0)
    flat = values.to_numpy(zero_copy_only=False)
    if flat.dtype.kind not in "iu":
        raise _wrong(f"an Arrow array of {array.type}")
    offsets = array.offsets.to_numpy().astype(np.int64)
    if array.null_count:
        return _joined_rows(flat, offsets, array.is_valid().to_numpy(zero_copy_only=False))
    return Ragged(flat[offsets[0] : offsets[-1]], offsets - offsets[0])


def _joined_rows(
    flat: NDArray[Any], offsets: NDArray[np.int64], is_valid: NDArray[np.bool_]
) -> Ragged:
    """Drop whatever lies behind a null list, which becomes empty."""
    lengths = np.where(is_valid, np.diff(offsets), 0)
    kept = np.repeat(is_valid, np.diff(offsets))
    return Ragged(flat[offsets[0] : offsets[-1]][kept], np.concatenate([[0], np.cumsum(lengths)]))


def _joined(parts: Sequence[Ragged]) -> Ragged:
    flat = np.concatenate([part.flat for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    starts = np.cumsum([0, *(len(part.flat) for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
    return Ragged(flat, np.concatenate([*offsets, starts[-1:]]).astype(np.int64))


def _of_lists(widths: Any) -> Ragged:
    if isinstance(widths, str | bytes) or not hasattr(widths, "__iter__"):
        raise _wrong(repr(widths))
    rows = list(widths)
    try:
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        items = list(itertools.chain.from_iterable(rows))
    except TypeError:
        raise _first_bad_row(rows) from None
    if not all(kind is int or issubclass(kind, np.integer) for kind in set(map(type, items))):
        raise _first_bad_row(rows)
    flat = np.array(items) if items else np.zeros(0, dtype=np.int64)
    if flat.dtype.kind not in "iu":
        raise _first_bad_row(rows)
    return Ragged(flat, np.concatenate([[0], np.cumsum(lengths)]))


def _first_bad_row(rows: list[Any]) -> InvalidInput:
    for index, row in enumerate(rows):
        if isinstance(row, str | bytes) or not hasattr(row, "__iter__"):
            return _wrong(f"row {index}: {row!r}")
        for place, width in enumerate(row):
            try:
                number = positive_integer(width, f"row {index}, width {place}")
            except InvalidInput as error:
                return error
            if number > WIDEST:
                return InvalidInput(
                    f"row {index}: width {place} is {number}: 1 to {WIDEST:,} are screened"
                )
    return _wrong("rows of unlike types")
