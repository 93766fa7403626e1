"""A report held against a rule and a baseline: what fails, with which exit code, and what is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support import reports, styles
from support.places import GOLDEN
from torch import nn

import initdiag
from initdiag.diagnosing import findings
from initdiag.diagnosing.verdict import Verdict
from initdiag.errors import TargetError
from initdiag.project.baseline import RISK_MARGIN, Baseline, risk_margin
from initdiag.project.outcome import outcome

WARNING = findings.WEIGHTS_FAIL.at(
    "0.weight", "its weights fail: zero mean", "see how it is initialised"
)
NOTE = findings.SKEWED_BIAS.at("0.weight", "its bias is skewed", "zero biases")


def codes_of(report, **rule):
    return outcome("m", report, **rule).exit_code


def test_exit_codes_without_a_baseline():
    rules = ("no-verdict", "risk", "never")
    assert [codes_of(reports.healthy(), fail_on=r) for r in rules] == [0, 0, 0]
    assert [codes_of(reports.vanishing(), fail_on=r) for r in rules] == [1, 1, 0]
    assert [codes_of(reports.unjudged(), fail_on=r) for r in rules] == [3, 0, 0]


def test_the_summary_says_what_to_change():
    text = outcome("model.py:build", reports.vanishing()).summary
    assert text.startswith("model.py:build: VANISHING, risk 98 % (SGD)")
    assert "to change: code  for each layer's weight w and bias b  (risk 98 % -> 6 %)" in text
    without_advice = outcome("m", replace(reports.vanishing(), advice=())).summary
    assert without_advice.endswith("to change: He")
    assert outcome("m", reports.healthy()).summary == ""
    assert "\x1b" not in outcome("m\x1b[2J", reports.unjudged()).summary


def test_an_ignored_code_is_dropped_and_never_makes_a_network_healthy():
    result = outcome("m", reports.vanishing(), ignore=("IND001", "IND008", "IND099"))
    assert result.report.findings == ()
    assert (result.report.verdict, result.exit_code) == (Verdict.VANISHING, 1)
    assert result.note == "m: ignored IND001, IND008; the verdict stays VANISHING"
    assert (
        outcome("m", replace(reports.healthy(), findings=(NOTE,)), ignore=["IND011"]).note
        == "m: ignored IND011"
    )
    assert outcome("m", reports.vanishing()).note == ""
    assert outcome("m", reports.healthy()).note == ""


def test_what_is_let_pass_is_said(known):
    text = "vanishing: VANISHING is let pass (--fail-on, or no worse than the baseline)"
    assert outcome("vanishing", reports.vanishing(), baseline=known).note == text
    assert outcome("vanishing", reports.vanishing(), fail_on="never").note == text
    assert "NO_VERDICT is let pass" in outcome("m", reports.unjudged(), fail_on="risk").note


@pytest.fixture
def known():
    """A project with one model of each kind, as it stands."""
    return Baseline.of((name, make()) for name, make in reports.ALL.items())


def test_what_is_as_it_was_passes(known):
    for name, make in reports.ALL.items():
        assert outcome(name, make(), baseline=known).exit_code == 0
        assert outcome(f"new {name}", make(), baseline=known).exit_code == codes_of(make())


def test_what_got_worse_fails(known):
    bad = outcome("healthy", reports.vanishing(), baseline=known)
    assert (
        bad.exit_code,
        "VANISHING, was HEALTHY" in bad.summary,
        "to change: code" in bad.summary,
    ) == (1, True, True)
    lost = outcome("healthy", reports.unjudged(), baseline=known)
    assert (lost.exit_code, "no verdict any more, was HEALTHY" in lost.summary) == (3, True)
    assert outcome("healthy", reports.unjudged(), baseline=known, fail_on="risk").exit_code == 0
    assert outcome("healthy", reports.vanishing(), baseline=known, fail_on="never").exit_code == 0
    assert outcome("vanishing", reports.healthy(), baseline=known).exit_code == 0


def test_a_new_warning_fails_and_a_note_does_not(known):
    warned = outcome("healthy", replace(reports.healthy(), findings=(WARNING,)), baseline=known)
    assert warned.exit_code == 1
    assert "new warning IND009 at 0.weight: its weights fail: zero mean; see how" in warned.summary
    assert (
        outcome("healthy", replace(reports.healthy(), findings=(NOTE,)), baseline=known).exit_code
        == 0
    )
    ignored = outcome(
        "healthy",
        replace(reports.healthy(), findings=(WARNING,)),
        baseline=known,
        ignore=["IND009"],
    )
    assert ignored.exit_code == 0
    twice = replace(reports.vanishing(), findings=(*reports.vanishing().findings,) * 2)
    assert outcome("vanishing", twice, baseline=known).exit_code == 0


@pytest.mark.parametrize(
    ("rise", "code"), [(0.9 * RISK_MARGIN, 0), (1.1 * RISK_MARGIN, 1), (-0.3, 0)]
)
def test_a_risk_clearly_higher_fails(rise, code):
    before = replace(reports.healthy(), risk={"sgd": 0.9, "adam": 0.375})
    known = Baseline.of([("m", before)])
    now = replace(before, risk={"sgd": 0.2, "adam": 0.375 + rise})
    result = outcome("m", now, baseline=known)
    assert result.exit_code == code
    assert ("risk 43%, was 38% (adam)" in result.summary) == bool(code)


class Residual(nn.Module):
    """No chain: its risk rests on a simulation, and has a standard error."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(8)]
        self.blocks, self.out = nn.ModuleList(blocks), nn.Linear(32, 10)
        for parameter in self.parameters():
            parameter.data.mul_(gain)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


@pytest.mark.slow
def test_a_simulated_risk_is_called_higher_beyond_its_error_only():
    def at(gain: float, seed: int):
        return initdiag.diagnose(styles.seeded(lambda: Residual(gain), 0), draws=64, seed=seed)

    found = [at(2.0, seed) for seed in range(12)]
    risks = np.array([report.risk["sgd"] for report in found])
    error = np.mean([risk_margin(report) for report in found]) / (3 * math.sqrt(2))
    assert 0.5 < risks.std(ddof=1) / error < 1.7  # chi-square with 11 degrees of freedom, 99.9 %
    typical = Baseline.of([("m", found[int(np.argsort(risks)[6])])])
    assert np.ptp(risks) > RISK_MARGIN
    assert not [
        line
        for report in found
        for line in typical.models["m"].worse(report)
        if line.startswith("risk")
    ]
    assert outcome("m", at(4.0, 1), baseline=typical).exit_code == 1


def test_the_file_is_the_same_bits_and_reads_back(tmp_path, known):
    path = tmp_path / "base.json"
    path.write_text(known.to_json(), encoding="utf-8")
    assert Baseline.read(path) == known
    backwards = Baseline.of((name, make()) for name, make in reversed(reports.ALL.items()))
    assert backwards.to_json() == known.to_json()
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["initdiag_baseline"] == 1
    assert data["models"]["vanishing"] == {
        "findings": ["IND001", "IND008"],
        "risk": {"adam": 0.25, "sgd": 0.9844},
        "verdict": "VANISHING",
    }


def test_a_baseline_of_version_1_loads_for_ever():
    models = Baseline.read(GOLDEN / "baseline-1.json").models
    assert [(name, one.verdict.value, one.codes) for name, one in models.items()] == [
        ("lib.net:Big[head]", "HEALTHY", ("IND012",)),
        ("model.py:build", "VANISHING", ("IND001", "IND012")),
    ]
    assert models["model.py:build"].risk == {"adam": 0.6821, "sgd": 0.9925}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"initdiag_baseline": 2, "models": {}}', "got version 2"),
        (
            '{"initdiag_baseline": 1, "models": {"m": {"verdict": "FINE", "risk": {}, "findings": []}}}',
            "FINE",
        ),
        ('{"initdiag_baseline": 1, "models": {"m": {"verdict": "DEAD"}}}', "KeyError"),
        ('{"models": {}}', "initdiag_baseline"),
    ],
)
def test_what_is_no_baseline_is_said_with_the_command_that_writes_one(tmp_path, text, message):
    path = tmp_path / "base.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(TargetError, match=message) as caught:
        Baseline.read(path)
    assert f"initdiag check --write-baseline {path}" in str(caught.value)
