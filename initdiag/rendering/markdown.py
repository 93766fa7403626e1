"""The report in Markdown, for a pull request, an issue or a step summary.

Names are code spans, and everything else is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from initdiag.diagnosing.report import Report
from initdiag.rendering import architecture, tables, trial, words

__all__ = ["code_span", "escaped", "table", "to_markdown"]

_MOST_LAYERS = 40
_MOST_FINDINGS = 20
_PUNCTUATION = re.compile(
    r"([\\`*\[\]|<>~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.)", re.I
)
"""What could start or end a span, a link, a tag or a cell.

No text stands at the start of a line, where other signs have a meaning.
"""


def to_markdown(*reports: Report) -> str:
    """Return the reports in GitHub's Markdown, one section each."""
    return "\n".join("\n".join(_section(words.printable(report))) for report in reports)


def _section(report: Report) -> Iterator[str]:
    yield f"## {words.verdict_name(report)}: {code_span(report.target)}\n"
    headline = words.headline(report)
    yield f"**{escaped(headline[0])}**{''.join(' ' + escaped(line) for line in headline[1:])}\n"
    yield f"{escaped(architecture.summary(report.architecture))}\\"
    yield f"{escaped(architecture.coverage(report))}\n"
    if report.advice:
        headers, rows = map(escaped, tables.advice_headers(report)), tables.advice_rows(report)
        is_code = [False, *(advice.is_snippet for advice in report.advice)]
        yield table(
            headers, (_cells(row, code) for row, code in zip(rows, is_code, strict=True)), "rlrrr"
        )
    if report.basis != "none":
        rows = [
            (row.label, row.meaning, row.predicted, row.measured)
            for row in tables.number_rows(report)
        ]
        yield table(("", "", "predicted", "measured"), map(_cells, rows), "llrr")
        yield from (f"{escaped(line)}\n" for line in tables.remarks(report))
    if not report.ok and report.prediction.layers:
        yield f"<details><summary>{words.where(report)}</summary>\n"
        layers = tables.layer_rows(report, _MOST_LAYERS)
        yield table(tables.LAYER_HEADERS, (_cells(row, bool(row[0])) for row in layers), "rlrrlrrr")
        yield "</details>\n"
    yield from _trial(report)
    yield from _findings(report)
    ending = filter(None, (tables.footer(report), tables.provenance(report)))
    yield f"<sub>{escaped('; '.join(ending))}; "
    yield f"initdiag {escaped(report.initdiag_version)}</sub>\n"


def _trial(report: Report) -> Iterator[str]:
    found = report.trial
    if found is None:
        return
    losses = found.typical
    yield f"**Trial.** {escaped(' '.join(trial.sentences(found)))}\\"
    yield f"loss {losses[0]:.3g} {code_span(trial.sparkline(losses))} {losses[-1]:.3g}\n"
    if report.ok:
        return
    yield "<details><summary>What each layer met in the trial</summary>\n"
    yield table(trial.HEADERS, (_named(row) for row in trial.layer_rows(found)), "lrrrrr")
    if found.terms:
        yield table(trial.TERM_HEADERS, (_named(row) for row in trial.term_rows(found)), "lrrr")
    yield "</details>\n"


def _named(row: Sequence[str]) -> list[str]:
    """Return a row's cells, escaped; the first is a name."""
    return [code_span(row[0]), *map(escaped, row[1:])]


def _findings(report: Report) -> Iterator[str]:
    shown = tables.other_findings(report)
    for finding in shown[:_MOST_FINDINGS]:
        where = f"{code_span(finding.layer)}: " if finding.layer else ""
        kind = f"{escaped(finding.severity)} {escaped(finding.code)}"
        yield f"- {kind}: {where}{escaped(finding.message)}; {escaped(finding.remedy)}"
    if len(shown) > _MOST_FINDINGS:
        yield f"- and {len(shown) - _MOST_FINDINGS} more"
    if shown:
        yield ""


def _cells(row: Sequence[str], is_code: bool = False) -> list[str]:
    """Return a row's cells, escaped; code and names stand in a code span."""
    return [
        code_span(cell) if is_code and index == 1 else escaped(cell)
        for index, cell in enumerate(row)
    ]


def table(headers: Iterable[str], rows: Iterable[Iterable[str]], justify: str) -> str:
    """Return a table of cells that are escaped already, one letter l or r a column."""
    rule = ["--:" if letter == "r" else "---" for letter in justify]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, rule, *rows)) + "\n"


def escaped(text: str) -> str:
    """Return a text with every character escaped that Markdown could interpret."""
    return _PUNCTUATION.sub(r"\\\1", text)


def code_span(text: str) -> str:
    """Return a code span whose fence is longer than any run of backticks inside."""
    inner = text.replace("|", "\\|") or " "
    fence = "`" * (max(map(len, re.findall("`+", inner)), default=0) + 1)
    pad = " " if inner.startswith("`") or inner.endswith("`") else ""
    return f"{fence}{pad}{inner}{pad}{fence}"
