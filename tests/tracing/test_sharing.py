"""Layers that share a parameter, or have each other's values, are not independent."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import mlp, seeded
from torch import nn
from torch.nn.utils import parametrizations

import initdiag
from initdiag import predict, trace
from initdiag.tracing.weights import weight_laws

N = 24


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / math.sqrt(shape[-1])


class Computed(nn.Module):
    """Weights made of the parameters ``A``, ``B``, ``C`` and two gains."""

    def __init__(self, weights):
        super().__init__()
        self.A, self.B, self.C = (nn.Parameter(noise(N, N, seed=i)) for i in range(3))
        self.s, self.t = nn.Parameter(torch.tensor(1.4)), nn.Parameter(torch.tensor([[0.7]]))
        self.g = nn.Parameter(torch.linspace(0.5, 1.5, N))
        self.weights = weights

    def forward(self, x):
        for w in self.weights(self):
            x = F.relu(F.linear(x, w))
        return x


SHARED = {
    "two gains": (lambda m: [m.A * m.s, m.A * m.t], "A*t", "shares parameter A with layer A*s"),
    "low rank": (lambda m: [m.A @ m.B, m.A @ m.C], "A*C", "shares parameter A with layer A*B"),
    "itself and a multiple": (lambda m: [m.A, m.A * m.s], "A*s", "shares parameter A with layer A"),
    "gains of rows": (lambda m: [m.A * m.g, m.B * m.g], "B*g", "shares parameter g with layer A*g"),
}


@pytest.mark.parametrize(("weights", "path", "reason"), SHARED.values(), ids=SHARED.keys())
def test_a_shared_parameter_is_a_gap(weights, path, reason):
    arch = trace(Computed(weights), torch.ones(2, N))
    assert [(gap.path, gap.reason) for gap in arch.gaps if gap.kind == "shared"] == [(path, reason)]
    assert any(name.startswith("independent of") for name in arch.layers[1].weight.failed)
    assert predict(arch).coverage == "none"


def test_a_common_gain_is_no_shared_weight():
    arch = trace(Computed(lambda m: [m.A * m.s, m.B * m.s, m.C * m.t]), torch.ones(2, N))
    assert {gap.kind for gap in arch.gaps} == {"computed"}


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_layers_share_nothing(wrap):
    arch = trace(
        seeded(lambda: nn.Sequential(wrap(nn.Linear(N, N)), nn.ReLU(), wrap(nn.Linear(N, N))))
    )
    assert not any(gap.kind == "shared" for gap in arch.gaps)
    assert not any(layer.weight.failed for layer in arch.layers)


class Copies(nn.Module):
    """``depth`` copies of one layer."""

    def __init__(self, depth=8, dtype=torch.float32):
        super().__init__()
        layer = nn.Linear(N, N, bias=False, dtype=dtype)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_copies_are_found(dtype):
    arch = trace(seeded(lambda: Copies(dtype=dtype)), torch.ones(2, N, dtype=dtype))
    for layer in arch.layers[1:]:
        assert layer.weight.failed == ("independent of layers.0.weight",)
    assert arch.layers[0].weight.failed == ()
    assert predict(arch).coverage == "none"


def test_copies_are_no_independent_draws():
    """What is at stake: the log-variance of networks drawn one by one is far above that of independent layers."""
    torch.manual_seed(0)
    x, logs = torch.ones(N), []
    for _ in range(300):
        jacobian = torch.func.jacrev(Copies())(x).detach()
        u = torch.randn(N)
        logs.append(float(((jacobian @ u).square().sum() / u.square().sum()).log()))
    independent = predict([N] * 9, init="he_normal", output="relu").log_variance
    error = np.var(logs) * math.sqrt(2 / len(logs))
    assert np.var(logs) > independent + 4 * error


ALIKE = {
    "scaled": lambda w: 3.1 * w,
    "negated": lambda w: -w,
    "transposed": lambda w: w.T.contiguous(),
    "scaled and transposed": lambda w: (0.2 * w).T,
    "rounded": lambda w: (1.7 * w).bfloat16(),
}


@pytest.mark.parametrize("shape", [(40, 40), (3, 5), (70, 20)], ids=str)
@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE.keys())
def test_multiples_and_transposes_are_found(change, shape):
    w = noise(*shape)
    laws = weight_laws([("a", w), ("b", noise(*shape, seed=1)), ("c", change(w))])
    assert [any(n == "independent of a" for n in law.failed) for law in laws] == [
        False,
        False,
        True,
    ]


def test_a_change_of_a_few_entries_outside_the_corner_is_another_draw():
    w = noise(64, 64)
    other = w.clone()
    other[32:] = noise(32, 64, seed=1)
    assert not any(
        "independent of" in n for law in weight_laws([("a", w), ("b", other)]) for n in law.failed
    )


@pytest.mark.slow
def test_no_false_alarms():
    """Small matrices, zeros, signs, orthogonal ones, and half precision: thousands of pairs."""
    torch.manual_seed(0)
    draws = [torch.zeros(8, 8) for _ in range(20)]
    for shape in ((1, 1), (1, 2), (2, 2), (2, 4), (3, 3), (1, 16), (16, 16)):
        draws += [torch.randn(shape) for _ in range(60)]
        draws += [torch.randn(shape).bfloat16() for _ in range(60)]
        draws += [torch.randn(shape).sign() for _ in range(60)]
        draws += [nn.init.orthogonal_(torch.empty(shape)) for _ in range(60)]
        draws += [nn.init.sparse_(torch.empty(shape), 0.5) for _ in range(60)]
    laws = weight_laws([(str(i), w) for i, w in enumerate(draws)])
    assert not [
        (i, n) for i, law in enumerate(laws) for n in law.failed if n.startswith("independent of")
    ]


@pytest.mark.slow
def test_a_thousand_half_precision_layers_are_compared_in_no_time():
    model = seeded(lambda: mlp([16] * 1001)).bfloat16()
    matrices = [(name, p) for name, p in model.named_parameters() if p.dim() == 2]
    start = time.process_time()
    assert not any(law.failed for law in weight_laws(matrices))
    assert time.process_time() - start < 2 * 5, "generous: machines are noisy"


def test_signs_around_copies_are_the_same_signs():
    """Twelve copies of one draw: the log-variance is three times that of twelve draws, and random signs show it."""

    def chain(linear):
        parts = [p for _ in range(12) for p in (copy.deepcopy(linear), nn.ReLU())]
        return nn.Sequential(*parts[:-1])

    def drawn():
        linear = nn.Linear(32, 32)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear

    signs = initdiag.measure(seeded(lambda: chain(drawn())), draws=1024, gradients=False)
    rng, logs, x = torch.Generator().manual_seed(1), [], torch.ones(32, dtype=torch.float64)
    for _ in range(400):
        weight = torch.randn(32, 32, generator=rng, dtype=torch.float64) / 4
        h, tangent = x, torch.randn(32, generator=rng, dtype=torch.float64)
        tangent /= tangent.norm()
        for layer in range(12):
            h, tangent = weight @ h, weight @ tangent
            if layer < 11:
                tangent, h = tangent * (h > 0), h.relu()
        logs.append(2 * math.log(tangent.norm()))
    variance = np.var(logs, ddof=1)
    assert 4 < variance < 9
    assert signs.log_variance == pytest.approx(variance, rel=0.3)
