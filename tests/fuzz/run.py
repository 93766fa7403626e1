"""Run fuzzed command lines and judge what they say: ``python tests/fuzz/run.py --count 2000``.

It prints a summary as JSON. What counts as a fault: a traceback, the word "unexpected", an exit code
that the command line does not have, exit code 0 without a report, an error without a word, a file
half-written, or a command that does not end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fuzz.command_lines import made

from initdiag import Report
from initdiag.cli.main import main

LIMIT = 60
"""Seconds that one command may take."""

CODES = (0, 1, 2, 3)


class Endless(BaseException):
    """A command that does not end."""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    arguments: list[str]
    code: int | None
    out: str
    err: str
    folder: Path


def in_process(seed: int, folder: Path) -> Done:
    """Run the command line of a seed in this process."""
    arguments = made(seed, folder, isolated=False)
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    here = Path.cwd()
    handler = signal.signal(signal.SIGALRM, _give_up)
    os.chdir(folder)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    except SystemExit as exited:
        code = exited.code if isinstance(exited.code, int) else -1
    except Endless:
        err.write("Endless")
    except BaseException as error:
        err.write(f"Traceback: {error!r}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        os.chdir(here)
    return Done(arguments, code, out.getvalue(), err.getvalue(), folder)


def _give_up(number: int, frame: FrameType | None) -> None:
    raise Endless


def in_a_process(seed: int, folder: Path) -> Done:
    """Run the command line of a seed as the shell does, its targets isolated."""
    arguments = made(seed, folder, isolated=True)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "80"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "initdiag", *arguments], cwd=folder, env=env, check=False,
            capture_output=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Done(arguments, None, "", "Endless", folder)
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return Done(arguments, done.returncode, out, err, folder)


def faults(done: Done) -> list[str]:
    """Return what is wrong with what a command did."""
    found = [word for word in ("Traceback", "Endless") if word in done.err + done.out]
    found += re.findall(r"unexpected [A-Z]\w*:", done.err + done.out)
    if done.code not in CODES:
        found.append(f"exit code {done.code}")
    if done.code == 2 and not done.err.strip():
        found.append("an error without a word")
    is_asked = any(one in ("--help", "--version", "-h") for one in done.arguments)
    if done.code in (0, 1, 3) and not is_asked:
        found += _report_faults(done)
    found += [
        f"left {path.name}"
        for path in done.folder.iterdir()
        if path.suffix in (".new", ".partial", ".lock", ".part")
    ]
    return found


def _report_faults(done: Done) -> list[str]:
    """Return what is wrong with a report that has to be there."""
    given = dict(zip(done.arguments, done.arguments[1:], strict=False))
    command = next(one for one in done.arguments if not one.startswith("-"))
    if done.code == 3 and command == "spectrum":
        return [] if "not covered" in done.err else ["no verdict without a word"]
    output = given.get("-o") or given.get("--output-file")
    text = done.out
    if output is not None:
        path = done.folder / output
        if not path.is_file():
            return ["no report"]
        if command == "screen":
            return []
        text = path.read_text(encoding="utf-8")
    if given.get("--output-format") == "github":
        return []  # an annotation for each finding, if there is any
    if not text.strip():
        return ["no report"]
    if given.get("--output-format") == "json" and command in ("check", "predict", "report"):
        try:
            data = json.loads(text)
            [Report.from_dict(one) for one in (data if isinstance(data, list) else [data])]
        except Exception as error:
            return [f"no report: {error!r}"]
    return []


def summary(seeds: range, *, isolated: bool = False) -> dict[str, object]:
    """Run the command lines of some seeds; return counts and every fault."""
    codes: Counter[str] = Counter()
    found, slowest = [], (0.0, 0)
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="initdiag-fuzz-") as name:
            start = time.monotonic()
            done = (in_a_process if isolated else in_process)(seed, Path(name).resolve())
            slowest = max(slowest, (time.monotonic() - start, seed))
            codes[f"{_command(done)}: {done.code}"] += 1
            if wrong := faults(done):
                found.append({
                    "seed": seed, "arguments": done.arguments, "faults": wrong, "err": done.err[-2000:],
                })  # fmt: skip
    return {
        "command lines": len(seeds), "in processes of their own": isolated,
        "exit codes": dict(sorted(codes.items())), "slowest, seconds": round(slowest[0], 1),
        "slowest, seed": slowest[1], "faults": found,
    }  # fmt: skip


def _command(done: Done) -> str:
    return next((one for one in done.arguments if one in made.__globals__["OPTIONS"]), "none")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    parser.add_argument("--isolated", action="store_true", help="A process for each.")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.count)
    print(json.dumps(summary(seeds, isolated=given.isolated), indent=1))
