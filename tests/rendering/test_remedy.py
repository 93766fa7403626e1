"""`Report.code` runs as it stands, and mends what was reported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import initdiag


def deep(gate, depth=20, width=32):
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(width, width), gate()) for _ in range(depth)]
    return nn.Sequential(*layers, nn.Linear(width, 4))


@pytest.mark.parametrize("gate", [nn.ReLU, nn.LeakyReLU, nn.Tanh], ids=lambda gate: gate.__name__)
def test_the_code_of_a_vanishing_network_mends_it(gate):
    model = deep(gate)
    before = initdiag.diagnose(model, draws=64)
    assert before.verdict is initdiag.Verdict.VANISHING
    exec(before.code, {"model": model})
    after = initdiag.diagnose(model, draws=64)
    assert after.risk["sgd"] < before.risk["sgd"]
    assert abs(after.prediction.hidden_drift) < abs(before.prediction.hidden_drift) / 4


def test_the_loop_in_its_comments_runs_too_and_does_the_same_to_a_chain():
    model = deep(nn.ReLU)
    code = initdiag.diagnose(model, draws=64).code
    loop = "\n".join(line[2:] for line in code.splitlines() if line.startswith("# ")).partition(
        "\n"
    )
    assert "then sets each layer's gain to 1" in loop[0]
    exec(loop[2], {"model": model, "torch": torch})
    assert abs(initdiag.diagnose(model, draws=64).prediction.hidden_drift) < 3


def test_inputs_of_a_wrong_scale_are_scaled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    x = torch.randn(32, 64) * 1000 + 5000
    report = initdiag.diagnose(model, x, optimizer="sgd", lr=0.1, loss="classification", draws=64)
    assert report.cause == "input scale"
    assert report.advice[0].script == report.code
    assert report.advice[0].risk_after < 0.1 < 0.9 < report.advice[0].risk_before
    names = {"x": x}
    exec(report.code, names)
    assert abs(float(names["x"].mean())) < 0.01
    assert float(names["x"].std()) == pytest.approx(1.0, abs=0.01)


def test_a_healthy_network_has_no_code():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    assert initdiag.diagnose(model, draws=64).code == ""
