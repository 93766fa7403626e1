"""Off a chain nothing is rescaled on the way: what underflows is never taken for dead. Against products taken with explicit logs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import seeded
from torch import nn

import initdiag
from initdiag import UnsupportedArchitecture, measure
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes import log_norms

WIDTH = 8


def faded(h, factor):
    """The same value with a derivative ``factor`` times as large."""
    return factor * h + (1 - factor) * h.detach()


class Fading(nn.Module):
    """One layer used ``depth`` times whose gate never closes; or it is closed after ``cut`` uses, where the input's first entry is negative."""

    def __init__(self, depth, factor=1e-4, cut=None):
        super().__init__()
        self.layer, self.depth, self.factor, self.cut = (
            nn.Linear(WIDTH, WIDTH, bias=False),
            depth,
            factor,
            cut,
        )

    def forward(self, x):
        is_kept = (x[:, :1] > 0).to(x.dtype)
        for use in range(self.depth):
            x = faded(F.leaky_relu(self.layer(x), 0.1), self.factor)
            if use == self.cut:
                x = x * is_kept
        return x


def init(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.3)


def explicit(model, seed, draw, x):
    """``ln||Ju||^2`` of one redraw: the tangent divided by its length after every use, and the logs added up."""
    torch.manual_seed(random_numbers.draw_seed(seed, draw))
    w = torch.empty_like(model.layer.weight).normal_(std=0.3).detach().double()
    t = random_numbers.directions(seed, range(draw, draw + 1), WIDTH)[0].double()
    log = 0.0
    for _ in range(model.depth):
        x, t = w @ x, w @ t
        slopes = torch.where(x > 0, torch.ones_like(x), 0.1)
        x, t = x * slopes, t * slopes
        log += math.log(float(t.norm()) * model.factor)
        t = t / t.norm()
    return 2 * log


@pytest.mark.parametrize("depth", [20, 60, pytest.param(100, marks=pytest.mark.slow)])
def test_against_explicit_logs(depth):
    model = seeded(lambda: Fading(depth))
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    found = measure(model, x, draws=6, method="redraw", init=init, seed=5)
    expected = [explicit(model, 5, draw, x[draw % 3].double()) for draw in range(6)]
    np.testing.assert_allclose(found.log_norms, expected, rtol=1e-10)
    assert found.layers[0].tangent_log_mean > -10
    assert found.layers[-1].tangent_log_mean == pytest.approx(found.log_mean, abs=20)


def hooked(factor):
    """Nine layers, the derivative of each of which fades."""
    model = seeded(lambda: nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(9))))
    for layer in model:
        layer.register_forward_hook(lambda _, args, out: faded(torch.tanh(out), factor))
    return model


@pytest.mark.parametrize("method", ["signs", "law"])
def test_fading_only_shifts_the_logs(method):
    def found(factor):
        return measure(hooked(factor), torch.ones(1, WIDTH), draws=8, method=method)

    plain, low = found(1.0), found(1e-45)
    shift = 2 * math.log(1e-45)
    assert low.dead_fraction == plain.dead_fraction == 0
    np.testing.assert_allclose(low.log_norms - 9 * shift, plain.log_norms, atol=1e-9)
    assert low.layers[-1].tangent_log_mean - 8 * shift == pytest.approx(
        plain.layers[-1].tangent_log_mean
    )


@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
@pytest.mark.slow
def test_values_that_fade_too_keep_the_signs_of_their_gates(method):
    """A homogeneous network: at 1e-20 a layer, values underflow with the tangents."""

    class Faint(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layers, self.factor = (
                nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(20)),
                factor,
            )

        def forward(self, x):
            for layer in self.layers:
                x = self.factor * F.leaky_relu(layer(x), 0.1)
            return x

    def found(factor):
        return measure(
            seeded(lambda: Faint(factor)), torch.ones(1, WIDTH), draws=8, method=method, init=init
        )

    plain, low = found(0.5), found(0.5**76)
    shift = 2 * 20 * 75 * math.log(0.5)
    np.testing.assert_allclose(low.log_norms - shift, plain.log_norms, atol=1e-8)


def test_a_row_that_is_cut_is_dead_where_others_fade():
    x = torch.ones(2, WIDTH)
    x[1] = -1
    found = measure(
        seeded(lambda: Fading(24, 1e-20, cut=3)), x, draws=16, method="redraw", init=init
    )
    assert np.array_equal(np.isneginf(found.log_norms), np.arange(16) % 2 == 1)
    assert found.log_mean < -1500


@pytest.mark.parametrize("method", ["signs", "redraw"])
def test_what_fades_at_every_scale_is_refused(method):
    model = seeded(lambda: Fading(40, 1e-20))
    with pytest.raises(UnsupportedArchitecture, match="leaves the range of double precision in"):
        measure(model, torch.randn(2, WIDTH), draws=4, method=method, init=init)


def test_what_fades_at_every_scale_has_no_verdict():
    report = initdiag.diagnose(
        seeded(lambda: Fading(40, 1e-20)), torch.randn(2, WIDTH), draws=4, init=init
    )
    assert report.verdict is initdiag.Verdict.NO_VERDICT


@pytest.mark.slow
def test_a_smaller_scale_where_the_largest_overflows():
    """First up by e^345, then down by e^1100: 2^960 times as much overflows on the way."""

    class UpAndDown(Fading):
        def forward(self, x):
            return super().forward(faded(x, 1e150))

    model = seeded(lambda: UpAndDown(24, 1e-20))
    plain = measure(seeded(lambda: UpAndDown(24, 1.0)), torch.ones(1, WIDTH), draws=3)
    found = measure(model, torch.ones(1, WIDTH), draws=3)
    np.testing.assert_allclose(
        found.log_norms, plain.log_norms + 2 * 24 * math.log(1e-20), rtol=1e-10
    )


def test_a_healthy_network_is_passed_once(monkeypatch):
    passes = []
    real = log_norms._single_pass
    monkeypatch.setattr(
        log_norms, "_single_pass", lambda *args: passes.append(args[2].count) or real(*args)
    )
    measure(seeded(lambda: Fading(5)), torch.randn(2, WIDTH), draws=4, gradients=False)
    assert passes.count(4) == 2, "one to see whether rows are mixed, and one"
    assert set(passes) == {1, 4, 16}, "and a sample, side by side and one by one"


def test_a_gate_that_a_bias_closes_stays_closed():
    """At larger inputs, beside which a bias vanishes, it would open: half the signs of
    ``R (W S x + b)`` close it, whatever ``W`` and ``b`` are."""

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 16)

        def forward(self, x):
            return self.b(torch.sin(torch.relu(self.a(x))))

    for seed in range(4):
        model = seeded(Narrow, seed)
        found = measure(model, torch.ones(1, 1), draws=256, seed=seed)
        assert abs(found.dead_fraction - 0.5) < 4 * math.sqrt(0.25 / 256)


def test_gradients_that_underflow_at_scale_1():
    def found(factor):
        return measure(hooked(factor), torch.ones(1, WIDTH), draws=8).layers[0]

    plain, low = found(1.0), found(1e-45)
    shift = 18 * math.log(1e-45)
    assert low.weight_gradient.log_mean - shift == pytest.approx(
        plain.weight_gradient.log_mean, abs=1e-9
    )
    assert low.bias_gradient.log_mean - shift == pytest.approx(
        plain.bias_gradient.log_mean, abs=1e-9
    )
