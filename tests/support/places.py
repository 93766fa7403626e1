"""Where the repository keeps what tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "initdiag"
EXAMPLES = ROOT / "examples"
GOLDEN = ROOT / "tests" / "golden"
EVIDENCE = ROOT / "tests" / "evidence"
