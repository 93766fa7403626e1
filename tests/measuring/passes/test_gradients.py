"""Gradient norms against the definition: one network a draw, its gradients by plain autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

from initdiag import InvalidInput, measure, trace
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.signs import SignFlips
from initdiag.measuring.passes import gradients
from initdiag.measuring.task import prepared


class Tied(nn.Module):
    """One matrix used twice, once transposed, and a sequence of positions."""

    def __init__(self):
        super().__init__()
        self.enter, self.w, self.b = (
            nn.Linear(5, 6),
            nn.Parameter(torch.randn(6, 6) / 2),
            nn.Parameter(torch.rand(6)),
        )

    def forward(self, x):
        h = self.enter(x).relu() @ self.w.T + self.b
        return (h.relu() @ self.w).tanh()


MODELS = {
    "chain": (lambda: mlp([5, 9, 7, 4]), (5,)),
    "leaky": (lambda: nn.Sequential(nn.Linear(5, 9), nn.LeakyReLU(0.2), nn.Linear(9, 3)), (5,)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.ReLU(inplace=True), nn.Linear(9, 3)), (5,)),
    "tied, transposed, positions": (Tied, (3, 5)),
    "ten positions": (Tied, (10, 5)),
}  # fmt: skip

BIASES = {"w": "b"}


def flipped(build, seed, draw, arch):
    """The network of one draw: signs put into real weights by hand."""
    model = seeded(build).double()
    state = dict(model.named_parameters())
    for stream, name in enumerate(dict.fromkeys(layer.name for layer in arch.layers)):
        w = state[name]
        signs = torch.from_numpy(
            random_numbers.signs(seed, range(draw + 1), stream, sum(w.shape))[draw]
        ).double()
        s, r = signs[: w.shape[1]], signs[w.shape[1] :]
        layer = next(layer for layer in arch.layers if layer.name == name)
        with torch.no_grad():
            w.mul_(r[:, None] * s)
            if layer.bias is not None and layer.bias.symmetric:
                state[BIASES.get(name, name.replace("weight", "bias"))].mul_(r)
    return model


def task_of(model, x):
    arch = trace(model, x)
    order = {name: i for i, name in enumerate(dict.fromkeys(layer.name for layer in arch.layers))}
    biased = frozenset(
        layer.name for layer in arch.layers if layer.bias is not None and layer.bias.symmetric
    )
    return prepared(model, arch, x, None, 7, None), lambda draws: SignFlips(7, draws, order, biased)


def norms(model, loss):
    """ln||dL/dp||^2 by parameter."""
    model.zero_grad()
    loss.backward()
    return {
        name: float(p.grad.square().sum().log())
        for name, p in model.named_parameters()
        if p.grad is not None
    }


@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_against_plain_autograd(name, with_loss):
    build, row = MODELS[name]
    model = seeded(build).double()
    x = torch.randn(4, *row, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.randn(
        4, *model(x).shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    loss = gradients.Loss(nn.functional.mse_loss, target) if with_loss else None
    task, ensemble = task_of(model, x)
    found = gradients.gradient_logs(task, ensemble(range(6)), range(6), loss)
    v = random_numbers.directions(7, range(6), target[0].numel(), "cotangent").double()
    for draw in range(6):
        network = flipped(build, 7, draw, task.arch)
        out = network(x[[draw % 4]])
        value = (
            (out.flatten() * v[draw]).sum()
            if loss is None
            else nn.functional.mse_loss(out, target[[draw % 4]])
        )
        expected = norms(network, value)
        for logs in found:
            assert float(logs.weight[draw]) == pytest.approx(expected[logs.name], abs=1e-9)
            bias = logs.name.replace("weight", "bias")
            if bias in expected and bias != logs.name:
                assert float(logs.bias[draw]) == pytest.approx(expected[bias], abs=1e-9)


def test_redraws_against_plain_autograd():
    def init(m):
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.4)
            nn.init.normal_(m.bias, std=0.1)

    x = torch.ones(1, 5, dtype=torch.float64)
    found = measure(
        seeded(lambda: mlp([5, 8, 3])).double(), x, draws=3, method="redraw", init=init, seed=7
    )
    v = random_numbers.directions(7, range(3), 3, "cotangent").double()
    expected = []
    for draw in range(3):
        network = mlp([5, 8, 3]).double()
        torch.manual_seed(random_numbers.draw_seed(7, draw))
        network.apply(init)
        expected.append(norms(network, (network(x)[0] * v[draw]).sum())["0.weight"])
    assert found.layers[0].weight_gradient.log_mean == pytest.approx(np.mean(expected), abs=1e-9)
    assert found.layers[0].weight_gradient.median == pytest.approx(np.median(expected), abs=1e-9)


def test_every_layer_has_the_same_log_variance():
    """The identity of a bias-free chain with linear output, whose output direction does not depend on the weights."""
    model = seeded(lambda: mlp([16] * 7, "he_normal"))
    found = measure(model, draws=4096)
    variances = [layer.weight_gradient.log_variance for layer in found.layers]
    assert max(variances) / min(variances) < 1.25


@pytest.mark.slow
def test_deep_chains_stay_in_range():
    """Gradients of e^-500 in single precision: what comes back is kept in range too."""
    layers = measure(seeded(lambda: mlp([32] * 301)), draws=32).layers
    first, last = layers[0].weight_gradient, layers[-1].weight_gradient
    assert first.log_mean < -500
    assert -10 < last.log_mean < 10
    assert math.isfinite(first.log_variance)


def test_dead_draws_have_no_gradient_and_are_left_out():
    found = measure(seeded(lambda: mlp([8, 1, 1, 8], "he_normal")), draws=512)
    assert found.dead_fraction > 0.5
    assert math.isfinite(found.layers[0].weight_gradient.log_mean)


def test_a_module_without_a_backward_pass_is_measured_all_the_same():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return 2 * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def jvp(ctx, t):
            return 2 * t

    class Forward(nn.Linear):
        def forward(self, x):
            return Double.apply(super().forward(x))

    found = measure(nn.Sequential(Forward(6, 6), nn.LayerNorm(6)), torch.randn(3, 6), draws=16)
    assert found.dead_fraction == 0
    assert found.layers[0].weight_gradient is None
    assert found.notes[-1].startswith(
        "gradients were not measured: expected a module that loss.backward() runs through"
    )
    assert "Hint" not in found.notes[-1]


def test_no_gradients_when_none_are_wanted():
    found = measure(mlp([6, 6, 3]), draws=16, gradients=False)
    assert (
        found.layers[0].weight_gradient
        is found.layers[0].bias_gradient
        is found.layers[0].activation
        is None
    )


def test_layers_without_bias_have_no_bias_gradient():
    found = measure(
        nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)), draws=16
    )
    assert found.layers[0].bias_gradient is None
    assert found.layers[1].bias_gradient is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_fn": nn.MSELoss()}, "loss_fn and target"),
        ({"target": torch.zeros(5, 3)}, "loss_fn and target"),
        ({"loss_fn": nn.MSELoss(), "target": torch.zeros(4, 3)}, "each of the 5 input rows"),
        ({"loss_fn": nn.MSELoss(reduction="none"), "target": torch.zeros(5, 3)}, "scalar"),
        ({"loss_fn": nn.CrossEntropyLoss(), "target": torch.zeros(5, 9)}, "Test it on"),
    ],
)
def test_bad_losses(options, message):
    with pytest.raises(InvalidInput, match=message):
        measure(mlp([6, 6, 3]), torch.randn(5, 6), draws=16, **options)
