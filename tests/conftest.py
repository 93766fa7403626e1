"""Shared fixtures, and how the tests are spread over processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The processes share the cores, so each takes one thread. NumPy and torch read this when they load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is printed does not depend on where the tests run; the test of the annotations sets it.
os.environ.pop("GITHUB_ACTIONS", None)

settings.register_profile("initdiag", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("initdiag")

GOLDEN = Path(__file__).parent / "golden"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0, which keeps the run in this process, where all that is named are single files.

    Otherwise it returns None, and pytest-xdist takes one process a core.
    """
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    return 0 if all(path.is_file() for path in named) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--one-case``: what depends on a library's version shows in any case of a test."""
    parser.addoption(
        "--one-case", action="store_true", help="of every test only the first of its cases"
    )


@pytest.hookimpl(trylast=True)  # of those that `-m` has left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out all cases of a test but its first, where that is asked for."""
    if not config.getoption("--one-case"):
        return
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(item.nodeid.partition("[")[0], item)
    kept = list(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.fixture
def golden():
    """Compare a text with a golden file; ``INITDIAG_OVERWRITE_GOLDEN=1`` writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("INITDIAG_OVERWRITE_GOLDEN") == "1":
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare
