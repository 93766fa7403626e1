"""Targets of the command line: ``file.py:name`` or ``package.module:name``, a module or
a factory of one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from initdiag._core.validation import DEEPEST, did_you_mean
from initdiag.errors import TargetError, explain, shown, text_of

__all__ = ["anchored", "load", "load_batch", "load_pair", "parse_size", "parse_widths"]


def anchored(target: str, folder: Path) -> str:
    """Return ``target`` with its file's whole path, where it names a file (from
    ``folder``).
    """
    place, colon, name = target.rpartition(":")
    return f"{(folder / place).resolve()}{colon}{name}" if place.endswith(".py") else target


def load(target: str, folder: Path | None = None) -> Any:
    """Return the object that ``target`` names; files and packages are looked for in
    ``folder`` (default: the current one).

    Raises
    ------
    TargetError
        If it has not the form ``file.py:name``, the file or module does not import, or
        has no such name.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise TargetError(
            explain(
                expected="a target file.py:name or package.module:name",
                got=repr(target),
                do="Name the module or factory, e.g. model.py:build.",
            )
        )
    is_file = place.endswith(".py")
    module = (
        _from_file(place, target, folder or Path())
        if is_file
        else _from_package(place, target, folder)
    )
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise _no_such_name(part, place, value)
        value = getattr(value, part)
    return value


def _no_such_name(name: str, place: str, value: Any) -> TargetError:
    names = [known for known in getattr(value, "__dict__", {}) if not known.startswith("_")]
    return TargetError(
        explain(
            expected=f"{name!r} in {place}",
            got=f"names {', '.join(names)}" if names else "no names",
            do=did_you_mean(name, names) or "Correct the target.",
        )
    )


def load_batch(target: str | None, folder: Path | None = None) -> Any:
    """Return the batch that ``target`` names, or that the function it names makes.

    Raises
    ------
    TargetError
        As `load`, and if the function raises.
    """
    if target is None:
        return None
    batch = load(target, folder)
    if not callable(batch) or hasattr(batch, "shape"):
        return batch
    try:
        return batch()
    except Exception as error:
        raise TargetError(
            explain(
                expected=f"a function that makes a batch: {target}",
                got=f"{type(error).__name__}: {text_of(error)}",
                do="Call it alone, and fix what it raises.",
            )
        ) from error


def load_pair(target: str, folder: Path | None = None) -> tuple[Any, Any]:
    """Return the first batch ``(x, y)`` of what ``target`` names: the pair itself, a
    loader, or a function that makes either or yields batches.

    Raises
    ------
    TargetError
        As `load`, if the function raises, or if the first batch is no pair.
    """
    batches = load_batch(target, folder)
    is_pair = isinstance(batches, tuple | list) and len(batches) == 2 and _is_batch(batches[0])
    try:
        first = batches if is_pair else next(iter(batches))
        x, y = first
    except Exception as error:
        raise TargetError(
            explain(
                expected=f"batches (x, y): {target}",
                got=f"{type(error).__name__}: {text_of(error)}",
                do="Yield pairs of inputs and targets, or return one pair.",
            )
        ) from error
    return x, y


def _is_batch(value: Any) -> bool:
    """Return whether a value is a batch of rows, and not a pair of a list of pairs."""
    return hasattr(value, "shape") or isinstance(value, dict)


def _from_file(place: str, target: str, folder: Path) -> ModuleType:
    path = folder / place
    if not path.is_file():
        raise TargetError(
            explain(
                expected=f"a file {place}",
                got=f"none in {folder.resolve()}",
                do="Give a path from that folder.",
            )
        )
    name = f"_initdiag_target_{hashlib.sha1(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    entry = str(path.resolve().parent)
    sys.path.insert(0, entry)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _does_not_import(target, error) from error
    finally:
        sys.path.remove(entry)
    return module


def _from_package(place: str, target: str, folder: Path | None) -> Any:
    entry = str(folder or "")
    sys.path.insert(0, entry)
    try:
        return pkgutil.resolve_name(f"{place}:")
    except Exception as error:
        raise _does_not_import(target, error) from error
    finally:
        sys.path.remove(entry)


def _does_not_import(target: str, error: Exception) -> TargetError:
    return TargetError(
        explain(
            expected=f"a target that imports: {target}",
            got=f"{type(error).__name__}: {text_of(error)}",
            do="Import it in python to see the whole traceback.",
        )
    )


def parse_widths(text: str) -> list[int]:
    """Return widths from ``784,256x8,10``: numbers, ``x`` for repetition.

    Raises
    ------
    TargetError
        If a part is not a number or ``number x count``, the count at least 1.

    Examples
    --------
    >>> parse_widths("784,256x3,10")
    [784, 256, 256, 256, 10]
    """
    widths: list[int] = []
    for part in text.split(","):
        width, times, count = part.strip().partition("x")
        repeats = _number(count) if times else 1
        if _number(width) is None or not repeats:
            raise TargetError(
                explain(
                    expected="widths such as 784,256x8,10",
                    got=shown(text),
                    do=f"Correct the part {shown(part)}.",
                )
            )
        if len(widths) + repeats > DEEPEST + 1:
            raise TargetError(
                explain(
                    expected=f"at most {DEEPEST + 1:,} widths",
                    got=f"{len(widths) + repeats:,} by the part {shown(part)}",
                    do="Give fewer layers.",
                )
            )
        widths.extend([int(width)] * repeats)
    return widths


_LONGEST_NUMBER = 15
"""Digits: a number of more is beyond what float64 counts."""


def _number(text: str) -> int | None:
    """Return what a text of digits says; None if it is none, or too large."""
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else None


def parse_size(text: str) -> tuple[int, ...]:
    """Return a batch's shape from ``2,16`` or ``2x16``: here ``x`` repeats nothing.

    Raises
    ------
    TargetError
        If a part is not a positive number.

    Examples
    --------
    >>> parse_size("2x16")
    (2, 16)
    """
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    if not all(_number(part) for part in parts):
        raise TargetError(
            explain(
                expected="the shape of a batch such as 2,784",
                got=shown(text),
                do="Give positive numbers, batch first.",
            )
        )
    return tuple(map(int, parts))
