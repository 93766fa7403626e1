"""One self-contained HTML page, readable without a script, a network or a theory.

The templates and the style sheet are in ``templates/``; this module says what goes
into them. jinja2 escapes every text; the page's own policy forbids it to load or run
anything, and the report rides along in it as JSON.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jinja2
from markupsafe import Markup, escape

from initdiag.diagnosing.coverage import uncovered
from initdiag.diagnosing.findings import NOT_COVERED
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.rendering import architecture, tables, trial, words
from initdiag.rendering.svg_panels import panels

__all__ = ["to_fragment", "to_html"]

_MOST_LAYERS = 200
_MOST_FINDINGS = 100
_MOST_REMEDIES = 6
_LONGEST_TARGET, _LONGEST_REMEDY = 200, 400
"""What a page of one screen's width shows without drowning the rest: chosen by eye."""

_TITLES = {Verdict.HEALTHY: "Training is likely to start", Verdict.NO_VERDICT: "Not judged"}
_KINDS = {Verdict.HEALTHY: "good", Verdict.NO_VERDICT: "unsure"}
_OPTIMIZERS = {**words.OPTIMIZER_NAMES, "sgd": "plain SGD"}
_LAYER_STYLES = ("number", "name", "number", "number", "", "number", "number", "number")
_GLOSSARY = (
    (
        "gain",
        "The factor by which a small random change of the input is enlarged on its way to the "
        "output; the gradient on its way back is too. Healthy is 1.",
    ),
    (
        "drift",
        "The mean of ln gain² over initialisations. Healthy is 0; every 4.6 are a factor of ten "
        "in the gradient. Better initialisation cures it.",
    ),
    (
        "fluctuation",
        "The variance of ln gain² from one initialisation to the next: how much luck there is. "
        "Wider or fewer layers cure it.",
    ),
    (
        "Hanin-Nica beta",
        "The fluctuation by the formula of Hanin and Nica (2018), right for wide layers; the "
        "prediction beside it holds at every width.",
    ),
    (
        "dead",
        "A network in which some layer passes nothing, so that its gradient is exactly 0.",
    ),
    (
        "risk",
        "The probability that training does not start where a healthy network's does, fitted to "
        "many training runs.",
    ),
)


def to_html(*reports: Report) -> str:
    """Return one page with all the reports, one after the other."""
    names = (f"{report.verdict.value}: {words.plain(report.target)}" for report in reports[:3])
    views = [{**_view(report), "data": _data(report)} for report in reports]
    return _environment().get_template("page.html").render(title="; ".join(names), views=views)


def to_fragment(report: Report) -> str:
    """Return the report for a notebook's cell: style and article, without the data."""
    return _environment().get_template("fragment.html").render(view=_view(report))


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the templates, which escape every value; a missing one raises."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("initdiag.rendering"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"typeset": _typeset, "drawing": Markup}
    return environment


def _typeset(text: str) -> Markup:
    """Escape our own words; set signs that a terminal lacks, and powers of ten."""
    for plain, sign in (("^2", "²"), ("+-", "±"), (" -> ", " → ")):
        text = text.replace(plain, sign)
    power = r"\1&nbsp;&times;&nbsp;10<sup>\2</sup>"
    return Markup(re.sub(r"(\d)e\+?(-?\d+)\b", power, str(escape(text))))


def _data(report: Report) -> Markup:
    """Return the report as JSON that no HTML parser takes for anything else."""
    escapes = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
    return Markup(json.dumps(report.to_dict(), allow_nan=False).translate(escapes))


def _view(report: Report) -> dict[str, Any]:
    """Return what the template ``report.html`` shows, by the names it uses."""
    report = words.printable(report)
    ending = (tables.footer(report), tables.provenance(report), f"{report.elapsed:.2f} s")
    return {
        "version": report.initdiag_version,
        "target": words.short(report.target, _LONGEST_TARGET),
        "kind": _KINDS.get(report.verdict, "bad"),
        "verdict": words.verdict_name(report),
        "title": _TITLES.get(report.verdict, "Training is not likely to start"),
        "explanation": words.explanation(report),
        "panels": panels(report),
        "layers": _layers(report),
        "trial": _trial(report),
        "glossary": () if report.basis == "none" else _GLOSSARY,
        "footer": "; ".join(filter(None, ending)),
        "data": None,
        **_risk_view(report),
        **_action_view(report),
        **_number_view(report),
        **_finding_view(report),
    }


def _risk_view(report: Report) -> dict[str, Any]:
    limit = report.thresholds.max_risk
    return {
        "risks": list(_risks(report)),
        "limit": words.percent(limit),
        "limit_at": 100 * limit,
        "training": words.training(report),
        "risk_provenance": report.risk_provenance,
    }


def _risks(report: Report) -> Iterator[dict[str, Any]]:
    """Yield a meter for each optimiser, the judged one first."""
    judged, limit = report.optimizer or "sgd", report.thresholds.max_risk
    for name in sorted(report.risk, key=lambda name: name != judged):
        risk = report.risk[name]
        yield {
            "label": f"with {_OPTIMIZERS.get(name, name)}{', judged here' * (name == judged)}",
            "percent": words.percent_beside(risk, limit),
            "kind": "bad" if risk >= limit else "good",
            "filled": 100 * min(max(risk, 0.0), 1.0) if risk == risk else 0.0,
        }


def _action_view(report: Report) -> dict[str, Any]:
    advice = [
        {
            "action": one.action,
            "is_snippet": one.is_snippet,
            "before": words.percent(one.risk_before),
            "after": words.percent(one.risk_after),
        }
        for one in report.advice
    ]
    found = report.findings[:_MOST_REMEDIES]
    remedies = dict.fromkeys(f"{one.message}: {one.remedy}" for one in found)
    return {
        "advice": advice,
        "is_ok": report.ok,
        "remedies": [words.short(text, _LONGEST_REMEDY) for text in remedies],
    }


def _number_view(report: Report) -> dict[str, Any]:
    is_known, measurement = report.basis != "none", report.measurement
    notes = [] if measurement is None else [f"note: {note}" for note in measurement.notes]
    return {
        "summary": (architecture.summary(report.architecture), architecture.coverage(report)),
        "uncovered": uncovered(report.architecture.gaps),
        "numbers": tables.number_rows(report) if is_known else [],
        "notes": [*tables.remarks(report), *notes] if is_known else [],
        "predicted_header": "predicted" if report.prediction.coverage != "none" else "",
        "measured_header": "" if measurement is None else "measured",
    }


def _finding_view(report: Report) -> dict[str, Any]:
    found = tables.other_findings(report)
    if report.architecture.gaps:  # the fold-out lists them all
        found = [finding for finding in found if finding.code != NOT_COVERED.code]
    return {
        "findings": found[:_MOST_FINDINGS],
        "findings_left_out": max(0, len(found) - _MOST_FINDINGS),
    }


def _layers(report: Report) -> dict[str, Any]:
    """Return the table of layers: headers, rows, and the style of each column."""
    rows = tables.layer_rows(report, _MOST_LAYERS) if report.prediction.layers else []
    return {"headers": tables.LAYER_HEADERS, "rows": rows, "styles": _LAYER_STYLES}


def _trial(report: Report) -> dict[str, Any]:
    """Return the table of what each layer met in the trial."""
    rows = [] if report.trial is None else trial.layer_rows(report.trial, _MOST_LAYERS)
    return {"headers": trial.HEADERS, "rows": rows, "styles": ("name", *["number"] * 5)}
