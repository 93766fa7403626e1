"""A folder of the package imports only from the folders before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import PACKAGE

ORDER = (
    "errors", "_core", "network", "law", "spectrum", "tracing", "measuring", "diagnosing", "repairing", "screening",
    "rendering", "project", "cli", "pytest_plugin", "integrations",
)  # fmt: skip
"""The way of the data. The doors at the top, `__init__` and `__main__`, may import from anywhere."""

DELEGATES = {
    "law/prediction.py", "diagnosing/report.py", "diagnosing/comparison.py", "spectrum/record.py",
    "screening/depth_width.py",
}  # fmt: skip
"""Records whose one-line methods, such as `Report.to_html`, import a later folder inside the method."""

TORCH = {"tracing", "measuring", "repairing"}
"""Folders that may import torch when they are imported: they read or run modules."""

FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in ORDER
)


def folder(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports(path: Path, *, top_level_only: bool) -> Iterator[str]:
    """Dotted names that a file imports; without those under ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and top_level_only:
            continue
        if not is_type_checking(node):
            waiting.extend(ast.iter_child_nodes(node))


def identifier(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_every_folder_has_its_place_in_the_order():
    assert {folder(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=identifier)
def test_imports_go_one_way(path):
    own = folder(path)
    for name in imports(path, top_level_only=identifier(path) in DELEGATES):
        package, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if package == "initdiag" and other in ORDER:
            assert other == own or ORDER.index(other) < ORDER.index(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=identifier)
def test_torch_is_imported_only_where_modules_are_read_or_run(path):
    names = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    assert folder(path) in TORCH or "torch" not in names
