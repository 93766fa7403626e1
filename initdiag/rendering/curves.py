"""The report's curves and bars as arrays, which figure and HTML page both draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag.diagnosing.report import Report
from initdiag.errors import UnsupportedArchitecture
from initdiag.law.prediction import Prediction
from initdiag.measuring.record import Measurement

__all__ = [
    "Band",
    "Bars",
    "Curve",
    "Distribution",
    "Shares",
    "Spectrum",
    "bands",
    "bars",
    "distribution",
    "law_of",
    "log_gains",
    "shares",
    "shift",
    "spectrum",
]

Array = NDArray[np.float64]

_LARGEST = 1e100
"""Natural logs beyond it do not come from a measurement and are not drawn."""
_POINT = 1e-9
"""Relative width below which values are one number: float64 leaves them 7 digits."""

_LOW_TAIL, _HIGH_TAIL = 0.02, 1e-6
"""Shares of a spectrum that a figure leaves out: its lower tail may be very long."""

_POINTS = 241
"""Abscissae of a curve: one every two pixels of a panel of 400."""

_TAIL = 1e-3
"""Share of the law, on either side, that a figure leaves out: one draw in 1,000."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Ordinates ``y`` at abscissae ``x``."""

    x: Array
    y: Array


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """A histogram: ``heights[i]`` stands between ``edges[i]`` and ``edges[i + 1]``.

    Those that `bars` makes have area 1.
    """

    edges: Array
    heights: Array


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """``ln gain^2`` over initialisations.

    What was measured, the exact density, Hanin and Nica's log-normal, and the range.
    """

    measured: Bars | None
    law: Curve | None
    log_normal: Curve | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Each layer's share of drift and fluctuation (natural log), in order."""

    names: tuple[str, ...]
    drift: Array
    fluctuation: Array


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A log-norm layer by layer: its mean, and two standard deviations either way."""

    label: str
    mean: Array
    low: Array
    high: Array


def shift(report: Report) -> float:
    """Return ``ln(n_0/n_L)``: ``ln||Ju||^2`` plus this is ``ln gain^2``."""
    return math.log(report.architecture.input_size / report.architecture.output_size)


def log_gains(report: Report) -> Array:
    """Return the measured ``ln gain^2`` of the draws that are not dead."""
    m = report.measurement
    if m is None:
        return np.empty(0)
    return np.asarray(
        m.log_norms[np.abs(m.log_norms) < _LARGEST] + math.log(m.input_size / m.output_size)
    )


def _known(values: Array) -> Array:
    """Return the value, or NaN if it cannot be drawn."""
    return np.where(np.abs(values) < _LARGEST, values, np.nan)


def law_of(prediction: Prediction) -> Any | None:
    """Return the predicted law of ``ln||Ju||^2``; None where nothing makes one."""
    numbers = [
        prediction.log_mean,
        prediction.log_variance,
        *(layer.weight_variance for layer in prediction.layers),
    ]
    is_known = (
        all(value is not None and math.isfinite(value) for value in numbers)
        and (prediction.log_variance or 0) > 0
    )
    has_gates = all(layer.gate is not None for layer in prediction.layers)
    if (
        prediction.coverage == "none"
        or not is_known
        or not (has_gates or prediction.samples is not None)
    ):
        return None
    try:
        return prediction.law
    except UnsupportedArchitecture:
        return None


def bars(values: Array, count: int | None = None) -> Bars | None:
    """Return the histogram of ``values``, of area 1; None for fewer than two, or equal.

    Without ``count`` it has ``3 n^{1/3}`` bins, half as many again as by Rice's rule,
    from 10 to 48.
    """
    if len(values) < 2:
        return None
    low, high = float(values.min()), float(values.max())
    with np.errstate(over="ignore"):
        span = high - low
    if not _POINT * max(1.0, abs(low), abs(high)) < span < math.inf:
        return None
    number = count or int(np.clip(3 * len(values) ** (1 / 3), 10, 48))
    heights, edges = np.histogram(values, bins=number, range=(low, high))
    return Bars(edges, heights / (len(values) * span / number))


def distribution(report: Report) -> Distribution | None:
    """Return ``ln gain^2``, measured and predicted; None where there is neither."""
    measured = bars(log_gains(report))
    moved = shift(report)
    law = law_of(report.prediction)
    predicted = None if law is None else _tails(law, moved)
    ends = [measured.edges[[0, -1]]] if measured else []
    ends += [predicted] if predicted is not None and np.isfinite(predicted).all() else []
    if not ends:
        return None
    low, high = float(np.min(ends)), float(np.max(ends))
    if not _POINT * max(1.0, abs(low), abs(high)) < high - low < math.inf:
        return None
    grid = np.linspace(low, high, _POINTS)
    asymptotic = _asymptotic(report.prediction)
    return Distribution(
        measured, _density(law, grid, moved), _density(asymptotic, grid, moved), low, high
    )


def _tails(law: Any, moved: float) -> Array | None:
    """Return where the law begins and ends; None if it has jumps that are too steep."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(law.ppf(np.array([_TAIL, 1 - _TAIL])) + moved)
    except UnsupportedArchitecture:
        return None


def _asymptotic(prediction: Prediction) -> Any | None:
    beta, gains = prediction.beta, [layer.gain for layer in prediction.layers]
    is_known = bool(gains) and beta is not None and 0 < beta < math.inf
    if not (is_known and all(0 < gain < math.inf for gain in gains)):
        return None
    return prediction.asymptotic_law


def _density(law: Any | None, grid: Array, moved: float) -> Curve | None:
    if law is None:
        return None
    try:
        with np.errstate(all="ignore"):
            y = np.asarray(law.pdf(grid - moved), dtype=np.float64)
    except (UnsupportedArchitecture, np.linalg.LinAlgError, ValueError):  # a variance of infinity
        return None
    return Curve(grid, y) if np.isfinite(y).all() and y.max() > 0 else None


def shares(report: Report) -> Shares | None:
    """Return the layers' shares of drift and fluctuation; None without them."""
    layers = report.prediction.layers
    drift = _known(np.array([layer.rms_gain_log_mean for layer in layers]))
    fluctuation = _known(np.array([layer.log_variance for layer in layers]))
    if not layers or not (np.isfinite(drift).any() and np.isfinite(fluctuation).any()):
        return None
    return Shares(tuple(layer.name for layer in layers), drift, fluctuation)


def bands(report: Report) -> tuple[Band, ...]:
    """Return what was measured layer by layer.

    Activations, perturbations and, where they were measured, weight gradients.

    A perturbation is shown relative to the input's, per feature: ``ln||W t||^2 +
    ln(n_0/fan_out)``; at the output that is ``ln gain^2``.
    """
    m = report.measurement
    if m is None or len(m.layers) < 2:
        return ()
    sizes = {layer.name: layer.fan_out for layer in report.architecture.layers}
    per_feature = [
        math.log(m.input_size / sizes[one.name]) if one.name in sizes else math.nan
        for one in m.layers
    ]
    found = (
        _band(m, "activations", "activation_log"),
        _band(m, "perturbation", "tangent_log", np.array(per_feature)),
        _band(m, "weight gradients", "weight_gradient.log"),
    )
    return tuple(band for band in found if band is not None)


def _band(
    measurement: Measurement, label: str, field: str, moved: Array | float = 0.0
) -> Band | None:
    means = _known(_values(measurement, f"{field}_mean") + moved)
    variances = _known(_values(measurement, f"{field}_variance"))
    if not np.isfinite(means).any():
        return None
    spread = 2 * np.sqrt(np.where(variances >= 0, variances, 0.0))
    return Band(label, means, means - spread, means + spread)


def _values(measurement: Measurement, path: str) -> Array:
    """Return a field (or ``a.b`` of one) for every layer, NaN where unmeasured."""
    found: list[Any] = list(measurement.layers)
    for field in path.split("."):
        found = [getattr(value, field, None) for value in found]
    return np.array([math.nan if value is None else float(value) for value in found])


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The density of ``ln lambda``, predicted, and measured where it was.

    ``lambda`` are the squared singular values of the Jacobian.

    ``zero_mass`` is the share of them that is 0.
    """

    law: Curve
    measured: Bars | None
    zero_mass: float


def spectrum(report: Report) -> Spectrum | None:
    """Return the spectrum; None where the report has none."""
    found: Any = report.spectrum
    if found is None:
        return None
    law = found.law
    with np.errstate(all="ignore"):
        tail, high = (float(x) for x in law.ppf(np.array([_LOW_TAIL, 1 - _HIGH_TAIL])))
        edge = float(found.log_lower_edge)
        # the tail may be long
        low = edge if edge > tail - 0.5 * (high - tail) else tail
        grid = np.linspace(low - 0.02 * (high - low), high + 0.05 * (high - low), _POINTS)
        y = np.asarray(found.density(grid), dtype=np.float64)
    is_drawable = (
        math.isfinite(low)
        and math.isfinite(high)
        and low < high
        and np.isfinite(y).all()
        and y.max() > 0
    )
    return Spectrum(Curve(grid, y), None, float(found.zero_mass)) if is_drawable else None
