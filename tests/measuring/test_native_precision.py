"""Native precision: the model's own arithmetic, range and all, against the definition in that arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

from initdiag import InvalidInput, Measurement, measure
from initdiag.measuring.ensembles import random_numbers


def by_hand(model, widths, x, draw, seed):
    """ln||Ju||^2 of one draw under signs, bias-free, in the model's dtype: explicit products."""
    dtype = model[0].weight.dtype
    h = x[draw % len(x)].to(dtype)
    t = random_numbers.directions(seed, range(draw + 1), widths[0])[draw].to(dtype)
    for stream, layer in enumerate(m for m in model if isinstance(m, nn.Linear)):
        bits = random_numbers.signs(seed, range(draw + 1), stream, sum(layer.weight.shape))[draw]
        signs = torch.from_numpy(bits).to(dtype)
        s, r = signs[: layer.weight.shape[1]], signs[layer.weight.shape[1] :]
        h, t = r * (layer.weight @ (s * h)), r * (layer.weight @ (s * t))
        if stream < len(widths) - 2:
            t, h = t * (h > 0), h.relu()
    return float(t.detach().double().square().sum().log())


def chain(widths, gain, dtype):
    return seeded(lambda: mlp(widths, "he_normal", gain)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_against_the_definition(dtype):
    widths = [12, 16, 16, 6]
    model = chain(widths, 1.0, dtype)
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    found = measure(model, x.to(dtype), draws=6, seed=3, precision="native")
    for draw in range(6):
        expected = by_hand(model, widths, x, draw, 3)
        assert found.log_norms[draw] == pytest.approx(expected, abs=40 * torch.finfo(dtype).eps)


@pytest.mark.slow
def test_underflow_is_seen_natively_and_only_there():
    model = chain([16] * 41, 0.3, torch.float16)
    native, kept = measure(model, draws=64, precision="native"), measure(model, draws=64)
    assert native.dead_fraction == 1.0
    assert kept.dead_fraction == 0.0
    assert kept.log_mean < -80
    assert "in the arithmetic of float16" in native.notes[-1]
    assert kept.notes == ()


def test_overflow_is_counted_apart():
    model = chain([16] * 41, 3.0, torch.float16)
    native = measure(model, draws=64, precision="native")
    assert native.overflow_fraction == 1.0
    assert native.dead_fraction == 0.0
    assert native.log_mean == math.inf
    assert "64 of 64 draws overflow" in native.notes[0]
    assert np.all(Measurement.from_dict(native.to_dict()).log_norms == math.inf)


@pytest.mark.slow
def test_what_bfloat16_does_to_a_long_chain():
    """Rounding to 8 bits flips gates, so that single networks come out otherwise; their law does not."""
    model = chain([32] * 41, 1.0, torch.bfloat16)
    native, kept = measure(model, draws=2048, precision="native"), measure(model, draws=2048)
    assert 0.1 < (native.log_norms - kept.log_norms).std() < 0.5 * kept.log_norms.std()
    assert abs(native.log_mean - kept.log_mean) < 3 * kept.log_mean_se
    assert native.log_variance == pytest.approx(kept.log_variance, rel=0.1)


def test_an_unknown_precision():
    with pytest.raises(InvalidInput, match="precision: one of auto, native"):
        measure(mlp([4, 4]), precision="half")
