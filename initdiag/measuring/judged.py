"""What a measurement says of the part of a network that is judged."""

from __future__ import annotations

import dataclasses

from initdiag.errors import InvalidInput, explain
from initdiag.law.output import output_draw
from initdiag.law.predict import scale_error
from initdiag.law.prediction import Prediction, without_output_draw, without_output_mask
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture

__all__ = ["judged_moments", "prediction_of"]


def judged_moments(
    measurement: Measurement, architecture: Architecture
) -> tuple[float, float, float]:
    """Return the measured drift, log-variance and share of dead draws that are judged.

    They count from the first layer on, and without the draw of a linear output's
    weights (`initdiag.Prediction.hidden_drift`), nor the mask of a dropout behind it.
    """
    drift, log_variance = measurement.rms_gain_log_mean, measurement.log_variance
    first, output = architecture.first_layer, architecture.linear_output
    if first is not None:
        drift, log_variance = measurement.from_first_layer(
            first.weight.variance, first.fan_in, first.fan_out
        )
    if output is None or output.activation.gate is None:
        return drift, log_variance, measurement.dead_fraction
    dead = without_output_mask(measurement.dead_fraction, output.activation.gate, output.fan_out)
    draw = output_draw(architecture, as_gaussian=measurement.method == "law")
    return *without_output_draw(drift, log_variance, draw), dead


def prediction_of(architecture: Architecture, measurement: Measurement) -> Prediction:
    """Return what a measurement with ``method="law"`` predicts: see
    `Prediction.from_simulation`.
    """
    if measurement.method != "law":
        raise InvalidInput(
            explain(
                expected='a measurement with method="law"',
                got=f"method {measurement.method!r}",
                do='Use initdiag.measure(model, method="law").',
            )
        )
    gaps = sorted({gap.kind for gap in architecture.gaps})
    reasons = (
        f"simulated through the module's own forward ({', '.join(gaps)})",
        *measurement.notes,
    )
    sizes = architecture.input_size, architecture.output_size
    draw = output_draw(architecture, as_gaussian=True)
    found = Prediction.simulated(measurement.log_norms, reasons, *sizes, draw, architecture.depth)
    moments = dataclasses.replace(found.known, log_mean_error=scale_error(architecture.layers))
    if architecture.input_map is not None and found.dead_probability != 1:
        drift, log_variance, _ = judged_moments(measurement, architecture)
        moments = dataclasses.replace(moments, hidden_drift=drift, hidden_log_variance=log_variance)
    return dataclasses.replace(found, moments=moments)
