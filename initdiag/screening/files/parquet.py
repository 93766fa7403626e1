"""Parquet: a list column of widths; what is kept goes to part files, joined in the end,
so that a run can be gone on with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag.errors import TargetError, explain
from initdiag.law.batch.ragged import Ragged
from initdiag.screening.files.batches import RISK, Batch, Reject

__all__ = ["ParquetFiles"]

_ROWS = 1 << 16
"""Of a batch."""

_ROWS_OF_A_PART = 1 << 20
"""Row groups are taken together until they have so many rows: then the part is closed,
and the state saved.
"""


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise TargetError(
            explain(
                expected="pyarrow, to read Parquet",
                got=str(error),
                do='Install it: pip install "initdiag[arrow]"; CSV and JSON lines need nothing.',
            )
        ) from error
    return pyarrow


class ParquetFiles:
    """See `initdiag.screening.files.batches.Files`: positions are row groups, and what
    was written is counted in parts.
    """

    def __init__(self, source: Path, partial: Path, column: str) -> None:
        self._arrow = _pyarrow()
        self._column, self._folder = column, partial
        try:
            self._file = self._arrow.parquet.ParquetFile(source)
        except self._arrow.ArrowInvalid as error:
            raise TargetError(
                explain(expected="a Parquet file", got=f"{source}: {error}", do="Check it.")
            ) from error
        self.size = self._file.metadata.num_rows
        self._schema = self._file.schema_arrow
        try:
            self._check(source)
        except TargetError:
            self._file.close()
            raise
        self._written = 0
        self._writer: Any = None
        self._others = [i for i, name in enumerate(self._schema.names) if name != RISK]
        others = self._arrow.schema(
            [self._schema.field(i) for i in self._others], self._schema.metadata
        )
        self._kept = others.append(self._arrow.field(RISK, self._arrow.float64()))

    def _check(self, source: Path) -> None:
        types, schema = self._arrow.types, self._schema
        kind: Any = (
            schema.field(self._column).type if schema.names.count(self._column) == 1 else None
        )
        is_list = kind and (
            types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        )
        if not is_list or not types.is_integer(kind.value_type):
            raise TargetError(
                explain(
                    expected=f"a column {self._column!r} of lists of integers in {source}",
                    got=f"{kind} among {schema.names[:20]}",
                    do="Name the column with --column.",
                )
            )

    def batches(self, position: int) -> Iterator[Batch]:
        """Yield the rows of each part, a batch at a time; reading can go on after each
        part.
        """
        sizes = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        done = sum(sizes[:position])
        while position < len(sizes):
            stop, left = position + 1, sizes[position]
            while stop < len(sizes) and left < _ROWS_OF_A_PART:
                stop, left = stop + 1, left + sizes[stop]
            for rows in self._file.iter_batches(_ROWS, row_groups=list(range(position, stop))):
                left -= rows.num_rows
                yield self._batch(rows, done, None if left else stop)
                done += rows.num_rows
            position = stop

    def _batch(self, rows: Any, done: int, position: int | None) -> Batch:
        widths = rows.column(self._column)
        if self._arrow.types.is_fixed_size_list(widths.type):
            widths = widths.cast(self._arrow.list_(widths.type.value_type))
        architectures = Ragged.of(widths)
        lines = np.arange(done + 1, done + rows.num_rows + 1)
        bad, rejects = architectures.faults(), []
        if len(bad):
            rejects = [
                Reject(int(lines[i]), architectures.fault(i), str(widths[i].as_py())[:200])
                for i in bad.tolist()
            ]
            is_good = np.ones(len(lines), dtype=bool)
            is_good[bad] = False
            architectures, lines, rows = (
                architectures.without(bad),
                lines[is_good],
                rows.filter(is_good),
            )
        return Batch(
            len(lines) + len(rejects),
            architectures,
            rows,
            lines,
            position,
            int(done + len(lines) + len(rejects)),
            rejects,
        )

    def begin(self, written: int) -> None:
        """Count on the parts that the state speaks of; without any, begin anew."""
        if not written:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        self._written = written
        for index in range(written):
            if not self._part(index).exists():
                raise FileNotFoundError(self._part(index))

    def _part(self, index: int) -> Path:
        return self._folder / f"part-{index:06d}.parquet"

    def write(self, rows: Any, kept: NDArray[np.bool_], risk: NDArray[np.float64]) -> None:
        """Write the rows that are kept to the part that is open."""
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self._part(self._written), self._kept)
        found = rows.filter(kept).columns
        columns = [*(found[i] for i in self._others), self._arrow.array(risk[kept])]
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(columns, schema=self._kept))

    def flush(self) -> int:
        """Close the part; return how many there are."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._written += 1
        return self._written

    def finish(self, output: Path) -> None:
        """Join the parts, batch by batch."""
        joined = self._folder / "joined.parquet"
        with self._arrow.parquet.ParquetWriter(joined, self._kept) as writer:
            for index in range(self._written):
                with self._arrow.parquet.ParquetFile(self._part(index)) as part:
                    for rows in part.iter_batches(_ROWS):
                        writer.write_batch(rows)
        joined.replace(output)
        self.close()
        shutil.rmtree(self._folder)

    def close(self) -> None:
        """Close all files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._file.close()
