"""A trial in a report: what is shown, and that odd numbers do not break it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from support import reports

from initdiag.rendering import trial
from initdiag.rendering.console import to_text


def test_bars_rise_and_fall_with_the_losses():
    assert trial.sparkline(np.array([3.0, 2.0, 1.0])) == "█▄▁"
    assert trial.sparkline(np.array([1e4, 1e2, 1.0])) == "█▄▁"
    assert trial.sparkline(np.array([1.0, 1.0])) == "▁▁"
    assert trial.sparkline(np.array([2.0, 1.0, math.nan])) == "█▁!"
    assert trial.sparkline(np.full(4, math.nan)) == "!!!!"
    many = trial.sparkline(np.linspace(5, 1, 400))
    assert (len(many), many[0], many[-1]) == (30, "█", "▁")
    assert list(many) == sorted(many, key=" ▁▂▃▄▅▆▇█".index, reverse=True)


def test_a_row_says_on_which_side_of_its_band_a_gradient_lies():
    found = reports.tried().trial
    inside = found.layers[0]
    for low, high, words in ((-5, -1, "0.14"), (-9, -5, "0.14 (above)"), (-3, -1, "0.14 (below)")):
        layer = dataclasses.replace(inside, low=float(low), high=float(high))
        assert trial.layer_rows(dataclasses.replace(found, layers=(layer,)))[0][1] == words


def test_many_layers_are_cut():
    found = reports.tried().trial
    rows = trial.layer_rows(dataclasses.replace(found, layers=found.layers * 20))
    assert len(rows) == 21
    assert rows[10][0] == "... 240 left out"


ODD = {
    "not finite": {"losses": (np.array([2.0, math.inf, math.nan]),), "nonfinite_step": 1},
    "nothing finite": {"losses": (np.array([math.nan]),), "nonfinite_step": 0},
    "no guess": {"constant_loss": math.nan},
    "negative": {"losses": (np.array([-1.0, -1e9]),)},
    "cut short": {"is_cut": True, "stopped": "time"},
    "no layers": {"layers": ()},
    "some start": {
        "losses": (np.array([2.0, 2.0]), np.array([2.0, 1.0])),
        "started": (False, True),
    },
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("width", [40, 80])
def test_odd_numbers_are_shown(name, width):
    report = reports.tried()
    report = dataclasses.replace(report, trial=dataclasses.replace(report.trial, **ODD[name]))
    assert max(map(len, to_text(report, width).splitlines())) <= width
    assert "Trial" in report.to_markdown()
    assert "What real steps do" in report.to_html()
