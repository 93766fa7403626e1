"""Records round-trip, the golden schema loads for ever, and the console text is what was looked at."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support import reports
from support.places import GOLDEN
from torch import nn

import initdiag
from initdiag import Architecture, InvalidInput, Measurement, Report, Thresholds
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.law.prediction import PredictedMoments, Prediction
from initdiag.rendering import words
from initdiag.rendering.console import to_text
from initdiag.rendering.tables import number_rows


@pytest.mark.parametrize("name", reports.ALL)
@pytest.mark.parametrize("width", [80, 120])
def test_console_text(golden, name, width):
    text = to_text(reports.ALL[name](), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    golden(f"{name}-{width}.txt", text)


@pytest.mark.parametrize("name", reports.ALL)
def test_round_trip_through_json(name):
    report = reports.ALL[name]()
    text = report.to_json()
    again = Report.from_dict(json.loads(text))
    assert again == report
    assert again.to_json() == text
    assert str(again) == str(report)


def test_schema_1_loads_for_ever():
    """A report saved before fields were added reads as one without them, and holds nothing that a new one does not."""
    report = reports.vanishing()
    saved = json.loads((GOLDEN / "report-schema-1.json").read_text())
    assert Report.from_dict(saved) == report
    assert _holds(json.loads(report.to_json()), saved)
    assert not _holds(json.loads(report.to_json()), {**saved, "elapsed": 0.5})


def _holds(new, old) -> bool:
    """Whether ``new`` has every item of ``old``, and perhaps more fields."""
    if isinstance(old, dict):
        return all(key in new and _holds(new[key], value) for key, value in old.items())
    if isinstance(old, list):
        return len(new) == len(old) and all(map(_holds, new, old))
    return new == old


def test_reports_differ_where_they_differ():
    first, second = reports.vanishing(), reports.healthy()
    assert first != second
    assert first != first.to_dict()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "schema version 1, got schema version None"),
        ({"schema_version": 99}, "schema version 99"),
        ([], "a report as a dict"),
        ("{}", r"json\.loads\(text\)"),
        ({"schema_version": 1}, "not a saved Report"),
        ({"schema_version": 1, "surprise": 2}, "with the fields schema_version"),
    ],
)
def test_what_is_no_report_is_refused(data, message):
    with pytest.raises(InvalidInput, match=message):
        Report.from_dict(data)


WRONG = (None, 5, "x", [], {}, [1], True, 1.5, 10**400)


def _mistyped(record):
    for name, value in itertools.product(record, WRONG):
        yield {**record, name: value}


@pytest.mark.slow
def test_wrong_types_are_refused_when_loading_not_when_rendering():
    """Every field of the report, and of the records inside, in turn: it loads and renders, or is refused in initdiag's own words."""
    whole, refused = reports.vanishing().to_dict(), 0
    cases = [*_mistyped(whole)]
    for name in ("prediction", "thresholds", "agreement"):
        cases += [{**whole, name: inner} for inner in _mistyped(whole[name] or {})]
    for case in cases:
        try:
            report = Report.from_dict(case)
        except InvalidInput:
            refused += 1
        else:
            assert str(report)
            assert report.to_html()
    assert refused > len(cases) / 2


@pytest.mark.parametrize("value", [[], None, 5, "x"])
@pytest.mark.parametrize(
    "name", ["risk", "target", "initdiag_version", "risk_provenance", "elapsed"]
)
def test_a_wrong_type_names_field_and_value(name, value):
    if isinstance(value, {"risk": dict, "elapsed": int}.get(name, str)):
        return
    with pytest.raises(InvalidInput, match=rf"not a saved Report: {name}: expected .*, got"):
        Report.from_dict({**reports.vanishing().to_dict(), name: value})


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_any_measurement_survives_json(values):
    with np.errstate(all="ignore"):
        record = Measurement.of(
            np.array(values), method="signs", seed=0, input_size=3, output_size=2
        )
    assert (
        Measurement.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record
    )


@given(st.one_of(st.none(), st.lists(st.floats(), min_size=10, max_size=10)))
def test_any_prediction_survives_json(values):
    moments = None if values is None else PredictedMoments(*values)
    record = Prediction("none", ("a",), moments, None, ())
    assert Prediction.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_markup_and_control_characters_in_names_are_plain_text(width, is_terminal):
    names = [
        "[bold red]a[/bold red]",
        "b\x1b[2J\x1b]0;t\x07",
        "c\nd\r\te",
        "[/x]",
        ":smile:",
        "f" * 200,
    ]
    report = reports.vanishing()
    renamed = [
        dataclasses.replace(layer, name=name, fan_in=64 + index)
        for index, (layer, name) in enumerate(zip(report.prediction.layers, names, strict=False))
    ]
    report = dataclasses.replace(
        report, prediction=dataclasses.replace(report.prediction, layers=tuple(renamed))
    )
    console = Console(
        width=width,
        file=io.StringIO(),
        force_terminal=is_terminal,
        color_system="truecolor" if is_terminal else None,
    )
    console.print(report)
    text = console.file.getvalue()
    without_style = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "\x1b" not in without_style
    assert is_terminal == (text != without_style)
    assert not any(ord(c) < 32 and c != "\n" for c in without_style)
    assert max(map(len, without_style.splitlines())) <= width
    for start in ("[bold red]a", "b\ufffd[2J", "c\ufffdd", "[/x]", ":smile:", "ffff"):
        assert start in without_style


def test_rich_prints_a_report_of_its_own():
    console = Console(width=80, record=True, quiet=False, file=io.StringIO())
    console.print(reports.healthy())
    assert "HEALTHY" in console.export_text()
    assert repr(reports.healthy()) == "<initdiag.Report 64,256x2,10: HEALTHY, basis law>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (math.nan, "-"),
        (-56.104, "-56.10"),
        (0.0, "0.00"),
        (0.0831, "0.083"),
        (1e7, "1e+07"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0, "0 %"), (0.001, "<1 %"), (0.5, "50 %"), (0.996, ">99 %"), (0.994, "99 %"), (1, "100 %")],
)
def test_percents_do_not_round_to_certainty(p, text):
    assert words.percent(p) == text


@pytest.mark.parametrize(
    ("log_square", "text"),
    [
        (0.0, "1"),
        (-2 * math.log(50), "50"),
        (-56.1, "1.5e12"),
        (1e6, "1.7e217147"),
        (math.inf, "infinitely many"),
    ],
)
def test_factors(log_square, text):
    assert words.factor(log_square) == text


def test_words_of_one_layer_and_of_other_limits():
    single = str(diagnose_architecture(Architecture.from_widths([8, 4], init="he_normal")))
    assert "\n1 linear layer, 8 -> 4" in single
    assert "1 of 1 linear layer (exact)" in single
    deep, flat = (
        Architecture.from_widths([64] * 16 + [10]),
        Architecture.from_widths([64, 64, 10], init="he_normal"),
    )
    lax = diagnose_architecture(deep, thresholds=Thresholds(max_risk=1.0))
    assert lax.ok
    assert "Below the limit set (100 %), though training is not likely to start: risk >99 %" in str(
        lax
    )
    strict = diagnose_architecture(flat, thresholds=Thresholds(max_risk=0.0))
    assert not strict.ok
    assert "Not below the limit set (0 %), though training is likely to start" in str(strict)


def test_the_layers_headers_are_whole_at_80_columns():
    report = diagnose_architecture(Architecture.from_widths([64] * 1000 + [10]))
    (header,) = (line for line in to_text(report, 80).splitlines() if "fan_in" in line)
    assert header.split() == [
        "Where",
        "it",
        "is",
        "lost",
        "fan_in",
        "fan_out",
        "gate",
        "gain^2",
        "drift",
        "fluctuation",
    ]


def test_without_a_prediction_its_column_is_empty():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(16, 16)

        def forward(self, x):
            return self.w(self.w(x).relu())

    report = initdiag.diagnose(Tied(), draws=16)
    assert report.prediction.coverage == "none"
    assert [row.predicted for row in number_rows(report)] == [""] * 3
    assert all(row.measured for row in number_rows(report))
