"""CONTRIBUTING names every room and no place that is not there; the project's files agree."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from support.places import PACKAGE, ROOT
from test_ranks import ORDER

import initdiag

CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOORS = {"__init__.py", "__init__.pyi", "__main__.py", "py.typed"}
"""What every package has at its top."""


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", CONTRIBUTING, re.S | re.M)[1]


def places(text: str) -> list[str]:
    """The paths of this repository that a text names in backticks or in a command."""
    named = re.findall(r"(?<![\w./-])((?:initdiag|tests|\.ci)/[\w./-]*)", text)
    return [path.rstrip(".") for path in named if "NAME" not in path]


def test_every_room_has_its_line_in_the_order_of_imports():
    lines = re.findall(r"^- `initdiag/([\w.]+?)(?:/|\.py)`: \S.{20,}", section("The house"), re.M)
    assert sorted(lines) == sorted(ORDER)
    rooms = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"} - DOORS
    assert {name.removesuffix(".py") for name in rooms} == set(lines)


def test_every_place_it_names_is_there():
    named = places(CONTRIBUTING)
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_walk_answers_ten_questions_with_places():
    entries = re.findall(r"^\d+\. (.*?)(?=^\d+\. |\Z)", section("A newcomer's walk"), re.S | re.M)
    assert len(entries) >= 10
    for entry in entries:
        question, answer = entry.split("?", 1)
        assert question.startswith("Where")
        assert places(answer)


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name
)
def test_issue_templates_are_forms(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name != "config.yml":
        assert {"name", "description", "body"} <= set(form)
        identifiers = [field["id"] for field in form["body"]]
        assert len(set(identifiers)) == len(identifiers)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == initdiag.__version__
    assert citation["license"] == PROJECT["license"]
    for field in ("cff-version", "message", "title", "authors", "type"):
        assert citation[field]


def test_the_newest_version_has_its_section_in_the_changelog():
    sections = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert sections[0] == initdiag.__version__
    assert len(set(sections)) == len(sections) >= 2


def test_every_python_that_is_promised_is_tested():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    tested = workflow["jobs"]["python"]["strategy"]["matrix"]["python-version"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
