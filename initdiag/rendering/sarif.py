"""SARIF 2.1.0 (OASIS): findings for code scanning.

Rule ids are finding codes; paths are relative to the repository.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from initdiag import __version__
from initdiag.diagnosing.findings import CATALOGUE, Finding
from initdiag.diagnosing.report import Report
from initdiag.rendering import words
from initdiag.rendering.rules import locate, problems, sentence

__all__ = ["to_sarif"]

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def to_sarif(*reports: Report) -> str:
    """Return one run: the rules that were broken, and a result a finding."""
    found = [
        (report, finding)
        for report in map(words.printable, reports)
        for finding in problems(report)
    ]
    codes = sorted({finding.code for _, finding in found})
    driver = {
        "name": "initdiag",
        "semanticVersion": __version__,
        "rules": [_rule(code) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(report, finding, codes.index(finding.code)) for report, finding in found
        ],
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, allow_nan=False) + "\n"


def _rule(code: str) -> dict[str, Any]:
    """Return the catalogue's entry as a rule; an unknown code stands for itself."""
    kind = CATALOGUE.get(code)
    if kind is None:
        return {"id": code, "name": code, "shortDescription": {"text": code}}
    return {
        "id": code,
        "name": kind.name,
        "shortDescription": {"text": kind.meaning},
        "fullDescription": {"text": f"{kind.meaning} {kind.why}"},
        "help": {"text": kind.mend, "markdown": kind.to_markdown()},
        "defaultConfiguration": {"level": kind.severity.value},
    }


def _result(report: Report, finding: Finding, index: int) -> dict[str, Any]:
    text = f"{report.target}: {sentence(report, finding)}"
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.severity.value,
        "message": {"text": text.replace("](", "] (")},  # which would be read as a link
        "locations": [_location(report, finding)],
        "partialFingerprints": {"initdiag/v1": _fingerprint(report, finding)},
    }


def _location(report: Report, finding: Finding) -> dict[str, Any]:
    name = "/".join(filter(None, (report.target, finding.layer)))
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": name}]}
    place = locate(report.target)
    if place is not None:
        artifact = {"uri": quote(place.path), "uriBaseId": "%SRCROOT%"}
        location["physicalLocation"] = {
            "artifactLocation": artifact,
            "region": {"startLine": place.line},
        }
    return location


def _fingerprint(report: Report, finding: Finding) -> str:
    """Return a hash of a finding and its place, whatever its numbers are."""
    parts = json.dumps([finding.code, report.target, finding.layer])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
