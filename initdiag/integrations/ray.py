"""Ray: an executor for `initdiag.check_many`, and rejection inside Ray Tune's
sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from initdiag._core.choices import Family
from initdiag._core.validation import probability
from initdiag.errors import InitdiagError
from initdiag.integrations.candidates import risk_of

try:
    import ray
except ImportError as error:
    raise InitdiagError(
        "expected ray, got none. Install it: pip install 'initdiag[ray]'"
    ) from error

__all__ = ["ray_executor", "sample_accepted"]


class _RayExecutor(Executor):
    def __init__(self, options: dict[str, Any]) -> None:
        self._call = ray.remote(_call)
        if options:
            self._call = self._call.options(**options)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self._call.remote(fn, *args, **kwargs).future()
        return future


def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


def ray_executor(**options: Any) -> Executor:
    """Return an executor that submits to Ray, which must have been started:
    ``ray.init()``, or ``ray.init("auto")`` on a cluster.

    Parameters
    ----------
    **options
        Options of a Ray task: ``num_cpus``, ``resources``, ``runtime_env`` ... Ray runs
        a task again if its worker was killed (``max_retries``, 3 by default).

    Examples
    --------
    >>> records = initdiag.check_many(candidates, ray_executor())  # doctest: +SKIP
    """
    return _RayExecutor(options)


def sample_accepted(
    draw: Callable[[], Sequence[int]],
    *,
    optimizer: Family | None = "sgd",
    max_risk: float = 0.5,
    attempts: int = 10_000,
    **options: Any,
) -> list[int]:
    """Draw widths until a candidate's risk is below ``max_risk``: for
    ``tune.sample_from``, before a trial is made of it.

    Parameters
    ----------
    draw : callable
        Returns a candidate's widths, at random.
    optimizer, **options
        See `initdiag.integrations.candidates.risk_of`.
    max_risk : float
        Candidates of this risk or more are rejected.
    attempts : int
        Candidates to try before giving up.

    Raises
    ------
    InitdiagError
        If all ``attempts`` were rejected.

    Examples
    --------
    >>> widths = tune.sample_from(  # doctest: +SKIP
    ...     lambda config: sample_accepted(draw)
    ... )
    """
    max_risk = probability(max_risk, "max_risk")
    for _ in range(attempts):
        widths = list(draw())
        if risk_of(widths, optimizer=optimizer, **options) < max_risk:
            return widths
    raise InitdiagError(
        f"expected a candidate of risk below {max_risk}, got none in {attempts} draws. Widen the "
        "space of draw, or raise max_risk."
    )
