"""The score: the log-odds of the risk, without its saturation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch import nn

import initdiag
from initdiag.integrations.candidates import risk_of
from initdiag.integrations.proxies import score


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_is_the_log_odds_of_the_risk(optimizer):
    rng = np.random.default_rng(0)
    inits = ("he_normal", "torch_default", "orthogonal")
    nets = [
        ([16, *rng.integers(4, 128, rng.integers(1, 40)).tolist(), 10], inits[i % 3])
        for i in range(20)
    ]
    risks = np.array([risk_of(w, optimizer=optimizer, init=i) for w, i in nets])
    scores = np.array([score(w, optimizer=optimizer, init=i) for w, i in nets])
    np.testing.assert_allclose(1 / (1 + np.exp(scores)), risks, rtol=1e-9)


def test_with_dead_networks_it_is_the_log_odds_of_surviving():
    """Of a net too narrow to live, whatever its drift: ``ln(p/(1-p))`` is below the log-odds of not being dead."""
    widths = [2, *[2] * 12, 1]
    dead = initdiag.predict(widths, init="he_normal").dead_probability
    assert dead > 0.9
    assert score(widths, init="he_normal") < math.log((1 - dead) / dead)


def test_where_the_risk_is_one_it_still_ranks():
    deep = [[64] * n for n in (200, 300, 1000)]
    assert [risk_of(w) for w in deep] == [1.0] * 3
    found = [score(w) for w in deep]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 3
    assert np.isfinite(found).all()


def test_modules_factories_widths_and_what_cannot_be_judged():
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    assert score(net) == score(lambda: net)
    assert score(net) == pytest.approx(score([8, 64, 4]), abs=0.1)
    assert risk_of(net, optimizer="adam", lr=1e-3, loss="regression") == pytest.approx(
        risk_of([8, 64, 4], optimizer="adam", lr=1e-3, loss="regression"), abs=0.01
    )
    conv = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    assert np.isfinite(score(conv, input_size=(2, 1, 8)))  # simulated
    gaps = initdiag.trace(conv, input_size=(2, 1, 8))
    for judge in (score, risk_of):
        with pytest.raises(initdiag.UnsupportedArchitecture, match=r"no (score|risk): .*conv"):
            judge(gaps)
