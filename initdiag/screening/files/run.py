"""From a file of candidates to the file of those that are kept: the loop, and the state
that it can be gone on from.

Beside the output lie, while it works, what is kept so far (``.partial``) and the state
(``.state.json``: position, counts, and how much was written); both go when it is done.
Rejects stay: ``.rejects.jsonl``, a line each with the row's line, the reason, and how
the row begins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from initdiag.errors import TargetError, explain
from initdiag.screening.files.batches import Batch, Files, Reject
from initdiag.screening.files.parquet import ParquetFiles
from initdiag.screening.files.text import CsvFiles, JsonLines
from initdiag.screening.screen import Screening, screen

__all__ = ["Counts", "screen_file"]

_FORMATS: dict[str, Callable[[Path, Path, str], Files]] = {
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


@dataclass(frozen=True, slots=True)
class _State:
    """Where a run stands; ``of`` says which run it is."""

    of: dict[str, Any]
    position: int
    written: int
    rejects_written: int
    counts: Counts

    @classmethod
    def read(cls, path: Path, of: dict[str, Any]) -> _State:
        """Return the saved state of this very run, or its beginning."""
        if not path.exists():
            return cls(of, 0, 0, 0, Counts())
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            state = cls(**{**data, "counts": Counts(**data["counts"])})
        except (ValueError, TypeError, KeyError) as error:
            raise TargetError(
                explain(expected=f"a state in {path}", got=str(error), do="Delete it.")
            ) from error
        if state.of != of:
            differing = sorted(key for key in of if state.of.get(key) != of[key])
            raise TargetError(
                explain(
                    expected=f"in {path} the state of this run",
                    got=f"that of a run that differs in {', '.join(differing)}",
                    do="Go on with that one, give --restart, or another output.",
                )
            )
        return state

    def save(self, path: Path) -> None:
        """Replace the saved state in one step."""
        beside = path.with_name(path.name + ".new")
        beside.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        beside.replace(path)


def screen_file(
    source: Path,
    target: Path,
    *,
    column: str = "widths",
    restart: bool = False,
    progress: Callable[[int, int, Counts], None] = lambda read, size, counts: None,
    **options: Any,
) -> Counts:
    """Write those rows of ``source`` to ``target`` whose risk is below ``max_risk``,
    with the risk as a further column.

    Parameters
    ----------
    source, target : Path
        Both ``.parquet``, ``.csv`` or ``.jsonl``.
    column : str
        Of the widths.
    restart : bool
        Forget an earlier run that was interrupted; else it is gone on with.
    progress : callable
        Called with how far reading is, of how much, and the counts, after each batch.
    **options
        As in `initdiag.screen`.

    Returns
    -------
    Counts
        Of the whole input, an interrupted run's included.

    Raises
    ------
    TargetError
        For a file that cannot be read, or a state of another run.
    InvalidInput
        For options out of range.
    """
    # options that are out of range: before any file is touched
    screen([[1, 1]], **options)
    paths = {
        kind: target.with_name(f"{target.name}.{kind}")
        for kind in ("partial", "state.json", "rejects.jsonl")
    }
    files = _files(source, target, paths["partial"], column)
    if restart:
        paths["state.json"].unlink(missing_ok=True)
    stat = source.stat()
    of = {
        "source": str(source.resolve()),
        "size": stat.st_size,
        "changed": stat.st_mtime_ns,
        "column": column,
    }
    try:
        state = _State.read(
            paths["state.json"], of | {name: options[name] for name in sorted(options)}
        )
        with paths["rejects.jsonl"].open("ab") as rejects:
            rejects.truncate(state.rejects_written)
            counts = _loop(files, state, paths["state.json"], rejects, progress, options)
        files.finish(target)
    finally:
        files.close()
    paths["state.json"].unlink()
    if not counts.rejected:
        paths["rejects.jsonl"].unlink()
    return counts


def _files(source: Path, output: Path, partial: Path, column: str) -> Files:
    suffix = source.suffix.lower()
    if (
        suffix not in _FORMATS
        or output.suffix.lower() != suffix
        or source.resolve() == output.resolve()
    ):
        raise TargetError(
            explain(
                expected="two files of one kind, .csv, .jsonl or .parquet",
                got=f"{source} and {output}",
                do="Name the output like the input.",
            )
        )
    try:
        return _FORMATS[suffix](source, partial, column)
    except OSError as error:
        raise TargetError(
            explain(expected=f"a file {source}", got=str(error), do="Give its path.")
        ) from error


def _loop(
    files: Files,
    state: _State,
    path: Path,
    rejects: BinaryIO,
    progress: Callable[[int, int, Counts], None],
    options: dict[str, Any],
) -> Counts:
    try:
        files.begin(state.written)
    except OSError as error:
        do = "Give --restart." if state.written else "Choose another output."
        raise TargetError(explain(expected="the output so far", got=str(error), do=do)) from error
    state.save(path)
    counts = state.counts
    for batch in files.batches(state.position):
        found = screen(batch.architectures, **options)
        files.write(batch.rows, found.accepted, found.risk)
        refused = [*batch.rejects, *_not_covered(batch, found)]
        refused.sort(key=lambda reject: reject.line)
        rejects.write(
            "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in refused).encode()
        )
        counts = _added(counts, batch.count, int(found.accepted.sum()), len(refused))
        if batch.position is not None:
            rejects.flush()
            state = dataclasses.replace(
                state,
                position=batch.position,
                written=files.flush(),
                rejects_written=rejects.tell(),
                counts=counts,
            )
            state.save(path)
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
