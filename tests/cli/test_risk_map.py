"""``initdiag map``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import initdiag
import initdiag.cli.main as cli


def run(*arguments):
    return CliRunner().invoke(cli._group, ["map", *arguments])


def test_the_map_is_that_of_the_function():
    found = run("784,256x8,10", "--output-format", "json")
    data = json.loads(found.output)
    assert data == initdiag.risk_map([784, *[256] * 8, 10]).to_dict()


def test_options_reach_it():
    found = run("784,32x20,10", "--init", "he_normal", "--optimizer", "adam", "--lr", "0.001")
    assert found.exit_code == 0
    assert "Adam at learning rate 0.001" in " ".join(found.output.split())


def test_a_figure_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "map.svg"
    assert run("784,32x20,10", "--figure", str(path)).exit_code == 0
    assert path.read_text().lstrip().startswith("<?xml")


def test_a_figure_of_an_unknown_form_is_an_error_in_words(tmp_path):
    pytest.importorskip("matplotlib")
    found = run("784,32x20,10", "--figure", str(tmp_path / "map.nonsense"))
    assert found.exit_code == 1  # click's own runner; `main` makes 2 of it
    assert "map.nonsense" in found.output
