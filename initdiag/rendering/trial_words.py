"""What a verdict that rests on a trial means, in words."""

from __future__ import annotations

from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.report import Report

__all__ = ["explanation", "headline"]

_MEANINGS = {
    True: "A copy of the network was trained for some steps, and its loss did not fall below "
    "that of a constant guess.",
    False: "A copy of the network was trained for some steps, and its loss fell.",
}
"""By whether the network is at risk."""


def headline(report: Report) -> str:
    """Return what the trial did, where it is judged by; else nothing."""
    if report.basis is not Basis.TRIAL or report.trial is None:
        return ""
    return f"By real steps: {report.trial.sentence()}."


def explanation(report: Report) -> tuple[str, ...]:
    """Return what the verdict means for a reader without theory."""
    return _MEANINGS[report.verdict.is_at_risk], headline(report)
