"""GitHub Actions: annotations on standard output, and a step summary.

GitHub shows at most ten annotations of a kind a step and takes at most 1 MiB of summary
(workflow commands and limits: docs.github.com, "Workflow commands for GitHub Actions");
what is beyond is left out here, and said.
"""

from __future__ import annotations

from initdiag.diagnosing.findings import CATALOGUE, Finding, Severity
from initdiag.diagnosing.report import Report
from initdiag.rendering import words
from initdiag.rendering.markdown import to_markdown
from initdiag.rendering.rules import locate, problems, sentence

__all__ = ["MOST_ANNOTATIONS", "SUMMARY_LIMIT", "to_annotations", "to_step_summary"]

MOST_ANNOTATIONS = 10
SUMMARY_LIMIT = 1024 * 1024
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_LONGEST_MESSAGE = 4000


def to_annotations(*reports: Report) -> str:
    """Return at most ten workflow commands, the worst first; the last says how many
    more there are.
    """
    found = [
        (report, finding)
        for report in map(words.printable, reports)
        for finding in problems(report)
    ]
    found.sort(key=lambda pair: pair[1].severity.rank)
    left = len(found) - MOST_ANNOTATIONS
    last = f" ({left} more: see the step summary)" if left > 0 else ""
    shown = found[:MOST_ANNOTATIONS]
    lines = [
        _annotation(*pair, last if index == MOST_ANNOTATIONS else "")
        for index, pair in enumerate(shown, start=1)
    ]
    return "".join(f"{line}\n" for line in lines)


def to_step_summary(*reports: Report, limit: int = SUMMARY_LIMIT) -> str:
    """Return the reports in Markdown, as many as fit into ``limit`` bytes of UTF-8; the
    last line says how many do not.
    """
    parts: list[str] = []
    room = limit - 100
    for report in reports:
        part = to_markdown(report) + "\n"
        room -= len(part.encode())
        if room < 0:
            break
        parts.append(part)
    left = len(reports) - len(parts)
    text = "".join(parts) + (f"{left} more: beyond the size of a step summary\n" if left else "")
    return text if len(text.encode()) <= limit else ""


def _annotation(report: Report, finding: Finding, last: str) -> str:
    place = locate(report.target)
    kind = CATALOGUE.get(finding.code)
    name = finding.code if kind is None else kind.name
    properties = {"title": f"initdiag {finding.code}: {name} ({words.short(report.target, 80)})"}
    if place is not None:
        properties = {"file": place.path, "line": str(place.line), **properties}
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    message = words.short(sentence(report, finding), _LONGEST_MESSAGE)
    return f"::{_COMMANDS[finding.severity]} {written}::{_data(message + last)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
