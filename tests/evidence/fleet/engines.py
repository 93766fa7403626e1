"""The same candidates here, through processes, Dask and Ray, a worker killed in mid-run on each: one digest of all records.

python tests/evidence/fleet/engines.py 8000 > tests/evidence/fleet/engines.txt
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
from functools import partial
from multiprocessing import get_context

import numpy as np
import psutil

import initdiag

CHUNK, IN_FLIGHT = 500, 16


def candidates(count: int) -> Iterator[list[int]]:
    """Widths: 1 to 12 hidden layers of 4 to 256 units; every 1000th has a layer of width 0, an error."""
    rng = np.random.default_rng(0)
    for index in range(count):
        hidden = rng.integers(4, 257, rng.integers(1, 13)).tolist()
        yield [16, *hidden, 0 if index % 1000 == 999 else 10]


def digest(records: Iterator[initdiag.fleet.Checked], count: int) -> dict:
    """What came: counts, and a hash of every number of the predictions and of every error, in order."""
    found, errors, kept = hashlib.sha256(), 0, 0
    for place, record in enumerate(records):
        assert record.index == place
        report = record.report
        text = record.error if report is None else json.dumps([report.prediction.to_dict(), report.risk])
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


def run(engine: str, executor: object, count: int, name: str | None = None) -> dict:
    """Run all candidates; kill a worker in mid-run where ``name`` is given."""
    killed: list[int] = []
    if name:
        threading.Thread(target=kill_one, args=(6, name, killed), daemon=True).start()
    begin = time.perf_counter()
    options = {"chunk": CHUNK, "in_flight": IN_FLIGHT, "assumptions": {"init": "he_normal"}}
    found = digest(initdiag.check_many(candidates(count), executor, **options), count)
    row = {"engine": engine, **found, "workers_killed": len(killed), "seconds": round(time.perf_counter() - begin)}
    print(json.dumps(row), flush=True)
    return row


def main(count: int) -> None:
    import distributed
    import ray

    from initdiag.integrations.ray import ray_executor

    rows = [run("here", None, count)]
    processes = partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))
    rows.append(run("processes", processes, count, "from multiprocessing.spawn"))
    cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        rows.append(run("dask", client.get_executor(), count, "from multiprocessing.spawn"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    rows.append(run("ray", ray_executor(), count, "ray::_call"))
    ray.shutdown()
    assert len({row["sha256"] for row in rows}) == 1
    assert all(row["workers_killed"] == (row["engine"] != "here") for row in rows)
    print("identical")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)
