"""The fast path for plain chains is the general one, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.styles import STYLES, mlp, seeded
from torch import nn

from initdiag import measure
from initdiag.measuring import measure as measure_module
from initdiag.measuring import survey
from initdiag.measuring.passes import sign_chain


class RawTransposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.v, self.w = nn.Parameter(torch.randn(6, 6) / 2), nn.Parameter(torch.randn(6, 9) / 2)
        self.c = nn.Parameter(torch.full((6,), 0.3))

    def forward(self, x):
        return torch.relu(x @ self.v + self.c) @ self.w


def _shifted():
    """A constant bias in the middle, which is not flipped."""
    model = mlp([8, 16, 16, 4])
    nn.init.constant_(model[2].bias, 0.2)
    return model


CHAINS = {
    **{style.name: (style.build, style.input_size) for style in STYLES},
    "he": (lambda: mlp([20, 32, 24, 5], "he_normal"), None),
    "orthogonal": (lambda: mlp([20, 32, 24, 5], "orthogonal"), None),
    "constant bias": (_shifted, None),
    "raw, transposed": (RawTransposed, (3, 6)),
    "deep default": (lambda: mlp([16] * 61), None),
    "tiny": (lambda: mlp([16] * 41, "he_normal", 1e-9), None),
    "huge": (lambda: mlp([16] * 41, "torch_default", 1e6), None),
    "narrow": (lambda: mlp([6, 2, 3, 2, 6], "he_normal"), None),
    "leaky, dropout": (
        lambda: nn.Sequential(
            nn.Linear(9, 20), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(20, 20), nn.Dropout(0.1), nn.ReLU(), nn.Linear(20, 4)
        ),
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("build", "size"), CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.slow
def test_row_by_row(build, size, dtype, monkeypatch):
    model = seeded(build).to(dtype)
    fast = measure(model, input_size=size, draws=50, seed=2)
    monkeypatch.setattr(survey, "trusted_steps", lambda task: None)
    general = measure(model, input_size=size, draws=50, seed=2)
    assert np.array_equal(np.isfinite(fast.log_norms), np.isfinite(general.log_norms))
    alive = np.isfinite(general.log_norms)
    error = np.abs(fast.log_norms[alive] - general.log_norms[alive])
    if dtype is torch.float64:
        assert error.max() < 1e-9
    else:  # in single precision a pre-activation near 0 may fall to the other side: rarely, and it moves a row by little
        assert np.quantile(error, 0.9) < 2e-3
    for one, other in zip(fast.layers, general.layers, strict=True):
        assert one.name == other.name
        assert one.tangent_log_mean == pytest.approx(other.tangent_log_mean, abs=1e-2)
        assert one.activation_log_mean == pytest.approx(other.activation_log_mean, abs=1e-2)


def test_the_fast_path_is_taken_where_it_should_be(monkeypatch):
    taken = []
    honest = sign_chain.fast_log_norms
    monkeypatch.setattr(
        measure_module, "fast_log_norms", lambda *a, **k: taken.append(1) or honest(*a, **k)
    )
    measure(seeded(lambda: mlp([8, 8, 4])), draws=8)
    assert taken == [1]
    for model in (
        nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
    ):
        measure(model, draws=8)
    assert taken == [1]


def test_an_input_of_zeros_opens_no_gate():
    model = seeded(lambda: mlp([6, 10, 10, 3], "he_normal"))
    assert measure(model, torch.zeros(2, 6), draws=50).dead_fraction == 1.0


def test_layers_of_a_long_run_are_those_of_its_beginning():
    model = seeded(lambda: mlp([8, 16, 4]))
    long, short = measure(model, draws=6000), measure(model, draws=4096)
    assert long.layers == short.layers
    assert math.isfinite(long.layers[-1].tangent_log_variance)
