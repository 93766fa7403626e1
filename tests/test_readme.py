"""README and documentation say what the program prints."""

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
README = ROOT / "README.md"
PAGE = ROOT / "docs/reading-a-report.md"


def shown(page: Path) -> str:
    """Return the report that a page shows."""
    return re.search(r"```text\n(initdiag .*?)```", page.read_text(encoding="utf-8"), re.S)[1]


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


def test_the_report_shown_is_what_is_printed(monkeypatch):
    """Whole in the documentation; in parts, between "[...]", in the README."""
    monkeypatch.chdir(ROOT)
    target = "examples/deep_mlp.py:build"
    printed = to_text(initdiag.diagnose(load(target), target=target), width=80)
    whole = shown(PAGE)
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(whole, printed), encoding="utf-8")
        return
    assert without_last_digits(whole) == without_last_digits(printed)
    parts = shown(README).split("\n[...]\n")
    assert len(parts) == 2
    for part in parts:
        assert without_last_digits(part) in without_last_digits(printed)


def words(svg: str) -> set[str]:
    return set(re.findall(r"<text [^>]*>([^<]*[A-Za-z]{3}[^<]*)</text>", svg))


def picture(page: Path) -> Path:
    (name,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    return (page.parent / name).resolve()


@pytest.mark.slow
def test_the_picture_of_a_report_is_its_figure(monkeypatch):
    """Committed as text: what it says is compared, not the measured digits."""
    monkeypatch.chdir(ROOT)
    target, path, drawn = "examples/deep_mlp.py:build", picture(PAGE), io.StringIO()
    report = initdiag.diagnose(load(target), target=target)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "initdiag"}):
        report.figure().savefig(drawn, format="svg", metadata={"Date": None})
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_text(drawn.getvalue(), encoding="utf-8")
    committed = words(path.read_text(encoding="utf-8"))
    assert words(drawn.getvalue()) <= committed
    assert "VANISHING: examples/deep_mlp.py:build" in committed


@pytest.mark.slow
def test_the_readmes_picture_is_the_examples(tmp_path):
    drawn = tmp_path / "loss.svg"
    subprocess.run([sys.executable, ROOT / "examples/digits.py", "--figure", drawn], check=True)
    path = picture(README)
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_bytes(drawn.read_bytes())
    assert words(drawn.read_text(encoding="utf-8")) == words(path.read_text(encoding="utf-8"))
    assert any("ln 10" in word for word in words(path.read_text(encoding="utf-8")))


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readmes_diagnoses_are_what_the_commands_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \|", text, re.M)
    assert len(rows) == 4
    for verdict, arguments in rows:
        command = ["predict", *arguments.split(), "--output-format", "json"]
        printed = CliRunner().invoke(cli._group, command, catch_exceptions=False).stdout
        assert json.loads(printed)["verdict"] == verdict


def test_the_readmes_python_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    exec(block, {})
    assert "VANISHING" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_of_architectures_is_what_the_example_prints():
    path = ROOT / "docs/published-architectures.md"
    table = re.search(
        r"<details>.*?</summary>\n\n(.*?)\n\n</details>", path.read_text(encoding="utf-8"), re.S
    )
    assert table is not None
    example = [sys.executable, str(ROOT / "examples/published_architectures.py"), "--markdown"]
    printed = subprocess.run(example, capture_output=True, text=True, check=True).stdout.strip()
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        path.write_text(
            path.read_text(encoding="utf-8").replace(table[1], printed), encoding="utf-8"
        )
        return
    assert table[1] == printed
