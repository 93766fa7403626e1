"""The cause of a risk and its remedy, beside what training such networks brought."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from support.styles import gated as mlp
from torch import nn

import initdiag
from initdiag import Report, Verdict
from initdiag.diagnosing import findings
from initdiag.diagnosing.causes import Batch, safe_rate, suspicions, with_suspicions
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.diagnosing.risk import Training
from initdiag.measuring.batch_probe import probe_batch
from initdiag.measuring.probe_record import BatchProbe


class Sine(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        return torch.sin(self.w * x)


class Fourier(nn.Module):
    def __init__(self, inputs, features, bandwidth):
        super().__init__()
        self.register_buffer("b", torch.randn(inputs, features) * bandwidth)

    def forward(self, x):
        phase = 2 * math.pi * (x @ self.b)
        return torch.cat([phase.sin(), phase.cos()], -1)


def siren(sizes, w):
    """Sitzmann's initialisation, hidden weights for w = 30."""
    net = mlp(sizes, lambda: Sine(w))
    for i, layer in enumerate(p for p in net if isinstance(p, nn.Linear)):
        n = layer.in_features
        bound = 1 / n if i == 0 else math.sqrt(6 / n) / 30
        nn.init.uniform_(layer.weight, -bound, bound)
    return net


he = nn.init.kaiming_uniform_
xavier = nn.init.xavier_normal_


def diagnosed(factory, x, optimizer, lr, loss):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, batch = factory(), x()
        return initdiag.diagnose(model, batch, draws=32, optimizer=optimizer, lr=lr, loss=loss)


N, C, R = torch.randn, "classification", "regression"
SICK = {
    "He 2x128, inputs x 1000, SGD .1: NaN at step 4": (
        lambda: mlp([64, 128, 128, 10], init=lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        lambda: N(32, 64) * 1000, ("sgd", 0.1, C), "input scale", "scale the inputs",
    ),
    "inputs x 300, SGD .01, squared error": (
        lambda: mlp([16, 64, 1]), lambda: N(32, 16) * 300, ("sgd", 0.01, R), "input scale", "scale",
    ),
    "784-64-1 with a sigmoid, raw pixels: stuck": (
        lambda: nn.Sequential(mlp([784, 64, 1]), nn.Sigmoid()), lambda: torch.randint(0, 256, (16, 784)).float(),
        ("adam", 1e-3, C), "input scale", "(x - 12",
    ),
    "actor 29-400-300-3 tanh, states x 200: 76 % of actions at +-1": (
        lambda: nn.Sequential(mlp([29, 400, 300, 3]), nn.Tanh()), lambda: N(32, 29) * 200,
        ("adam", 1e-3, R), "input scale", "/ 19",
    ),
    "a tanh output with He's weights times 30": (
        lambda: nn.Sequential(mlp([16, 64, 3], init=lambda w: nn.init.normal_(w, std=4)), nn.Tanh()),
        lambda: N(32, 16), ("adam", 1e-3, R), "saturation", "linear output",
    ),
    "sine net, w 30, 16 inputs: accuracy .14 (w 1: .995)": (
        lambda: siren([16, 64, 64, 64, 10], 30.0), lambda: N(64, 16), ("adam", 1e-3, C),
        "scrambled input", "frequency",
    ),
    "Fourier features, bandwidth 1, 12 inputs: R2 -.38 (bandwidth .1: .75)": (
        lambda: nn.Sequential(Fourier(12, 64, 1.0), mlp([128, 64, 64, 1])), lambda: N(64, 12),
        ("adam", 1e-3, R), "scrambled input", "bandwidth",
    ),
    "tanh, gain 3, ten layers: does not start": (
        lambda: mlp([64] * 11 + [10], nn.Tanh, lambda w: xavier(w, 3.0)), lambda: N(32, 64),
        ("adam", 1e-3, C), "gain", "repair",
    ),
    "sigmoid 12x35, Xavier, Adam: accuracy .135": (
        lambda: mlp([16, *[35] * 12, 10], nn.Sigmoid, xavier), lambda: N(64, 16), ("adam", 1e-3, C),
        "inputs collapse", "tanh",
    ),
    "ReLU 8x256 by default, SGD .1: R2 .01": (
        lambda: mlp([63, *[256] * 8, 4]), lambda: N(64, 63), ("sgd", 0.1, R), "step too small", "Adam",
    ),
    "unnormalised residual-like width at SGD 3": (
        lambda: mlp([16, 256, 256, 1], init=he), lambda: N(32, 16), ("sgd", 3.0, R), "step too large",
        "a learning rate of at most",
    ),
}  # fmt: skip
"""Name and outcome: network, batch, training, cause, and what the remedy says."""

HEALTHY = {
    "the same, inputs of variance 1": (
        lambda: mlp([64, 128, 128, 10], init=he), lambda: N(32, 64), ("sgd", 0.1, C),
    ),
    "784-64-1 with a sigmoid, pixels scaled": (
        lambda: nn.Sequential(mlp([784, 64, 1]), nn.Sigmoid()), lambda: torch.rand(16, 784), ("adam", 1e-3, C),
    ),
    "the actor on scaled states": (
        lambda: nn.Sequential(mlp([29, 400, 300, 3]), nn.Tanh()), lambda: N(32, 29), ("adam", 1e-3, R),
    ),
    "sine net, w 1, 16 inputs": (
        lambda: siren([16, 64, 64, 64, 10], 1.0), lambda: N(64, 16), ("adam", 1e-3, C),
    ),
    "Fourier features, bandwidth .1": (
        lambda: nn.Sequential(Fourier(12, 64, 0.1), mlp([128, 64, 64, 1])), lambda: N(64, 12), ("adam", 1e-3, R),
    ),
    "sine net, w 30, an image's two coordinates": (
        lambda: siren([2, 64, 64, 3], 30.0), lambda: torch.rand(256, 2) * 2 - 1, ("adam", 1e-4, R),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_the_cause_is_named_and_has_its_remedy(name):
    factory, x, training, cause, remedy = SICK[name]
    report = diagnosed(factory, x, *training)
    assert report.verdict.is_at_risk
    assert report.risk[training[0]] >= report.thresholds.max_risk
    assert report.cause == cause
    assert report.findings[0].severity == "error"
    assert remedy in report.findings[0].remedy
    assert f"Cause: {cause}" in " ".join(str(report).split())
    assert Report.from_dict(json.loads(report.to_json())) == report


@pytest.mark.parametrize("name", HEALTHY)
def test_what_trains_is_not_called_at_risk(name):
    factory, x, training = HEALTHY[name]
    report = diagnosed(factory, x, *training)
    assert report.verdict is Verdict.HEALTHY
    assert report.cause is None


def probe(**changed):
    usual = {
        "rows": 32, "input_mean": 0.0, "input_std": 1.0, "gates": (), "collapse": 0.5, "torn": 0.05, "output_rms": 1.0,
        "sharpness": {"classification": 1.0, "regression": 1.0},
        "contrast": {"classification": 1.0, "regression": 1.0}, "sign_step": 10.0,
    }  # fmt: skip
    return BatchProbe(**(usual | changed))


def total(one, training):
    return with_suspicions(0.0, suspicions(one, training))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_risk_rises_with_each_number_and_falls_for_none(optimizer):
    training = Training(optimizer, 0.1, "regression")
    for name, values in {
        "torn": (0.0, 0.3, 0.5, 0.9), "collapse": (0.0, 0.99, 1 - 1e-15, 1.0), "sign_step": (1, 1e2, 1e3, 1e5),
    }.items():  # fmt: skip
        found = [total(probe(**{name: value}), training) for value in values]
        assert found == sorted(found)
        assert 0 <= found[0] <= found[-1] <= 1
    larger = [total(probe(sharpness={"regression": s}), training) for s in (0.1, 10.0, 1e3, 1e5)]
    assert larger == sorted(larger)


def test_a_batch_of_usual_numbers_hardly_counts():
    assert total(probe(), Training("sgd", 0.1, "regression")) < 0.01
    assert suspicions(None, Training()) == ()


def test_what_is_absent_makes_nothing_suspect():
    nothing = probe(collapse=None, torn=None, sharpness={}, contrast={}, sign_step=None)
    for optimizer in ("sgd", "adam"):
        assert total(nothing, Training(optimizer, 1.0)) == 0
        assert safe_rate(nothing, Training(optimizer)) is None


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_the_safe_rate_is_the_largest_of_one_digit(optimizer, loss):
    one = probe(sharpness={loss: 37.0}, sign_step=900.0)
    rate = safe_rate(one, Training(optimizer, loss=loss))

    def overshoots(lr):
        found = suspicions(one, Training(optimizer, lr, loss))
        return next(s.probability for s in found if s.cause == "step too large")

    unit = 10 ** math.floor(math.log10(rate))
    assert overshoots(rate) <= 0.05 < overshoots(rate + unit)


def test_the_inputs_scale_is_the_cause_only_where_scaling_cures():
    training = Training("sgd", 0.1, "regression")
    steep, usual = probe(sharpness={"regression": 1e6}, input_std=1e3), probe()
    assert Batch(steep, usual).worst(training).cause == "input scale"
    assert Batch(steep, steep).worst(training).cause == "step too large"
    assert Batch(steep).worst(training).cause == "step too large"


def test_a_batch_of_equal_rows_accuses_nothing():
    report = diagnosed(lambda: mlp([8, 32, 2]), lambda: torch.ones(16, 8), "sgd", 0.1, C)
    assert report.verdict is Verdict.HEALTHY
    assert report.probe.contrast == {}
    assert report.probe.torn is report.probe.collapse is None


def test_a_softmax_before_a_cross_entropy_is_named():
    def codes(net, loss):
        report = diagnosed(lambda: net, lambda: torch.randn(16, 8), "adam", 1e-3, loss)
        return [finding.code for finding in report.findings]

    soft, plain = nn.Sequential(mlp([8, 32, 3]), nn.Softmax(-1)), mlp([8, 32, 3])
    code = findings.SOFTMAX_BEFORE_LOSS.code
    assert code in codes(soft, C)
    assert code not in codes(soft, R)
    assert code not in codes(plain, C)


def test_a_share_of_dead_networks_is_a_warning_from_a_tenth_on():
    def found(width):
        report = diagnose_architecture(
            initdiag.Architecture.from_widths([8, width, 4], init="he_normal"), optimizer="adam"
        )
        return [f.severity for f in report.findings if f.code == findings.DEAD.code]

    assert found(3) == ["warning"]  # 2^-3 of the networks are dead
    assert found(4) == []


def test_without_a_batch_nothing_is_probed():
    report = initdiag.diagnose(mlp([8, 32, 2]), draws=16)
    assert report.probe is None
    assert "evidence/causes" not in report.risk_provenance
    given = initdiag.diagnose(mlp([8, 32, 2]), torch.randn(16, 8), draws=16)
    assert given.probe is not None
    assert "evidence/causes" in given.risk_provenance


def mlp_of(widths, gate, end=None):
    parts = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), gate())]
    return nn.Sequential(*parts[:-1], *([end()] if end else []))


HEALTHY_AS_PEOPLE_BUILD_THEM = {
    # name: (network, batch, training); scores by python -m evidence.causes.ordinary
    "GELU, rate not told": (lambda: mlp_of([16, 64, 64, 64, 3], nn.GELU), (64, 16), {}),  # R^2 .80
    "ReLU, rate not told": (lambda: mlp_of([16, 64, 64, 64, 3], nn.ReLU), (64, 16), {}),  # R^2 .86
    "binary, sigmoid": (  # accuracy .98
        lambda: mlp_of([20, 32, 32, 1], nn.ReLU, nn.Sigmoid),
        (64, 20),
        {"optimizer": "sgd", "lr": 0.05, "loss": "classification"},
    ),
    "autoencoder, rate not told": (  # R^2 .63
        lambda: mlp_of([64, 32, 8, 32, 64], nn.ReLU),
        (64, 64),
        {},
    ),
    "images of noise, He": (  # accuracy .99 on prototypes with noise, 120 steps
        lambda: he_cnn(),
        (16, 1, 28, 28),
        {"optimizer": "sgd", "lr": 0.05, "loss": "classification"},
    ),
}


def he_cnn():
    parts = []
    for a, b in ((1, 16), (16, 32)):
        parts += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(
        *parts, nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    for part in model:
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
            nn.init.zeros_(part.bias)
    return model


@pytest.mark.parametrize("name", HEALTHY_AS_PEOPLE_BUILD_THEM)
def test_what_people_build_and_train_is_healthy(name):
    build, shape, training = HEALTHY_AS_PEOPLE_BUILD_THEM[name]
    torch.manual_seed(0)
    report = initdiag.diagnose(build(), torch.randn(shape), draws=32, **training)
    assert report.ok, (report.cause, report.risk)


def test_the_curvature_of_probabilities_is_that_of_their_logits_at_even_odds():
    torch.manual_seed(0)
    x, logits = torch.randn(32, 6), nn.Sequential(nn.Linear(6, 1))
    nn.init.zeros_(logits[0].weight)
    nn.init.zeros_(logits[0].bias)  # every probability is one half
    of_logits = probe_batch(logits, x).sharpness["classification"]
    of_odds = probe_batch(nn.Sequential(*logits, nn.Sigmoid()), x).sharpness["classification"]
    assert of_odds == pytest.approx(of_logits, rel=1e-4)
