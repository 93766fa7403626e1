"""The report in a terminal: the verdict first, then the evidence, then what to do."""

from __future__ import annotations

from collections.abc import Iterator

from initdiag._core.console import Group, Padding, RenderableType, Rule, Table, Text
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.rendering import architecture, curves, spectrum, tables, trial, words
from initdiag.rendering.terminal import Encodable, Grid, Histogram, plain_text

__all__ = ["renderable", "to_text"]

_BINS = 32
"""Bars of the histogram: 1,024 draws then leave about 30 in each of them."""

_STYLES = {Verdict.HEALTHY: "bold green", Verdict.NO_VERDICT: "bold yellow"}
_MOST_FINDINGS = 8
_MOST_LAYERS = 60
"""What keeps a report to about two screens; the other formats show more."""

_LONGEST_NOTE = 240
"""Three lines of 80 columns; the other formats show a note whole."""

_LARGEST_PLAIN = 1e5
"""Numbers from here on are told in powers of ten."""


def to_text(report: Report, width: int = 80) -> str:
    """Return the report as plain text of at most ``width`` columns, from 40 on."""
    return plain_text(renderable(report), width)


def renderable(report: Report) -> RenderableType:
    """Return the report as a rich renderable: short if healthy, whole otherwise."""
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
    if report.trial is not None:
        parts += [Text(), trial.section(report.trial, is_whole=not report.ok)]
    parts += list(_findings(report))
    if not report.ok:
        parts += list(_advice(report))
    return Encodable(Group(*parts, Rule(style="dim"), _footer(report)))


def _header(report: Report) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", overflow="fold")
    grid.add_row(Text(f"initdiag {report.initdiag_version}"), Text(report.target))
    return grid


def _verdict(report: Report) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    grid.add_column(no_wrap=True)
    grid.add_column()
    style = _STYLES.get(report.verdict, "bold red")
    name = words.verdict_name(report)
    for index, line in enumerate(words.headline(report)):
        grid.add_row(Text(name if index == 0 else "", style=style), Text(line))
    return grid


def _numbers(report: Report) -> RenderableType:
    """Return the two numbers, predicted beside measured, and their comparison."""
    p, m = report.prediction, report.measurement
    headers = ("", "", "predicted" if p.coverage != "none" else "", "" if m is None else "measured")
    rows = [
        (row.label, row.meaning, row.predicted, row.measured) for row in tables.number_rows(report)
    ]
    notes = () if m is None else m.notes
    return Group(
        Grid(headers, rows, "llrr", titles=2),
        *(Text(line) for line in tables.remarks(report)),
        *(Text(words.short(f"note: {note}", _LONGEST_NOTE), style="dim") for note in notes),
    )


def _histogram(report: Report) -> RenderableType | None:
    """Return bars of measured ln gain^2, and its quantiles beside the predicted."""
    found = curves.bars(curves.log_gains(report), _BINS)
    if found is None:
        return None
    low, high = (_end(float(end)) for end in (found.edges[0], found.edges[-1]))
    bars = Histogram(found.heights, (low, high), "ln gain^2 over draws")
    quantiles = Grid(("", "5 %", "50 %", "95 %"), tables.quantile_rows(report), "rrrr")
    return Group(Text(), Padding(Group(bars, quantiles), (0, 0, 0, 2)))


def _end(value: float) -> str:
    return f"{value:.1f}" if abs(value) < _LARGEST_PLAIN else f"{value:.3g}"


def _layers(report: Report) -> RenderableType | None:
    """Return the table of layers, equal ones folded. The columns that say least go
    first where room is short.
    """
    if not report.prediction.layers:
        return None
    headers = ("", words.where(report), *tables.LAYER_HEADERS[2:])
    fan_in, fan_out, gate, gain = 2, 3, 4, 5
    table = Grid(
        headers,
        tables.layer_rows(report, _MOST_LAYERS),
        "rlrrlrrr",
        titles=2,
        flexible=1,
        least=16,
        is_cut=True,
        drops=(fan_out, gain, gate, fan_in),
        style="bold",
    )
    return Group(Text(), table)


def _findings(report: Report) -> Iterator[RenderableType]:
    shown = tables.other_findings(report)
    if not shown:
        return
    yield Text()
    yield Text("Findings", style="bold")
    yield Padding(spectrum.findings_grid(shown[:_MOST_FINDINGS]), (0, 0, 0, 1))
    if len(shown) > _MOST_FINDINGS:
        yield Text(f" and {len(shown) - _MOST_FINDINGS} more")


def _advice(report: Report) -> Iterator[RenderableType]:
    rows = tables.advice_rows(report)
    if rows:
        headers = tables.advice_headers(report)
        yield Text()
        yield Grid(headers, rows, "rlrrr", titles=2, flexible=1, least=24, style="bold")


def _footer(report: Report) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right", no_wrap=True)
    elapsed = Text(f"{report.elapsed:.2f} s", style="dim")
    grid.add_row(Text(tables.footer(report), style="dim"), elapsed)
    if not report.risk:
        return grid
    return Group(grid, Text(tables.provenance(report), style="dim"))
