"""The words that every renderer shares."""

from __future__ import annotations

import dataclasses
import math

import pytest
from scipy.special import digamma, polygamma
from support import reports

from initdiag.network.architecture import InputMap
from initdiag.rendering import tables, words


def measured():
    """The deep chain at risk, judged by its measurement; its output's weights are normal."""
    report = dataclasses.replace(reports.vanishing(), basis="measurement")
    *hidden, output = report.architecture.layers
    normal = dataclasses.replace(output.weight, family="normal", kurtosis=3.0)
    layers = (*hidden, dataclasses.replace(output, weight=normal))
    return dataclasses.replace(
        report, architecture=dataclasses.replace(report.architecture, layers=layers)
    )


def test_a_measured_size_is_that_of_the_part_that_is_judged():
    """A linear output's own draw is no part of it: ``ln(chi^2_10 / 10)`` on average."""
    report = measured()
    drift = report.measurement.rms_gain_log_mean - (digamma(5) - math.log(5))
    sentence = f"A typical gradient reaches the input {words.factor(drift)} times too small: "
    assert words.explanation(report)[1].startswith(f"{sentence}weights of gain 0.577")
    assert words.factor(drift) != words.factor(report.measurement.rms_gain_log_mean)


def test_behind_a_fixed_map_of_the_input_the_size_is_that_at_the_first_layer():
    report = measured()
    gap = InputMap(("mul",)).gap
    behind = dataclasses.replace(
        report, architecture=dataclasses.replace(report.architecture, gaps=(gap,))
    )
    shift = -8.0  # the map of the input makes everything e^-8 smaller, in the square
    m = report.measurement
    first = dataclasses.replace(m.layers[0], tangent_log_mean=m.layers[0].tangent_log_mean + shift)
    smaller = dataclasses.replace(
        m, log_norms=m.log_norms + shift, layers=(first, *m.layers[1:]), log_mean=m.log_mean + shift
    )
    assert "first layer" in words.explanation(behind)[1]
    assert (
        words.explanation(behind)[1]
        == words.explanation(dataclasses.replace(behind, measurement=smaller))[1]
    )


def rows(report) -> dict[str, tuple[str, str]]:
    return {row.meaning: (row.predicted, row.measured) for row in tables.number_rows(report)}


def test_both_columns_show_what_is_judged():
    """Behind a map of the input, and without the output's draw, as the verdict takes it."""
    report = measured()
    m, layer = report.measurement, report.architecture.layers[0]
    gap = InputMap(("mul",)).gap
    behind = dataclasses.replace(
        report, architecture=dataclasses.replace(report.architecture, gaps=(gap,))
    )
    assert "from the first layer on" not in rows(report)
    after = m.log_mean - m.layers[0].tangent_log_mean  # from what leaves the first layer on
    whole = after + math.log(layer.weight.variance * 64) + math.log(64 / 10)
    drift = whole - (digamma(5) - math.log(5))
    predicted = words.number(report.prediction.hidden_drift)
    assert rows(behind)["from the first layer on"] == (predicted, words.number(drift))


def test_the_output_draw_is_taken_off_both_columns():
    report = measured()
    moments = dataclasses.replace(report.prediction.known, hidden_log_variance=1.5)
    prediction = dataclasses.replace(report.prediction, moments=moments)
    small = dataclasses.replace(report, prediction=prediction)
    kept = report.measurement.log_variance - polygamma(1, 5)  # the variance of ln chi^2_10
    assert rows(small)["without the output's own draw"] == ("1.50", words.number(float(kept)))
    assert "without the output's own draw" not in rows(report)


def test_without_measured_layers_nothing_is_said_behind_a_map_of_the_input():
    report = measured()
    gap = InputMap(("mul",)).gap
    bare = dataclasses.replace(
        report,
        architecture=dataclasses.replace(report.architecture, gaps=(gap,)),
        measurement=dataclasses.replace(report.measurement, layers=()),
    )
    assert rows(bare)["from the first layer on"][1] == "-"
    assert len(words.explanation(bare)) == 1


def test_nothing_is_said_of_the_size_where_nothing_was_measured():
    report = dataclasses.replace(measured(), measurement=None)
    assert len(words.explanation(report)) == 1


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "0 %"), (1e-9, "<1 %"), (0.624, "62 %"), (1 - 1e-9, ">99 %"), (1.0, "100 %"), (math.nan, "-")],
)  # fmt: skip
def test_percents_do_not_round_to_certainty(probability, text):
    assert words.percent(probability) == text
