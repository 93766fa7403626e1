"""The example's scale is the architecture's: it matters to smooth activations, and to nothing homogeneous."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

from initdiag import predict, trace

N = 16


def noise(rows: int) -> torch.Tensor:
    return torch.randn(rows, N, generator=torch.Generator().manual_seed(5))


def tanh_net(depth: int = 4) -> nn.Sequential:
    model = nn.Sequential(
        *(part for _ in range(depth) for part in (nn.Linear(N, N, bias=False), nn.Tanh()))
    )
    for layer in model[::2]:
        nn.init.xavier_normal_(layer.weight)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_root_mean_square_of_the_example(dtype):
    x = (7 * noise(32)).to(dtype)
    expected = math.sqrt(float(np.mean(x.double().numpy() ** 2)))
    assert trace(seeded(tanh_net).to(dtype), x).input_rms == pytest.approx(expected, rel=1e-12)


def test_without_a_scale_it_is_one():
    assert trace(seeded(tanh_net)).input_rms == 1.0
    assert trace(seeded(tanh_net), input_size=(3, N)).input_rms == 1.0
    assert trace(seeded(tanh_net), torch.zeros(3, N)).input_rms == 1.0
    huge = trace(seeded(tanh_net).double(), torch.full((3, N), 1e300, dtype=torch.float64))
    assert math.isfinite(huge.input_rms)


def test_a_large_input_saturates_tanh():
    """Against networks drawn one by one, each on a row of the example: an input of size 1 would lose nats less."""
    torch.manual_seed(0)
    x = noise(64)
    x = 10 * x / x.square().mean(1, keepdim=True).sqrt()
    logs = []
    for i in range(200):
        jacobian = torch.func.jacrev(tanh_net())(x[i % 64]).detach()
        u = torch.randn(N)
        logs.append(float(((jacobian @ u).square().sum() / u.square().sum()).log()))
    found = predict(trace(seeded(tanh_net), x))
    assert abs(found.log_mean - np.mean(logs)) < 4 * math.hypot(
        np.std(logs) / math.sqrt(len(logs)), found.log_mean_se
    )
    assert found.log_mean < predict(trace(seeded(tanh_net))).log_mean - 1


def test_nothing_changes_for_relu():
    model = seeded(lambda: mlp([N, 32, 4], init="he_normal"))
    small, large = predict(trace(model)), predict(trace(model, 100 * noise(8)))
    assert (small.log_mean, small.log_variance, small.coverage) == (
        large.log_mean,
        large.log_variance,
        "exact",
    )
