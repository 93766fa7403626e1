"""The README says what the program prints."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from click.testing import CliRunner

import initdiag
from initdiag.cli import main as cli
from initdiag.project.targets import load
from initdiag.rendering.console import to_text

ROOT = Path(__file__).parent.parent


def without_clock(text: str) -> str:
    return re.sub(
        r" +[\d.]+ s$", "", "\n".join(line.rstrip() for line in text.splitlines()), flags=re.M
    ).strip()


def without_last_digits(text: str) -> str:
    """Measured numbers may differ in the last digits between machines; words and predictions may not."""
    lines = [
        line
        for line in without_clock(text).splitlines()
        if not re.search(r"\+- \d|measured  |agree|▁", line)
    ]
    return "\n".join(lines)


def test_the_readmes_report_is_what_is_printed(monkeypatch):
    monkeypatch.chdir(ROOT)
    target = "examples/deep_mlp.py:build"
    printed = to_text(initdiag.diagnose(load(target), target=target), width=80)
    path = ROOT / "README.md"
    shown = re.search(r"```text\n(initdiag .*?)```", path.read_text(encoding="utf-8"), re.S)
    assert shown is not None
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_text(
            path.read_text(encoding="utf-8").replace(shown[1], printed), encoding="utf-8"
        )
        return
    assert without_last_digits(shown[1]) == without_last_digits(printed)


@pytest.mark.slow
def test_the_readmes_picture_is_the_reports_figure(monkeypatch):
    """Committed as text: what it says is compared, not the measured digits."""
    monkeypatch.chdir(ROOT)
    (name,) = re.findall(
        r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    target, path, drawn = "examples/deep_mlp.py:build", ROOT / name, io.StringIO()
    report = initdiag.diagnose(load(target), target=target)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "initdiag"}):
        report.figure().savefig(drawn, format="svg", metadata={"Date": None})
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_text(drawn.getvalue(), encoding="utf-8")
    words = [
        re.findall(r"<text [^>]*>([^<]*[A-Za-z]{3}[^<]*)</text>", text)
        for text in (drawn.getvalue(), path.read_text(encoding="utf-8"))
    ]
    assert set(words[0]) <= set(words[1])
    assert "VANISHING: examples/deep_mlp.py:build" in words[1]


def test_the_readmes_diagnoses_are_what_the_commands_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \|", text, re.M)
    assert len(rows) == 4
    for verdict, arguments in rows:
        command = ["predict", *arguments.split(), "--output-format", "json"]
        printed = CliRunner().invoke(cli._group, command, catch_exceptions=False).stdout
        assert json.loads(printed)["verdict"] == verdict


@pytest.mark.slow
def test_the_readmes_python_runs():
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    names = {
        "initdiag": initdiag,
        "model": load(str(ROOT / "examples/deep_mlp.py") + ":build_fixed")(),
    }
    import torch

    names |= {"batch": torch.ones(4, 64), "target": torch.zeros(4, 10)}
    names["train"] = lambda widths: (
        -abs(len(widths) - 12)
    )  # the recipes for a search: a score of the reader's own
    assert len(blocks) >= 3
    for block in blocks:
        if "import optuna" not in block:
            exec(block.replace("(1, 784)", "(1, 64)"), names)
    assert names["report"].ok
    assert names["kept"] == [0, 2, 3]


def test_the_readmes_study_runs():
    optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'initdiag[optuna]'")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names: dict = {}
    (block,) = re.findall(
        r"```python\n(import optuna.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    exec(block, names)
    trials = names["study"].trials
    assert len(trials) == 20
    assert all((t.state.name == "PRUNED") == (t.user_attrs["initdiag_risk"] >= 0.3) for t in trials)


@pytest.mark.slow
def test_the_readmes_table_is_what_the_example_prints():
    path = ROOT / "README.md"
    shown = re.search(
        r"<details>.*?</summary>\n\n(.*?)\n\n</details>", path.read_text(encoding="utf-8"), re.S
    )
    assert shown is not None
    example = [sys.executable, str(ROOT / "examples/published_architectures.py"), "--markdown"]
    printed = subprocess.run(example, capture_output=True, text=True, check=True).stdout.strip()
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_text(
            path.read_text(encoding="utf-8").replace(shown[1], printed), encoding="utf-8"
        )
        return
    assert shown[1] == printed
