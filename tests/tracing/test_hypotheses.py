"""The hypotheses tests: few false alarms on true draws, and an alarm for each way of not being a draw."""

from __future__ import annotations

import math

import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import predict, trace
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.hypotheses import weight_hypotheses
from initdiag.tracing.weights import weight_laws

SHAPES = [(1, 1), (2, 2), (1, 9), (9, 1), (2, 40), (40, 2), (3, 3), (5, 7), (16, 16), (30, 3)]

DRAWS = {
    "normal": nn.init.normal_,
    "uniform": lambda w: nn.init.uniform_(w, -1, 1),
    "truncated normal": nn.init.trunc_normal_,
    "Haar": nn.init.orthogonal_,
    "sparse": lambda w: nn.init.sparse_(w, 0.5, 1.0),
}


@pytest.mark.parametrize("law", DRAWS)
def test_false_alarms(law):
    """3,000 true draws of each law: none fails at 1e-6, and a level of 1e-3 would be kept too (to within 4 standard errors)."""
    torch.manual_seed(0)
    per_shape = 300
    alarms: dict[str, int] = {}
    for shape in SHAPES:
        if law == "Haar" and min(shape) < 2:
            continue
        for _ in range(per_shape):
            w = DRAWS[law](torch.empty(shape))
            for hypothesis in weight_hypotheses(EntrySums.of(w, "w"), w, law == "Haar"):
                assert hypothesis.holds, (hypothesis, shape)
                alarms[hypothesis.name] = alarms.get(hypothesis.name, 0) + (
                    hypothesis.p_value < 1e-3
                )
    expected = 1e-3 * per_shape * len(SHAPES)
    assert max(alarms.values()) <= expected + 4 * math.sqrt(expected)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank() -> torch.Tensor:
    return noise(96, 8) @ noise(8, 96, seed=1)


def spiked() -> torch.Tensor:
    u, v = noise(128, 1), noise(1, 128, seed=1)
    return noise(128, 128, seed=2) + 2.5 * u @ v / math.sqrt(128)


ALARMS = {
    "zero mean": lambda: noise(64, 64) + 0.2,
    "symmetry": lambda: noise(64, 64).exp() - math.exp(0.5),
    "independent rows": lambda: noise(65, 64)[:-1] + 0.5 * noise(65, 64)[1:],
    "independent columns": lambda: noise(64, 65)[:, :-1] + 0.5 * noise(64, 65)[:, 1:],
    "no low-rank part": low_rank,
    "equal variances": lambda: noise(64, 64) * torch.linspace(0.3, 2, 64)[:, None],
    "finite fourth moment": lambda: torch.tan(1.57 * torch.rand(64, 64, generator=torch.Generator().manual_seed(0))) * noise(64, 64).sign(),
    "zeros at random": lambda: noise(64, 64) * (torch.arange(64) % 8 > 0),
    "Haar": lambda: torch.eye(64)[torch.randperm(64, generator=torch.Generator().manual_seed(0))] * noise(64).sign(),
}  # fmt: skip


@pytest.mark.parametrize("name", ALARMS)
def test_each_fault_is_found(name):
    (law,) = weight_laws([("w", ALARMS[name]())])
    assert name in law.failed


def test_repeated_rows_and_a_spike_are_found():
    half = noise(64, 128)
    assert "independent rows" in weight_laws([("w", torch.cat([half, half]))])[0].failed
    assert "no low-rank part" in weight_laws([("w", spiked())])[0].failed


def test_a_failed_hypothesis_takes_coverage_away_but_signs_need_only_symmetry():
    model = nn.Sequential(nn.Linear(96, 96, bias=False), nn.ReLU(), nn.Linear(96, 4))
    with torch.no_grad():
        model[0].weight.copy_(low_rank() / 96)
    pred = predict(trace(model))
    assert pred.coverage == "none"
    assert any("no low-rank part" in reason for reason in pred.reasons)
    assert initdiag.measure(model, draws=64).draws == 64
    codes = {f.code for f in initdiag.diagnose(model, draws=64).findings}
    assert "IND009" in codes


def trained(init: str, steps: int) -> nn.Module:
    """A small classifier of noise, after some steps of SGD."""
    model = seeded(lambda: mlp([32, 64, 64, 10], init=init))
    x, y = noise(64, 32), torch.arange(64) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("init", ["torch_default", "he_normal"])
def test_a_trained_checkpoint_is_no_initialisation(init):
    fresh, used = trace(trained(init, 0)), trace(trained(init, 300))
    assert all(
        layer.weight.initializer == init and not layer.weight.failed for layer in fresh.layers
    )
    assert any(layer.weight.initializer != init or layer.weight.failed for layer in used.layers)
