"""Many diagnoses on an executor: processes, Dask, Ray, MPI, or none; the results do not
depend on which.

An engine needs only ``submit``, and futures in the manner of `concurrent.futures`.
Candidates go out in order, at most ``in_flight`` tasks at a time, and records come back
in order. A candidate's random numbers depend on (seed, its index) alone, and each is
diagnosed on one thread, so that sums are formed in the same order everywhere.
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, get_args

from initdiag._core.validation import choice, positive_integer
from initdiag.diagnosing.candidate import OF_WIDTHS, Checked, Task, candidate_seed, run
from initdiag.diagnosing.diagnose import diagnose, diagnose_architecture
from initdiag.diagnosing.engine import Engine, done, was_lost
from initdiag.errors import InvalidInput, WorkersLost, explain, text_of
from initdiag.network.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Checked", "candidate_seed", "check_many"]

OnError = Literal["result", "raise"]
"""What becomes of a candidate that cannot be diagnosed: a record, or an exception."""

_ON_ERROR: tuple[OnError, ...] = get_args(OnError)


def check_many(
    candidates: Iterable[Callable[[], nn.Module] | Sequence[int] | Architecture],
    executor: Executor | Callable[[], Executor] | None = None,
    *,
    in_flight: int = 64,
    chunk: int = 1,
    seed: int = 0,
    on_error: OnError = "result",
    assumptions: Mapping[str, Any] | None = None,
    **diagnose_options: Any,
) -> Iterator[Checked]:
    """Diagnose many candidates, here or on an engine; yield a record for each, in their
    order.

    Parameters
    ----------
    candidates : iterable
        Factories ``() -> nn.Module``, or widths ``n_0, ..., n_L``, or an
        `Architecture`; the last two are judged by theory alone. It is read as results
        are taken, so that it may be endless.
    executor : Executor, or function that returns one, optional
        Anything with ``submit`` in the manner of `concurrent.futures`: a
        `ProcessPoolExecutor` (start method "spawn"), ``client.get_executor()`` of Dask,
        `initdiag.integrations.ray.ray_executor`, ``mpi4py.futures``. None: one after
        the other, here. An executor is left open. A function
        (``functools.partial(ProcessPoolExecutor, 8)``) is called for a first executor,
        and for another whenever one breaks because a worker was killed; those are shut
        down.
    in_flight : int
        Tasks handed out and not yet taken back: at least twice the number of workers.
    chunk : int
        Candidates a task. Widths take about half a millisecond each: send hundreds.
    seed : int
        Candidate ``i`` draws its weights and its measurement from
        ``candidate_seed(seed, i)``.
    on_error : str
        ``"result"``: a candidate that cannot be diagnosed is a record with its error.
        ``"raise"``: the first one raises.
    assumptions : mapping, optional
        For candidates that are widths: as in `Architecture.from_widths`.
    **diagnose_options
        See `diagnose`; ``input_size`` travels better than ``example_input``.

    Returns
    -------
    iterator of Checked
        Equal on every engine, but for the reports' ``elapsed``. Closing it cancels what
        has not begun.

    Raises
    ------
    InvalidInput
        At once for options that do not exist; with ``on_error="raise"`` for a
        candidate.
    WorkersLost
        If an executor that was given as such breaks.

    Examples
    --------
    >>> [record.ok for record in check_many([[64] * 5, [64] * 40])]
    [True, False]
    """
    options = _checked_options(diagnose_options)
    choice(on_error, "on_error", _ON_ERROR)
    candidate_seed(seed, 0)
    engine = None if executor is None else Engine(executor)
    batches = _batches(candidates, positive_integer(chunk, "chunk"))
    tasks = (Task(start, batch, seed, options, dict(assumptions or {})) for start, batch in batches)
    return _records(
        tasks, engine, positive_integer(in_flight, "in_flight"), raises=on_error == "raise"
    )


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options. An unknown one or a wrong choice is refused here, because
    every candidate would fail by it.
    """
    known = list(signature(diagnose).parameters)[1:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InvalidInput(
            explain(
                expected=f"options of diagnose ({', '.join(known)})",
                got=", ".join(unknown),
                do="What is assumed of widths goes into assumptions={...}.",
            )
        )
    diagnose_architecture(
        Architecture.from_widths([1, 1]), **{k: options[k] for k in OF_WIDTHS[:4] if k in options}
    )
    return options


def _batches(candidates: Iterable[Any], size: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield consecutive candidates with the first one's index."""
    remaining = iter(candidates)
    for start in itertools.count(0, size):
        batch = tuple(itertools.islice(remaining, size))
        if not batch:
            return
        yield start, batch


def _records(
    tasks: Iterable[Task], engine: Engine | None, in_flight: int, *, raises: bool
) -> Iterator[Checked]:
    results = map(run, tasks) if engine is None else _in_order(tasks, engine, in_flight)
    for record in itertools.chain.from_iterable(results):
        if raises and record.error is not None:
            raise InvalidInput(f"candidate {record.index}: {record.error}")
        yield record


def _in_order(
    tasks: Iterable[Task], engine: Engine, in_flight: int
) -> Iterator[tuple[Checked, ...]]:
    """Yield the results in order, with at most ``in_flight`` tasks handed out."""
    window: deque[tuple[Task, Future[Any]]] = deque()
    try:
        for task in tasks:
            if len(window) == in_flight:
                yield _first(window, engine)
            window.append((task, engine.submit(task)))
        while window:
            yield _first(window, engine)
    finally:
        for _, future in window:
            future.cancel()
        engine.close()


def _first(window: deque[tuple[Task, Future[Any]]], engine: Engine) -> tuple[Checked, ...]:
    """Take the first task's result from the window, with whatever repair that needs."""
    if was_lost(window[0][1]):
        engine.renew(
            [index for task, future in window if was_lost(future) for index in task.indices]
        )
        for place, (task, future) in enumerate(window):
            if was_lost(future):
                window[place] = task, done(_alone(task, engine))
    task, future = window.popleft()
    error = future.exception()
    if error is None:
        return tuple(future.result())
    if len(task.candidates) > 1:
        return _alone(task, engine)
    return _failed(task, error)


def _alone(task: Task, engine: Engine) -> tuple[Checked, ...]:
    """Run the task's candidates with nothing else in flight: one that breaks the engine
    now is itself the cause.
    """
    records: list[Checked] = []
    for part in task.parts():
        future = engine.submit(part)
        if was_lost(future):
            engine.renew(part.indices)
            records += _failed(part, WorkersLost(_DIED))
        else:
            error = future.exception()
            records += future.result() if error is None else _failed(part, error)
    return tuple(records)


_DIED = (
    "its worker process died, alone with this candidate: killed, out of memory, or unable to "
    "import the factory "
    "(workers do not see what was defined in an interactive session)"
)


def _failed(task: Task, error: BaseException) -> tuple[Checked, ...]:
    """Return records of candidates that never ran: they could not be sent, or the
    engine gave up.
    """
    text = _cannot_be_sent(task.candidates[0]) or f"{type(error).__name__}: {error}"
    return tuple(Checked(index, None, text) for index in task.indices)


def _cannot_be_sent(candidate: Any) -> str | None:
    try:
        pickle.dumps(candidate)
    except Exception as error:
        return explain(
            expected="a candidate that can be sent to another process",
            got=f"{type(error).__name__}: {text_of(error)}",
            do="Define the factory at the top level of a module (functools.partial(build, 64) "
            "gives it arguments), "
            "or use an engine that sends functions by value (Dask, Ray, loky).",
        )
    return None
