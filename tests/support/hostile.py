"""Names that attack a renderer, and a report that says one wherever it may say something of the user's."""

from __future__ import annotations

import dataclasses

from initdiag import Report
from support import reports

HOSTILE = (
    "</title></style></script><script>window.pwned=1</script>",
    '"><img src="http://192.0.2.1/x" onerror="window.pwned=1">',
    "'><svg onload=window.pwned=1>",
    "<!--<script>",
    "]]><iframe src=http://192.0.2.1/>",
    "javascript:window.pwned=1",
    "\u202egnp.exe\u2028\ud800",
    "&lt;b&gt;",
)


def hostile(name: str) -> Report:
    """A report that says ``name`` wherever a report may say something of the user's."""
    report = reports.vanishing()
    rename = {"name": name}
    architecture = dataclasses.replace(
        report.architecture,
        layers=tuple(dataclasses.replace(layer, **rename) for layer in report.architecture.layers),
        source=name,
    )
    layers = tuple(dataclasses.replace(layer, **rename) for layer in report.prediction.layers)
    return dataclasses.replace(
        report,
        target=name,
        initdiag_version=name,
        risk_provenance=name,
        architecture=architecture,
        prediction=dataclasses.replace(report.prediction, layers=layers, reasons=(name,)),
        measurement=dataclasses.replace(report.measurement, notes=(name,)),
        findings=tuple(
            dataclasses.replace(f, layer=name, message=name, remedy=name, code=name, severity=name)
            for f in report.findings
        ),
        advice=tuple(dataclasses.replace(a, action=name) for a in report.advice),
    )
