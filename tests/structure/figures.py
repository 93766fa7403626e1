"""Print the figures of the package's structure, today or at a revision.

``python tests/structure/figures.py [REVISION ...]`` prints one column for each
revision and one for the files as they stand. The words mean:

room
    what lies directly in ``initdiag/``: a folder with all that is in it, or a file.
arrow
    a pair of rooms (or of files) of which the first imports the second, anywhere in
    its text: also inside a method, and for its types alone.
floor
    a room stands one floor above the highest room that it imports. Rooms that import
    each other in a circle stand on each other, as many floors as they are.
circle
    a set of rooms (or of files) that import each other. Counted twice: over all arrows,
    and over those that are followed when the file is loaded, which exclude imports
    inside functions and under ``if TYPE_CHECKING``.
function
    from the line of its ``def`` to its last line; its code is what follows the docstring.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tarfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "initdiag"

Graph = dict[str, set[str]]

parse = cache(ast.parse)


@dataclass(frozen=True, slots=True)
class Import:
    """One dotted name that a file imports; whether loading the file follows it."""

    name: str
    on_loading: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A function as ``path:Class.name``, its lines in all, and those of its body's code."""

    name: str
    lines: int
    code: int


def sources(revision: str | None = None) -> dict[str, str]:
    """The text of every Python file of the package, by its path under the repository."""
    if revision is None:
        paths = sorted((ROOT / PACKAGE).rglob("*.py"))
        return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    command = ["git", "-C", str(ROOT), "archive", revision, PACKAGE]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        members = [member for member in files if member.name.endswith(".py")]
        return {member.name: files.extractfile(member).read().decode() for member in members}


def room(path: str) -> str:
    """The folder or file directly under the package in which a path lies."""
    return path.split("/")[1]


def imports(text: str) -> Iterator[Import]:
    """Every import in a file, wherever it stands."""
    waiting: list[tuple[ast.AST, bool]] = [(parse(text), True)]
    while waiting:
        node, on_loading = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, on_loading) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(f"{node.module}.{alias.name}", on_loading) for alias in node.names)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types(node)
        waiting.extend((child, on_loading and not later) for child in ast.iter_child_nodes(node))


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def file_graph(files: dict[str, str], *, on_loading: bool = False) -> Graph:
    """Which file imports which; with `on_loading`, only what loading the file follows."""
    names = {_module(path): path for path in files}
    graph: Graph = {path: set() for path in files}
    for path, text in files.items():
        for found in imports(text):
            other = names.get(found.name) or names.get(found.name.rpartition(".")[0])
            if other not in (None, path) and (found.on_loading or not on_loading):
                graph[path].add(other)
    return graph


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_graph(graph: Graph) -> Graph:
    """Which room imports which, of a graph of files."""
    rooms: Graph = defaultdict(set)
    for path, others in graph.items():
        rooms[room(path)] |= {room(other) for other in others} - {room(path)}
    return dict(rooms)


def circles(graph: Graph) -> list[set[str]]:
    """The sets of nodes that reach each other, by size."""
    reach = {node: _reached(graph, node) for node in graph}
    found = {frozenset(m for m in reach[n] if n in reach[m]) for n in graph if n in reach[n]}
    return sorted(map(set, found), key=len, reverse=True)


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting.extend(new)
    return seen


def floors(graph: Graph) -> int:
    """The number of rooms on the longest way down, a circle counted as all its rooms."""
    group = {node: frozenset((node,)) for node in graph}
    group |= {node: frozenset(circle) for circle in circles(graph) for node in circle}
    height: dict[frozenset[str], int] = {}

    def climb(members: frozenset[str]) -> int:
        if members not in height:
            below = {group[other] for member in members for other in graph[member]} - {members}
            height[members] = len(members) + max(map(climb, below), default=0)
        return height[members]

    return max(climb(members) for members in group.values())


def functions(files: dict[str, str]) -> Iterator[Function]:
    """Every function of the files, methods and inner functions too."""
    for path, text in files.items():
        waiting: list[tuple[ast.AST, str]] = [(parse(text), "")]
        while waiting:
            node, owner = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                owner = f"{owner}.{node.name}".lstrip(".")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node, clean=False) else node.body
                code = node.end_lineno - body[0].lineno + 1 if body else 0
                yield Function(f"{path}:{owner}", node.end_lineno - node.lineno + 1, code)
            waiting.extend((child, owner) for child in ast.iter_child_nodes(node))


def prose(text: str) -> Iterator[str]:
    """The lines of docstrings, and the lines that are a comment alone, as W505 reads them."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        starts_line = not token.line[: token.start[1]].strip()
        if token.type == tokenize.COMMENT and starts_line:
            yield lines[token.start[0] - 1]
        if (
            token.type == tokenize.STRING
            and starts_line
            and token.string.startswith(('"""', 'r"""'))
        ):
            yield from lines[token.start[0] - 1 : token.end[0]]


OPENINGS = re.compile(r'(?:"""|^ *[\w, ]+ : .*\n +)(?:Of|The same)\b', re.M)
"""A docstring, or what it says of a parameter, that opens without a subject or a verb."""


def figures(files: dict[str, str]) -> dict[str, int | str]:
    """Every figure by its name."""
    graph, loaded = file_graph(files), file_graph(files, on_loading=True)
    rooms = room_graph(graph)
    lines = {path: len(text.splitlines()) for path, text in files.items()}
    written = list(functions(files))
    return {
        "files": len(files),
        "rooms": len(rooms),
        "floors of rooms": floors(rooms),
        "arrows between rooms": sum(map(len, rooms.values())),
        "arrows between files": sum(map(len, graph.values())),
        "circles of rooms": len(circles(rooms)),
        "circles of rooms, on loading": len(circles(room_graph(loaded))),
        "circles of files": len(circles(graph)),
        "circles of files, on loading": len(circles(loaded)),
        "lines": sum(lines.values()),
        "longest file": max(lines.values()),
        "files over 300 lines": sum(n > 300 for n in lines.values()),
        "functions": len(written),
        "functions over 40 lines": sum(function.lines > 40 for function in written),
        "functions over 20 lines of code": sum(function.code > 20 for function in written),
        "functions over 40 lines of code": sum(function.code > 40 for function in written),
        "lines over 100 columns": sum(
            len(line) > 100 for text in files.values() for line in text.splitlines()
        ),
        "docstring and comment lines over 88 columns": sum(
            len(line) > 88 for text in files.values() for line in prose(text)
        ),
        "docstrings that open with Of or The same": sum(
            len(OPENINGS.findall(text)) for text in files.values()
        ),
    }


def main(revisions: list[str]) -> None:
    columns = [figures(sources(revision)) for revision in revisions] + [figures(sources())]
    width = max(map(len, columns[0]))
    print(" " * width, *(f"{name:>10.10}" for name in [*revisions, "now"]))
    for name in columns[0]:
        print(f"{name:{width}}", *(f"{column[name]:>10}" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
