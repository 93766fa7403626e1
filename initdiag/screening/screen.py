"""A filter for architecture search: the law and the calibrated risk of any number of
architectures, from their widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag._core.choices import Family, Loss
from initdiag._core.summary import Summarised, number
from initdiag._core.validation import choice, probability
from initdiag.diagnosing.risk import Training, failure_risk, risks
from initdiag.errors import InvalidInput, explain
from initdiag.law.batch.laws import laws
from initdiag.law.batch.ragged import Ragged
from initdiag.law.predict import predict
from initdiag.screening.sizing import UNITS, Budget, Unit, best_widths

__all__ = ["Screening", "Sizing", "accepts", "screen", "widths_for", "widths_front"]

Array = NDArray[np.float64]

_CHUNK = 1 << 13
"""Architectures whose risk is computed together."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Screening(Summarised):
    """What `screen` found: arrays of one length, in the order of the architectures.

    Attributes
    ----------
    beta, log_mean, rms_gain_log_mean, log_variance, dead_probability : float64 arrays
        As in `initdiag.Prediction` (natural log). All but beta are NaN where `predict`
        refuses the architecture as well: non-Gaussian weights in layers of one or two
        units, where the law's own error is above a quarter of the log-variance.
    risk : float64 array
        Calibrated probability that training does not start (`initdiag.failure_risk`);
        NaN as above.
    accepted : bool array
        Whether the risk is known and below ``max_risk``.
    """

    beta: Array
    log_mean: Array
    rms_gain_log_mean: Array
    log_variance: Array
    dead_probability: Array
    risk: Array
    accepted: NDArray[np.bool_]

    def _summary(self) -> dict[str, str]:
        known = self.risk[np.isfinite(self.risk)]
        ends = f"{number(known.min())} to {number(known.max())}" if len(known) else "-"
        return {
            "architectures": str(len(self)),
            "accepted": str(int(self.accepted.sum())),
            "risk": ends,
        }

    def __len__(self) -> int:
        return len(self.accepted)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns as lists, by name: what ``pandas.DataFrame`` and
        ``pyarrow.table`` take.
        """
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}


def screen(
    widths: Any,
    *,
    optimizer: Family | None = "sgd",
    max_risk: float = 0.5,
    lr: float | None = None,
    loss: Loss | None = None,
    **assumptions: Any,
) -> Screening:
    """Judge many architectures at once, each as `predict` and `failure_risk` would.

    Parameters
    ----------
    widths : list of lists, 2-d integer array, (flat, offsets), or Arrow list array
        ``n_0, ..., n_L`` of each architecture: 1 to 100,000 linear layers of 1 to
        1,000,000 units. Of ``(flat, offsets)``, two integer arrays, architecture ``i``
        is ``flat[offsets[i]:offsets[i + 1]]``.
    optimizer, lr, loss
        See `failure_risk`.
    max_risk : float
        Risk from which on an architecture is refused, 0 to 1.
    **assumptions
        See `Architecture.from_widths`; one value for all layers each, and of the
        activations relu, leaky_relu and linear.

    Returns
    -------
    Screening
        For normal and orthogonal weights equal to `predict` to 1e-12 (relative, or
        absolute below 1), for uniform and truncated normal ones to 1e-11.

    Raises
    ------
    InvalidInput
        If a row is not an architecture (the first one is named), or a value is out of
        range.
    UnsupportedArchitecture
        For activations whose law is simulated: `predict` them one by one.

    Examples
    --------
    >>> found = screen([[784, 256, 10], [784] + [16] * 60 + [10]], init="he_normal")
    >>> found.accepted.tolist()
    [True, False]
    """
    max_risk = probability(max_risk, "max_risk")
    training = Training.of(optimizer, lr, loss)  # raises before the work
    architectures = Ragged.of(widths)
    bad = architectures.faults()
    if len(bad):
        raise InvalidInput(
            explain(
                expected="architectures of 2 widths or more",
                got=f"row {bad[0]}: {architectures.fault(int(bad[0]))}",
                do=f"Correct {len(bad)} row{'s' * (len(bad) > 1)}.",
            )
        )
    found = laws(architectures, **assumptions)
    depth = np.diff(architectures.offsets) - 1
    risk = np.empty(len(architectures))
    for start in range(0, len(risk), _CHUNK):
        part = slice(start, start + _CHUNK)
        moments = (
            found.hidden_drift[part],
            found.hidden_log_variance[part],
            found.dead_probability[part],
        )
        risk[part] = risks(*moments, depth[part], training)
    return Screening(
        found.beta,
        found.log_mean,
        found.rms_gain_log_mean,
        found.log_variance,
        found.dead_probability,
        risk,
        risk < max_risk,
    )


def accepts(
    widths: Sequence[int],
    *,
    optimizer: Family | None = "sgd",
    max_risk: float = 0.5,
    lr: float | None = None,
    loss: Loss | None = None,
    **assumptions: Any,
) -> bool:
    """Return whether one architecture's risk is known and below ``max_risk``.

    Parameters
    ----------
    widths : sequence of int
        ``n_0, ..., n_L``.
    optimizer, max_risk, lr, loss
        See `screen`.
    **assumptions
        See `Architecture.from_widths`; every activation is taken.

    Raises
    ------
    InvalidInput
        If widths, assumptions or numbers are out of range.

    Examples
    --------
    >>> accepts([784, 256, 256, 10], init="he_normal")
    True
    """
    max_risk = probability(max_risk, "max_risk")
    prediction = predict(widths, **assumptions)
    return (
        prediction.coverage != "none" and failure_risk(prediction, optimizer, lr, loss) < max_risk
    )


@dataclass(frozen=True, slots=True)
class Sizing:
    """Widths under a budget, and how they stand.

    Attributes
    ----------
    widths : tuple of int
        ``n_0, ..., n_L``.
    cost : int
        Part of the budget that is used, in its unit.
    log_variance, risk : float
        As in `Screening` (natural log).
    accepted : bool
        Whether the risk is below the ceiling.
    """

    widths: tuple[int, ...]
    cost: int
    log_variance: float
    risk: float
    accepted: bool

    @property
    def depth(self) -> int:
        """Linear layers."""
        return len(self.widths) - 1


def widths_for(
    depth: int, budget: int, *, fan_in: int, fan_out: int, unit: Unit = "parameters", **options: Any
) -> Sizing:
    """Return the best widths of a depth under a budget: those of the smallest
    fluctuation, and whether they meet the ceiling on the risk.

    At a healthy gain they are those of the smallest risk, too, to within 0.02 (every
    network of 3 to 5 layers under 80 budgets tried); where the gain is too high,
    orthogonal and Xavier weights do better with uneven widths, which bring it down:
    mend the gain first.

    Parameters
    ----------
    depth : int
        Linear layers, the output's included.
    budget : int
        How much of ``unit``: ``"parameters"``, ``"flops"`` or ``"sum_of_widths"``
        (`initdiag.screening.sizing.best_widths`).
    fan_in, fan_out : int
        Widths of input and output.
    **options
        See `screen`.

    Raises
    ------
    InvalidInput
        If the budget does not buy hidden layers of one unit, or a number is out of
        range.

    Examples
    --------
    >>> found = widths_for(4, 100_000, fan_in=784, fan_out=10, init="he_normal")
    >>> found.widths, found.accepted
    ((784, 77, 142, 186, 10), True)
    """
    return widths_front(budget, [depth], fan_in=fan_in, fan_out=fan_out, unit=unit, **options)[0]


def widths_front(
    budget: int,
    depths: Iterable[int],
    *,
    fan_in: int,
    fan_out: int,
    unit: Unit = "parameters",
    **options: Any,
) -> list[Sizing]:
    """Return the best widths of each depth under one budget: depth against risk.

    Parameters
    ----------
    budget, fan_in, fan_out, unit, **options
        See `widths_for`.
    depths : iterable of int
        Linear layers.

    Raises
    ------
    InvalidInput
        See `widths_for`.

    Examples
    --------
    >>> front = widths_front(
    ...     100_000, (4, 64), fan_in=784, fan_out=10, init="he_normal", max_risk=0.2
    ... )
    >>> [sizing.accepted for sizing in front]
    [True, False]
    """
    choice(unit, "unit", UNITS)
    limit = Budget.of(**{unit: budget})
    rows = [best_widths(depth, fan_in, fan_out, **{unit: budget}) for depth in depths]
    found = screen(rows, **options)
    return [
        Sizing(tuple(row), limit.cost(row), float(variance), float(risk), bool(accepted))
        for row, variance, risk, accepted in zip(
            rows, found.log_variance, found.risk, found.accepted, strict=True
        )
    ]
