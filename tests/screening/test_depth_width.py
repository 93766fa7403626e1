"""The map of risk over depth and width: beside `predict` and `failure_risk`, cell by cell."""

from __future__ import annotations

import json

import numpy as np
import pytest

import initdiag
from initdiag.errors import InvalidInput, UnsupportedArchitecture
from initdiag.rendering.risk_map import to_text
from initdiag.screening.depth_width import RiskMap

NET = [784, *[32] * 10, 10]
FOUND = initdiag.risk_map(NET, init="he_normal", optimizer="sgd", lr=0.1)


def alone(depth, width, **options):
    prediction = initdiag.predict([784, *[width] * depth, 10], init="he_normal")
    return initdiag.failure_risk(prediction, "sgd", 0.1, **options)


@pytest.mark.parametrize("row", [0, 4, 7, -1])
@pytest.mark.parametrize("column", [0, 3, -1])
def test_a_cell_is_the_risk_of_that_network(row, column):
    expected = alone(FOUND.depths[row], FOUND.widths[column])
    assert FOUND.risk[row, column] == pytest.approx(expected, abs=1e-9)


def test_the_network_is_in_its_own_map():
    assert (FOUND.depth, FOUND.width) == (10, 32)
    place = FOUND.depths.index(10), FOUND.widths.index(32)
    assert FOUND.own_risk == FOUND.risk[place]


def test_unequal_layers_are_placed_at_the_harmonic_mean_and_keep_their_own_risk():
    widths = [784, 16, 64, 10]
    found = initdiag.risk_map(widths, init="he_normal")
    assert found.width == round(2 / (1 / 16 + 1 / 64))
    expected = initdiag.failure_risk(initdiag.predict(widths, init="he_normal"), "sgd")
    assert found.own_risk == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("column", [1, 3])
def test_the_deepest_is_the_last_before_the_first_at_risk(column):
    deepest, width = FOUND.deepest[column], FOUND.widths[column]
    assert 0 < deepest < FOUND.deepest_tried
    assert alone(deepest, width) < 0.5 <= alone(deepest + 1, width)


def test_no_depth_is_safe_below_a_limit_of_nothing():
    found = initdiag.risk_map(NET, max_risk=0.0)
    assert set(found.deepest) == {0}
    assert "no depth is below 0 %" in str(found)


def test_a_shape_without_a_cure_points_to_the_initialiser():
    assert "try another initialiser" in str(initdiag.risk_map([784, *[256] * 20, 10]))


@pytest.mark.parametrize("widths", [[784, 10], [5], []])
def test_a_network_without_a_hidden_layer_is_refused(widths):
    with pytest.raises(InvalidInput, match="one hidden layer or more"):
        initdiag.risk_map(widths)


def test_activations_whose_law_is_simulated_are_refused_in_words():
    with pytest.raises(UnsupportedArchitecture, match="tanh"):
        initdiag.risk_map(NET, activation="tanh")


def test_it_is_plain_data_and_comes_back():
    again = RiskMap.from_dict(json.loads(json.dumps(FOUND.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.risk, FOUND.risk)
    assert str(again) == str(FOUND)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_terminals_map_keeps_its_network_at_every_width(width):
    lines = to_text(FOUND, width).splitlines()
    assert max(map(len, lines)) <= width
    own = f"[{100 * FOUND.own_risk:.0f}]"
    assert sum(own in line for line in lines) == 1
    assert any(line.startswith("    10 ") and own in line for line in lines)


def test_the_figure_marks_the_network():
    pytest.importorskip("matplotlib")
    axes = FOUND.figure().axes[0]
    (own,) = axes.lines
    assert own.get_xydata().tolist() == [[FOUND.widths.index(32), FOUND.depths.index(10)]]
