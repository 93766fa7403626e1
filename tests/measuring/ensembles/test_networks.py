"""Redraws side by side give what they give one by one, and what functional AD gives for one network on its whole batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import mlp, seeded
from torch import nn

from initdiag import measure
from initdiag.measuring import measure as measure_module
from initdiag.measuring.ensembles import random_numbers

SLOW = "drawn one by one: more than linear layers and batch normalisation cannot be stacked"


def normalised(dropout=0.0):
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 9), nn.BatchNorm1d(9, affine=False), nn.Tanh(), nn.Linear(9, 3)
    )  # fmt: skip


class Residual(nn.Module):
    """A matrix used twice, once transposed, a norm, and a bias added by hand."""

    def __init__(self):
        super().__init__()
        self.inp, self.norm, self.out = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.w, self.b = nn.Parameter(torch.randn(8, 8) / 3), nn.Parameter(torch.rand(8))

    def forward(self, x):
        h = self.inp(x)
        h = h + torch.relu(self.norm(h) @ self.w + self.b)
        return self.out(h + torch.relu(F.linear(h, self.w)))


class Channels(nn.Module):
    """Normalised over the batch and positions."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = (
            nn.Linear(6, 8),
            nn.BatchNorm1d(5, track_running_stats=False),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        return self.b(F.gelu(self.norm(self.a(x))))


class Centred(nn.Module):
    """Mixes the rows of all that is in the batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.a(x)
        return self.b(torch.relu(h - h.mean(0)))


def init(module):
    """All parameters at random, those of batch normalisation too."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.5)
        nn.init.normal_(module.bias, std=0.2)
    elif isinstance(module, nn.BatchNorm1d) and module.affine:
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, std=0.2)
    elif isinstance(module, Residual):
        nn.init.normal_(module.w, std=0.5)
        nn.init.normal_(module.b, std=0.5)


def random_norms(module):
    init(module)
    if isinstance(module, nn.LayerNorm):
        nn.init.uniform_(module.weight, 0.5, 1.5)


STACKED = {
    "batch normalisation": (normalised, (6,)),
    "with dropout": (lambda: normalised(0.3), (6,)),
    "residual": (Residual, (6,)),
    "channels": (Channels, (5, 6)),
}


def one_by_one(monkeypatch, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr(measure_module, "can_be_stacked", lambda *_: False)
        found = measure(*args, **options)
    assert SLOW in found.notes
    return found


@pytest.mark.parametrize("name", STACKED)
def test_stacked_as_one_by_one(name, monkeypatch):
    build, row = STACKED[name]
    model, x = seeded(build), torch.randn(7, *row, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    looped = one_by_one(monkeypatch, model, x, draws=20, method="redraw", init=init, seed=2)
    monkeypatch.setattr(measure_module, "_stack_in_budget", lambda *_: 6)
    found = measure(model, x, draws=20, method="redraw", init=init, seed=2)
    assert not any("one by one" in note for note in found.notes)
    np.testing.assert_allclose(found.log_norms, looped.log_norms, rtol=0, atol=1e-11)
    for a, b in zip(found.layers, looped.layers, strict=True):
        assert a.activation_log_mean == pytest.approx(b.activation_log_mean, abs=1e-11)
        assert a.tangent_log_variance == pytest.approx(b.tangent_log_variance, abs=1e-10)
        assert (a.weight_gradient is None) == (b.weight_gradient is None)
        if a.weight_gradient is not None:
            assert a.weight_gradient.log_mean == pytest.approx(
                b.weight_gradient.log_mean, abs=1e-10
            )
            assert math.isnan(a.bias_gradient.log_mean) or a.bias_gradient.log_mean == pytest.approx(b.bias_gradient.log_mean, abs=1e-10)  # fmt: skip
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["batch normalisation", "channels"])
def test_against_functional_derivatives_of_the_whole_batch(name):
    build, row = STACKED[name]
    model, x = seeded(build), torch.randn(7, *row, generator=torch.Generator().manual_seed(0))
    found = measure(model, x, draws=10, method="redraw", init=init, seed=2)
    u = random_numbers.directions(2, range(10), math.prod(row)).reshape(10, *row).double()
    for draw in range(10):
        network = seeded(build)
        torch.manual_seed(random_numbers.draw_seed(2, draw))
        network.apply(init).double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.track_running_stats, module.running_mean, module.running_var = (
                    False,
                    None,
                    None,
                )
        moved = torch.zeros(7, *row, dtype=torch.float64)
        moved[draw % 7] = u[draw]
        _, tangent = torch.func.jvp(network, (x.double(),), (moved,))
        assert found.log_norms[draw] == pytest.approx(
            math.log(float(tangent[draw % 7].detach().square().sum())), abs=1e-10
        )


def half_frozen():
    model = normalised()
    model[1].eval()
    return model


FALLING_BACK = {
    "normalised in eval mode": (lambda: normalised().eval(), init), "in part": (half_frozen, init), "a random layer norm": (Residual, random_norms), "rows centred by hand": (Centred, init),
}  # fmt: skip


@pytest.mark.parametrize("name", FALLING_BACK)
def test_what_differs_side_by_side_is_drawn_one_by_one(name, monkeypatch):
    build, how = FALLING_BACK[name]
    model, x = seeded(build), torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    looped = one_by_one(monkeypatch, model, x, draws=12, method="redraw", init=how)
    found = measure(model, x, draws=12, method="redraw", init=how)
    assert SLOW in found.notes
    np.testing.assert_array_equal(found.log_norms, looped.log_norms)


def test_a_chain_is_stacked_without_trying():
    assert measure(seeded(lambda: mlp([6, 8, 3])), draws=8, method="redraw").notes == ()


def test_parameters_that_do_not_vary_are_no_hindrance():
    found = measure(
        seeded(lambda: normalised().eval()), torch.randn(2, 6), draws=8, method="redraw"
    )
    assert found.notes == ()
