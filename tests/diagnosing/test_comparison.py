"""What differs between two reports: beside the records themselves."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

import initdiag
from initdiag.diagnosing.comparison import Comparison, Difference
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.errors import InvalidInput
from initdiag.network.architecture import Architecture


def report(widths, **assumptions):
    architecture = Architecture.from_widths(widths, **assumptions)
    return diagnose_architecture(architecture, target=str(widths))


DEFAULT = report([64] * 11 + [10])
HE = report([64] * 11 + [10], init="he_normal")


def test_equal_reports_do_not_differ():
    found = initdiag.compare(HE, report([64] * 11 + [10], init="he_normal"))
    assert not found.differs
    assert not found.layers
    assert not found.gone
    assert not found.new
    assert found.layer_count == 11


def test_another_initialiser_differs_in_every_layer_and_in_the_numbers():
    found = initdiag.compare(DEFAULT, HE)
    assert [(layer.first, layer.second) for layer in found.layers] == [(i, i) for i in range(11)]
    by_name = {one.name: one for one in found.layers[0].differences}
    assert (by_name["weights"].first, by_name["weights"].second) == ("torch_default", "he_normal")
    expected = 1 / (3 * 64), 2 / 64
    std = by_name["weights' standard deviation"]
    assert std.first == pytest.approx(math.sqrt(expected[0]))
    assert std.second == pytest.approx(math.sqrt(expected[1]))
    numbers = {one.name: one for one in found.numbers}
    assert numbers["drift, predicted"].differs
    assert numbers["drift, predicted"].first == DEFAULT.prediction.rms_gain_log_mean
    assert numbers["verdict"].differs == (DEFAULT.verdict is not HE.verdict)


@pytest.mark.parametrize("place", [1, 4, 9])
def test_a_layer_put_in_does_not_move_the_others(place):
    widths = [64] * 11 + [10]
    wider = [*widths[:place], 48, *widths[place:]]
    found = initdiag.compare(HE, report(wider, init="he_normal"))
    alone = [layer for layer in found.layers if layer.first is None]
    assert len(alone) == 1
    assert found.layer_count == 12
    assert {layer.second for layer in found.layers} <= {place - 1, place, place + 1}


def test_findings_that_come_and_go_are_named():
    found = initdiag.compare(DEFAULT, HE)
    codes = [{finding.code for finding in one.findings} for one in (DEFAULT, HE)]
    assert {finding.code for finding in found.gone} == codes[0] - codes[1]
    assert {finding.code for finding in found.new} == codes[1] - codes[0]
    assert "IND001" in {finding.code for finding in found.gone}


@pytest.mark.parametrize(
    ("first", "second", "error", "differs"),
    [
        (1.0, 1.0 + 1e-13, None, False),
        (1.0, 1.001, None, True),
        (1.0, 1.29, 0.1, False),
        (1.0, 1.31, 0.1, True),
        (math.nan, math.nan, None, False),
        (math.nan, 1.0, None, True),
        (math.inf, math.inf, None, False),
        (None, 1.0, None, True),
        ("HEALTHY", "DEAD", None, True),
        ("DEAD", "DEAD", None, False),
    ],
)
def test_estimates_differ_beyond_three_standard_errors_and_exact_numbers_beyond_rounding(
    first, second, error, differs
):
    assert Difference("a number", first, second, error).differs is differs


def test_simulated_shares_of_equal_layers_are_not_called_different():
    tanh = {"activation": "tanh", "init": "xavier_normal"}
    short, long = report([32] * 6 + [4], **tanh), report([32] * 6 + [32, 4], **tanh)
    assert short.prediction.coverage == "simulated"
    found = initdiag.compare(short, long)
    assert [layer.first for layer in found.layers] == [None]


def test_it_is_plain_data_and_comes_back():
    found = initdiag.compare(DEFAULT, HE)
    again = Comparison.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert again == found


def test_what_is_no_report_is_refused():
    with pytest.raises(InvalidInput, match="expected two reports"):
        initdiag.compare(HE, HE.to_dict())


def test_a_table_of_layers_is_folded_and_its_shares_are_summed():
    text = str(initdiag.compare(DEFAULT, HE))
    rows = [line for line in text.splitlines() if "torch default -> he normal" in line]
    assert len(rows) == 1
    shares = [
        sum(layer.rms_gain_log_mean for layer in one.prediction.layers) for one in (DEFAULT, HE)
    ]
    assert f"{shares[0]:.2f} -> {shares[1]:.2f}" in rows[0]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    from initdiag.rendering.comparison import to_text

    lines = to_text(initdiag.compare(DEFAULT, HE), width).splitlines()
    assert max(map(len, lines)) <= width


def test_names_of_the_users_cannot_break_the_markdown():
    hostile = dataclasses.replace(HE, target="a|b`\n# c")
    text = initdiag.compare(DEFAULT, hostile).to_markdown()
    assert "\n# c" not in text
