"""What lies between two linear maps, in which order: biases, dropout, activations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import seeded
from torch import nn

from initdiag import measure, predict, trace
from initdiag.tracing.inputs import subject_of
from initdiag.tracing.trace import trace_with_biases

N = 16


class Written(nn.Module):
    """Layers ``a`` and ``b``, a parameter ``c``, and a forward pass over them."""

    def __init__(self, forward, c=None, bias=True):
        super().__init__()
        self.a, self.b = nn.Linear(N, N, bias=bias), nn.Linear(N, 4)
        self.c = nn.Parameter(torch.full((N,), 2.0) if c is None else c)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


GAPS = {
    "second bias": (
        lambda m, x: m.b(F.relu(m.a(x) + m.c)),
        "bias",
        "c is added to a layer that has the bias a.bias",
    ),
    "after tanh": (lambda m, x: m.b(torch.tanh(m.a(x)) + m.c), "bias", "c is added elsewhere"),
    "after ReLU": (lambda m, x: m.b(F.relu(m.a(x)) + m.c), "bias", "c is added elsewhere"),
    "before all": (lambda m, x: m.b(F.relu(m.a(x + m.c))), "bias", "c is added elsewhere"),
    "dropout, tanh": (
        lambda m, x: m.b(torch.tanh(F.dropout(m.a(x), 0.5))),
        "tanh",
        "dropout comes before tanh",
    ),
    "dropout, ReLU6": (
        lambda m, x: m.b(F.relu6(F.dropout(m.a(x), 0.5))),
        "relu6",
        "dropout comes before relu6",
    ),
    "norm, dropout": (
        lambda m, x: m.b(F.dropout(F.layer_norm(F.relu(m.a(x)), (N,)), 0.5)),
        "dropout",
        "dropout acts on what layer_norm made, with no linear layer between",
    ),
    "dropout first": (
        lambda m, x: m.b(m.a(F.dropout(x, 0.5))),
        "dropout",
        "comes before the first linear layer",
    ),
}


@pytest.mark.parametrize(("forward", "kind", "reason"), GAPS.values(), ids=GAPS.keys())
def test_the_wrong_order_is_a_gap(forward, kind, reason):
    arch = trace(seeded(lambda: Written(forward)))
    assert [gap.kind for gap in arch.gaps if reason in gap.reason] == [kind]
    assert predict(arch).coverage == "none"


CHAINS = {
    "one bias": (lambda m, x: m.b(F.relu(m.a(x) + m.c)), "ReLU"),
    "dropout, ReLU": (lambda m, x: m.b(F.relu(F.dropout(m.a(x), 0.5))), "ReLU, dropout 0.5"),
    "tanh, dropout": (lambda m, x: m.b(F.dropout(torch.tanh(m.a(x)), 0.5)), "tanh, dropout 0.5"),
    "idle dropout, tanh": (lambda m, x: m.b(torch.tanh(F.dropout(m.a(x), 0.5, False))), "tanh"),
}


@pytest.mark.parametrize(("forward", "label"), CHAINS.values(), ids=CHAINS.keys())
def test_the_right_order_is_a_chain(forward, label):
    arch = trace(seeded(lambda: Written(forward, bias=False)))
    assert arch.gaps == ()
    assert arch.layers[0].activation.label == label


def test_every_bias_is_known():
    model = seeded(lambda: Written(lambda m, x: m.b(F.relu(m.a(x) + m.c))))
    assert trace_with_biases(subject_of(model, None, None, None))[1] == ("a.bias", "c", "b.bias")
    assert not trace(model).layers[0].bias.symmetric
    single = seeded(
        lambda: Written(lambda m, x: m.b(F.relu(m.a(x) + m.c)), c=torch.tensor([0.1]), bias=False)
    )
    assert not trace(single).layers[0].bias.symmetric, (
        "one number for all units is no draw for each"
    )


class TwoBiases(nn.Module):
    """A bias of 1 in each layer, and a second one, nearly 0, right after it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(N, N) for _ in range(4))
        self.second = nn.ParameterList(nn.Parameter(0.01 * torch.randn(N)) for _ in range(4))
        for layer in self.layers:
            nn.init.ones_(layer.bias)

    def forward(self, x):
        for layer, second in zip(self.layers, self.second, strict=True):
            x = F.relu(layer(x) + second)
        return x


def test_both_biases_are_measured():
    """Against networks drawn one by one; with the second bias alone the gates would be coins, and the drift far below."""
    torch.manual_seed(0)
    x, logs = torch.randn(1, N), []
    for _ in range(300):
        jacobian = torch.func.jacrev(TwoBiases())(x[0]).detach()
        u = torch.randn(N)
        logs.append(float(((jacobian @ u).square().sum() / u.square().sum()).log()))
    found = measure(seeded(TwoBiases), x, draws=1024)
    between_weights = 0.3
    error = math.hypot(np.std(logs) / math.sqrt(len(logs)), found.log_mean_se)
    assert abs(found.log_mean - np.mean(logs)) < 4 * error + between_weights
