"""Every renderer on reports that hypothesis made: valid by its own rules, each time."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from rich.cells import cell_len
from support import report_strategies as made
from support import reports
from support.balance import parsed

from initdiag import Report
from initdiag.law.prediction import LayerPrediction
from initdiag.network.architecture import Architecture
from initdiag.rendering import curves
from initdiag.rendering.console import to_text
from initdiag.rendering.formats import render
from initdiag.rendering.github import to_step_summary
from initdiag.rendering.layers_csv import COLUMNS
from initdiag.rendering.schema import shipped_schema
from initdiag.rendering.words import plain

SARIF = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parent / "sarif-subset.schema.json").read_text())
)
REPORT = jsonschema.Draft202012Validator(shipped_schema())


def has_controls(text: str) -> bool:
    return any(
        c != "\n" and (unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp"))
        for c in text
    )


def check_json(report: Report) -> None:
    text = report.to_json()
    text.encode()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert Report.from_dict(data) == report
    if len(report.architecture.layers) < 100:
        assert json.loads(render([report, report], "json")) == [data, data]
    for record in filter(None, (data["architecture"], data["prediction"], data["measurement"])):
        del record["layers"][50:]  # every layer has the same schema
    REPORT.validate(data)


def check_html(report: Report) -> None:
    for text in (report.to_html(), report._repr_html_()):
        text.encode()
        page = parsed(text)
        assert page.tags.count("script") == len(page.data) <= 1
        assert not any(
            key.startswith("on") or key in ("src", "href") for _, key, _ in page.attributes
        )
        assert not re.search(r'd="[^"]*(nan|inf)', text), "a drawing without coordinates"
        if page.data:
            assert json.loads(page.data[0]) == report.to_dict()


def check_xml(report: Report) -> None:
    text = render([report], "junit")
    suites = ElementTree.fromstring(text.encode())
    (case,) = suites.iter("testcase")
    assert case.get("name") == plain(report.target)
    assert (len(list(suites.iter("failure"))) + len(list(suites.iter("error")))) == (not report.ok)


def check_sarif(report: Report) -> None:
    log = json.loads(render([report], "sarif"))
    SARIF.validate(log)
    assert len(log["runs"][0]["results"]) >= len(report.findings)


def check_github(report: Report) -> None:
    lines = render([report], "github").split("\n")[:-1]
    assert len(lines) <= 10
    assert all(re.fullmatch(r"::(error|warning|notice) [^\n]*?::[^\n]*", line) for line in lines)
    assert not has_controls("".join(lines))
    assert len(to_step_summary(report, limit=3000).encode()) <= 3000


def check_csv(report: Report) -> None:
    rows = list(csv.reader(io.StringIO(render([report], "csv"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [len(row) for row in rows[1:]] == [len(COLUMNS)] * len(report.architecture.layers)
    assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)


def check_markdown(report: Report) -> None:
    text = report.to_markdown()
    text.encode()
    assert not has_controls(text)
    tags = re.findall(
        r"<[^>]*>", re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\.", "", text))
    )
    assert set(tags) <= {"<sub>", "</sub>", "<details>", "</details>", "<summary>", "</summary>"}


def check_console(report: Report) -> None:
    for width in (40, 57, 80, 120):
        text = to_text(report, width)
        text.encode()
        assert not has_controls(text)
        assert max(map(cell_len, text.split("\n"))) <= width
    assert str(report)
    assert all(np.isfinite(list(report.to_metrics().values())))


CHECKS = [
    check_json,
    check_html,
    check_xml,
    check_sarif,
    check_github,
    check_csv,
    check_markdown,
    check_console,
]


@pytest.mark.parametrize("check", CHECKS)
@settings(
    max_examples=int(os.environ.get("INITDIAG_FUZZ", "20")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(report=made.reports())
@pytest.mark.slow
def test_any_report(check, report):
    check(report)


def many_layers(count: int) -> Report:
    """A chain of ``count`` layers, no two alike."""
    report = reports.vanishing()
    first, share, seen = (
        report.architecture.layers[0],
        report.prediction.layers[0],
        report.measurement.layers[0],
    )
    layers = tuple(dataclasses.replace(first, name=f"block.{i}.weight") for i in range(count))
    shares: tuple[LayerPrediction, ...] = tuple(
        dataclasses.replace(share, name=layer.name, log_variance=0.1 + i / count)
        for i, layer in enumerate(layers)
    )
    measured = tuple(
        dataclasses.replace(seen, name=layer.name, tangent_log_mean=-1.75 * i)
        for i, layer in enumerate(layers)
    )
    return dataclasses.replace(
        report,
        architecture=Architecture(layers, 64, 64, source="Deep"),
        prediction=dataclasses.replace(report.prediction, layers=shares),
        measurement=dataclasses.replace(report.measurement, layers=measured),
    )


FIVE_THOUSAND = many_layers(5000)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_five_thousand_layers(check):
    check(FIVE_THOUSAND)


@pytest.mark.parametrize("check", CHECKS)
def test_no_layer(check):
    report = reports.unjudged()
    check(
        dataclasses.replace(
            report, architecture=dataclasses.replace(report.architecture, layers=())
        )
    )


def test_five_thousand_layers_are_short_where_a_person_reads():
    report = FIVE_THOUSAND
    assert to_text(report).count("\n") < 150
    assert len(report.to_markdown()) < 20_000
    assert len(report._repr_html_()) < 1_000_000


@pytest.mark.parametrize("check", [check_xml, check_github, check_markdown, check_console])
def test_the_checks_can_fail(check, monkeypatch):
    """Without the one function that makes every text plain, each of these is invalid."""
    monkeypatch.setattr("initdiag.rendering.words.plain", str)
    with pytest.raises((AssertionError, ElementTree.ParseError)):
        check(reports.unjudged())


@pytest.mark.slow
def test_the_reports_reach_the_drawings():
    """Some of the reports made have a law, some a drawing, some neither."""
    seen: list[tuple[bool, bool, bool]] = []

    @settings(max_examples=200)
    @given(report=made.reports())
    def look(report):
        seen.append(
            (
                curves.law_of(report.prediction) is not None,
                curves.distribution(report) is not None,
                bool(curves.bands(report)),
            )
        )

    look()
    assert np.any(seen, axis=0).all()
    assert not np.all(seen, axis=0).any()
