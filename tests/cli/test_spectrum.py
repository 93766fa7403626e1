"""`initdiag spectrum`: of widths and of models, console and JSON, errors without tracebacks."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import pytest
from support.places import ROOT

import initdiag
from initdiag import Report
from initdiag.cli.main import main
from initdiag.diagnosing.spectral_report import SpectralReport

DEEP = "examples/deep_mlp.py:build"


HERE = {"check": ["--no-isolate"], "spectrum": ["--no-isolate"]}
"""Targets run in this process: test_doors.py has those in one of their own."""


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *HERE.get(arguments[0], ())])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


def spectrum(run, *arguments: str) -> SpectralReport:
    code, out, err = run("spectrum", *arguments, "--output-format", "json")
    assert (code, err) == (0, "")
    return SpectralReport.from_dict(json.loads(out))


def test_of_widths(run):
    code, out, err = run("spectrum", "784,256x8,10", "--init", "orthogonal")
    assert (code, err) == (0, "")
    for words in (
        "784,256x8,10",
        "weights: orthogonal",
        "Spectrum of the Jacobian",
        "relative variance",
        "█",
    ):
        assert words in out
    report = spectrum(run, "400,400,400", "--init", "he_normal", "--output", "relu")
    assert report.spectrum.upper_edge == pytest.approx(11.090, abs=1e-3)
    assert report.target == "400,400,400"


def test_options_are_those_of_predict(run):
    options = {
        "init": "he_normal",
        "activation": "leaky_relu",
        "negative_slope": 0.2,
        "dropout": 0.1,
        "gain": 1.5,
    }
    arguments = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert spectrum(run, "30,40x2,20", *arguments).spectrum == initdiag.predict_spectrum(
        [30, 40, 40, 20], **options
    )
    assert spectrum(run, "30,40x2,20").spectrum == initdiag.predict_spectrum([30, 40, 40, 20])


def test_of_a_model_and_what_if(run):
    report = spectrum(run, DEEP)
    assert report.architecture.source == "Sequential"
    assert report.spectrum.input_size == 64
    assert report.conditions.log_mean_square == pytest.approx(
        30 * math.log(1 / 6) + math.log(1 / 3)
    )
    changed = spectrum(run, DEEP, "--init", "orthogonal")
    assert all(factor.haar for factor in changed.spectrum.factors)
    assert changed.conditions.isometry_distance == pytest.approx(
        next(c for c in report.improvements if "orthogonal_" in c.action).after.isometry_distance
    )


def test_improvements_are_a_table(run):
    code, out, _ = run("spectrum", "64x21", "--init", "he_normal")
    assert code == 0
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if "What would change it" in line)
    assert lines[start + 1].split() == ["(as", "it", "is)", "39.00", "16", "%", "32"]
    assert "nn.init.orthogonal_(w, 1.414)" in lines[start + 2]
    assert lines[start + 2].split()[-4:] == ["19.00", "26", "%", "32"]


def test_into_a_file(run, tmp_path):
    for name, mark in (
        ("out.txt", "Spectrum of the Jacobian"),
        ("out.json", '"isometry_distance"'),
    ):
        path = tmp_path / name
        form = "json" if name.endswith("json") else "console"
        assert run("spectrum", "64x4", "--output-file", str(path), "--output-format", form)[:2] == (
            0,
            "",
        )
        assert mark in path.read_text(encoding="utf-8")


def test_what_the_theory_does_not_cover_exits_3(run, tmp_path):
    (tmp_path / "odd.py").write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4))\n"
    )
    code, out, err = run("spectrum", f"{tmp_path}/odd.py:model")
    assert (code, out) == (3, "")
    assert err.startswith("not covered: ")
    assert "1: a norm" in err or "LayerNorm" in err or "layer_norm" in err
    code, _, err = run("spectrum", "8,8,8", "--activation", "rrelu")
    assert code == 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["784,x8"], "widths such as"),
        (["784"], "at least two widths"),
        (["784;10"], "widths such as"),
        (["784,0,10"], "a positive integer"),
        (["784,10", "--init", "nonsense"], "init: one of"),
        (["784,10", "--gain", "-1"], "gain"),
        (["784,10", "--module", "head"], "--module: only for a model"),
        (["model.py"], "a target file.py:name"),
        (["nowhere.py:build"], "a file nowhere.py"),
        ([DEEP, "--input-size", "2,3"], "forward"),
        ([DEEP, "--negative-slope", "0.1"], "needs --activation"),
        ([], "TARGET|WIDTHS"),
    ],
)
def test_usage_errors_are_short_and_exit_2(run, arguments, message):
    code, out, err = run("spectrum", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_check_takes_a_flag(run):
    _, out, _ = run("check", DEEP, "--draws", "64", "--spectrum", "--output-format", "json")
    assert Report.from_dict(json.loads(out)).spectrum.input_size == 64
    _, out, _ = run("check", DEEP, "--draws", "64", "--output-format", "json")
    assert json.loads(out)["spectrum"] is None


def test_the_documented_output_is_what_is_printed(run, monkeypatch):
    path = ROOT / "docs/recipes/spectrum.md"
    shown = re.search(
        r"^initdiag (spectrum .*)\n```\n\n```text\n(.*?)```",
        path.read_text(encoding="utf-8"),
        re.M | re.S,
    )
    assert shown is not None
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(*shown[1].split())
    printed = "\n".join(line.rstrip() for line in out.splitlines()) + "\n"
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_text(
            path.read_text(encoding="utf-8").replace(shown[2], printed), encoding="utf-8"
        )
        return
    assert shown[2] == printed


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "initdiag", "spectrum", "8,8,2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sigma" in done.stdout
