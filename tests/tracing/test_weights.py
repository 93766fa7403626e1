"""Which initialiser the weights came from, and what the hypotheses tests say."""

from __future__ import annotations

import math

import pytest
import torch
from styles import mlp, seeded
from torch import nn

from initdiag import predict, trace
from initdiag.tracing.weights import EntrySums, bias_law, weight_laws

INITIALISERS = {
    "torch_default": lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "he_normal_fan_out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "lecun_normal": lambda w: nn.init.normal_(w, std=1 / math.sqrt(w.shape[1])),
    "orthogonal": lambda w: nn.init.orthogonal_(w, math.sqrt(2)),
}


@pytest.mark.parametrize("shape", [(64, 48), (30, 200), (256, 256)], ids=str)
@pytest.mark.parametrize("name", INITIALISERS)
def test_initialisers_are_recognised(name, shape):
    generator = torch.Generator().manual_seed(0)
    w = torch.empty(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        INITIALISERS[name](w)
    (law,) = weight_laws([("w", w)])
    alike = {"lecun_normal", "xavier_normal"} if shape[0] == shape[1] else {name}
    alike |= {"he_normal", "he_normal_fan_out"} if shape[0] == shape[1] and name.startswith("he_normal") else set()
    assert law.initializer in alike | {name}
    assert law.gain == pytest.approx(1.0, abs=1e-5)
    assert law.sample_variance == pytest.approx(law.variance, rel=0.1)
    assert all(h.holds for h in law.hypotheses)


def test_unrecognised_weights_keep_the_samples_moments():
    w = 0.123 * torch.randn(100, 80, generator=torch.Generator().manual_seed(1))
    (law,) = weight_laws([("w", w)])
    assert law.initializer is None
    assert law.family == "normal"
    assert law.variance == law.sample_variance == pytest.approx(0.123**2, rel=0.05)
    heavy = torch.distributions.StudentT(4.0).sample((100, 80))
    assert weight_laws([("w", heavy)])[0].family == "other"


def test_small_matrices_go_with_the_rest_of_the_model():
    arch = trace(seeded(lambda: mlp([32, 2, 64, 2, 32], init="he_normal"), seed=3))
    assert {layer.weight.initializer for layer in arch.layers} == {"he_normal"}


def test_orthogonal_gain_is_read():
    model = nn.Linear(20, 30)
    nn.init.orthogonal_(model.weight, 3.0)
    (layer,) = trace(nn.Sequential(model)).layers
    assert layer.weight.family == "haar"
    assert layer.weight.gain == pytest.approx(3.0 / math.sqrt(2), rel=1e-5)
    assert predict(trace(nn.Sequential(model))).coverage == "exact"


def test_shifted_and_skewed_weights_fail_their_hypotheses():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(64, 64, generator=generator)
    assert weight_laws([("w", normal + 0.2)])[0].failed == ("zero mean", "symmetry")
    skewed = normal.exp() - math.exp(0.5)
    assert "symmetry" in weight_laws([("w", skewed)])[0].failed
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(normal / 8 + 0.1)
    pred = predict(trace(model))
    assert pred.coverage == "none"
    assert "zero mean" in pred.reasons[0]


def test_false_alarms_are_rare():
    """2,000 true draws: at level 1e-6 a test, none is expected to fail."""
    generator = torch.Generator().manual_seed(0)
    laws = weight_laws([(str(i), torch.randn(16, 16, generator=generator)) for i in range(1000)])
    laws += weight_laws([(str(i), torch.rand(16, 16, generator=generator) - 0.5) for i in range(1000)])
    assert not [law for law in laws if law.failed]
    values = sorted(h.p_value for law in laws for h in law.hypotheses if h.name == "zero mean")
    assert max(abs(p - (i + 0.5) / len(values)) for i, p in enumerate(values)) < 1.63 / math.sqrt(len(values)) + 0.01


def test_biases():
    generator = torch.Generator().manual_seed(0)
    assert bias_law("b", torch.zeros(8), 4).symmetric
    assert not bias_law("b", torch.full((8,), 0.1), 4).symmetric
    assert bias_law("b", (torch.rand(100, generator=generator) - 0.5), 4).symmetric
    assert not bias_law("b", torch.rand(400, generator=generator), 4).symmetric
    assert bias_law("b", torch.tensor([0.3]), 4).symmetric
    assert not bias_law("b", torch.tensor([0.7]), 4).symmetric


def test_sums_against_numpy_in_slices(monkeypatch):
    from initdiag.tracing import weights

    monkeypatch.setattr(weights, "_SLICE", 7)
    w = torch.randn(11, 13, generator=torch.Generator().manual_seed(2))
    sums = EntrySums.of(w, "w")
    x = w.double().numpy()
    assert sums.count == 143
    for power, value in ((1, sums.s1), (2, sums.s2), (3, sums.s3), (4, sums.s4), (6, sums.s6)):
        assert value == pytest.approx((x**power).sum(), rel=1e-12)
    assert sums.largest == abs(x).max()
    assert sums.kurtosis == pytest.approx((x**4).mean() / (x**2).mean() ** 2)
