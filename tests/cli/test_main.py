"""The command line: exit codes, formats, and errors without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.places import ROOT

from initdiag import Report
from initdiag.cli.main import main
from initdiag.project.targets import parse_widths

HERE = {"check": ["--no-isolate"]}
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


DEEP, FIXED = "examples/deep_mlp.py:build", "examples/deep_mlp.py:build_fixed"


def test_check_exit_codes(run, tmp_path):
    (tmp_path / "odd.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    m = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))\n"
        "    row = m[0].weight.detach()[0].clone()\n"
        "    m[0].weight.data = torch.stack([row.roll(k) for k in range(16)])\n"
        "    return m\n"
        "model = build()\n"
    )
    odd = f"{tmp_path}/odd.py:model"
    code, out, _ = run("check", FIXED, "--draws", "64")
    assert (code, "HEALTHY" in out) == (0, True)
    code, out, _ = run("check", DEEP, "--draws", "64")
    assert (code, "VANISHING" in out, "kaiming_normal_" in out) == (1, True, True)
    assert run("check", odd)[0] == 3
    (tmp_path / "rnn.py").write_text(
        "from torch import nn\nmodel = nn.RNN(12, 16, batch_first=True)\n"
    )
    code, out, _ = run("check", f"{tmp_path}/rnn.py:model", "--input-size", "2,7,12")
    assert (code, "reaches no linear layer" in out) == (3, True)
    assert run("check", odd, "--fail-on", "risk")[0] == 0
    assert run("check", odd, "--fail-on", "never")[0] == 0
    assert run("check", DEEP, "--fail-on", "never", "--draws", "64")[0] == 0
    assert run("check", DEEP, odd, "--draws", "64")[0] == 1
    code, _, err = run("check", DEEP, "nowhere.py:build", "--draws", "64")
    assert (code, "a file nowhere.py" in err) == (2, True)


def test_check_judges_for_the_optimizer_and_limit(run):
    assert run("check", DEEP, "--draws", "64", "--max-risk", "1")[0] == 0
    code, out, _ = run(
        "check", DEEP, "--draws", "64", "--optimizer", "adam", "--output-format", "json"
    )
    report = Report.from_dict(json.loads(out))
    assert code == (1 if report.risk["adam"] >= 0.5 else 0)
    assert report.optimizer == "adam"


def test_check_json_of_several(run, tmp_path):
    path = tmp_path / "out.json"
    code, out, _ = run(
        "check", DEEP, FIXED, "--draws", "64", "--output-format", "json", "--output-file", str(path)
    )
    assert (code, out) == (1, "")
    verdicts = [Report.from_dict(d).verdict.value for d in json.loads(path.read_text())]
    assert verdicts == ["VANISHING", "HEALTHY"]


def test_inputs(run, tmp_path):
    (tmp_path / "conv.py").write_text(
        "import torch\nfrom torch import nn\n"
        "model = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2))\n"
        "batch = torch.ones(5, 3, 4)\n"
        "def make(): return batch\n"
    )
    target = f"{tmp_path}/conv.py"
    assert run("check", f"{target}:model", "--input-size", "2,3,4", "--draws", "64")[0] == 0
    assert run("check", f"{target}:model", "--input", f"{target}:batch", "--draws", "64")[0] == 0
    assert run("check", f"{target}:model", "--input", f"{target}:make", "--draws", "64")[0] == 0
    assert (
        run("check", f"{target}:model", "--input-size", "2x3x4", "--draws", "64")[0] == 0
    )  # repeats nothing here
    code, _, err = run("check", f"{target}:model", "--input-size", "2,3,5", "--draws", "64")
    assert (code, err.startswith("error: "), "Traceback" in err) == (2, True, False)


NET = """
import torch
from torch import nn
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
def batches():
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(16, 16, generator=generator) * 1000, torch.arange(16) % 4
pair = next(batches())
none = []
"""


def test_a_trial_on_ones_own_batches(run, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    net = f"{tmp_path}/net.py"
    how = ("--trial", "10", "--optimizer", "sgd", "--lr", "0.1", "--draws", "16")
    for data in ("batches", "pair"):
        code, out, _ = run("check", f"{net}:build", "--data", f"{net}:{data}", *how)
        assert (code, "Trial" in out, "made up" in out) == (1, True, False)
        assert f"{net}:build" in "".join(out.split())
    code, out, _ = run("check", f"{net}:build", *how, "--output-format", "json")
    assert json.loads(out)["trial"]["made_up"] == ["random inputs", "random labels"]
    code, _, err = run("check", f"{net}:build", "--data", f"{net}:none", *how)
    assert (code, "batches (x, y)" in err) == (2, True)


def test_predict(run):
    code, out, _ = run("predict", "784,256x8,10", "--init", "he_normal")
    assert (code, "HEALTHY" in out) == (0, True)
    code, out, _ = run("predict", "64x31,10")
    assert (code, "VANISHING" in out) == (0, True)
    assert run("predict", "64x31,10", "--fail-on", "risk")[0] == 1
    code, out, _ = run("predict", "64x31,10", "--output-format", "json")
    assert Report.from_dict(json.loads(out)).prediction.log_variance == pytest.approx(
        2.6065, abs=1e-3
    )
    code, out, _ = run("predict", "64x9,10", "--activation", "tanh")
    assert (code, "simulated over 2048" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "784,x8"], "widths such as"),
        (["predict", "784"], "at least two widths"),
        (["predict", "784,10", "--init", "nonsense"], "init: one of"),
        (["predict", "784,10", "--gain", "-1"], "gain"),
        (["predict", "784,10", "--optimizer", "lion"], "lion"),
        (["check"], "TARGET"),
        (["check", "no-colon"], "a target file.py:name"),
        (["nonsense"], "nonsense"),
    ],
)
def test_usage_errors_are_short_and_exit_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_an_unexpected_exception_exits_2_in_one_line(run, monkeypatch):
    def fail(*args, **options):
        raise IndexError("an internal\nfault")

    monkeypatch.setattr("initdiag.project.outcome.diagnose_model", fail)
    code, _, err = run("check", FIXED)
    assert (code, err) == (2, f"error: {FIXED}: unexpected IndexError: an internal fault\n")
    monkeypatch.setattr("initdiag.diagnosing.diagnose.diagnose_architecture", fail)
    code, _, err = run("predict", "8,8,2")
    assert (code, err) == (2, "error: unexpected IndexError: an internal fault\n")


def test_help_and_version(run):
    for arguments in (["--help"], ["check", "--help"], ["predict", "--help"]):
        code, out, _ = run(*arguments)
        assert (code, "Usage" in out) == (0, True)
    assert run("--version")[1] == "initdiag, version 0.2.0\n"


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "initdiag", "predict", "8,8,2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Hanin-Nica" in done.stdout


def test_widths():
    assert parse_widths("784, 256x3 ,10") == [784, 256, 256, 256, 10]
