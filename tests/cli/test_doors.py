"""The exit code and the streams belong to initdiag, whatever a target does."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.places import ROOT

from initdiag import Report

NET = """
import os, sys, threading, time, warnings
import torch
from torch import nn

def chain(depth):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(32, 32), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(32, 4))

class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.l, self.act = chain(2), act
    def forward(self, x):
        self.act()
        return self.l(x)

def ok():
    print("printed in build")
    os.write(1, b"written to fd 1\\n")
    warnings.warn("warned in build")
    return chain(2)

def talks(): return Net(lambda: print("printed in forward"))
def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
    return chain(2)
def sick(): return chain(20)
def exits(): sys.exit(0)
def exits_in_forward(): return Net(lambda: sys.exit(0))
def stops(): raise GeneratorExit
def gone(): os._exit(0)
def gone_in_forward(): return Net(lambda: os._exit(0))
def killed(): os.kill(os.getpid(), 9)
def interrupts(): raise KeyboardInterrupt
def hangs(): time.sleep(600)
def slow(): return Net(lambda: time.sleep(0.02))
"""
PLAIN = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR")}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    (tmp_path / "top.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    return tmp_path


def run(folder, *arguments, **environment):
    env = {**PLAIN, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "initdiag", *arguments],
        capture_output=True, encoding="utf-8", cwd=folder, env=env, timeout=300, check=False,
    )  # fmt: skip


ENDS = {
    "top.py:x": "leaves the process alone, got SystemExit",
    "net.py:exits": "leaves the process alone, got SystemExit",
    "net.py:exits_in_forward": "leaves the process alone, got SystemExit",
    "net.py:stops": "leaves the process alone, got GeneratorExit",
    "net.py:gone": "ended with exit code 0",
    "net.py:gone_in_forward": "ended with exit code 0",
    "net.py:killed": "signal SIGKILL ended it",
    "net.py:interrupts": "ended with exit code 130",
}


@pytest.mark.slow
def test_a_target_that_ends_the_process_is_its_own_error_and_the_others_are_judged(folder):
    done = run(
        folder, "check", "net.py:sick", *ENDS, "net.py:ok", "--draws", "16", "--output-format",
        "json",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    verdicts = [Report.from_dict(one).verdict.value for one in json.loads(done.stdout)]
    assert verdicts == ["VANISHING", "HEALTHY"]
    for target, message in ENDS.items():
        (line,) = [x for x in done.stderr.splitlines() if x.startswith(f"error: {target}: ")]
        assert message in line
    assert "unexpected" not in done.stderr


@pytest.mark.slow
def test_what_a_target_prints_is_not_in_our_output(folder):
    for target in ("ok", "talks", "thread"):
        for how in ("--isolate", "--no-isolate"):
            if (target, how) == ("thread", "--no-isolate"):
                continue  # the user's thread keeps the user's process alive
            done = run(
                folder, "check", f"net.py:{target}", "--draws", "16", how, "--output-file", "o.json",
                "--output-format", "json",
            )  # fmt: skip
            assert done.returncode in (0, 3), done.stderr
            if how == "--isolate" or target == "talks":
                assert done.stdout == ""
                assert "printed in" in done.stderr or target == "thread"
            Report.from_dict(json.loads((folder / "o.json").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_hang_ends_with_the_timeout(folder):
    begin = time.monotonic()
    done = run(folder, "check", "net.py:hangs", "net.py:ok", "--timeout", "20", "--draws", "16")
    assert done.returncode == 2
    assert "none after 20 s" in done.stderr
    assert "HEALTHY" in done.stdout
    assert time.monotonic() - begin < 300


@pytest.mark.slow
def test_ctrl_c_is_130_with_the_report_of_what_was_had(folder):
    command = [
        sys.executable, "-m", "initdiag", "check", "net.py:slow", "--draws", "1000000", "--method",
        "redraw",
    ]  # fmt: skip
    env = {**PLAIN, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # where the tests run in the background, Ctrl-C is ignored by what they start
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=folder, env=env, encoding="utf-8", preexec_fn=heard, **pipes
    ) as process:
        time.sleep(40)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "INTERRUPT" in out
    assert "Traceback" not in err


def test_a_reader_that_has_gone_does_not_make_a_verdict(folder):
    env = {**PLAIN, "PYTHONPATH": str(ROOT)}
    for form in ("console", "json"):
        reader, writer = os.pipe()
        os.close(reader)
        command = ["-m", "initdiag", "predict", "64x9,10", "--output-format", form]
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=env, stdout=writer, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


def test_any_locale_takes_the_report(folder):
    for environment in (
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ):
        done = run(folder, "predict", "64x31,10", **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert "VANISHING" in done.stdout
        assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "8," + "9" * 400], "widths such as"),
        (["predict", "5x99999999999"], "at most 100,001 widths"),
        (
            ["predict", "8,8,2", "--activation", "leaky_relu", "--negative-slope", "1e300"],
            "a finite negative_slope of at most 1e30",
        ),
        (["predict", "8,8", "--output-file", "none/o.json", "--output-format", "json"], "none/o"),
        (["predict", "8,8", "--optimiser", "adam"], "--optimizer"),
        (["chek", "net.py:ok"], "check"),
        (["check", "net.py:okk"], "Did you mean 'ok'?"),
        (["check", "net.py:ok", "--baseline", "deep.json"], "a baseline of version 1"),
        (["report", "deep.json"], "a JSON report"),
        (["predict", "8,8", "--lr", "nan"], "lr: a positive number, got nan"),
    ],
)
def test_what_is_wrong_is_said_in_words(folder, arguments, message):
    (folder / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_baseline_that_is_configured_and_not_written_yet_is_none(folder):
    (folder / "pyproject.toml").write_text(
        '[tool.initdiag]\ndraws = 16\nmodels = ["net.py:ok"]\nbaseline = "base.json"\n',
        encoding="utf-8",
    )
    done = run(folder, "check")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no baseline yet") == 1
    assert run(folder, "check", "--write-baseline", "base.json").returncode == 0
    assert "no baseline yet" not in run(folder, "check").stderr
    assert run(folder, "check", "--baseline", "other.json").returncode == 2


def test_an_output_is_replaced_whole(folder):
    (folder / "o.json").write_text("old", encoding="utf-8")
    os.symlink("o.json", folder / "link.json")
    os.chmod(folder / "o.json", 0o640)
    done = run(folder, "predict", "8,8", "--output-format", "json", "--output-file", "link.json")
    assert done.returncode == 0, done.stderr
    assert (folder / "link.json").is_symlink()
    assert json.loads((folder / "o.json").read_text(encoding="utf-8"))["target"] == "8,8"
    assert (folder / "o.json").stat().st_mode & 0o777 == 0o640
    assert not [path for path in folder.iterdir() if path.name.endswith(".new")]
