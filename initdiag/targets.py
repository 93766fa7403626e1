"""Targets of the command line: ``file.py:name`` or ``package.module:name``, a module or a factory of one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from initdiag.errors import TargetError, explain

__all__ = ["load", "parse_widths"]


def load(target: str) -> Any:
    """Return the object that ``target`` names.

    Raises
    ------
    TargetError
        If it has not the form ``file.py:name``, the file or module does not import, or has no such name.
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
    module = _from_file(Path(place), target) if place.endswith(".py") else _from_package(place, target)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            public = ", ".join(n for n in vars(module) if not n.startswith("_"))
            raise TargetError(explain(expected=f"{part!r} in {place}", got=f"names {public}", do="Correct the target."))
        value = getattr(value, part)
    return value


def _from_file(path: Path, target: str) -> ModuleType:
    if not path.is_file():
        raise TargetError(explain(expected=f"a file {path}", got="none", do="Give a path from the current folder."))
    name = f"_initdiag_target_{hashlib.sha1(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _does_not_import(target, error) from error
    finally:
        sys.path.remove(folder)
    return module


def _from_package(place: str, target: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise _does_not_import(target, error) from error
    finally:
        sys.path.remove("")


def _does_not_import(target: str, error: Exception) -> TargetError:
    return TargetError(
        explain(
            expected=f"a target that imports: {target}",
            got=f"{type(error).__name__}: {error}",
            do="Import it in python to see the whole traceback.",
        )
    )


def parse_widths(text: str) -> list[int]:
    """Return widths from ``784,256x8,10``: numbers, ``x`` for repetition.

    Raises
    ------
    TargetError
        If a part is not a number or ``number x count``.

    Examples
    --------
    >>> parse_widths("784,256x3,10")
    [784, 256, 256, 256, 10]
    """
    widths: list[int] = []
    for part in text.split(","):
        width, _, count = part.strip().partition("x")
        if not width.isdecimal() or (count and not count.isdecimal()) or part.strip().endswith("x"):
            raise TargetError(
                explain(expected="widths such as 784,256x8,10", got=repr(text), do=f"Correct the part {part!r}.")
            )
        widths.extend([int(width)] * int(count or 1))
    return widths
