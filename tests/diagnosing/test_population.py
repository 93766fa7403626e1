"""Where the risk was learnt is said with it, and that it is extrapolated elsewhere."""

from __future__ import annotations

import pytest
from torch import nn

import initdiag
from initdiag.diagnosing.diagnose import diagnose_architecture


def said(widths, **assumptions):
    architecture = initdiag.Architecture.from_widths(widths, **assumptions)
    return diagnose_architecture(architecture).risk_provenance


@pytest.mark.parametrize("widths", [[64, *[64] * 30, 10], [8, 128, 128, 2], [784, 100, 10]])
def test_a_network_like_the_studys_is_not_extrapolated(widths):
    assert "extrapolated" not in said(widths)


@pytest.mark.parametrize(
    ("widths", "assumptions", "why"),
    [
        ([64, *[64] * 200, 10], {}, "it has 201 linear layers (learnt on 4 to 46)"),
        ([64, 400, 400, 10], {}, "it has layers of 400 units (learnt on 8 to 128)"),
        ([64, 4, 4, 10], {}, "it has layers of 4 units (learnt on 8 to 128)"),
        ([64, 64, 64, 10], {"activation": "tanh"}, "its gates are tanh"),
    ],
)
def test_outside_it_says_why(widths, assumptions, why):
    assert f"extrapolated, for that was learnt on chains of ReLU layers: {why}" in said(
        widths, **assumptions
    )


def test_console_json_and_page_say_it_of_a_convolutional_network():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    report = initdiag.diagnose(model, input_size=(2, 1, 8, 8), draws=16)
    why = "this network is not a chain of linear layers"
    for text in (str(report), report.to_json(), report.to_html()):
        assert why in " ".join(text.split())
