"""Networks whose trainings are known: the verdict, the cause it names, and the remedy that comes first.

What was so, of 400 steps each, stands beside each. `evidence/causes` and `evidence/advice` train such networks.
"""

from __future__ import annotations

import math

import pytest
import torch
from support.styles import gated
from torch import nn

import initdiag
from initdiag.diagnosing.causes import suspicions, with_suspicions
from initdiag.diagnosing.mismatch import mismatch
from initdiag.diagnosing.risk import Training
from initdiag.measuring.batch_probe import probe_batch

N, C, R = torch.randn, "classification", "regression"
ADAM, SGD = ("adam", 1e-3, C), ("sgd", 0.1, C)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(30 * x)


class Block(nn.Module):
    def __init__(self, n, gain):
        super().__init__()
        self.body = mlp([n, n, n], nn.ReLU, he(gain))

    def forward(self, x):
        return x + self.body(x)


def mlp(sizes, gate, init=None, *end):
    return nn.Sequential(*gated(sizes, gate, init), *(part() for part in end))


def he(gain=1.0):
    return lambda w: nn.init.normal_(w, std=gain * math.sqrt(2 / w.shape[1]))


def orthogonal(gain):
    return lambda w: nn.init.orthogonal_(w, gain)


def residual(blocks):
    return nn.Sequential(
        nn.Linear(12, 16), *(Block(16, 0.67) for _ in range(blocks)), nn.Linear(16, 1)
    )


xavier = nn.init.xavier_normal_

QUICK = {
    "tanh with a tenth of the gain, Adam: accuracy .11": (
        lambda: mlp([32] * 9 + [10], nn.Tanh, orthogonal(0.02)), lambda: N(32, 32), ADAM,
        ("VANISHING", "gain", "gain 0.02 stand before tanh, which takes 1", "nn.init.xavier_normal_(w)"),
    ),
    "He 2x128, inputs x 1000, SGD .1: NaN at step 4": (
        lambda: mlp([64, 128, 128, 10], nn.ReLU, he()), lambda: N(32, 64) * 1000, SGD,
        ("UNSTABLE", "input scale", "standard deviation 9", "scale the inputs: (x"),
    ),
    "784-64-1, sigmoid output, raw pixels: stuck at .51, x/255: 1.00": (
        lambda: mlp([784, 64, 1], nn.ReLU, None, nn.Sigmoid), lambda: torch.randint(0, 256, (16, 784)).float(), ADAM,
        ("UNSTABLE", "input scale", "mean 12", "scale the inputs: (x - 12"),
    ),
    "actor 29-400-300-3 tanh, states x 200: 76 % of actions at +-1": (
        lambda: mlp([29, 400, 300, 3], nn.ReLU, None, nn.Tanh), lambda: N(32, 29) * 200, ("adam", 1e-3, R),
        ("UNSTABLE", "input scale", "standard deviation", "scale the inputs: (x"),
    ),
    "sigmoid 12x35, Xavier, Adam: accuracy .135": (
        lambda: mlp([16, *[35] * 12, 10], nn.Sigmoid, xavier), lambda: N(64, 16), ADAM,
        ("VANISHING", "inputs collapse", "all but parallel", "tanh in place of the hidden sigmoids"),
    ),
    "sine net, orthogonal, Adam 1e-4: R2 -2.2; repair() .998": (
        lambda: mlp([2, 64, 64, 64, 3], Sine, orthogonal(1.0)), lambda: torch.rand(16, 2) * 2 - 1, ("adam", 1e-4, R),
        ("EXPLODING", "gain", "times too large", None),
    ),
}  # fmt: skip
"""Name and outcome: network, batch, training; verdict, cause, words of it, first advice."""

SLOW = {
    "tanh 20x64, orthogonal x 0.1, Adam: accuracy .11": (
        lambda: mlp([64] * 21 + [10], nn.Tanh, orthogonal(0.1)), lambda: N(32, 64), ADAM,
        ("VANISHING", "gain", "gain 0.1 stand before tanh, which takes 1", "nn.init.xavier_normal_(w)"),
    ),
    "sigmoid 20x100, orthogonal, Adam: R2 0": (
        lambda: mlp([100] * 21 + [1], nn.Sigmoid, orthogonal(1.0)), lambda: N(32, 100), ("adam", 1e-3, R),
        ("VANISHING", "gain", "before sigmoids, of slope at most 1/4", "tanh in place of the hidden sigmoids"),
    ),
    "sigmoid 20x100 by default, SGD .1: skips of them NaN at this rate": (
        lambda: mlp([100] * 21 + [1], nn.Sigmoid), lambda: N(32, 100), ("sgd", 0.1, R),
        ("VANISHING", "gain", "before sigmoids, of slope at most 1/4", "in place of the hidden sigmoids"),
    ),
    "tanh, gain 3, Adam: does not start": (
        lambda: mlp([64] * 11 + [10], nn.Tanh, lambda w: xavier(w, 3.0)), lambda: N(32, 64), ADAM,
        ("EXPLODING", "gain", "gain 3 stand before tanh, which takes 1", "nn.init.xavier_normal_(w)"),
    ),
    "NeRF density, ReLU output, Adam 5e-4: 19 of 40 initialisations are all zero": (
        lambda: mlp([63] + [256] * 8 + [1], nn.ReLU, None, nn.ReLU), lambda: N(64, 63), ("adam", 5e-4, R),
        ("DEAD", "dead units", "gradient of exactly zero", "a linear output"),
    ),
    "NeRF-like 8x256 by default, SGD .1: R2 .01": (
        lambda: mlp([63] + [256] * 8 + [4], nn.ReLU), lambda: N(64, 63), ("sgd", 0.1, R),
        ("VANISHING", "step too small", "too small a step", "nn.init.orthogonal_(w, 2**0.5)"),
    ),
    "GELU 24x64 by default, SGD .03: R2 0": (
        lambda: mlp([64] * 25 + [1], nn.GELU), lambda: N(32, 64), ("sgd", 0.03, R),
        ("VANISHING", "gain", "gain 0.577 (PyTorch's default for linear layers) stand before GELU", ""),
    ),
}  # fmt: skip


def judged(factory, x, training, draws=64):
    optimizer, lr, loss = training
    torch.manual_seed(0)
    model, batch = factory(), x()
    return initdiag.diagnose(model, batch, draws=draws, optimizer=optimizer, lr=lr, loss=loss)


def is_right(case):
    factory, x, training, (verdict, cause, words, first) = case
    report = judged(factory, x, training)
    assert (report.verdict.value, report.cause) == (verdict, cause)
    assert words in report.findings[0].message
    if first is None:
        assert report.advice == ()
        assert "initdiag.repair(model)" in report.code
    else:
        assert first in report.advice[0].action
    assert all(one.risk_after < report.thresholds.max_risk for one in report.advice)
    assert all(one.risk_before == report.risk[training[0]] for one in report.advice)


@pytest.mark.parametrize("name", QUICK)
def test_verdict_cause_and_remedy(name):
    is_right(QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_verdict_cause_and_remedy_of_deep_networks(name):
    is_right(SLOW[name])


def test_residual_blocks_are_at_risk_where_their_curvature_is_that_of_those_that_diverge():
    """Of 20 draws of the 11 blocks on a smooth target at SGD .01 all 7 that diverged have a learning rate times
    curvature above 2 e^1.05, and 3 that started."""
    found = {}
    for seed in (0, 4):
        torch.manual_seed(seed)
        probe = probe_batch(residual(11), torch.randn(64, 12), R)
        assert probe.sums == 11
        found[probe.sharpness[R]] = with_suspicions(0, suspicions(probe, Training("sgd", 0.01, R)))
    flat, steep = sorted(found)
    assert 0.01 * flat / 2 < math.exp(1.05) < 0.01 * steep / 2
    assert found[flat] < 0.5 < found[steep]


@pytest.mark.parametrize(
    ("gate", "init", "words"),
    [
        (nn.Tanh, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), "gain 1.4"),
        (nn.ReLU, xavier, "(Xavier's and LeCun's, made for linear layers and tanh) stand before ReLU, which takes 1.41"),
        (nn.Sigmoid, he(), "(He's, made for ReLU) stand before sigmoids, of slope at most 1/4"),
    ],
    ids=["ReLU's gain before tanh", "Xavier before ReLU", "He before sigmoid"],
)  # fmt: skip
def test_a_gain_made_for_another_gate_is_named(gate, init, words):
    torch.manual_seed(0)
    model = mlp([64] * 12 + [4], gate, init)
    drift = 1.0 if gate is nn.Tanh else -1.0
    text = mismatch(initdiag.trace(model), drift)
    assert words in text
    if gate is not nn.Tanh:
        report = initdiag.diagnose(mlp([32] * 31 + [4], gate, init), method="none")
        assert words in report.findings[0].message


def test_weights_of_the_gates_own_gain_are_not_blamed():
    torch.manual_seed(0)
    for gate, init in ((nn.ReLU, he()), (nn.Tanh, xavier)):
        architecture = initdiag.trace(mlp([64] * 12 + [4], gate, init))
        assert mismatch(architecture, -1.0) == mismatch(architecture, 1.0) == ""
