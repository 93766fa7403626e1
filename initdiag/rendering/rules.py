"""What a machine-read format lists: a report's findings, each with its rule, its place
in the source and what to do.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from initdiag.diagnosing import findings
from initdiag.diagnosing.findings import Finding, Severity
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.rendering import words

__all__ = ["Location", "locate", "problems", "remedy", "sentence"]


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the repository: a path with forward slashes, relative to the working
    directory, and a line from 1.
    """

    path: str
    line: int


def problems(report: Report) -> list[Finding]:
    """Return the findings, the worst first; of a network that was not judged, that
    first of all.
    """
    found = sorted(report.findings, key=lambda finding: finding.severity.rank)
    if report.verdict is Verdict.NO_VERDICT:
        message = " ".join(words.headline(report))
        found.insert(0, findings.NOT_JUDGED.at(None, message, "see the other findings for why"))
    return found


def remedy(report: Report, finding: Finding) -> str:
    """Return what to change: for an error the first advice with its effect, else the
    finding's own remedy.
    """
    if finding.severity is not Severity.ERROR or not report.advice:
        return finding.remedy
    first = report.advice[0]
    return (
        f"{first.action} (risk {words.percent(first.risk_before)} -> "
        f"{words.percent(first.risk_after)})"
    )


def sentence(report: Report, finding: Finding) -> str:
    """Return where, what and what to change, in one line."""
    where = f"{finding.layer}: " if finding.layer else ""
    return f"{where}{finding.message.rstrip('.')}. To change: {remedy(report, finding)}"


def locate(target: str) -> Location | None:
    """Return where a command-line target ``file.py:name`` or ``package.module:name`` is
    defined.

    None for what is not such a target, and for a file that is not under the working
    directory: a report may come from anywhere.
    """
    place, _, name = target.rpartition(":")
    if not place or "\0" in place:
        return None
    candidates = (
        [place]
        if place.endswith(".py")
        else [f"{base}{place.replace('.', '/')}.py" for base in ("", "src/")]
    )
    here = Path.cwd().resolve()
    for candidate in candidates:
        try:
            path = (here / candidate).resolve()
            if path.is_relative_to(here) and path.is_file():
                return Location(path.relative_to(here).as_posix(), _line(path, name))
        except (OSError, ValueError):
            continue
    return None


def _line(path: Path, name: str) -> int:
    """Return the line that defines ``name``, or 1 if it is not found."""
    text = path.read_text(encoding="utf-8", errors="replace")
    definition = re.compile(
        rf"^(?:async def|def|class)?\s*{re.escape(name.split('.')[0])}\b\s*[(:=]"
    )
    lines = enumerate(text.split(os.linesep if os.linesep in text else "\n"), start=1)
    return next((number for number, line in lines if definition.match(line)), 1)
