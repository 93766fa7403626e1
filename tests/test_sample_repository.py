"""A project under git: a bad commit is refused at the pre-commit hook, in CI and by pytest, and mended by what each message says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import installation

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/recipes/ci.md"
ACTION = yaml.safe_load((ROOT / ".github/actions/initdiag/action.yml").read_text(encoding="utf-8"))

BAD = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    layers = [layer for _ in range(30) for layer in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
"""
RETURN = "    return net\n"

FILES = {
    "model.py": BAD + RETURN,
    "pyproject.toml": '[tool.initdiag]\nmodels = ["model.py:build"]\ndraws = 64\n',
    "test_model.py": "import model\n\n\ndef test_it_can_be_trained(initdiag_check):\n    initdiag_check(model.build, draws=64)\n",
}


class Repository:
    """A git repository with the three doors; each returns its exit code and what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTEST_", "PRE_COMMIT"))},
            "PATH": installation.search_path(folder / "bin"),
            "PYTHONPATH": installation.python_path(folder),
            "PRE_COMMIT_HOME": str(folder / "pre-commit"),
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }  # fmt: skip
        hooks = folder / "hooks"
        hooks.mkdir()
        shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
        self._git_init(hooks)
        self.run("git", "add", ".", folder=hooks)
        self.run("git", "commit", "-qm", "hooks", folder=hooks)
        revision = self.run("git", "rev-parse", "HEAD", folder=hooks)[1].strip()
        self.folder.mkdir()
        self._git_init(self.folder)
        repos = [{"repo": str(hooks), "rev": revision, "hooks": [{"id": "initdiag"}]}]
        self.write({**FILES, ".pre-commit-config.yaml": yaml.safe_dump({"repos": repos})})
        assert self.run(sys.executable, "-m", "pre_commit", "install")[0] == 0

    def _git_init(self, folder: Path) -> None:
        assert self.run("git", "init", "-q", ".", folder=folder)[0] == 0

    def run(self, *command: str, folder: Path | None = None, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            command,
            cwd=folder or self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def commit(self) -> tuple[int, str]:
        self.run("git", "add", ".")
        return self.run("git", "commit", "-m", "a model")

    def ci(self) -> tuple[int, str]:
        """The Action's own script, as GitHub runs it."""
        script = ACTION["runs"]["steps"][-1]["run"]
        return self.run(
            "bash",
            "--noprofile",
            "--norc",
            "-eo",
            "pipefail",
            "-c",
            script,
            TARGETS="",
            ARGUMENTS="",
        )

    def pytest(self) -> tuple[int, str]:
        return self.run(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--initdiag",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
        )


def remedy(message: str) -> str:
    """The code that a message says to write."""
    found = re.search(
        r"to change: (nn\.init\..*?)  for each layer's weight w and bias b  \(risk", message
    )
    assert found is not None, message
    return found[1]


def assert_page_shows(message: str) -> None:
    """The documented example of a failing check is this one; ``INITDIAG_OVERWRITE_GOLDEN=1`` writes it instead."""
    printed = re.search(r"^model\.py:build: .*\n    to change: .*\n", message, re.M)
    text = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"```text\n(model\.py:build: .*?)```", text, re.S)
    assert printed is not None
    assert shown is not None
    if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
        PAGE.write_text(text.replace(shown[1], printed[0]), encoding="utf-8")
    else:
        assert shown[1] == printed[0]


def mended(code: str) -> str:
    """The model with that code in it."""
    loop = "    for layer in net:\n        if isinstance(layer, nn.Linear):\n            w, b = layer.weight, layer.bias\n"
    return f"{BAD}{loop}            {code}\n{RETURN}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("sample"))


@pytest.mark.slow
def test_each_door_refuses_the_bad_commit_and_its_message_mends_it(repository):
    doors = {"commit": repository.commit, "ci": repository.ci, "pytest": repository.pytest}
    refused = {name: door() for name, door in doors.items()}
    remedies = set()
    for name, (code, message) in refused.items():
        assert code == 1, (name, message)
        assert re.search(r"VANISHING, risk >?\d\d % \(SGD\)", message), (name, message)
        assert "Where it is lost" in message
        remedies.add(remedy(message))
    assert repository.run("git", "rev-parse", "--verify", "-q", "HEAD")[0] != 0
    assert len(remedies) == 1
    assert_page_shows(refused["ci"][1])
    repository.write({"model.py": mended(remedies.pop())})
    for name, door in doors.items():
        code, message = door()
        assert code == 0, (name, message)
    assert "model.py" in repository.run("git", "show", "--stat", "HEAD")[1]


def test_the_hook_runs_only_for_what_can_change_a_model(repository):
    repository.write({"notes.md": "nothing to check\n"})
    repository.run("git", "add", "notes.md")
    code, message = repository.run("git", "commit", "-m", "notes", "--", "notes.md")
    assert (code, "(no files to check)Skipped" in message) == (0, True), message


def test_the_actions_inputs_reach_the_shell_through_the_environment_only():
    steps = ACTION["runs"]["steps"]
    used = {
        name
        for step in steps
        for value in step["env"].values()
        for name in re.findall(r"inputs\.([\w-]+)", value)
    }
    assert used | {"working-directory"} == set(ACTION["inputs"])
    assert not any("${{" in step["run"] for step in steps)


def test_the_documented_hook_and_action_are_these():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (hooks,), (step,) = (yaml.safe_load(block) for block in blocks)
    shipped = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for hook in hooks["hooks"]] == [hook["id"] for hook in shipped]
    assert set(step["with"]) <= set(ACTION["inputs"])
    path = step["uses"].removeprefix("OWNER/initdiag/").partition("@")[0]
    assert (ROOT / path / "action.yml").is_file()
