"""What a billion candidates cost on a Dask or Ray cluster, from the throughput measured here.

    python examples/billion_candidates.py                                  # a process pool; prints the tables
    python examples/billion_candidates.py --engine dask                    # pip install "initdiag[dask]"; or ray
    python examples/billion_candidates.py --engine dask --address tcp://scheduler:8786 --tasks 1000     # a billion, on your cluster

The pattern. No candidate travels: a task is (seed, number), and its worker draws a million architectures from ``default_rng([seed, number])``, screens them as
``(flat, offsets)`` arrays, and sends back a summary: how many are kept, and the few best. Any candidate can be made again from seed, task and place. Where all
that is kept is wanted, the worker writes it to a Parquet file of its own beside the others (``--output FOLDER``, which all workers must see), and it does not travel either.
A task that is lost with its worker is run again by Dask and Ray, and comes out the same (risks to 12 digits); a file is complete or not there.

Measured: processor seconds and peak memory of tasks while every core of this machine has one, the bytes of tasks, summaries and files, and the time an engine needs
to hand out a task that does nothing. Extrapolated: everything about machines with other cores, more of them, or a network. The wall times are those of whole tasks on
equal cores, ``ceil(tasks / cores)`` after one another, and without the start of a cluster.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import initdiag

BILLION, MILLION = 10**9, 10**6
INITS = {"He normal": "he_normal", "orthogonal": "orthogonal", "PyTorch default": "torch_default"}
CORES = (1, 16, 64, 256)
BEST = 10
HEAD = (
    "| initialiser | draws, M/s a core | screens, M/s a core | core-hours for 1e9 | on 1 core | "
    + " | ".join(f"{cores} cores" for cores in CORES[1:])
    + " | kept | peak memory of a worker |"
)


@dataclass(frozen=True)
class Task:
    """What is sent to a worker."""

    number: int
    init: str
    seed: int = 0
    count: int = MILLION
    max_risk: float = 0.1
    folder: str | None = None

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Architectures of 3 to 18 layers of 8 to 1,024 units, drawn on the worker."""
        rng = np.random.default_rng([self.seed, self.number])
        lengths = rng.integers(4, 20, self.count)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return rng.integers(8, 1025, int(offsets[-1]), dtype=np.int16), offsets


@dataclass(frozen=True)
class Summary:
    """What comes back: ``best`` are (place, risk) of the smallest risks; seconds of processor time, and the worker's peak memory."""

    task: Task
    kept: int
    best: tuple[tuple[int, float], ...]
    drawing: float
    screening: float
    mebibytes: float


def screened(task: Task) -> Summary:
    """Draw, screen, write what is kept, and say how it went: what runs on a worker."""
    begin = time.process_time()
    candidates = task.candidates()
    drawn = time.process_time()
    found = initdiag.screen(candidates, init=task.init, max_risk=task.max_risk)
    done = time.process_time()
    if task.folder is not None:
        path = Path(task.folder, f"{task.init}-{task.seed}-{task.number:06d}.parquet")
        path.with_suffix(".partial").write_bytes(parquet(candidates, found, widths=True))
        path.with_suffix(".partial").replace(path)
    risk = np.round(
        found.risk, 12
    )  # the digits after these may differ between processes: sums are formed in the order of memory
    places = np.argsort(risk, kind="stable")[:BEST]
    best = tuple((int(place), float(risk[place])) for place in places)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    return Summary(task, int(found.accepted.sum()), best, drawn - begin, done - drawn, peak)


def parquet(
    candidates: tuple[np.ndarray, np.ndarray], found: initdiag.Screening, *, widths: bool
) -> bytes:
    """Place and risk of what is kept as a Parquet file, with the widths if they are wanted."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    flat, offsets = candidates
    places = np.flatnonzero(found.accepted)
    columns = {
        "place": pa.array(places.astype(np.int32)),
        "risk": pa.array(found.risk[places].astype(np.float32)),
    }
    if widths:
        lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(flat))
        columns["widths"] = lists.take(pa.array(places))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


Run = Callable[[Sequence[Task]], Iterator[Summary]]
"""Summaries in any order, each as soon as it is there."""


@contextmanager
def processes(workers: int, address: None = None) -> Iterator[Run]:
    with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
        yield lambda tasks: executor.map(screened, tasks)


@contextmanager
def dask(workers: int, address: str | None) -> Iterator[Run]:
    """With an address: on the workers that are there."""
    import distributed

    own = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(address) if address else distributed.Client(**own) as client:
        yield lambda tasks: (
            summary
            for _, summary in distributed.as_completed(
                client.map(screened, tasks), with_results=True
            )
        )


@contextmanager
def ray(workers: int, address: str | None) -> Iterator[Run]:
    """With an address: on the cluster that is there, ``"auto"`` from one of its machines."""
    import ray

    def run(tasks: Sequence[Task]) -> Iterator[Summary]:
        waiting = [ray.remote(screened).remote(task) for task in tasks]
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield ray.get(done)

    ray.init(address, **({} if address else {"num_cpus": workers, "include_dashboard": False}))
    yield run
    ray.shutdown()


ENGINES = {"processes": processes, "dask": dask, "ray": ray}


def without_clock(summary: Summary) -> Summary:
    return replace(summary, drawing=0.0, screening=0.0, mebibytes=0.0)


def check(found: Sequence[Summary]) -> None:
    """A result is the same wherever it was made, and its best candidate is what `predict` says of it."""
    assert without_clock(found[-1]) == without_clock(screened(replace(found[-1].task, folder=None)))
    place, risk = found[0].best[0]
    flat, offsets = found[0].task.candidates()
    widths = flat[offsets[place] : offsets[place + 1]].tolist()
    single = initdiag.failure_risk(initdiag.predict(widths, init=found[0].task.init))
    assert math.isclose(single, risk, rel_tol=1e-6, abs_tol=1e-8)


def clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def throughput_row(label: str, found: Sequence[Summary]) -> str:
    """A row of the first table: processor time a candidate (the median task's: a worker's first one builds tables), and what it makes for a billion."""
    count = found[0].task.count
    drawing, screening = (
        float(np.median([getattr(s, name) for s in found])) / count
        for name in ("drawing", "screening")
    )
    cost = drawing + screening
    walls = [clock(math.ceil(BILLION / MILLION / cores) * MILLION * cost) for cores in CORES]
    kept = sum(s.kept for s in found) / (count * len(found))
    cells = [f"{1e-6 / drawing:.1f}", f"{1e-6 / screening:.2f}", f"{BILLION * cost / 3600:.2f}"]
    return " | ".join(
        [
            "| " + label,
            *cells,
            *walls,
            f"{kept:.0%}",
            f"{max(s.mebibytes for s in found):.0f} MiB |",
        ]
    )


def sizes(task: Task, summary: Summary) -> Iterator[str]:
    """Rows of the second table: bytes a candidate, and for a billion."""
    candidates = task.candidates()
    found = initdiag.screen(
        candidates, init=task.init, max_risk=1.0
    )  # every one is kept: the most that a file can be
    yield _size(
        "task and summary: all that travels", len(pickle.dumps((task, summary))) / task.count
    )
    yield _size("one bit: kept or not", 1 / 8)
    yield _size(
        "the arrays: drawn on the worker, not sent", sum(a.nbytes for a in candidates) / task.count
    )
    for widths in (False, True):
        what = "Parquet (zstd), a candidate that is kept: place, risk" + ", widths" * widths
        try:
            yield _size(what, len(parquet(candidates, found, widths=widths)) / found.accepted.sum())
        except ImportError:
            yield f"| {what} | not measured: pip install 'initdiag[arrow]' | |"


def _size(what: str, each: float) -> str:
    return f"| {what} | {each:.2g} | {each:.2g} GB |"


def hand_out(run: Run) -> str:
    """What the engine itself costs, by tasks that do nothing."""
    results = iter(run([Task(number, "he_normal", count=1) for number in range(200)]))
    next(results)
    begin = time.perf_counter()
    count = len(list(results))
    each = (time.perf_counter() - begin) / count
    return f"to hand out a task that does nothing: {each * 1e3:.1f} ms, {each * BILLION / MILLION:.1f} s for a billion candidates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, default="processes")
    parser.add_argument(
        "--address", help="of a Dask scheduler or Ray cluster; without: workers on this machine"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="on this machine")
    parser.add_argument(
        "--tasks",
        type=int,
        help="of a million candidates, for each initialiser; default: 3 a worker",
    )
    parser.add_argument("--init", choices=INITS.values(), nargs="+", default=list(INITS.values()))
    parser.add_argument(
        "--output", help="folder in which the workers write what is kept, as Parquet"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="2 workers, tasks of 2,000 candidates: too small to measure by",
    )
    options = parser.parse_args()
    workers, count = (2, 2_000) if options.quick else (options.workers, MILLION)
    tasks = options.tasks or 3 * workers
    print(
        f"{tasks} tasks of {count:,} candidates (3 to 18 layers of 8 to 1,024 units) for each initialiser, {options.engine}\n"
    )
    print(HEAD + "\n|---" + "|--:" * (HEAD.count("|") - 2) + "|")
    with ENGINES[options.engine](workers, options.address) as run:
        for label, init in INITS.items():
            if init in options.init:
                work = [
                    Task(number, init, count=count, folder=options.output)
                    for number in range(tasks)
                ]
                found = sorted(run(work), key=lambda summary: summary.task.number)
                check(found)
                print(throughput_row(label, found), flush=True)
        overhead = hand_out(run)
    print("\n| of a candidate | bytes | for 1e9 |\n|---|--:|--:|")
    print("\n".join(sizes(found[0].task, found[0])))
    print(f"\n{overhead}")


if __name__ == "__main__":
    main()
