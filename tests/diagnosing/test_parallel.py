"""`check_many`: the same records here and on every engine, whatever dies on the way."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from support import parallel_candidates as zoo
from torch import nn

import initdiag
from initdiag.diagnosing.parallel import Checked, candidate_seed, check_many


def without_clock(records) -> list[Checked]:
    return [
        dataclasses.replace(r, report=r.report and dataclasses.replace(r.report, elapsed=0.0))
        for r in records
    ]


def processes(workers: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def serially() -> list[Checked]:
    return without_clock(check_many(zoo.CANDIDATES, **zoo.OPTIONS))


class Recorder:
    """An executor that begins a task when its result is asked for, and counts what is in flight."""

    def __init__(self, reverse: bool = False) -> None:
        self.waiting: list = []
        self.most = 0
        self.reverse = reverse

    def submit(self, fn, /, *args):
        future: Future = Future()
        self.waiting.append((future, fn, args))
        self.most = max(self.most, len(self.waiting))
        future.exception = lambda timeout=None: self.run() or Future.exception(future)  # type: ignore[method-assign]
        return future

    def run(self) -> None:
        jobs, self.waiting = self.waiting[:: -1 if self.reverse else 1], []
        for future, fn, args in jobs:
            future.set_result(fn(*args))


def test_each_record_is_what_one_diagnosis_gives(serially):
    """A naive loop, seeded by hand, gives the same; and the errors are records in their places."""
    assert [r.index for r in serially] == list(range(10))
    for index, factory in enumerate(zoo.FACTORIES):
        torch.manual_seed(candidate_seed(5, index))
        expected = initdiag.diagnose(factory, draws=64, seed=candidate_seed(5, index))
        assert serially[index].report == dataclasses.replace(expected, elapsed=0.0)
    assert serially[5].report.prediction == initdiag.predict([16, 16, 4])
    assert [serially[i].ok for i in (5, 6)] == [True, False]
    errors = [r.error for r in serially[7:]]
    assert [r.report for r in serially[7:]] == [None] * 3
    assert "positive integer" in errors[0]
    assert "no such layer" in errors[1]
    assert "SystemExit: 3" in errors[2]


def test_alike_candidates_are_drawn_apart_and_another_seed_is_another_run(serially):
    again = without_clock(check_many(zoo.FACTORIES[:1], draws=64, seed=6))
    seen = [r.report.measurement.log_mean for r in (serially[0], serially[3], again[0])]
    assert len(set(seen)) == 3


def test_the_callers_random_numbers_and_threads_stay():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = (
        torch.get_num_threads(),
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    )
    list(check_many(zoo.FACTORIES[:1], draws=16))
    after = (
        torch.get_num_threads(),
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    )
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_the_callers_thread_count_does_not_matter(serially):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert without_clock(check_many(zoo.FACTORIES, **zoo.OPTIONS)) == serially[:5]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("in_flight", "chunk", "reverse"), [(1, 1, False), (3, 1, True), (2, 4, True), (64, 3, False)]
)
@pytest.mark.slow
def test_neither_order_nor_chunks_nor_flight_change_a_record(serially, in_flight, chunk, reverse):
    engine = Recorder(reverse)
    records = check_many(zoo.CANDIDATES, engine, in_flight=in_flight, chunk=chunk, **zoo.OPTIONS)
    assert without_clock(records) == serially
    assert engine.most == min(in_flight, -(-10 // chunk))


@pytest.mark.parametrize("executor", [None, Recorder()])
def test_candidates_may_be_endless(executor):
    drawn = itertools.count()
    records = check_many(
        ([8, 8 + next(drawn), 4] for _ in itertools.repeat(0)), executor, in_flight=4
    )
    assert [r.index for r in itertools.islice(records, 6)] == list(range(6))
    records.close()
    assert next(drawn) <= 6 + 4 + 1


def test_threads(serially):
    with ThreadPoolExecutor(2) as threads:
        assert without_clock(check_many(zoo.CANDIDATES, threads, **zoo.OPTIONS)) == serially


def test_widths_under_assumptions_and_architectures():
    widths = [64] * 20
    architecture = initdiag.Architecture.from_widths(widths, init="he_normal")
    records = [
        next(check_many([widths], assumptions={"init": "he_normal"})),
        next(check_many([architecture])),
    ]
    assert [r.report.prediction for r in records] == [
        initdiag.predict(widths, init="he_normal")
    ] * 2
    assert next(check_many([widths], optimizer="adam")).report.optimizer == "adam"


def test_usage_faults_are_raised_at_once():
    with pytest.raises(initdiag.InvalidInput, match="assumptions="):
        check_many([[8, 8]], init_scheme="he_normal")
    with pytest.raises(initdiag.InvalidInput, match="optimizer"):
        check_many([[8, 8]], optimizer="sdg")
    with pytest.raises(initdiag.InvalidInput, match="on_error"):
        check_many([[8, 8]], on_error="ignore")
    with pytest.raises(initdiag.InvalidInput, match="get_executor"):
        check_many([[8, 8]], 4)
    with pytest.raises(initdiag.InvalidInput, match="seed"):
        check_many([[8, 8]], seed=-1)
    with pytest.raises(initdiag.InvalidInput, match="in_flight"):
        check_many([[8, 8]], in_flight=0)
    with pytest.raises(initdiag.InvalidInput, match=r"candidate 1: .*no such layer"):
        list(check_many([[8, 8], zoo.raises], on_error="raise"))


@pytest.mark.slow
def test_processes_and_what_cannot_be_sent(serially):
    """A lambda among chunked candidates costs itself alone, and its record says what to do."""
    mixed = [*zoo.CANDIDATES, lambda: nn.Linear(2, 2)]
    with processes() as pool:
        records = without_clock(check_many(mixed, pool, chunk=4, **zoo.OPTIONS))
    assert records[:10] == serially
    assert "top level of a module" in records[10].error


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_a_killer_is_named(serially, tmp_path):
    candidates = [
        partial(zoo.killed_once, str(tmp_path / "mark"), 8, 2), zoo.FACTORIES[1], zoo.kills, *zoo.CANDIDATES[3:]
    ]  # fmt: skip
    records = without_clock(check_many(candidates, processes, in_flight=4, **zoo.OPTIONS))
    assert (tmp_path / "mark").exists()
    assert "its worker process died" in records.pop(2).error
    assert records == [r for r in serially if r.index != 2]


@pytest.mark.slow
def test_without_replacement_the_error_names_the_missing(serially):
    candidates = [zoo.FACTORIES[0], zoo.kills, *zoo.FACTORIES]
    delivered = []
    with (
        processes(1) as pool,
        pytest.raises(initdiag.WorkersLost, match="candidates 1, 2, 3 have no") as caught,
    ):
        delivered.extend(check_many(candidates, pool, in_flight=3, **zoo.OPTIONS))
    assert caught.value.missing == (1, 2, 3)
    assert without_clock(delivered) == serially[:1]


def test_dask(serially, tmp_path):
    """Two worker processes, one of which is killed in mid-run."""
    distributed = pytest.importorskip(
        "distributed", reason="needs dask: pip install 'initdiag[dask]'"
    )
    cluster = distributed.LocalCluster(
        2, threads_per_worker=1, dashboard_address=":0", memory_limit=0
    )
    with cluster, distributed.Client(cluster) as client:
        candidates = [partial(zoo.killed_once, str(tmp_path / "mark"), 8, 2), *zoo.CANDIDATES[1:]]
        records = without_clock(
            check_many(candidates, client.get_executor(), in_flight=4, **zoo.OPTIONS)
        )
        with pytest.raises(initdiag.InvalidInput, match="get_executor"):
            check_many(candidates, client)
        assert (
            next(check_many([lambda: nn.Linear(2, 2)], client.get_executor(), draws=16)).report
            is not None
        )
    assert records == serially
    assert (tmp_path / "mark").exists()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray 2.49 leaves a Popen to the collector
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
def test_ray(serially, tmp_path, monkeypatch):
    """Two CPUs, one worker killed in mid-run."""
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'initdiag[ray]'")
    from initdiag.integrations.ray import ray_executor

    folders = [str(Path(zoo.__file__).parents[1]), str(Path(initdiag.__file__).parent.parent)]
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(folders)
    )  # workers import what pytest put on the path
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        candidates = [partial(zoo.killed_once, str(tmp_path / "mark"), 8, 2), *zoo.CANDIDATES[1:]]
        records = without_clock(check_many(candidates, ray_executor(), in_flight=4, **zoo.OPTIONS))
        assert (
            next(check_many([lambda: nn.Linear(2, 2)], ray_executor(), draws=16)).report is not None
        )
    finally:
        ray.shutdown()
    assert records == serially
    assert (tmp_path / "mark").exists()
