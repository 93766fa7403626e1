"""A module imports only from lower ranks, and inside a rank only within its own folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "initdiag"

RANKS = {
    "__init__": 0, "errors": 0, "serialization": 0, "validation": 0, "activation": 0, "weight_law": 0, "architecture": 0, "prediction": 0, "measurement": 0, "spectral_law": 0, "spectral_measurement": 0,
    "log_law": 0, "terminal": 0,
    "law": 1, "spectrum": 1, "tracing": 1,
    "measuring": 2, "agreement": 2, "gains": 2, "risk": 2, "widths": 2, "reshaping": 2,
    "verdict": 3, "advice": 3,
    "report": 4, "search": 4, "spectral_report": 4,
    "targets": 4, "baseline": 5, "config": 5, "screening": 5,
    "render": 5, "diagnosis": 5, "mending": 5,
    "project": 6, "candidate": 6, "cli_options": 6,
    "fleet": 7, "cli": 8, "cli_output": 7, "cli_screen": 7, "__main__": 9, "pytest_plugin": 7, "integrations": 7,
}  # fmt: skip

RECORDS = (
    "errors",
    "log_law",
    "terminal",
    "serialization",
    "validation",
    "activation",
    "weight_law",
    "architecture",
    "measurement",
    "prediction",
    "spectral_law",
    "spectral_measurement",
)
"""Rank 0 in its own order: a record may hold the records before it."""

ANYWHERE = {"__init__"}
"""`initdiag.__init__` holds the version; its exports are strings, loaded on first use."""

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported_rooms(path: Path, *, top_level_only: bool = False):
    """Rooms of initdiag that a file imports; without those under ``if TYPE_CHECKING``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "initdiag":
            parts = node.module.split(".")[1:]
            names = [parts[0]] if parts else [alias.name for alias in node.names]
            for name in names:
                yield name if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists() else "__init__"


def test_every_room_has_a_rank():
    assert {room(path) for path in FILES} <= set(RANKS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = room(path)
    delegates = own in ("prediction", "report", "spectral_law")
    for other in imported_rooms(path, top_level_only=delegates):
        is_down = RANKS[other] < RANKS[own] or other == own or other in ANYWHERE or (own, other) == ("__main__", "cli")
        is_earlier_record = {own, other} <= set(RECORDS) and RECORDS.index(other) < RECORDS.index(own)
        assert is_down or is_earlier_record, f"{own} (rank {RANKS[own]}) imports {other}"


TORCH_ROOMS = {"tracing", "measuring", "mending"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_is_imported_only_where_modules_are_read_or_run(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert room(path) in TORCH_ROOMS or not any(n.split(".")[0] == "torch" for n in names)
