"""What a target's own process costs: ``pytest tests/benchmarks/bench_isolation.py -m benchmark -s``.

Prints seconds of processor time beyond one import of torch; never fails for being slow.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

import pytest
from support.places import ROOT

pytestmark = pytest.mark.benchmark

NET = """
import os, sys
from torch import nn
print("process", os.getpid(), file=sys.stderr)
def a(): return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
b = c = a
"""
REPEATS = int(os.environ.get("REPEATS", "5"))

WORK = ["--draws", "16", "--output-format", "json", "--output-file", "o.json"]
ONE, THREE = ["net.py:a"], ["net.py:a", "net.py:b", "net.py:c"]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "one target, isolated": ["-m", "initdiag", "check", *ONE, *WORK],
    "one target, not isolated": ["-m", "initdiag", "check", *ONE, *WORK, "--no-isolate"],
    "three targets of a file, isolated": ["-m", "initdiag", "check", *THREE, *WORK],
    "three targets of a file, not isolated": ["-m", "initdiag", "check", *THREE, *WORK, "--no-isolate"],
}  # fmt: skip


def seconds(folder, arguments):
    """Processor seconds of a command with all that it starts, and what it said on stderr."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, done.stderr


def test_isolation(tmp_path):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    found = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            spent, said = seconds(tmp_path, arguments)
            found[name].append(spent)
            if "three targets of a file, isolated" in name:
                lines = [line for line in said.splitlines() if line.startswith("process")]
                assert (len(lines), len(set(lines))) == (3, 1)  # one process, one import of torch
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(f"\nmedian of {REPEATS}, seconds of processor time")
    for name, value in medians.items():
        print(f"  {name:40} {value:5.2f}")
    one = medians["one target, isolated"] - medians["one target, not isolated"]
    three = (
        medians["three targets of a file, isolated"]
        - medians["three targets of a file, not isolated"]
    )
    print(
        f"  isolation of one target costs {one:.2f} s, of three {three / 3:.2f} s each (wanted: 0.3)"
    )
