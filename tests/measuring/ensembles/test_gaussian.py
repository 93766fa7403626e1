"""Layers replaced by their law, inside the module's own forward, against redraws of the same module."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import InvalidInput, UnsupportedArchitecture, measure, predict, trace
from initdiag.law.prediction import Prediction
from initdiag.measuring import measure as measure_module


def gaussian(module):
    """LeCun normal weights, so that the Gaussian law is exact; biases drawn too."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        nn.init.normal_(module.bias, std=0.2)


class PreNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(3))
        self.up, self.down = (
            nn.ModuleList(nn.Linear(a, b) for _ in range(3)) for a, b in ((24, 40), (40, 24))
        )

    def forward(self, x):
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return x


class PostNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(20, 20) for _ in range(4))

    def forward(self, x):
        for block in self.blocks:
            x = F.layer_norm(x + F.relu(block(x)), (20,))
        return x


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 8)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Concatenation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 20), nn.Linear(32, 6)

    def forward(self, x):
        return self.b(torch.cat([torch.tanh(self.a(x)), x], 1))


class Positions(nn.Module):
    """One layer applied to five positions of each row, then mixed."""

    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Linear(3, 8), nn.Linear(40, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.token(x.view(-1, 5, 3))).flatten(1))


NETWORKS = {
    "pre-norm GELU": (PreNorm, 24), "post-norm ReLU": (PostNorm, 20), "SwiGLU": (SwiGLU, 16),
    "concatenation": (Concatenation, 12), "positions": (Positions, 15), "chain": (lambda: mlp([10, 16, 16, 4]), 10),
}  # fmt: skip


@pytest.mark.parametrize(("build", "width"), NETWORKS.values(), ids=NETWORKS.keys())
def test_law_agrees_with_redraws(build, width):
    model = seeded(lambda: build().apply(gaussian))
    x = torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    law = measure(model, x, draws=4096, method="law")
    redraw = measure(model, x, draws=900, method="redraw", init=gaussian)
    assert (
        abs(law.log_mean - redraw.log_mean)
        < 3.5 * math.hypot(law.log_mean_se, redraw.log_mean_se) + 0.01
    )
    assert abs(law.log_variance - redraw.log_variance) < 3.5 * math.hypot(
        law.log_variance_se, redraw.log_variance_se
    )


def test_law_on_a_chain_is_the_exact_law():
    model = seeded(lambda: mlp([24, 32, 16, 32, 8], init="he_normal"))
    pred, found = predict(trace(model)), measure(model, draws=8192, method="law")
    assert abs(found.log_mean - pred.log_mean) < 3 * found.log_mean_se
    assert abs(found.log_variance - pred.log_variance) < 3 * found.log_variance_se


def test_draws_do_not_depend_on_chunks(monkeypatch):
    model = seeded(PreNorm)
    whole = measure(model, draws=700, method="law").log_norms
    monkeypatch.setattr(measure_module, "_BUDGET", 1)
    np.testing.assert_allclose(
        measure(model, draws=700, method="law").log_norms, whole, rtol=0, atol=1e-12
    )


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.again = nn.Linear(8, 8)

    def forward(self, x):
        return self.again(self.again(x).relu())


def test_a_weight_used_twice_is_refused_by_name():
    with pytest.raises(UnsupportedArchitecture, match=r"'again.weight' is used twice"):
        measure(Reused(), draws=8, method="law")


def test_orthogonal_and_skewed_weights_are_refused():
    with pytest.raises(UnsupportedArchitecture, match="are orthogonal"):
        measure(seeded(functools.partial(mlp, [16, 16, 4], "orthogonal")), draws=8, method="law")


def test_from_simulation():
    model = seeded(PreNorm)
    arch, found = trace(model), measure(model, draws=512, method="law")
    pred = Prediction.from_simulation(arch, found)
    assert (pred.coverage, pred.log_mean, pred.log_mean_se) == (
        "simulated",
        found.log_mean,
        found.log_mean_se,
    )
    assert "add" in pred.reasons[0]
    assert any("uniform weights" in reason for reason in pred.reasons)
    assert pred.law.mean() == pytest.approx(found.log_mean)
    with pytest.raises(InvalidInput, match='method="law"'):
        Prediction.from_simulation(arch, measure(model, draws=8))


def test_diagnose_simulates_and_compares():
    report = initdiag.diagnose(seeded(PreNorm), draws=2048)
    assert report.prediction.coverage == "simulated"
    assert report.measurement.method == "signs"
    assert report.agreement.agrees
    assert "Simulated: 6 linear layers, " in str(report)
