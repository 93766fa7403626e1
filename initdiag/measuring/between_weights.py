"""What random signs leave fixed: how far a measured moment moves from model to model.

Signs keep ``|W|``. To leading order a layer of ``N`` iid entries of kurtosis ``mu4``
moves the log-mean by the log of its mean square, whose variance is ``(mu4 - 1)/N`` by
the delta method. Where the row norms of one layer meet the column norms of the next,
both moments move by what their relative variances ``r`` and ``c`` make of ``n``
neurons, ``r c/n``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Layer

__all__ = ["interface_variances", "norm_variance", "with_weights_error"]

_OF_MEAN, _OF_VARIANCE = 0.75, 2.5
"""Factors of ``r c/n`` in the variances of log-mean and log-variance, found by 12,288
draws on each of 200 modules (`tests/evidence/agreement`)."""


def with_weights_error(measurement: Measurement, layers: Sequence[Layer]) -> Measurement:
    """Add what the weights leave fixed to the measurement's standard errors."""
    of_mean, of_variance = interface_variances(layers)
    of_norms = math.fsum(map(norm_variance, layers))
    return dataclasses.replace(
        measurement,
        log_mean_se=math.hypot(measurement.log_mean_se, math.sqrt(of_norms + of_mean)),
        log_variance_se=math.hypot(measurement.log_variance_se, math.sqrt(of_variance)),
    )


def norm_variance(layer: Layer) -> float:
    """Return the variance of the log mean square entry: none for Haar weights."""
    if layer.weight.family == "haar":
        return 0.0
    return (layer.weight.kurtosis - 1) / (layer.fan_in * layer.fan_out)


def interface_variances(layers: Sequence[Layer]) -> tuple[float, float]:
    """Return what the interfaces add to the variances of log-mean and log-variance."""
    total = math.fsum(_interface(a, b) for a, b in itertools.pairwise(layers))
    return _OF_MEAN * total, _OF_VARIANCE * total


def _interface(before: Layer, after: Layer) -> float:
    rows = _of_norms(before, before.fan_in, before.fan_out)
    return rows * _of_norms(after, after.fan_out, after.fan_in) / before.fan_out


def _of_norms(layer: Layer, entries: int, others: int) -> float:
    """Return the relative variance of squared norms of ``others`` vectors.

    Those of a Haar matrix follow Beta laws, which is exact to leading order.
    """
    if layer.weight.family != "haar":
        return (layer.weight.kurtosis - 1) / entries
    return 2 * max(0.0, 1 - entries / others) / entries
