"""One self-contained HTML page: readable without a script, a network or a theory; every text escaped, the data embedded as JSON.

The style sheet is ``report.css``, the drawings `initdiag.rendering.svg_panels`. The page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources

from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Finding, Verdict
from initdiag.rendering import tables, words
from initdiag.rendering.svg_panels import panels, to_svg

__all__ = ["to_fragment", "to_html"]

_MOST_LAYERS = 200
_MOST_FINDINGS = 100
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_TITLES = {Verdict.HEALTHY: "Training is likely to start", Verdict.NO_VERDICT: "Not judged"}
_KINDS = {Verdict.HEALTHY: "good", Verdict.NO_VERDICT: "unsure"}
_OPTIMIZERS = {**words.OPTIMIZER_NAMES, "sgd": "plain SGD"}
_GLOSSARY = (
    ("gain", "The factor by which a small random change of the input is enlarged on its way to the output; the gradient on its way back is too. Healthy is 1."),
    ("drift", "The mean of ln gain² over initialisations. Healthy is 0; every 4.6 are a factor of ten in the gradient. Better initialisation cures it."),
    ("fluctuation", "The variance of ln gain² from one initialisation to the next: how much luck there is. Wider or fewer layers cure it."),
    ("Hanin-Nica beta", "The fluctuation by the formula of Hanin and Nica (2018), right for wide layers; the prediction beside it holds at every width."),
    ("dead", "A network in which some layer passes nothing, so that its gradient is exactly 0."),
    ("risk", "The probability that training does not start where a healthy network's does, fitted to many training runs."),
)  # fmt: skip


def to_html(*reports: Report) -> str:
    """Return one page with all the reports, one after the other."""
    title = escape(
        "; ".join(f"{report.verdict.value}: {words.plain(report.target)}" for report in reports[:3])
    )
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>initdiag: {title}</title>\n<style>\n{_style()}\n"
        "html { background: #ffffff; } body { margin: 0; }\n@media (prefers-color-scheme: dark) { html { background: #14171b; } }\n"
        "@media print { html { background: #ffffff; font-size: 11.5px; } }\n</style>\n</head>\n<body>\n"
    )
    return f"{head}{''.join(_article(report) for report in reports)}</body>\n</html>\n"


def to_fragment(report: Report) -> str:
    """Return the report for a notebook's cell: the page's inside with its style, without the data."""
    return f"<style>{_style()}</style>{_article(report, with_data=False)}"


def _style() -> str:
    return (
        resources.files("initdiag.rendering")
        .joinpath("report.css")
        .read_text(encoding="utf-8")
        .strip()
    )


def _article(report: Report, *, with_data: bool = True) -> str:
    shown = words.printable(report)
    data = (
        f'<script type="application/json" class="initdiag-report">{_data(report)}</script>\n'
        if with_data
        else ""
    )
    evidence = f'<h2>What was found</h2>\n<section class="panels">\n{_panels(shown)}{_numbers(shown)}</section>\n'
    parts = (
        _first_screen(shown),
        evidence,
        _findings(shown),
        _layers(shown),
        _glossary(shown),
        _footer(shown),
    )
    return f'<main class="initdiag">\n{"".join(parts)}{data}</main>\n'


def _data(report: Report) -> str:
    """The whole report as JSON that no HTML parser can take for anything else."""
    escapes = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
    return json.dumps(report.to_dict(), allow_nan=False).translate(escapes)


def _first_screen(report: Report) -> str:
    title = _TITLES.get(report.verdict, "Training is not likely to start")
    lead = "".join(f'<p class="lead">{_typeset(line)}</p>\n' for line in words.explanation(report))
    return (
        f"<header><span>initdiag {escape(report.initdiag_version)}</span><span>{escape(words.short(report.target, 200))}</span></header>\n"
        f'<section class="{_KINDS.get(report.verdict, "bad")}">\n<span class="badge">{escape(words.verdict_name(report))}</span>\n'
        f"<h1>{title}</h1>\n{lead}</section>\n"
        f'<section class="first">\n{_risks(report)}{_what_to_do(report)}</section>\n'
    )


def _risks(report: Report) -> str:
    if not report.risk:
        return '<div class="card"><h2>Risk</h2><p>Unknown: a network that was not judged may be anything.</p></div>\n'
    judged = report.optimizer or "sgd"
    names = sorted(report.risk, key=lambda name: name != judged)
    rows = "".join(
        _risk(name, report.risk[name], report.thresholds.max_risk, name == judged) for name in names
    )
    limit = escape(words.percent(report.thresholds.max_risk))
    return (
        f'<div class="card"><h2>Risk that training does not start</h2>\n{rows}'
        f"<small>Judged for {escape(words.training(report))}. The mark is the limit, {limit}. How the risk is known: {escape(report.risk_provenance)}.</small></div>\n"
    )


def _risk(name: str, risk: float, limit: float, is_judged: bool) -> str:
    share = min(max(risk, 0.0), 1.0) if risk == risk else 0.0
    label = f"with {_OPTIMIZERS.get(name, name)}{', judged here' if is_judged else ''}"
    style = "bad" if risk >= limit else "good"
    return (
        f'<div class="risk"><span>{escape(label)}</span><strong>{escape(words.percent_beside(risk, limit))}</strong>'
        f'<svg class="meter" viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true"><rect class="back" y="3" width="100" height="8"/>'
        f'<rect class="{style}" y="3" width="{100 * share:.1f}" height="8"/>'
        f'<path class="limit" vector-effect="non-scaling-stroke" d="M{100 * limit:.1f} 0V14"/></svg></div>\n'
    )


def _what_to_do(report: Report) -> str:
    if report.advice:
        items = "".join(f"<li>{item}</li>\n" for item in _remedies(report))
        body = f"<p>Before training; <code>w</code> stands for every weight matrix.</p>\n<ol>\n{items}</ol>"
    elif report.ok:
        body = "<p>Nothing needs to change.</p>"
    else:
        remedies = dict.fromkeys(f"{f.message}: {f.remedy}" for f in report.findings[:6])
        items = "".join(f"<li>{escape(words.short(text, 400))}</li>\n" for text in remedies)
        body = f"<ul>\n{items}</ul>" if items else "<p>No remedy is known for this network.</p>"
    return f'<div class="card"><h2>What to do</h2>\n{body}</div>\n'


def _remedies(report: Report) -> Iterator[str]:
    for advice in report.advice:
        action = (
            f"<code>{escape(advice.action)}</code>"
            if advice.is_snippet
            else _typeset(advice.action)
        )
        before, after = (
            escape(words.percent(risk)) for risk in (advice.risk_before, advice.risk_after)
        )
        yield f'{action}<span class="effect">lowers the risk from {before} to <strong>{after}</strong></span>'


def _panels(report: Report) -> str:
    return "".join(
        f'<figure class="card"><h3>{escape(panel.title)}</h3><figcaption class="note">{escape(panel.note)}</figcaption>{to_svg(panel)}</figure>\n'
        for panel in panels(report)
    )


def _numbers(report: Report) -> str:
    lines = [words.chain_summary(report.architecture), words.coverage(report)]
    body = "".join(f"<p>{_typeset(line)}</p>\n" for line in lines)
    if report.basis != "none":
        m = report.measurement
        notes = [*tables.remarks(report), *(f"note: {note}" for note in (m.notes if m else ()))]
        body += _number_table(report) + "".join(
            f'<p class="note">{_typeset(note)}</p>\n' for note in notes
        )
    return f'<div class="card numbers"><h3>In numbers</h3>\n{body}</div>\n'


def _number_table(report: Report) -> str:
    predicted = "predicted" if report.prediction.coverage != "none" else ""
    measured = "measured" if report.measurement is not None else ""
    head = (
        f'<tr><th></th><th class="number">{predicted}</th><th class="number">{measured}</th></tr>'
    )
    rows = []
    for row in tables.number_rows(report):
        name = (
            f"{row.label}<small>{_typeset(row.meaning)}</small>"
            if row.label
            else f"<small>{_typeset(row.meaning)}</small>"
        )
        rows.append(
            f'<tr><td>{name}</td><td class="number">{_typeset(row.predicted)}</td><td class="number">{_typeset(row.measured)}</td></tr>\n'
        )
    return f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>\n{"".join(rows)}</tbody></table></div>\n'


def _typeset(text: str) -> str:
    """Escape our own words, with the signs that a terminal does not have; a number as ``1.5 x 10^12``."""
    for plain, sign in (("^2", "²"), ("+-", "±"), (" -> ", " → ")):
        text = text.replace(plain, sign)
    return re.sub(
        r"(\d)e\+?(-?\d+)\b",
        lambda found: f"{found[1]}&nbsp;&times;&nbsp;10<sup>{found[2]}</sup>",
        escape(text),
    )


def _findings(report: Report) -> str:
    shown = tables.other_findings(report)
    if not shown:
        return ""
    items = "".join(_finding(finding) for finding in shown[:_MOST_FINDINGS])
    more = (
        f"<li>and {len(shown) - _MOST_FINDINGS} more</li>\n" if len(shown) > _MOST_FINDINGS else ""
    )
    return f"<h2>Also found</h2>\n<ul>\n{items}{more}</ul>\n"


def _finding(finding: Finding) -> str:
    where = f"<code>{escape(finding.layer)}</code>: " if finding.layer else ""
    kind = f'<span class="quiet">{escape(finding.code)}, {escape(finding.severity)}</span>'
    return f'<li>{where}{escape(finding.message)} {kind}<span class="effect">What to do: {escape(finding.remedy)}</span></li>\n'


def _layers(report: Report) -> str:
    if not report.prediction.layers:
        return ""
    headers = tables.LAYER_HEADERS
    table = _table(headers, tables.layer_rows(report, _MOST_LAYERS), "rnrrlrrr")
    return f"<details><summary>Layer by layer, in numbers</summary>\n{table}</details>\n"


def _glossary(report: Report) -> str:
    if report.basis == "none":
        return ""
    items = "".join(f"<dt>{word}</dt><dd>{escape(meaning)}</dd>\n" for word, meaning in _GLOSSARY)
    return f"<details><summary>What the words mean</summary>\n<dl>\n{items}</dl></details>\n"


def _footer(report: Report) -> str:
    parts = (tables.footer(report), tables.provenance(report), f"{report.elapsed:.2f} s")
    return f"<footer>{escape('; '.join(filter(None, parts)))}</footer>\n"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], justify: str) -> str:
    """A table that scrolls by itself; columns are numbers (``r``), names (``n``) or words."""
    styles = [{"r": ' class="number"', "n": ' class="name"'}.get(letter, "") for letter in justify]
    head = "".join(
        f"<th{style}>{escape(cell)}</th>" for cell, style in zip(headers, styles, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{s}>{escape(c)}</td>' for c, s in zip(row, styles, strict=True))}</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'
