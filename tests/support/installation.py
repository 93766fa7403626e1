"""initdiag as a user's environment has it: importable, with its entry point and its command, installed or run from its folder."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tomllib
from pathlib import Path

from support.places import ROOT


def python_path(folder: Path) -> str:
    """PYTHONPATH with initdiag and, if it is not installed, its metadata (written to ``folder``) with the entry point of pyproject.toml."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    if not [e for e in importlib.metadata.entry_points(group="pytest11") if e.name == "initdiag"]:
        paths.append(str(_metadata(folder / "installed")))
    return os.pathsep.join(filter(None, paths))


def _metadata(folder: Path) -> Path:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / "initdiag-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: initdiag\nVersion: 0\n", encoding="utf-8"
    )
    points = "".join(
        f"{name} = {value}\n" for name, value in project["entry-points"]["pytest11"].items()
    )
    (info / "entry_points.txt").write_text(f"[pytest11]\n{points}", encoding="utf-8")
    return folder


def search_path(folder: Path) -> str:
    """PATH of the environment, with the command ``initdiag`` (written to ``folder`` if it is not installed)."""
    own = str(Path(sys.executable).parent)
    paths = [own, os.environ["PATH"]]
    if shutil.which("initdiag", path=own) is None:
        folder.mkdir(parents=True, exist_ok=True)
        command = folder / "initdiag"
        command.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -m initdiag "$@"\n', encoding="utf-8"
        )
        command.chmod(0o755)
        paths.insert(0, str(folder))
    return os.pathsep.join(paths)
