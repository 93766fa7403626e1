"""Files that are seen whole or not at all, and that one process writes at a time."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from initdiag.errors import TargetError, explain

__all__ = ["alone", "replaced", "write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a text beside ``path`` and rename it: an interrupt changes nothing.

    Links are followed and modes kept; what is not a file, such as ``/dev/stdout``, is
    written to directly.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", newline="")
        return
    with replaced(path, path.with_name(f".{path.name}.{os.getpid()}.new")) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


@contextmanager
def replaced(path: Path, beside: Path) -> Iterator[Path]:
    """Yield ``beside``, to be written; it becomes ``path``, with its mode, at the end.

    If anything is raised before, ``path`` stays as it was and ``beside`` goes.
    """
    try:
        yield beside
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at ``path``, which ends with the process that holds it.

    So a lock file that a killed process left is simply taken over.

    Raises
    ------
    TargetError
        If another run holds it.
    OSError
        If it cannot be made.
    """
    with _taken(path, what):
        try:
            yield
        finally:
            # on Windows a file that is open stays, and is not a lock once it is closed
            if os.name != "nt":
                path.unlink(missing_ok=True)


@contextmanager
def _taken(path: Path, what: str) -> Iterator[None]:
    """Lock the file that is at ``path``, rather than one that was just taken away."""
    while True:
        with path.open("ab") as file:
            try:
                _lock(file.fileno())
            except (BlockingIOError, PermissionError) as error:
                raise TargetError(
                    explain(
                        expected=f"one run at a time that writes {what}",
                        got="another that is still running",
                        do="Wait for it, or give another output.",
                    )
                ) from error
            try:
                is_it = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                is_it = False
            if is_it:
                yield
                return


def _lock(descriptor: int) -> None:
    """Take the operating system's lock of an open file, or raise at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
