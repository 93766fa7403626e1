"""What a measurement says of the part of a network that is judged."""

from __future__ import annotations

import dataclasses

from initdiag.errors import InvalidInput, explain
from initdiag.law.prediction import Prediction, has_linear_output, without_output_draw
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture

__all__ = ["judged_moments", "prediction_of"]


def judged_moments(measurement: Measurement, architecture: Architecture) -> tuple[float, float]:
    """Return the measured drift and fluctuation that risk and verdict judge: from the first layer on, without a linear output's draw."""
    found, first = (
        (measurement.rms_gain_log_mean, measurement.log_variance),
        architecture.first_layer,
    )
    if first is not None:
        found = measurement.from_first_layer(first.weight.variance, first.fan_in, first.fan_out)
    return (
        without_output_draw(*found, architecture.output_size)
        if has_linear_output(architecture)
        else found
    )


def prediction_of(architecture: Architecture, measurement: Measurement) -> Prediction:
    """Return what a measurement with ``method="law"`` predicts: see `Prediction.from_simulation`."""
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
    output = has_linear_output(architecture)
    found = Prediction.simulated(measurement.log_norms, reasons, *sizes, output, architecture.depth)
    if architecture.first_layer is None or found.dead_probability == 1:
        return found
    drift, log_variance = judged_moments(measurement, architecture)
    return dataclasses.replace(found, hidden_drift=drift, hidden_log_variance=log_variance)
