"""A report's remedy as Python that runs as it stands, with ``model`` at hand."""

from __future__ import annotations

from initdiag.diagnosing.report import Report

__all__ = ["code_of"]


def code_of(report: Report) -> str:
    """Return the code of the first advice that has any, else that of the finding's
    remedy. Empty where there is none: a healthy network, or another shape.
    """
    if not report.verdict.is_at_risk:
        return ""
    probe = report.probe
    found = next((one.script for one in report.advice if one.script), "")
    if not found and report.cause == "gain" and probe is not None and probe.has_sines:
        return "import initdiag\n\ninitdiag.repair(model)\n"
    return found
