"""Every example runs, and asserts what it claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "published_architectures.py"})
"""All but the one that has tests of its own."""

QUICK = {"architecture_search.py", "billion_candidates.py"}
"""Those that take minutes otherwise."""


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example(path):
    quick = ["--quick"] if path.name in QUICK else []
    done = subprocess.run(
        [sys.executable, str(path), *quick], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
