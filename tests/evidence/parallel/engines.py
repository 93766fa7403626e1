"""The same candidates here, through processes, Dask and Ray, a worker killed in mid-run on each: one digest of all records.

python tests/evidence/parallel/engines.py [COUNT] [ENGINE ...]

Appends a row an engine to engines.jsonl beside it; engines that have a row of this count are not run again. With every engine's row in it, says
whether they are identical. The committed rows: at commit e8d85ce, on two cores that a load of 8 to 16 other processes shared, and with pauses, so
that ``seconds`` compare nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import initdiag

CHUNK, IN_FLIGHT = 500, 16

HASHED = ("prediction", "verdict", "basis", "risk", "findings", "advice", "architecture")
"""What of each report goes into the digest, every number of it to the last bit."""

FILE = Path(__file__).with_name("engines.jsonl")


def candidates(count: int) -> Iterator[list[int]]:
    """Widths: 1 to 12 hidden layers of 4 to 256 units; every 1000th has a layer of width 0, an error."""
    rng = np.random.default_rng(0)
    for index in range(count):
        hidden = rng.integers(4, 257, rng.integers(1, 13)).tolist()
        yield [16, *hidden, 0 if index % 1000 == 999 else 10]


def digest(records: Iterator[initdiag.diagnosing.parallel.Checked], count: int) -> dict:
    """What came: counts, and a hash of every report's numbers and words and of every error, in order."""
    found, errors, kept = hashlib.sha256(), 0, 0
    for place, record in enumerate(records):
        assert record.index == place
        report = record.report
        text = record.error
        if report is not None:
            written = report.to_dict()
            text = json.dumps([written[name] for name in HASHED])
        found.update(text.encode())
        errors, kept = errors + (report is None), kept + record.ok
    assert place == count - 1
    return {"records": count, "healthy": kept, "errors": errors, "sha256": found.hexdigest()[:16]}


def kill_one(after: float, name: str, killed: list[int]) -> None:
    """Kill a child process of this one whose command line holds ``name``, after so many seconds."""
    time.sleep(after)
    while not killed:
        for process in psutil.Process().children(recursive=True):
            line = process.cmdline()
            if not killed and any(part.startswith(name) for part in line[:6]):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
        time.sleep(0.2)


@contextmanager
def here() -> Iterator[Any]:
    yield None


@contextmanager
def processes() -> Iterator[Any]:
    yield partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))


@contextmanager
def dask() -> Iterator[Any]:
    import distributed

    cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        yield client.get_executor()


@contextmanager
def ray() -> Iterator[Any]:
    import ray

    from initdiag.integrations.ray import ray_executor

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray_executor()
    ray.shutdown()


ENGINES = {"here": (here, ""), "processes": (processes, "from multiprocessing.spawn")}
ENGINES |= {"dask": (dask, "from multiprocessing.spawn"), "ray": (ray, "ray::_call")}
"""What makes the executor, and how a worker's command line begins."""


def run(engine: str, count: int) -> dict:
    """Run all candidates; kill a worker in mid-run where there are workers."""
    killed: list[int] = []
    make, name = ENGINES[engine]
    options = {"chunk": CHUNK, "in_flight": IN_FLIGHT, "assumptions": {"init": "he_normal"}}
    with make() as executor:
        if name:
            threading.Thread(target=kill_one, args=(20, name, killed), daemon=True).start()
        begin, busy = time.perf_counter(), time.process_time()
        found = digest(initdiag.check_many(candidates(count), executor, **options), count)
        seconds, own = round(time.perf_counter() - begin), round(time.process_time() - busy)
    return {
        "engine": engine,
        **found,
        "workers_killed": len(killed),
        "seconds": seconds,
        "seconds_of_this_process": own,
    }


def rows(count: int) -> dict[str, dict]:
    """The rows of this count by engine."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {row["engine"]: row for row in map(json.loads, lines) if row["records"] == count}


def main(count: int, engines: list[str]) -> None:
    for engine in engines:
        if engine not in rows(count):
            row = run(engine, count)
            with FILE.open("a") as file:
                print(json.dumps(row), file=file)
            print(json.dumps(row), flush=True)
    found = rows(count)
    if len(found) == len(ENGINES):
        assert len({row["sha256"] for row in found.values()}) == 1
        assert all(row["workers_killed"] == (row["engine"] != "here") for row in found.values())
        print(
            f"{count} records: identical, complete, a worker killed on every engine that has workers"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000, sys.argv[2:] or list(ENGINES))
