"""The output formats by name: each turns reports into one text."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from initdiag._core.serialization import Record
    from initdiag.diagnosing.report import Report

__all__ = ["FORMATS", "OutputFormat", "as_json", "render"]

OutputFormat = Literal[
    "console", "json", "markdown", "html", "github", "junit", "sarif", "csv"
]  # fmt: skip
"""How a report is written."""

_WRITERS: dict[OutputFormat, str] = {
    "markdown": "markdown:to_markdown",
    "html": "html:to_html",
    "github": "github:to_annotations",
    "junit": "junit:to_junit",
    "sarif": "sarif:to_sarif",
    "csv": "layers_csv:to_csv",
}

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
"""What ``--output-format`` takes."""


def as_json(records: Sequence[Record]) -> str:
    """Return records as strict JSON: an object for one, an array for several."""
    data = [record.to_dict() for record in records]
    return json.dumps(data[0] if len(data) == 1 else data, indent=2, allow_nan=False) + "\n"


def render(reports: Sequence[Report], output_format: OutputFormat) -> str:
    """Return the reports as one text of one of `FORMATS`.

    JSON is an object for one report and an array for several.
    """
    if output_format == "console":
        return "\n".join(str(report) for report in reports)
    if output_format == "json":
        return as_json(reports)
    module, function = _WRITERS[output_format].split(":")
    text: str = getattr(importlib.import_module(f"initdiag.rendering.{module}"), function)(*reports)
    return text
