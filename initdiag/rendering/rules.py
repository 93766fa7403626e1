"""What a machine-read format lists: a report's findings, each with its rule, its place in the source and what to do."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Finding, Verdict
from initdiag.rendering import words

__all__ = ["RULES", "Location", "locate", "problems", "remedy", "sentence", "severity_rank"]

RULES = {
    "IND000": (
        "not-judged",
        "The network could be neither predicted nor measured: it was not judged.",
    ),
    "IND001": ("vanishing-gradient", "The gradient vanishes on its way through the layers."),
    "IND002": ("exploding-gradient", "The gradient explodes on its way through the layers."),
    "IND003": (
        "unstable-gradient",
        "The gradient's size differs too much from one initialisation to the next.",
    ),
    "IND004": ("dead-network", "Most initialisations have a gradient of exactly zero."),
    "IND005": ("theory-contradicted", "Prediction and measurement disagree."),
    "IND006": ("not-covered", "A part of the network is not covered by the theory."),
    "IND007": ("zero-weights", "Every weight of a layer is zero."),
    "IND008": ("unused-weights", "The forward pass never reaches these weights."),
    "IND009": (
        "weights-fail-hypotheses",
        "A layer's weights are no draw of a symmetric iid or orthogonal law.",
    ),
    "IND010": ("not-measured", "The network could not be measured."),
    "IND011": ("asymmetric-bias", "A bias is constant or skewed."),
    "IND012": ("inputs-collapse", "Different inputs become indistinguishable with depth."),
    "IND013": ("weights-assumed", "Weights were assumed, not read."),
    "IND014": ("step-too-large", "The learning rate takes too large a step for the depth."),
    "IND015": ("zero-output", "The output layer starts at zero: the first step changes it alone."),
    "IND020": ("jacobian-scale", "The mean squared singular value of the Jacobian is not 1."),
    "IND021": ("jacobian-spread", "The Jacobian's singular values spread over decades."),
    "IND022": ("jacobian-rank", "The Jacobian loses rank."),
    "IND023": ("jacobian-isometry", "The Jacobian is far from an isometry."),
    "IND024": (
        "spectrum-at-finite-width",
        "Depth over width makes the limiting spectrum untrustworthy.",
    ),
    "IND025": ("no-spectrum", "The Jacobian's spectrum could not be predicted."),
}
"""Finding code -> (name, what it means). A code keeps its meaning for ever."""

_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the repository: a path with forward slashes, relative to the working directory, and a line from 1."""

    path: str
    line: int


def problems(report: Report) -> list[Finding]:
    """Return the findings, the worst first; of a network that was not judged, that first of all."""
    found = sorted(report.findings, key=severity_rank)
    if report.verdict is Verdict.NO_VERDICT:
        message = " ".join(words.headline(report))
        found.insert(
            0, Finding("IND000", "warning", None, message, "see the other findings for why")
        )
    return found


def severity_rank(finding: Finding) -> int:
    """0 for an error, 1 for a warning, 2 for anything less."""
    return (
        _SEVERITIES.index(finding.severity)
        if finding.severity in _SEVERITIES
        else len(_SEVERITIES) - 1
    )


def remedy(report: Report, finding: Finding) -> str:
    """Return what to change: for an error the first advice with its effect, else the finding's own remedy."""
    if severity_rank(finding) > 0 or not report.advice:
        return finding.remedy
    first = report.advice[0]
    return f"{first.action} (risk {words.percent(first.risk_before)} -> {words.percent(first.risk_after)})"


def sentence(report: Report, finding: Finding) -> str:
    """Return where, what and what to change, in one line."""
    where = f"{finding.layer}: " if finding.layer else ""
    return f"{where}{finding.message.rstrip('.')}. To change: {remedy(report, finding)}"


def locate(target: str) -> Location | None:
    """Return where a command-line target ``file.py:name`` or ``package.module:name`` is defined.

    None for what is no such target, and for a file that is not under the working directory: a report may come from anywhere.
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
    """The line that defines ``name``, 1 if it is not found."""
    text = path.read_text(encoding="utf-8", errors="replace")
    definition = re.compile(
        rf"^(?:async def|def|class)?\s*{re.escape(name.split('.')[0])}\b\s*[(:=]"
    )
    lines = enumerate(text.split(os.linesep if os.linesep in text else "\n"), start=1)
    return next((number for number, line in lines if definition.match(line)), 1)
