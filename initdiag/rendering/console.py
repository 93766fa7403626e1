"""The report a person reads in a terminal: the verdict first, then the evidence, then what to do."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np

from initdiag._core.console import Console, Group, Padding, RenderableType, Rule, Table, Text
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.rendering import architecture, curves, spectrum, tables, words

__all__ = ["renderable", "to_text"]

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 32
_STYLES = {Verdict.HEALTHY: "bold green", Verdict.NO_VERDICT: "bold yellow"}
_MOST_FINDINGS = 8
_MOST_LAYERS = 60
_LONGEST_NOTE = 240
"""Three lines of 80 columns; the other formats show a note whole."""


def to_text(report: Report, width: int = 80) -> str:
    """Return the report as plain text of at most ``width`` columns."""
    console = Console(
        file=io.StringIO(), width=width, no_color=True, highlight=False, legacy_windows=False
    )
    console.print(renderable(report))
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def renderable(report: Report) -> RenderableType:
    """Return the report as a rich renderable: short for a healthy network, whole otherwise."""
    report = words.printable(report)
    parts: list[RenderableType] = [_header(report), Rule(style="dim"), _verdict(report), Text()]
    parts.append(Text(architecture.summary(report.architecture)))
    parts.append(Text(architecture.coverage(report)))
    if report.basis != "none":
        parts += [Text(), _numbers(report)]
    if not report.ok:
        parts += [part for part in (_histogram(report), _layers(report)) if part is not None]
    if report.spectrum is not None:
        parts += [Text(), spectrum.section(report.spectrum)]
    parts += list(_findings(report))
    if report.ok:
        return Group(*parts, Rule(style="dim"), _footer(report))
    parts += list(_advice(report))
    return Group(*parts, Rule(style="dim"), _footer(report))


def _header(report: Report) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right", overflow="fold")
    grid.add_row(Text(f"initdiag {report.initdiag_version}"), Text(report.target))
    return grid


def _verdict(report: Report) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    style = _STYLES.get(report.verdict, "bold red")
    for index, line in enumerate(words.headline(report)):
        grid.add_row(
            Text(words.verdict_name(report) if index == 0 else "", style=style), Text(line)
        )
    return grid


def _table(justifies: Iterable[str], **column: object) -> Table:
    """A grid whose columns are justified by ``l`` and ``r``."""
    table = Table.grid(padding=(0, 2))
    for letter in justifies:
        table.add_column(justify="right" if letter == "r" else "left", **column)  # type: ignore[arg-type]
    return table


def _add(table: Table, row: Iterable[str], style: str = "") -> None:
    """Add a row of plain words: never of markup."""
    table.add_row(*(Text(cell) for cell in row), style=style)


def _numbers(report: Report) -> RenderableType:
    """The two numbers, predicted beside measured, with standard errors, and the test of one against the other."""
    p, m = report.prediction, report.measurement
    table = _table("llrr", no_wrap=True)
    _add(
        table,
        ("", "", "predicted" if p.coverage != "none" else "", "" if m is None else "measured"),
    )
    for row in tables.number_rows(report):
        _add(table, (row.label, row.meaning, row.predicted, row.measured))
    lines: list[RenderableType] = [table, *(Text(line) for line in tables.remarks(report))]
    notes = () if m is None else m.notes
    lines += [Text(words.short(f"note: {note}", _LONGEST_NOTE), style="dim") for note in notes]
    return Group(*lines)


def _histogram(report: Report) -> RenderableType | None:
    """Measured ln gain^2 in bars, and its quantiles beside the predicted law's."""
    found = curves.bars(curves.log_gains(report), _BINS)
    if found is None:
        return None
    levels = np.ceil(found.heights / found.heights.max() * (len(_BARS) - 1)).astype(int)
    ends = [
        f"{end:.1f}" if abs(end) < 1e5 else f"{end:.3g}"
        for end in (found.edges[0], found.edges[-1])
    ]
    line = _table("ll")
    _add(line, (f"{ends[0]} {''.join(_BARS[i] for i in levels)} {ends[1]}", "ln gain^2 over draws"))
    quantiles = _table("rrrr")
    _add(quantiles, ("", "5 %", "50 %", "95 %"))
    for row in tables.quantile_rows(report):
        _add(quantiles, row)
    return Group(Text(), Padding(line, (0, 0, 0, 2)), Padding(quantiles, (0, 0, 0, 2)))


def _layers(report: Report) -> RenderableType | None:
    """The table of layers, equal ones folded."""
    if not report.prediction.layers:
        return None
    table = _table("rlrrlrrr", no_wrap=True)
    table.columns[
        1
    ].no_wrap = (
        False  # the names alone give way in a narrow terminal: numbers and headers stay whole
    )
    for index, row in enumerate(
        (
            ("", words.where(report), *tables.LAYER_HEADERS[2:]),
            *tables.layer_rows(report, _MOST_LAYERS),
        )
    ):
        cells = (Text(cell, no_wrap=True, overflow="ellipsis") for cell in row)
        table.add_row(*cells, style="" if index else "bold")
    return Group(Text(), table)


def _findings(report: Report) -> Iterator[RenderableType]:
    shown = tables.other_findings(report)
    if not shown:
        return
    yield Text()
    yield Text("Findings", style="bold")
    table = Table.grid(padding=(0, 2))
    for finding in shown[:_MOST_FINDINGS]:
        where = f"{finding.layer}: " if finding.layer else ""
        _add(table, (finding.code, finding.severity, f"{where}{finding.message}; {finding.remedy}"))
    yield Padding(table, (0, 0, 0, 1))
    if len(shown) > _MOST_FINDINGS:
        yield Text(f" and {len(shown) - _MOST_FINDINGS} more")


def _advice(report: Report) -> Iterator[RenderableType]:
    rows = tables.advice_rows(report)
    if not rows:
        return
    yield Text()
    table = _table("rlrrr")
    _add(table, tables.advice_headers(report), style="bold")
    for row in rows:
        _add(table, row)
    yield table


def _footer(report: Report) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_row(
        Text(tables.footer(report), style="dim"), Text(f"{report.elapsed:.2f} s", style="dim")
    )
    if not report.risk:
        return grid
    return Group(grid, Text(tables.provenance(report), style="dim"))
