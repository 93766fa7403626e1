"""The measured column is the module's: against Jacobians of redrawn modules, by autograd."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import measure, trace

WIDTH, DEPTH = 12, 6
X = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(0))


class Chain(nn.Module):
    def __init__(self, gate=torch.relu, linear=lambda layer, x: layer(x)):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH))
        self.gate, self.linear = gate, linear
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.gate(self.linear(layer, x))
        return self.linear(self.layers[-1], x)


def hooked(x):
    if x.requires_grad:
        x.register_hook(lambda g: g * 0.3)
    return torch.relu(x)


class Halved(torch.autograd.Function):
    """The identity, whose own backward pass halves what comes back."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g / 2

    @staticmethod
    def jvp(ctx, t):
        return t.clone()


def max_norm(layer, x):
    layer.weight.data = torch.renorm(layer.weight.data, 2, 0, 0.3)
    return layer(x)


def standardised(layer, x):
    w = layer.weight
    return F.linear(x, (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True) / 3)


def by_sign(layer, x):
    return layer(x) * (3.0 if layer.weight[0].sum() > 0 else 1.0)


class RandomRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 32), nn.Linear(32, 4)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h * (torch.rand(len(h), 1) < 0.7))


class RandomDepth(Chain):
    def forward(self, x):
        for layer in self.layers:
            if torch.rand(()) < 0.5:
                x = torch.relu(layer(x))
        return self.layers[0](x)


def truth(factory, draws):
    """Mean, variance and dead share over redrawn modules, each Jacobian taken row by row."""
    logs = []
    for i in range(draws):
        torch.manual_seed(i)
        model, row = factory().double(), X[i % len(X)][None].double().requires_grad_()
        u = torch.randn(WIDTH, dtype=torch.float64)
        y = model(row).reshape(-1)
        j = torch.stack([torch.autograd.grad(v, row, retain_graph=True)[0][0] for v in y])
        square = float((j @ (u / u.norm())).square().sum())
        logs.append(math.log(square) if square > 0 else -math.inf)
    alive = [v for v in logs if v > -math.inf]
    return statistics.mean(alive), statistics.variance(alive), 1 - len(alive) / draws


CASES = {
    "gradient hook": lambda: Chain(hooked),
    "custom backward": lambda: Chain(lambda x: torch.relu(Halved.apply(x))),
    "renormalised": lambda: Chain(linear=max_norm),
    "standardised": lambda: Chain(linear=standardised),
    "branch on weights": lambda: Chain(linear=by_sign),
    "constant in place": lambda: Chain(lambda x: torch.maximum(x, torch.zeros_like(x) + 1.5)),
    "one gate for a row": RandomRows,
    "random depth": RandomDepth,
}


@pytest.mark.parametrize("method", ["signs", "redraw"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_measured_as_redrawn_modules_are(name, method):
    factory = CASES[name]
    mean, variance, dead = truth(factory, 100)
    model = seeded(factory) if method == "signs" else factory
    found = measure(model, X, draws=100, method=method, gradients=False)
    spread = math.sqrt(variance / 100 + found.log_mean_se**2 + 1e-4)
    assert abs(found.log_mean - mean) < 4.5 * spread
    assert abs(found.dead_fraction - dead) < 5 * math.sqrt(max(dead * (1 - dead), 0.01) / 50)


@pytest.mark.parametrize(
    "build",
    [
        lambda: mlp([2, *[32] * 8, 1], "he_normal"),
        lambda: mlp([8] * 6, "he_normal"),
        lambda: mlp([16, 12, 12, 4], "torch_default"),
    ],
)
@pytest.mark.slow
def test_the_scatter_of_the_mean_is_what_its_standard_error_says(build):
    found = []
    for seed in range(30):
        torch.manual_seed(seed)
        found.append(measure(build(), draws=256, seed=seed, gradients=False))
    scatter = statistics.stdev(m.log_mean for m in found)
    stated = math.sqrt(statistics.mean(m.log_mean_se**2 for m in found))
    assert 0.75 < scatter / stated < 1.3  # thirty models know a deviation to 13 %


def test_what_stays_fixed_is_said_and_a_redraw_is_preferred():
    def convolutions():
        body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()
        )
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    x = torch.randn(4, 1, 8, 8)
    model = seeded(convolutions)
    signs = measure(model, x, draws=16)
    assert signs.fixed == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert any(note.startswith("given the present 0.weight") for note in signs.notes)
    report = initdiag.diagnose(model, x, draws=16)
    assert report.measurement.method == "redraw"
    assert report.measurement.fixed == ()


def test_a_law_does_not_stand_for_weights_that_are_branched_on():
    """Vectors in the place of linear maps do not show which way fresh weights take."""

    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(12, 12) for _ in range(3))

        def forward(self, x):
            h = torch.relu(self.a(x))
            h = h + torch.relu(self.b(h))
            return self.c(h if float(self.a.weight.detach().sum()) > 0 else 0.1 * h)

    with pytest.raises(initdiag.errors.UnsupportedArchitecture, match="looks at its weights"):
        measure(seeded(Branch), X, method="law", draws=64)


def test_every_pass_starts_from_the_weights_that_came():
    """A weight that the forward pass doubles in place is doubled once, however often it runs."""

    def doubled(layer, x):
        with torch.no_grad():
            layer.weight.mul_(2.0)
        return layer(x)

    def twice(layer, x):
        return layer(x) * 2.0

    found, so = (
        measure(seeded(lambda f=f: Chain(linear=f)), X, draws=32, gradients=False).log_norms
        for f in (doubled, twice)
    )
    assert found == pytest.approx(so, abs=1e-9)


class Convolved(nn.Module):
    """A gradient goes back through a convolution, whose weights the graph keeps."""

    def __init__(self, std, gate):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Conv1d(3, 4, 3), nn.Linear(16, 2)
        self.gate = gate
        self.apply(lambda m: normal(m, std))

    def forward(self, x):
        return self.c(torch.relu(self.b(self.gate(self.a(x)))).flatten(1))


def normal(layer, std=0.5):
    if hasattr(layer, "weight"):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)


@pytest.mark.parametrize("gate", [torch.relu, hooked])
def test_what_is_redrawn_does_not_depend_on_the_present_weights(gate):
    """A backward pass once ran through the present kernels, not through the drawn ones."""
    x = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    first, second = (
        measure(Convolved(std, gate), x, draws=16, method="redraw", init=normal)
        for std in (0.5, 5.0)
    )
    assert first.log_norms == pytest.approx(second.log_norms, abs=1e-9)
    a, b = first.layers[0].weight_gradient, second.layers[0].weight_gradient
    assert a.log_mean == pytest.approx(b.log_mean, abs=1e-9)


def test_a_law_does_not_stand_for_weights_that_are_computed():
    """Products of their entries have heavy tails: a Gaussian's log-variance is half of theirs."""

    def squared(layer, x):
        return F.linear(x, layer.weight * layer.weight.abs())

    with pytest.raises(initdiag.UnsupportedArchitecture, match="computed"):
        measure(seeded(lambda: Chain(linear=squared)), X, draws=16, method="law")


class _OnceInTen(torch.autograd.Function):
    """Passes values on, and one gradient in ten is cut."""

    @staticmethod
    def forward(ctx, h):
        return h.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (torch.rand(()) < 0.9).float()

    @staticmethod
    def jvp(ctx, tangent):
        return tangent.clone()


class _Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)])
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = _OnceInTen.apply(torch.relu(layer(x)))
        return self.layers[-1](x)


def test_a_backward_pass_that_is_random_is_measured_as_it_is():
    model = seeded(_Cut)
    assert "draws random numbers" in trace(model, torch.randn(8, 12)).gaps[0].reason
    dead = measure(model, torch.randn(8, 12), draws=200, gradients=False).dead_fraction
    expected = 1 - 0.9**2
    assert abs(dead - expected) < 4 * (expected * (1 - expected) / 200) ** 0.5 + 0.01
