"""CSV of the layers: a row for each with what is known, predicted and measured.

Logarithms are natural; an empty cell is not known.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from typing import Any

from initdiag.diagnosing.report import Report
from initdiag.law.prediction import LayerPrediction
from initdiag.measuring.record import LayerMeasurement
from initdiag.network.architecture import Layer
from initdiag.rendering import words

__all__ = ["COLUMNS", "to_csv"]

COLUMNS = (
    "target", "index", "layer", "fan_in", "fan_out", "activation", "weights", "weight_variance",
    "gain", "drift", "log_variance", "beta", "dead_probability", "activation_log_mean",
    "activation_log_variance", "tangent_log_mean", "tangent_log_variance",
    "weight_gradient_log_mean", "weight_gradient_log_variance",
)  # fmt: skip


def to_csv(*reports: Report) -> str:
    """Return a header and a row for every layer of every network (RFC 4180)."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for report in map(words.printable, reports):
        writer.writerows(_rows(report))
    return file.getvalue()


def _rows(report: Report) -> Iterator[list[str]]:
    layers = report.architecture.layers
    predicted: tuple[LayerPrediction | None, ...] = report.prediction.layers
    measured: dict[str, list[LayerMeasurement]] = {}
    for entry in report.measurement.layers if report.measurement else ():
        measured.setdefault(entry.name, []).append(entry)
    for index, (layer, share) in enumerate(itertools.zip_longest(layers, predicted[: len(layers)])):
        seen = measured.get(layer.name)
        yield [
            _cell(value)
            for value in (
                report.target,
                index,
                *_values(layer, share),
                *_seen(seen.pop(0) if seen else None),
            )
        ]


def _values(layer: Layer, share: LayerPrediction | None) -> tuple[Any, ...]:
    weight = layer.weight
    known = (
        layer.name,
        layer.fan_in,
        layer.fan_out,
        layer.activation.label,
        weight.initializer or weight.family,
        weight.variance,
    )
    if share is None:
        return (*known, *[None] * 5)
    return (
        *known,
        share.gain,
        share.rms_gain_log_mean,
        share.log_variance,
        share.beta,
        share.dead_probability,
    )


def _seen(entry: LayerMeasurement | None) -> tuple[float | None, ...]:
    """Return what was measured, or None."""
    gradient = getattr(entry, "weight_gradient", None)
    moments = [
        getattr(entry, f"{what}_log_{moment}", None)
        for what in ("activation", "tangent")
        for moment in ("mean", "variance")
    ]
    return (*moments, getattr(gradient, "log_mean", None), getattr(gradient, "log_variance", None))


def _cell(value: Any) -> str:
    """Return a number in full, or a text with an apostrophe before anything that looks
    like a formula.

    A spreadsheet would run it.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return repr(float(value)) if isinstance(value, float) else str(value)
