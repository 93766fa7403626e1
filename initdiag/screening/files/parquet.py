"""Parquet: a list column of widths among any others."""

from __future__ import annotations

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
"""Most rows of a batch."""

_WIDTHS = 1 << 22
"""About the most widths of a batch: 32 MiB of them."""


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
    """See `initdiag.screening.files.batches.Files`."""

    def __init__(self, source: Path, column: str) -> None:
        self._arrow = _pyarrow()
        self._column, self._source = column, source
        try:
            self._file = self._arrow.parquet.ParquetFile(source)
        except self._arrow.ArrowException as error:
            raise self._damaged(error) from error
        self.size = self._file.metadata.num_rows
        self._schema = self._file.schema_arrow
        try:
            self._check(source)
        except TargetError:
            self._file.close()
            raise
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

    def _damaged(self, error: Exception) -> TargetError:
        got = f"{self._source}: {' '.join(str(error).split())}"
        return TargetError(
            explain(expected="a Parquet file that is whole", got=got, do="Write it anew.")
        )

    def batches(self) -> Iterator[Batch]:
        """Yield the rows, each row group in batches of bounded size."""
        done = 0
        for group in range(self._file.num_row_groups):
            for rows in self._rows(group):
                yield self._batch(rows, done)
                done += rows.num_rows

    def _rows(self, group: int) -> Iterator[Any]:
        """Yield a row group's rows; so few at a time as they have many widths."""
        about = self._file.metadata.row_group(group)
        values = sum(about.column(i).num_values for i in range(about.num_columns))
        most = max(1, min(_ROWS, _WIDTHS * about.num_rows // max(values, 1)))
        try:
            yield from self._file.iter_batches(most, row_groups=[group])
        except (OSError, self._arrow.ArrowException) as error:
            raise self._damaged(error) from error

    def _batch(self, rows: Any, done: int) -> Batch:
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
            int(done + len(lines) + len(rejects)),
            rejects,
        )

    def begin(self, partial: Path) -> None:
        """Open the output."""
        self._writer = self._arrow.parquet.ParquetWriter(partial, self._kept)

    def write(self, rows: Any, kept: NDArray[np.bool_], risk: NDArray[np.float64]) -> None:
        """Write the rows that are kept, if there are any."""
        if not kept.any():
            return
        found = rows.filter(kept).columns
        columns = [*(found[i] for i in self._others), self._arrow.array(risk[kept])]
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(columns, schema=self._kept))

    def close(self) -> None:
        """Close both files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._file.close()
