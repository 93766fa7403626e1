"""What the doors cost: ``pytest tests/benchmarks/bench_door.py -m benchmark -s``. Prints; never fails for being slow."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

import pytest
from support import installation

pytestmark = pytest.mark.benchmark

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "initdiag --help": ["-m", "initdiag", "--help"],
    "initdiag check --help": ["-m", "initdiag", "check", "--help"],
    "initdiag predict 784,256x8,10": ["-m", "initdiag", "predict", "784,256x8,10"],
}
SAYS = {
    "initdiag --help": "Usage",
    "initdiag check --help": "TARGET",
    "initdiag predict 784,256x8,10": "Hanin-Nica beta",
}

IMPORT = """
import pytest, time
start = time.process_time()
import initdiag.pytest_plugin
print(time.process_time() - start)
"""


def costs(commands, repeats=11, **options):
    """Median processor and wall time in ms of each command in a process of its own, taken in turn, and what it printed."""
    found = {name: ([], [], None) for name in commands}
    for _ in range(repeats):
        for name, arguments in commands.items():
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            done = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, check=True, **options
            )
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
            found[name][0].append(
                (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3
            )
            found[name][1].append(wall * 1e3)
            found[name] = (*found[name][:2], done.stdout)
    return {
        name: (statistics.median(cpu), statistics.median(wall), text)
        for name, (cpu, wall, text) in found.items()
    }


def test_the_command_line():
    print("\nmedian of 11 processes: CPU ms, wall ms (aim: under 400)")
    for name, (cpu, wall, text) in costs(COMMANDS).items():
        print(f"  {name:32} {cpu:6.0f} {wall:6.0f}")
        assert SAYS.get(name, "") in text


def test_the_pytest_plugin_unused(tmp_path):
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n", encoding="utf-8")
    alone = {
        "PYTHONPATH": installation.python_path(tmp_path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = {"cwd": tmp_path, "env": {**os.environ, **alone}}
    assert (
        "initdiag("
        in costs({"": ["-m", "pytest", "--markers", "-p", "initdiag"]}, repeats=1, **options)[""][2]
    )
    run = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_nothing.py"]
    found = costs({"without": run, "with": [*run, "-p", "initdiag"]}, repeats=21, **options)
    imports = [float(costs({"": ["-c", IMPORT]}, repeats=1, **options)[""][2]) for _ in range(11)]
    print("\nmedian of 21 processes: CPU ms, wall ms")
    for name, (cpu, wall, text) in found.items():
        print(f"  pytest {name:8} the plugin, unused {cpu:6.0f} {wall:6.0f}")
        assert "1 passed" in text
    extra = found["with"][0] - found["without"][0]
    print(
        f"  difference {extra:.1f} ms (aim: under 20); its import alone {statistics.median(imports) * 1e3:.1f} ms"
    )
