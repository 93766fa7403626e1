"""The pages that are made from the package itself: one a public name, one a finding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import initdiag
from initdiag import free
from initdiag.diagnosing.findings import CATALOGUE

__all__ = ["api_pages", "finding_pages", "write"]


def write(folder: Path) -> None:
    """Write the pages that are new or have changed; remove those that are no more."""
    pages = {folder / path: text for path, text in (*api_pages(), *finding_pages())}
    for path in folder.glob("*/generated/**/*.*"):
        if path not in pages:
            path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of a page for each public name, and of their two lists."""
    for name in initdiag.__all__:
        if name != "free":
            yield f"api/generated/{name}.rst", _page(name, getattr(initdiag, name))
    for name in free.__all__:
        yield f"api/generated/free/{name}.rst", _page(f"free.{name}", getattr(free, name))
    yield "api/generated/names.txt", _toctree("", [n for n in initdiag.__all__ if n != "free"])
    yield "api/generated/free-names.txt", _toctree("free/", free.__all__)


def _toctree(folder: str, names: list[str]) -> str:
    lines = [".. toctree::", "   :maxdepth: 1", ""]
    lines += [f"   {name} <generated/{folder}{name}>" for name in sorted(names, key=str.lower)]
    return "\n".join(lines) + "\n"


def _page(name: str, value: object) -> str:
    directive = "autoclass" if inspect.isclass(value) else "autofunction"
    title = name.removeprefix("free.")
    lines = [title, "=" * len(title), "", f".. {directive}:: initdiag::{name}"]
    return "\n".join(lines + ["   :members:"] * inspect.isclass(value)) + "\n"


def finding_pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of a page for each kind of finding, and of their table."""
    rows = ["| code | name | usual severity |", "|---|---|---|"]
    for code, kind in CATALOGUE.items():
        yield f"findings/generated/{code}.md", kind.to_markdown()
        rows.append(f"| [{code}](generated/{code}.md) | {kind.name} | {kind.severity} |")
    yield "findings/generated/table.txt", "\n".join(rows) + "\n"
