"""From a file of candidates to the file of those that are kept.

Beside the output lie, while it works, what is kept so far (``.partial``) and a lock
(``.lock``). The output gets its name when it is whole; a run that is stopped leaves
nothing under that name, and the next one begins anew. Rejects stay:
``.rejects.jsonl``, a line each with the row's line, the reason, and how the row begins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from initdiag._core.files import alone, replaced
from initdiag.errors import TargetError, explain
from initdiag.screening.files.batches import Batch, Files, Reject
from initdiag.screening.files.parquet import ParquetFiles
from initdiag.screening.files.text import CsvFiles, JsonLines
from initdiag.screening.screen import Screening, screen

__all__ = ["Counts", "rejects_of", "screen_file"]

_FORMATS: dict[str, Callable[[Path, str], Files]] = {
    ".csv": CsvFiles,
    ".jsonl": JsonLines,
    ".parquet": ParquetFiles,
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the input: ``rows`` is the sum of the others.

    Attributes
    ----------
    rows, kept, at_risk : int
        Read; written; at risk from ``max_risk``.
    rejected : int
        No architectures, or not covered by the theory: in the file of rejects.
    """

    rows: int = 0
    kept: int = 0
    at_risk: int = 0
    rejected: int = 0


def rejects_of(target: Path) -> Path:
    """Return the file of an output's rejects; they lie beside what a link leads to."""
    return _beside(target.resolve(), "rejects.jsonl")


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.name}.{ending}")


def screen_file(
    source: Path,
    target: Path,
    *,
    column: str = "widths",
    progress: Callable[[int, int, Counts], None] = lambda read, size, counts: None,
    note: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Counts:
    """Write those rows of ``source`` to ``target`` whose risk is below ``max_risk``,
    with the risk as a further column.

    Parameters
    ----------
    source, target : Path
        Both ``.parquet``, ``.csv`` or ``.jsonl``.
    column : str
        Column of the widths.
    progress : callable
        Called with how far reading is, of how much, and the counts, after each batch.
    note : callable
        Called with a line if an earlier run was stopped.
    **options
        See `initdiag.screen`.

    Returns
    -------
    Counts
        Counts of the whole input.

    Raises
    ------
    TargetError
        For a file that cannot be read or written, a source that this run would write
        to, or an output that another run writes.
    InvalidInput
        For options out of range.
    """
    # options that are out of range: before any file is touched
    screen([[1, 1]], **options)
    output = target.resolve()
    _check(source, target, output)
    with ExitStack() as stack:
        files = stack.enter_context(closing(_opened(source, column)))
        try:
            stack.enter_context(alone(_beside(output, "lock"), str(target)))
            if (partial := _beside(output, "partial")).exists():
                note(f"an earlier run was stopped before {target} was whole: this one begins anew")
            stack.enter_context(replaced(output, partial))
            return _written(files, partial, rejects_of(target), progress, options)
        except OSError as error:
            raise TargetError(
                explain(
                    expected=f"an output {target} that can be written",
                    got=error.strerror or str(error),
                    do="Make its folder, or choose another output.",
                )
            ) from error


def _check(source: Path, target: Path, output: Path) -> None:
    """Refuse paths that are not a pair of files, and a source that the run itself would
    write.
    """
    suffix = source.suffix.lower()
    is_pair = suffix in _FORMATS and target.suffix.lower() == suffix
    if not is_pair or _is_same(source, output) or (output.exists() and not output.is_file()):
        raise TargetError(
            explain(
                expected="two files of one kind, .csv, .jsonl or .parquet",
                got=f"{source} and {target}",
                do="Name the output like the input.",
            )
        )
    own = ("rejects.jsonl", "rejects.jsonl.partial", "partial", "lock", "state.json")
    ending = next((one for one in own if _is_same(source, _beside(output, one))), None)
    if ending is not None:
        raise TargetError(
            explain(
                expected=f"candidates that are not {target}'s own",
                got=f"{source}, its .{ending}, which this run would write over",
                do="Give another output.",
            )
        )


def _is_same(source: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, be it by links of either kind."""
    if source.resolve() == other.resolve():
        return True
    return source.exists() and other.exists() and source.samefile(other)


def _opened(source: Path, column: str) -> Files:
    try:
        return _FORMATS[source.suffix.lower()](source, column)
    except OSError as error:
        raise TargetError(
            explain(expected=f"a file {source}", got=str(error), do="Give its path.")
        ) from error


def _written(
    files: Files,
    partial: Path,
    rejects: Path,
    progress: Callable[[int, int, Counts], None],
    options: dict[str, Any],
) -> Counts:
    """Write what is kept to ``partial``, whole, and the rejects, if there are any."""
    files.begin(partial)
    with replaced(rejects, _beside(rejects, "partial")) as beside:
        with beside.open("wb") as file:
            counts = _loop(files, file, progress, options)
        files.close()
    if not counts.rejected:
        rejects.unlink()
    return counts


def _loop(
    files: Files,
    rejects: BinaryIO,
    progress: Callable[[int, int, Counts], None],
    options: dict[str, Any],
) -> Counts:
    counts = Counts()
    for batch in files.batches():
        found = screen(batch.architectures, **options)
        files.write(batch.rows, found.accepted, found.risk)
        refused = [*batch.rejects, *_not_covered(batch, found)]
        refused.sort(key=lambda reject: reject.line)
        rejects.write(
            "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in refused).encode()
        )
        counts = _added(counts, batch.count, int(found.accepted.sum()), len(refused))
        progress(batch.read, files.size, counts)
    return counts


def _added(counts: Counts, rows: int, kept: int, rejected: int) -> Counts:
    return Counts(
        counts.rows + rows,
        counts.kept + kept,
        counts.at_risk + rows - kept - rejected,
        counts.rejected + rejected,
    )


def _not_covered(batch: Batch, found: Screening) -> list[Reject]:
    reason = "not covered: the law of these weights is too coarse at such narrow layers"
    return [
        Reject(int(batch.lines[i]), reason, str(batch.architectures.row(i).tolist())[:200])
        for i in np.flatnonzero(np.isnan(found.risk)).tolist()
    ]
