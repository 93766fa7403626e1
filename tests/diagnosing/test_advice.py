"""Advice is worth what it predicts: its numbers are the law's for the network one gets by pasting its code."""

from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest
import torch
from torch import nn

from initdiag import Architecture, failure_risk, measure, predict, trace
from initdiag.diagnosing import remedies, shapes
from initdiag.diagnosing.advice import advise
from initdiag.diagnosing.risk import Training
from initdiag.law.simulate.residual import can_be_residual, simulate_residual
from initdiag.network import reshape

ALTERNATING = [64, *[128, 8] * 10, 10]
BOTTLENECK = [64, *[40] * 8, 5, *[40] * 8, 10]
NARROW = [64, *[14] * 40, 10]
DEEP = [64] * 31 + [10]


def advised(
    widths: list[int], max_risk: float = 0.5, training: Training | None = None, **assumptions
):
    arch = Architecture.from_widths(widths, **assumptions)
    prediction = predict(arch)
    return arch, prediction, advise(arch, prediction, training or Training(), max_risk)


def pasted(code: str, widths: list[int]) -> nn.Sequential:
    """The network one gets by pasting the code."""
    names = {"nn": nn, "w": torch.empty(2, 2), "b": torch.empty(2)}
    exec(code, names)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for m, n in itertools.pairwise(names.get("widths", widths)):
        linear = nn.Linear(m, n)
        exec(code, {"nn": nn, "w": linear.weight, "b": linear.bias})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("widths", "init", "max_risk"),
    [(DEEP, "torch_default", 0.5), (NARROW, "he_normal", 0.5), (ALTERNATING, "he_normal", 0.2), (BOTTLENECK, "he_normal", 0.03)],
)  # fmt: skip
def test_what_is_promised_is_the_law_of_what_is_pasted(widths, init, max_risk):
    _, before, found = advised(widths, max_risk, init=init)
    chains = [one for one in found if "skip connections" not in one.action]
    assert chains
    for one in chains:
        after = predict(trace(pasted(one.code, widths)))
        assert after.coverage == "exact"
        assert one.drift_after == pytest.approx(
            after.rms_gain_log_mean, abs=1e-4
        )  # orthogonal_ works in single precision
        assert one.log_variance_after == pytest.approx(after.log_variance, abs=1e-4)
        assert one.risk_after == pytest.approx(failure_risk(after, "sgd"), rel=1e-3)
        assert one.risk_before == failure_risk(before, "sgd")
        assert one.risk_after < 0.9 * one.risk_before


@pytest.mark.parametrize("output", ["linear", "relu"])
@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
def test_the_fast_totals_are_the_predictions(init, output):
    rng = np.random.default_rng(1)
    for _ in range(20):
        widths = rng.integers(2, 90, rng.integers(2, 12)).tolist()
        arch = Architecture.from_widths(
            widths, init=init, output=output, activation="leaky_relu", dropout=0.2, gain=1.1
        )
        found = predict(arch)
        totals = (found.hidden_drift, found.hidden_log_variance, found.dead_probability)
        assert remedies._totals(arch) == pytest.approx(totals, rel=1e-9, abs=1e-12)
        assert remedies._totals(shapes._reshaped(arch, widths)) == pytest.approx(
            totals, rel=1e-9, abs=1e-12
        )


def test_sabotage_a_wrong_law_after_the_change_would_show(monkeypatch):
    real = shapes._reshaped
    monkeypatch.setattr(
        shapes, "_reshaped", lambda arch, widths: real(arch, widths).replace(gain=1.1)
    )
    with pytest.raises(AssertionError):
        test_what_is_promised_is_the_law_of_what_is_pasted(NARROW, "he_normal", 0.5)


def test_the_widening_and_the_shortening_are_the_least_that_are_enough():
    """By trying every width and every depth."""
    _, _, found = advised([64, *[6] * 20, 10], init="he_normal")

    def risk(widths):
        return failure_risk(predict(widths, init="orthogonal"), "sgd")

    width = next(n for n in range(7, 200) if risk([64, *[n] * 20, 10]) <= 0.25)
    depth = next(k for k in range(19, 0, -1) if risk([64, *[6] * k, 10]) <= 0.25)
    actions = [one.action for one in found]
    assert (
        f"widen the hidden layers: 20 x 6 -> 20 x {width}, with nn.init.orthogonal_(w, 2**0.5)"
        in actions
    )
    assert (
        f"use fewer layers: 20 x 6 -> {depth} x 6, with nn.init.orthogonal_(w, 2**0.5)" in actions
    )


def test_the_bottleneck_named_is_the_one_whose_widening_gains_most():
    arch, _, found = advised(BOTTLENECK, 0.03, init="he_normal")
    assert any(
        one.action.startswith("widen the bottleneck, hidden layer 9: 5 -> 40") for one in found
    )
    risks = []
    for index in range(1, len(BOTTLENECK) - 1):
        wider = [n + 5 * (i == index) for i, n in enumerate(BOTTLENECK)]
        risks.append(failure_risk(predict(wider, init="he_normal"), "sgd"))
    assert 1 + int(np.argmin(risks)) == 9
    assert "bottleneck" not in str(advised([64, *[30] * 20, 10], 0.01, init="he_normal")[2])
    assert shapes._without_bottleneck(arch)[1][9] == 40


def test_equal_widths_keep_the_budget():
    rng = np.random.default_rng(2)
    for _ in range(50):
        widths = rng.integers(1, 60, rng.integers(4, 12)).tolist()
        k, budget = len(widths) - 2, reshape.parameters(widths)
        n = reshape._equal_width(k, widths[0], widths[-1], budget)
        cost = [reshape.parameters([widths[0], *[m] * k, widths[-1]]) for m in (n, n + 1)]
        assert cost[0] <= budget < cost[1]
    model = pasted("", [64, 128, 8, 10])
    assert reshape.parameters([64, 128, 8, 10]) == sum(p.numel() for p in model.parameters())


def test_enough_comes_first_and_nothing_that_does_not_help():
    for widths, init, max_risk in ((NARROW, "he_normal", 0.5), (ALTERNATING, "he_normal", 0.2)):
        _, _, found = advised(widths, max_risk, init=init)
        enough = [one.risk_after <= max_risk / 2 for one in found]
        assert enough == sorted(enough, reverse=True)
        assert enough[0]
    assert advised([64, 128, 10], init="orthogonal")[2] == ()


def test_a_lower_learning_rate_is_the_largest_that_is_enough():
    widths, training = [64, *[64] * 40, 10], Training("sgd", 0.3, "classification")
    _, _, found = advised(widths, training=training, init="xavier_normal")
    assert (
        found[0].action
        == "lower the learning rate: 0.3 -> 0.03, with nn.init.orthogonal_(w, 2**0.5)"
    )
    assert found[0].code.startswith("lr = 0.03; nn.init.orthogonal_(w, 2**0.5)")
    after = predict(widths, init="orthogonal")
    assert found[0].risk_after == pytest.approx(failure_risk(after, "sgd", 0.03, "classification"))
    assert found[0].risk_after <= 0.25 < failure_risk(after, "sgd", 0.09, "classification")
    assert not any(
        "learning rate" in one.action for one in advised(widths, init="xavier_normal")[2]
    )
    assert not any(
        "learning rate" in one.action for one in advised(DEEP, training=Training("sgd", 0.01))[2]
    )


def residual(widths: list[int], scale: float) -> nn.Sequential:
    """The network with the skip connections that advice speaks of, He weights, no biases."""

    class Skip(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return x + scale * self.layer(torch.relu(x))

    def layer(m, n):
        linear = nn.Linear(m, n, bias=False)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        return linear

    pairs = list(itertools.pairwise(widths))
    return nn.Sequential(
        layer(*pairs[0]), *(Skip(layer(*p)) for p in pairs[1:-1]), nn.ReLU(), layer(*pairs[-1])
    )


@pytest.mark.slow
def test_skip_connections_do_what_is_promised():
    """Against redraws of the module itself; without the skips the numbers are far off."""
    widths = [16, *[6] * 20, 10]
    promised = next(
        one for one in advised(widths, init="he_normal")[2] if "skip connections" in one.action
    )
    assert "19 hidden layers, x + 0.229 * layer(relu(x))" in promised.action
    arch = Architecture.from_widths(widths, init="he_normal")
    drawn = measure(
        lambda: residual(widths, 0.229), torch.ones(1, 16), draws=400, method="redraw", seed=3
    )
    found, larger = (
        simulate_residual(arch, scale, 3000, seed=1) + np.log(16 / 10) for scale in (0.229, 0.4)
    )
    found, larger = found[np.isfinite(found)], larger[np.isfinite(larger)]
    assert found.mean() == pytest.approx(
        drawn.rms_gain_log_mean, abs=4 * (drawn.log_mean_se + 0.03)
    )
    assert found.var() == pytest.approx(drawn.log_variance, abs=5 * drawn.log_variance_se)
    assert abs(found.var() - predict(arch).log_variance) > 20 * drawn.log_variance_se
    assert larger.mean() - found.mean() > 0.5


def test_skip_connections_need_hidden_layers_of_one_width():
    assert can_be_residual(Architecture.from_widths(NARROW))
    for widths, assumptions in ((BOTTLENECK, {}), ([64, 14, 10], {}), (NARROW, {"dropout": 0.1})):
        assert not can_be_residual(Architecture.from_widths(widths, **assumptions))


def test_mixed_activations_get_no_advice_on_shape():
    arch = Architecture.from_widths(NARROW, init="he_normal")
    layers = list(arch.layers)
    layers[3] = dataclasses.replace(layers[3], activation=remedies.Activation("leaky_relu", 0.1))
    arch = dataclasses.replace(arch, layers=tuple(layers))
    assert all("widths" not in one.code for one in advise(arch, predict(arch), Training(), 0.5))


@pytest.mark.parametrize(("widths", "init"), [(DEEP, "torch_default"), (NARROW, "he_normal")])
def test_advice_costs_a_few_predictions_and_a_simulation(widths, init):
    arch = Architecture.from_widths(widths, init=init)
    prediction = predict(arch)
    advise(arch, prediction, Training(), 0.5)
    costs = {}
    for name, call in (
        ("predict", lambda: predict(arch)),
        ("advise", lambda: advise(arch, prediction, Training(), 0.5)),
        ("simulate", lambda: simulate_residual(arch, 0.1, remedies.DRAWS, 0)),
    ):
        times = []
        for _ in range(7):
            begin = time.process_time()
            call()
            times.append(time.process_time() - begin)
        costs[name] = min(times)
    assert costs["advise"] < 25 * costs["predict"] + 2 * costs["simulate"]
