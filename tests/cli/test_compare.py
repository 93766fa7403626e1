"""``initdiag compare``, on saved reports."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import initdiag.cli.main as cli
from initdiag.diagnosing.comparison import Comparison
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.network.architecture import Architecture


@pytest.fixture
def saved(tmp_path):
    def save(name, *reports):
        data = [report.to_dict() for report in reports]
        path = tmp_path / name
        path.write_text(json.dumps(data[0] if len(data) == 1 else data))
        return str(path)

    return save


def report(target, init):
    return diagnose_architecture(Architecture.from_widths([64] * 9 + [1], init=init), target=target)


def run(*arguments):
    return CliRunner().invoke(cli._group, ["compare", *arguments])


def test_two_reports_are_shown_beside_one_another(saved):
    found = run(
        saved("a.json", report("before", "torch_default")),
        saved("b.json", report("after", "he_normal")),
    )
    assert found.exit_code == 0
    assert "first:  before" in found.output
    assert "second: after" in found.output
    assert "verdict" in found.output
    assert "torch default -> he normal" in found.output


def test_json_is_the_record(saved):
    a, b = report("before", "torch_default"), report("after", "he_normal")
    found = run(saved("a.json", a), saved("b.json", b), "--output-format", "json")
    assert Comparison.from_dict(json.loads(found.output)).first == "before"


def test_reports_of_several_targets_are_paired_by_name(saved):
    first = saved("a.json", report("x", "torch_default"), report("y", "he_normal"))
    second = saved("b.json", report("y", "he_normal"), report("z", "he_normal"))
    found = run(first, second, "--output-format", "markdown")
    assert found.output.count("## ") == 1
    assert "`y` beside `y`" in found.output
    assert "in one file alone: x" in found.output
    assert "in one file alone: z" in found.output


def test_no_common_target_is_an_error_in_words(saved):
    first = saved("a.json", report("x", "he_normal"), report("y", "he_normal"))
    found = run(first, saved("b.json", report("z", "he_normal"), report("w", "he_normal")))
    assert "expected reports of the same targets" in str(found.exception)


def test_a_file_that_is_no_report_is_an_error_in_words(tmp_path, saved):
    other = tmp_path / "other.json"
    other.write_text("[1, 2]")
    found = run(saved("a.json", report("x", "he_normal")), str(other))
    assert "expected a report" in str(found.exception)
