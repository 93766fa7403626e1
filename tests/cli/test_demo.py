"""``initdiag demo`` and the help of the commands."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

import initdiag.cli.main as cli


@pytest.mark.slow
def test_the_demo_shows_a_sick_network_and_its_cure_and_draws_no_random_number_of_the_users():
    before = torch.random.get_rng_state()
    found = CliRunner().invoke(cli._group, ["demo"])
    assert found.exit_code == 0, found.exception
    assert found.output.index("VANISHING") < found.output.index("HEALTHY")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(cli._group.commands))
def test_every_command_has_a_sentence_of_its_own_and_examples(name):
    listed = CliRunner().invoke(cli._group, ["-h"]).output
    command = cli._group.commands[name]
    assert command.short_help
    assert command.short_help.endswith(".")
    assert command.short_help.split()[-1] in listed
    shown = CliRunner().invoke(cli._group, [name, "-h"])
    assert shown.exit_code == 0
    _, _, lines = shown.output.partition("Examples:\n")
    assert all(line.startswith("    initdiag ") for line in lines.splitlines())
    assert f"initdiag {name}" in lines


def test_the_examples_of_explain_are_known():
    for line in cli._group.commands["explain"].epilog.splitlines()[2:]:
        found = CliRunner().invoke(cli._group, line.split()[1:])
        assert found.exit_code == 0, (line, found.exception)


@pytest.mark.parametrize("name", ["predict", "map"])
def test_examples_without_a_file_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in cli._group.commands[name].epilog.splitlines()[2:]:
        if "--figure" in line:
            pytest.importorskip("matplotlib")
        found = CliRunner().invoke(cli._group, line.split()[1:])
        assert found.exit_code == 0, (line, found.exception)
