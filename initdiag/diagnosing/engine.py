"""The executor that diagnoses run on: what it may lose, and another in its place."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any

from initdiag.diagnosing.candidate import Task, run
from initdiag.errors import InvalidInput, WorkersLost, explain

__all__ = ["Engine", "done", "was_lost"]

_LOST = (BrokenExecutor, CancelledError)
"""What a future raises whose worker, not whose work, failed."""

_CANNOT_SEND = (pickle.PicklingError, TypeError, AttributeError)
"""What ``submit`` may raise for a candidate that cannot be pickled."""


class Engine:
    """An executor, and the function that makes another when it breaks, if
    there is one.
    """

    def __init__(self, given: Any) -> None:
        is_executor = hasattr(given, "submit") and not isinstance(given, type)
        if hasattr(given, "get_executor") or not (is_executor or callable(given)):
            raise InvalidInput(
                explain(
                    expected=(
                        "executor: a concurrent.futures.Executor, or a function that returns one"
                    ),
                    got=repr(type(given).__name__),
                    do=(
                        "E.g. ProcessPoolExecutor(8); for Dask client.get_executor(), for Ray "
                        "initdiag.integrations.ray.ray_executor()."
                    ),
                )
            )
        self._make: Callable[[], Any] | None = None if is_executor else given
        self._executor = given if self._make is None else None

    def submit(self, task: Task) -> Future[Any]:
        """Hand a task out; what is wrong with the task or the workers is the
        future's.
        """
        if self._executor is None:
            assert self._make is not None
            self._executor = self._make()
        try:
            future: Future[Any] = self._executor.submit(run, task)
        except (*_LOST, *_CANNOT_SEND) as error:
            return done(error=error)
        return future

    def renew(self, missing: Sequence[int]) -> None:
        """Put another executor in the place of a broken one."""
        if self._make is None:
            listed = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
            raise WorkersLost(
                f"expected workers that live, got a broken executor: candidates {listed} have no "
                f"result, nor has any after {missing[-1]}. "
                "Pass a function that returns an executor "
                "(functools.partial(ProcessPoolExecutor, 8)) to have lost candidates run "
                "again; if every run ends here, workers cannot import the factories, or the "
                "script lacks "
                "`if __name__ == '__main__':`.",
                missing,
            )
        self.close()

    def close(self) -> None:
        """Shut down what was made here."""
        if self._make is not None and self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


def was_lost(future: Future[Any]) -> bool:
    """Wait for the future, and say whether its worker was lost."""
    try:
        return isinstance(future.exception(), _LOST)
    except CancelledError:
        return True


def done(value: Any = None, error: BaseException | None = None) -> Future[Any]:
    """Return a future that has this outcome already."""
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
    return future
