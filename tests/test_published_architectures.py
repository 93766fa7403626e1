"""The example runs, holds to its claims, and loads no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "published_architectures.py"


@pytest.mark.slow
def test_published_architectures():
    """The test of its page runs it with ``--markdown``."""
    code = f"import sys, runpy; sys.argv[1:] = []; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__'); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PyTorch default") == done.stdout.count("orthogonal") == 21
    assert "784-10x(30-10)-10" in done.stdout
