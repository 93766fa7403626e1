"""``initdiag check`` in a project: configured models, options before settings, ignored codes, baselines."""

from __future__ import annotations

import json

import pytest

from initdiag import Report
from initdiag.cli.main import main

NET = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(*[m for _ in range(DEPTH) for m in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 4))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(x.flatten(1))


def deep():
    torch.manual_seed(0)
    return Deep()


def batch():
    return torch.ones(3, 4, 8)
"""
TABLE = """
[tool.initdiag]
draws = 32
models = ["net.py:build", {target = "net.py:deep", example_input = "net.py:batch"}]
"""


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    """Write the files of a project, run a command in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str, table: str = TABLE, depth: int = 15):
        (tmp_path / "net.py").write_text(NET.replace("DEPTH", str(depth)), encoding="utf-8")
        (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
        with pytest.raises(SystemExit) as stopped:
            main(["check", "--no-isolate", *arguments])
        return stopped.value.code, *capsys.readouterr()

    return call


def read(out: str) -> list[Report]:
    data = json.loads(out)
    return [Report.from_dict(one) for one in (data if isinstance(data, list) else [data])]


def test_bare_check_runs_the_configured_models(project, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    code, out, err = project("--output-format", "json")
    first, second = read(out)
    assert (code, first.target, second.target) == (1, "net.py:build", "net.py:deep")
    assert (first.verdict.value, second.verdict.value) == ("HEALTHY", "VANISHING")
    assert first.measurement.draws == second.measurement.draws == 32
    assert err.startswith("net.py:deep: VANISHING")
    assert 'to change: nn.init.kaiming_normal_(w, nonlinearity="relu"); nn.init.zeros_(b)' in err


def test_options_go_before_settings(project):
    code, out, _ = project(
        "net.py:deep", "--draws", "16", "--max-risk", "1", "--output-format", "json"
    )
    (report,) = read(out)
    assert (code, report.measurement.draws, report.thresholds.max_risk) == (0, 16, 1.0)
    code, out, _ = project(
        "net.py:deep", "--module", "head", "--optimizer", "adam", "--output-format", "json"
    )
    (report,) = read(out)
    assert (report.architecture.layers[0].name, report.optimizer) == ("0.weight", "adam")
    code, _, err = project("net.py:deep", "--input-size", "2,5")
    assert (code, "error: net.py:deep" in err) == (2, True)
    assert project("--fail-on", "never")[0] == 0
    assert project(table=TABLE + 'fail_on = "never"\n')[0] == 0
    assert project("--fail-on", "risk", table=TABLE + 'fail_on = "never"\n')[0] == 1


def test_ignored_codes_are_dropped_and_the_verdict_stays(project):
    ignoring = TABLE + 'ignore = ["IND001", "IND008", "IND012"]\n'
    code, out, err = project("--output-format", "json", table=ignoring)
    assert (code, [r.findings for r in read(out)]) == (1, [(), ()])
    assert "net.py:deep: ignored IND001, IND008" in err
    assert "the verdict stays VANISHING" in err


def test_a_baseline_lets_pass_what_was_and_stops_what_is_worse(project, tmp_path):
    code, _, err = project("--write-baseline", "base.json")
    assert (code, err) == (0, "baseline of 2 models written to base.json, 1 at risk\n")
    written = (tmp_path / "base.json").read_bytes()
    assert set(json.loads(written)["models"]) == {"net.py:build", "net.py:deep"}
    assert project("--baseline", "base.json")[0] == 0
    configured = TABLE + 'baseline = "base.json"\n'
    assert project(table=configured)[0] == 0
    assert project("--write-baseline", "base.json", table=configured)[0] == 0
    assert (tmp_path / "base.json").read_bytes() == written
    healthy = project("--write-baseline", "base.json", depth=2)
    assert (healthy[0], "0 at risk" in healthy[2]) == (0, True)
    code, _, err = project(table=configured)
    assert code == 1
    assert "net.py:deep: worse than the baseline: VANISHING, was HEALTHY" in err
    assert 'to change: nn.init.kaiming_normal_(w, nonlinearity="relu"); nn.init.zeros_(b)' in err


def test_usage_and_configuration_errors(project, tmp_path):
    code, _, err = project("--baseline", "none.json")
    assert (code, "initdiag check --write-baseline none.json" in err) == (2, True)
    code, _, err = project("--baseline", "a.json", "--write-baseline", "b.json")
    assert (code, "give one of them" in err) == (2, True)
    code, _, err = project(table="[tool.initdiag]\nmodel = []\n")
    assert (code, "models" in err, "'model'" in err, "Traceback" in err) == (2, True, True, False)
    code, _, err = project(table="[tool.initdiag]\n")
    assert (code, "a TARGET, or models in [tool.initdiag]" in err) == (2, True)
    broken = '[tool.initdiag]\ndraws = 16\nmodels = ["net.py:build", "net.py:gone"]\n'
    code, _, err = project("--write-baseline", "base.json", table=broken)
    assert (code, "error: net.py:gone" in err, (tmp_path / "base.json").exists()) == (
        2,
        True,
        False,
    )


SEVERAL = """
import torch
from torch import nn

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, x, y):
        h = torch.relu(self.body(x + y))
        return {"policy": self.a(h), "value": self.b(h)}

batch = (torch.randn(4, 8), torch.randn(4, 8))
"""


def test_inputs_and_outputs_are_named(project, tmp_path):
    (tmp_path / "heads.py").write_text(SEVERAL)
    given = ("heads.py:Heads", "--input", "heads.py:batch", "--output-format", "json")
    code, out, _ = project(*given, "--draws", "8")
    assert json.loads(out)["architecture"]["ways"] == [
        "perturbed: x, y together",
        "judged: output['policy']",
    ]
    code, out, _ = project(*given, "--draws", "8", "--input-name", "1", "--output", "value")
    assert code == 0
    chosen = ["perturbed: y; kept as they are: x", "judged: output['value']"]
    assert json.loads(out)["architecture"]["ways"] == chosen
    table = '[tool.initdiag]\ndraws = 8\n[[tool.initdiag.models]]\ntarget = "heads.py:Heads"\n'
    table += 'example_input = "heads.py:batch"\ninput = "y"\noutput = "value"\n'
    code, out, _ = project("--output-format", "json", table=table)
    assert json.loads(out)["architecture"]["ways"] == chosen
