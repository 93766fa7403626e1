"""Markdown, GitHub, JUnit, SARIF, CSV and JSON: valid by their own rules, and saying what the report says."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from support import reports

from initdiag import Report
from initdiag.cli.main import main
from initdiag.diagnosing import findings
from initdiag.rendering import layers_csv, rules
from initdiag.rendering.formats import FORMATS, render
from initdiag.rendering.github import MOST_ANNOTATIONS, to_annotations, to_step_summary
from initdiag.rendering.schema import report_schema, shipped_schema

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "initdiag"
SARIF = json.loads((HERE / "sarif-subset.schema.json").read_text(encoding="utf-8"))


def everything() -> list[Report]:
    return [make() for make in reports.ALL.values()]


def with_findings(count: int) -> Report:
    found = tuple(
        findings.UNUSED.at(f"layer{i}", "the forward pass never reaches it", "use it")
        for i in range(count)
    )
    return dataclasses.replace(reports.healthy(), findings=found)


@pytest.mark.parametrize("name", reports.ALL)
@pytest.mark.parametrize(
    "output_format", [f for f in FORMATS if f in ("markdown", "github", "junit", "sarif", "csv")]
)
def test_golden(golden, name, output_format):
    golden(
        f"{name}.{output_format}",
        render([reports.ALL[name]()], output_format).replace("\r\n", "\n"),
    )


def test_markdown_is_the_method():
    report = reports.vanishing()
    assert report.to_markdown() == render([report], "markdown")


# JSON and its schema


def test_the_shipped_schema_is_the_records(golden):
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        text = json.dumps(report_schema(), indent=1) + "\n"
        (PACKAGE / "rendering" / "report.schema.json").write_text(text, encoding="utf-8")
    assert shipped_schema() == report_schema()
    jsonschema.Draft202012Validator.check_schema(shipped_schema())


@pytest.mark.parametrize("name", reports.ALL)
def test_reports_are_valid(name):
    jsonschema.validate(json.loads(reports.ALL[name]().to_json()), shipped_schema())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update(surprise=1),
        lambda data: data.pop("verdict"),
        lambda data: data.update(verdict="FINE"),
        lambda data: data.update(schema_version=2),
        lambda data: data["risk"].update(sgd="high"),
        lambda data: data["architecture"]["layers"][0].update(fan_in=1.5),
        lambda data: data["measurement"]["log_norms"].append(None),
    ],
)
def test_the_schema_refuses(spoil):
    data = reports.vanishing().to_dict()
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, shipped_schema())


def test_every_field_is_described():
    definitions = {"Report": report_schema(), **shipped_schema()["$defs"]}
    bare = {f"{name}.{field}" for name in ("Report", "Measurement", "Prediction") for field, schema in definitions[name]["properties"].items() if not schema.get("description") and field != "schema_version"}  # fmt: skip
    assert not bare


# SARIF


def test_sarif_is_valid_and_its_rules_are_stable():
    log = json.loads(render(everything(), "sarif"))
    jsonschema.validate(log, SARIF)
    (run,) = log["runs"]
    identifiers = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [identifiers[result["ruleIndex"]] for result in run["results"]] == [
        r["ruleId"] for r in run["results"]
    ]
    assert {"IND000", "IND001", "IND008"} <= set(identifiers)


def test_sarif_places_are_relative_to_the_repository(tmp_path, monkeypatch):
    (tmp_path / "my nets").mkdir()
    (tmp_path / "my nets" / "model.py").write_text(
        "import torch\n\ndef build():\n    pass\n\nnet = build()\n"
    )
    monkeypatch.chdir(tmp_path)
    for target, line in (
        ("my nets/model.py:build", 3),
        (f"{tmp_path}/my nets/model.py:net", 6),
        ("my nets/model.py:x", 1),
    ):
        log = json.loads(render([dataclasses.replace(reports.vanishing(), target=target)], "sarif"))
        jsonschema.validate(log, SARIF)
        place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "my%20nets/model.py", "uriBaseId": "%SRCROOT%"}
        assert place["region"] == {"startLine": line}


@pytest.mark.parametrize(
    "target",
    [
        "/etc/hosts.py:x",
        "../outside.py:x",
        "gone.py:x",
        "Sequential",
        "a.b:c",
        "a\0.py:c",
        ":",
        "x" * 5000 + ".py:x",
    ],
)
def test_what_is_not_under_the_working_directory_has_no_place(tmp_path, monkeypatch, target):
    (tmp_path / "outside.py").write_text("x = 1\n")
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    assert rules.locate(target) is None


def test_a_module_is_found_in_src(tmp_path, monkeypatch):
    (tmp_path / "src" / "package").mkdir(parents=True)
    (tmp_path / "src" / "package" / "nets.py").write_text("class Net:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    assert rules.locate("package.nets:Net") == rules.Location("src/package/nets.py", 1)


def test_fingerprints_do_not_hold_numbers():
    first, second = reports.vanishing(), reports.vanishing()
    changed = tuple(
        dataclasses.replace(f, message="a typical gradient 7 times too small")
        for f in second.findings
    )
    second = dataclasses.replace(second, findings=changed)
    prints = [
        [r["partialFingerprints"] for r in json.loads(render([one], "sarif"))["runs"][0]["results"]]
        for one in (first, second)
    ]
    assert prints[0] == prints[1]
    assert len({str(p) for p in prints[0]}) == len(prints[0])


def test_a_code_that_the_catalogue_does_not_know_stands_for_itself():
    """A report saved by a later version may hold one."""
    later = dataclasses.replace(reports.vanishing().findings[0], code="IND999")
    report = dataclasses.replace(reports.vanishing(), findings=(later,))
    log = json.loads(render([report], "sarif"))
    jsonschema.validate(log, SARIF)
    assert log["runs"][0]["tool"]["driver"]["rules"][0]["name"] == "IND999"
    assert "IND999%3A IND999" in to_annotations(report)


# JUnit


def test_junit_counts_and_kinds():
    suites = ElementTree.fromstring(render(everything(), "junit"))
    suite = suites[0]
    assert {k: suite.get(k) for k in ("tests", "failures", "errors")} == {
        "tests": "4",
        "failures": "2",
        "errors": "1",
    }
    cases = {case.get("name"): case for case in suite}
    failure = cases["model.py:build"].find("failure")
    assert "nn.init.kaiming_normal_" in failure.text
    assert "To change: " in failure.get("message")
    assert cases["64,256x2,10"].find("failure") is None
    numbers = {p.get("name"): p.get("value") for p in cases["model.py:build"].iter("property")}
    assert (
        float(numbers["initdiag/predicted_log_variance"])
        == reports.vanishing().prediction.log_variance
    )


# GitHub


def test_github_escapes():
    bad = findings.UNUSED.at("a:b,c", "50% \n::error::forged", "x\r\ny")
    line = to_annotations(dataclasses.replace(reports.healthy(), findings=(bad,), target="t,u:v"))
    assert line.count("\n") == 1
    assert line.startswith(
        "::warning title=initdiag IND008%3A unused-weights (t%2Cu%3Av)::a:b,c: 50%25 "
    )


@pytest.mark.parametrize("count", [0, 9, 10, 11, 300])
def test_github_shows_ten_at_most_and_says_how_many_more(count):
    lines = to_annotations(with_findings(count), reports.vanishing()).splitlines()
    total = count + 2
    assert len(lines) == min(MOST_ANNOTATIONS, total)
    assert lines[0].startswith("::error")
    assert (f"({total - 10} more" in lines[-1]) == (total > 10)


def test_step_summary_keeps_its_limit():
    many = [reports.vanishing()] * 40
    whole = to_step_summary(*many)
    assert whole.count("VANISHING") == 40
    cut = to_step_summary(*many, limit=20_000)
    shown = cut.count("VANISHING")
    assert 0 < shown < 40
    assert len(cut.encode()) <= 20_000
    assert cut.endswith(f"{40 - shown} more: beyond the size of a step summary\n")
    assert to_step_summary(*many, limit=0) == ""


# CSV


def test_csv_of_layers():
    rows = list(csv.DictReader(io.StringIO(render(everything(), "csv"))))
    assert tuple(rows[0]) == layers_csv.COLUMNS
    report = reports.vanishing()
    own = [row for row in rows if row["target"] == report.target]
    assert [row["layer"] for row in own] == [layer.name for layer in report.architecture.layers]
    assert sum(float(row["log_variance"]) for row in own) == report.prediction.log_variance
    assert float(own[0]["tangent_log_mean"]) == report.measurement.layers[0].tangent_log_mean


def test_csv_runs_no_formula():
    layer = dataclasses.replace(reports.healthy().architecture.layers[0], name='=HYPERLINK("x")')
    architecture = dataclasses.replace(
        reports.healthy().architecture, layers=(layer, *reports.healthy().architecture.layers[1:])
    )
    text = render([dataclasses.replace(reports.healthy(), architecture=architecture)], "csv")
    assert next(csv.DictReader(io.StringIO(text)))["layer"].startswith("'=")


# The command line


@pytest.fixture
def run(capsys):
    def call(*arguments: str):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(render(everything(), "json"), encoding="utf-8")
    return path


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_saved_report_in_every_format(run, saved, tmp_path, output_format, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    code, out, _ = run("report", str(saved), "--output-format", output_format)
    assert code == 0
    assert lines_of(out) == lines_of(render(everything(), output_format))
    path = tmp_path / "out"
    assert (
        run("report", str(saved), "--output-format", output_format, "--output-file", str(path))[1]
        == ""
    )
    assert path.read_bytes().decode() == render(everything(), output_format)


def test_report_fails_on_demand(run, saved):
    assert run("report", str(saved), "--fail-on", "risk")[0] == 1
    assert run("report", str(saved), "--fail-on", "never")[0] == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "{}", "[1]", '{"schema_version": 1, "x": 2}', "\x00"]
)
def test_report_refuses_what_is_none(run, tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    code, out, err = run("report", str(path))
    assert (code, out, "Traceback" in err) == (2, "", False)
    assert err.startswith("error: expected a")


def test_report_refuses_what_is_no_text(run, tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert run("report", str(path))[0] == 2
    assert run("report", str(tmp_path / "gone.json"))[0] == 2


def test_github_writes_the_step_summary(run, saved, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, out, _ = run("report", str(saved), "--output-format", "github")
    assert (code, out.splitlines()[0].startswith("::error ")) == (0, True)
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## VANISHING: `model.py:build`")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "folder.md"))
    assert run("report", str(saved), "--output-format", "github")[0] == 2


def test_under_github_the_console_is_followed_by_annotations(run, saved, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    _, alone, _ = run("report", str(saved))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    _, out, _ = run("report", str(saved))
    annotations = lines_of(render(everything(), "github"))
    assert annotations[0].startswith("::error ")
    assert lines_of(out) == lines_of(alone) + annotations
    _, plain, _ = run("report", str(saved), "--output-format", "markdown")
    assert "::error" not in plain


def test_no_format_loads_torch(saved):
    code = (
        "import sys; from initdiag.cli.main import _group\n"
        "from initdiag.rendering.formats import FORMATS\n"
        f"for name in FORMATS: _group.main(['report', {str(saved)!r}, '--output-format', name], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
