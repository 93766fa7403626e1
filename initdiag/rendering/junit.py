"""JUnit XML: a test case a network.

At risk is a failure, not judged an error: never a pass.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree

from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.rendering import words
from initdiag.rendering.console import to_text
from initdiag.rendering.rules import problems, remedy

__all__ = ["to_junit"]


def to_junit(*reports: Report) -> str:
    """Return one test suite, every network's numbers among its properties."""
    cases = [_case(words.printable(report)) for report in reports]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": 0,
    }
    attributes = {name: str(count) for name, count in counts.items()} | {"time": _seconds(*reports)}
    suites = ElementTree.Element("testsuites", {"name": "initdiag"} | attributes)
    ElementTree.SubElement(suites, "testsuite", {"name": "initdiag"} | attributes).extend(cases)
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n"


def _case(report: Report) -> ElementTree.Element:
    attributes = {"classname": "initdiag", "name": report.target, "time": _seconds(report)}
    case = ElementTree.Element("testcase", attributes)
    properties = ElementTree.SubElement(case, "properties")
    numbers = {
        "initdiag/verdict": report.verdict.value,
        **{k: repr(v) for k, v in report.to_metrics().items()},
    }
    for name, value in numbers.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": value})
    if not report.ok:
        message = " ".join(words.headline(report))
        first = next(iter(problems(report)), None)
        if first is not None:
            message = f"{message} To change: {remedy(report, first)}"
        kind = "error" if report.verdict is Verdict.NO_VERDICT else "failure"
        outcome = ElementTree.SubElement(
            case, kind, {"message": message, "type": report.verdict.value}
        )
        outcome.text = f"\n{to_text(report, width=100)}"
    return case


def _seconds(*reports: Report) -> str:
    total = math.fsum(report.elapsed for report in reports if 0 <= report.elapsed < 1e15)
    return f"{total:.3f}"
