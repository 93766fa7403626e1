"""Two reports side by side, in a terminal or in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from initdiag._core.console import Group, RenderableType, Text
from initdiag.diagnosing.comparison import Comparison, Difference, LayerDifference
from initdiag.diagnosing.findings import Finding
from initdiag.rendering import words
from initdiag.rendering.markdown import code_span, escaped, table
from initdiag.rendering.terminal import Encodable, Grid, plain_text

__all__ = ["renderable", "to_markdown", "to_text"]

_MOST_LAYERS = 40
"""Rows of layers that are shown, which keeps it to about two screens."""

_HEADERS = ("", "first", "second", "")
_LAYER_HEADERS = ("layer", "what differs", "drift", "fluctuation")
_SHARES = ("gain^2", "drift", "fluctuation")


def to_text(comparison: Comparison, width: int = 80) -> str:
    """Return the comparison as plain text of at most ``width`` columns, from 40 on."""
    return plain_text(renderable(comparison), width)


def renderable(comparison: Comparison) -> RenderableType:
    """Return the comparison as a rich renderable."""
    found = words.printable(comparison)
    parts: list[RenderableType] = [
        Text(f"first:  {found.first}"),
        Text(f"second: {found.second}"),
        Text(),
        Grid(_HEADERS, _number_rows(found), "lrrl", style="bold"),
        Text(),
    ]
    rows = list(_layer_rows(found))
    if rows:
        parts += [Grid(_LAYER_HEADERS, rows, "llrr", flexible=1, least=20, style="bold"), Text()]
    parts.append(Text(_layers_in_words(found)))
    parts += [Text(line) for line in _finding_lines(found)]
    return Encodable(Group(*parts))


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison in GitHub's Markdown."""
    found = words.printable(comparison)
    lines = [f"## {code_span(found.first)} beside {code_span(found.second)}\n"]
    lines.append(table(_HEADERS, _escaped(_number_rows(found)), "lrrl"))
    rows = list(_layer_rows(found))
    if rows:
        lines.append(table(_LAYER_HEADERS, _escaped(rows), "llrr"))
    lines.append(f"{escaped(_layers_in_words(found))}\n")
    lines += [f"- {escaped(line)}" for line in _finding_lines(found)]
    return "\n".join(lines).rstrip() + "\n"


def _escaped(rows: Iterable[Iterable[str]]) -> Iterator[list[str]]:
    yield from ([escaped(cell) for cell in row] for row in rows)


def _number_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    return [
        (number.name, *_values(number), _said(number))
        for number in comparison.numbers
        if number.first is not None or number.second is not None
    ]


def _said(number: Difference) -> str:
    """Say by how much two numbers differ, or that they agree within their errors."""
    if isinstance(number.first, str) or isinstance(number.second, str):
        return "differs" if number.differs else ""
    if number.first is None or number.second is None:
        return "in one alone"
    if not number.differs:
        is_close = number.first != number.second and number.standard_error
        return "within their errors" if is_close else ""
    if number.name.startswith(("risk", "dead")):
        return "differs"
    change = number.second - number.first
    error = "" if not number.standard_error else f" +- {words.number(number.standard_error)}"
    return f"{change:+.3g}{error}"


def _values(number: Difference) -> tuple[str, str]:
    is_share = number.name.startswith(("risk", "dead"))

    def shown(value: float | str | None) -> str:
        if isinstance(value, str):
            return value.replace("_", " ")
        if value is None:
            return "-"
        return words.percent(value) if is_share else _number(value)

    return shown(number.first), shown(number.second)


def _number(value: float) -> str:
    is_whole = value == int(value) if abs(value) < 1e9 else False
    return f"{value:.0f}" if is_whole else words.number(value, 3)


def _layer_rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Yield a row for each run of layers that differ alike, with the sums of their
    shares of drift and fluctuation.
    """
    runs = list(_runs(comparison.layers))
    for run in runs[:_MOST_LAYERS]:
        first, last = run[0], run[-1]
        name = first.name if first is last else f"{first.name} to {last.name}"
        yield name, _change(first), _sums(run, "drift"), _sums(run, "fluctuation")
    if len(runs) > _MOST_LAYERS:
        yield f"... {len(runs) - _MOST_LAYERS} more", "", "", ""


def _runs(layers: tuple[LayerDifference, ...]) -> Iterator[list[LayerDifference]]:
    """Yield runs of neighbouring layers that differ alike."""
    run: list[LayerDifference] = []
    for layer in layers:
        if run and not (_follows(run[-1], layer) and _change(run[-1]) == _change(layer)):
            yield run
            run = []
        run.append(layer)
    if run:
        yield run


def _follows(a: LayerDifference, b: LayerDifference) -> bool:
    def is_next(i: int | None, j: int | None) -> bool:
        return (i is None and j is None) or (i is not None and j == i + 1)

    return is_next(a.first, b.first) and is_next(a.second, b.second)


def _change(layer: LayerDifference) -> str:
    """Say what of a layer differs, but for its shares."""
    if layer.first is None or layer.second is None:
        return f"in the {'second' if layer.first is None else 'first'} alone"
    found = [one for one in layer.differences if one.name not in _SHARES]
    return "; ".join(f"{one.name} {' -> '.join(_values(one))}" for one in found) or "its share"


def _sums(run: list[LayerDifference], name: str) -> str:
    """Return the sums of a share over layers; empty where it does not differ."""
    found = [one for layer in run for one in layer.differences if one.name == name]
    first = [one.first for one in found if isinstance(one.first, float)]
    second = [one.second for one in found if isinstance(one.second, float)]
    if not first or len(first) != len(second):
        return ""
    return f"{words.number(math.fsum(first))} -> {words.number(math.fsum(second))}"


def _layers_in_words(comparison: Comparison) -> str:
    total, found = comparison.layer_count, len(comparison.layers)
    if not total:
        return "Neither report has layers to compare."
    return f"{found} of {total} layers differ." if found else f"All {total} layers are the same."


def _finding_lines(comparison: Comparison) -> Iterator[str]:
    def said(finding: Finding) -> str:
        where = f" ({finding.layer})" if finding.layer else ""
        return f"{finding.severity} {finding.code}{where}: {finding.message}"

    yield from (f"gone: {said(finding)}" for finding in comparison.gone)
    yield from (f"new: {said(finding)}" for finding in comparison.new)
