"""Recognition by likelihood: names that are right, scales whose error is what is stated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from evidence.recognition.study import DRAWS
from scipy import integrate, stats
from support.styles import seeded
from torch import nn

from initdiag import predict, trace
from initdiag.tracing.families import Spread
from initdiag.tracing.weights import weight_laws


def drawn(names, widths):
    """One matrix a layer, each by its initialiser."""
    shapes = [(m, n) for n, m in itertools.pairwise(widths)]
    return [DRAWS[name](torch.empty(shape)) for name, shape in zip(names, shapes, strict=True)]


def test_a_tiny_layer_is_no_initialisers():
    """He normal but for one 5x5 layer, a million times too small."""
    for seed in range(30):
        torch.manual_seed(seed)
        matrices = drawn(["he_normal"] * 4, [64, 5, 5, 64, 64])
        matrices[1] *= 1e-6
        laws = weight_laws([(str(i), w) for i, w in enumerate(matrices)])
        assert laws[1].initializer is None
        assert {law.initializer for law in laws} <= {"he_normal", None}
        assert laws[3].initializer == "he_normal"
        assert laws[1].scale_error == pytest.approx(math.sqrt(2 / 25))


def test_fan_out_is_not_mistaken_for_fan_in():
    """Three of these 60 networks were called fan_out, with a drift off by 0.36 and no error."""
    for seed in range(60):
        torch.manual_seed(seed)
        laws = weight_laws([(str(i), w) for i, w in enumerate(drawn(["he_normal"] * 3, [20, 14, 14, 14]))])  # fmt: skip
        names = {law.initializer for law in laws}
        assert names <= {"he_normal", None}, seed
        assert names == {"he_normal"} or laws[0].scale_error > 0


def heads(sizes):
    """Layers of N(0, 1/fan_in), the last one 0.01 times that."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    for layer in layers:
        std = (0.013 if layer is layers[-1] else 1.3) / layer.in_features**0.5
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(
        *itertools.chain(*((layer, nn.ReLU()) for layer in layers[:-1])), layers[-1]
    )


@pytest.mark.slow
def test_an_estimated_scale_has_the_error_that_is_stated():
    """Over 60 models the predicted log-mean scatters about the true one as stated."""
    sizes = [17, 16, 16, 3]
    true = predict(sizes, init="lecun_normal", gain=[1.3, 1.3, 0.013]).log_mean
    z = []
    for seed in range(60):
        pred = predict(trace(seeded(lambda: heads(sizes), seed=seed)))
        assert pred.coverage == "first-order"
        assert any("estimated from" in reason for reason in pred.reasons)
        z.append((pred.log_mean - true) / pred.log_mean_error)
    assert abs(np.mean(z)) < 4 / math.sqrt(60)
    assert 1 - 4 / math.sqrt(120) < np.std(z) < 1 + 4 / math.sqrt(120)


def test_a_simulated_prediction_has_the_error_of_its_scales():
    """A single tanh layer of small inputs is linear: its error is the scale's."""
    model = nn.Sequential(nn.Linear(20, 20, bias=False), nn.Tanh())
    torch.manual_seed(0)
    nn.init.normal_(model[0].weight, std=0.037)
    pred = predict(trace(model, 1e-3 * torch.ones(1, 20)))
    assert pred.coverage == "simulated"
    assert pred.log_mean_error == pytest.approx(math.sqrt(2 / 400), rel=0.6)


@pytest.mark.parametrize("family", ["normal", "uniform", "truncated_normal"])
def test_evidence_is_the_integral_of_the_likelihood(family):
    """Against quadrature over the scale, with scipy's densities."""
    x = np.random.default_rng(0).uniform(-1, 1, 12)
    spread = Spread(x.size, float(x @ x), float(abs(x).max()))
    root = math.sqrt(0.7737413)
    laws = {
        "normal": lambda s: stats.norm(0, s),
        "uniform": lambda s: stats.uniform(-math.sqrt(3) * s, 2 * math.sqrt(3) * s),
        "truncated_normal": lambda s: stats.truncnorm(-2, 2, 0, s / root),
    }

    def likelihood(log_sd):
        return math.exp(laws[family](math.exp(log_sd)).logpdf(x).sum() + 10)

    for log_sd in (0.1, 0.8):
        sd = math.exp(log_sd)
        mine = spread.over(sd**2).log_likelihood(family, 0.0) - x.size * log_sd
        assert mine == pytest.approx(laws[family](sd).logpdf(x).sum(), rel=1e-6)
    edge = {"normal": -4.0, "uniform": math.log(spread.largest / math.sqrt(3)), "truncated_normal": math.log(spread.largest / 2 * root)}[family]  # fmt: skip
    total = integrate.quad(likelihood, edge + 1e-9, edge + 6, limit=400)[0] / math.log(1e6)
    assert spread.log_evidence(family) == pytest.approx(math.log(total) - 10, abs=1e-4)


def test_signs_are_of_no_continuous_family():
    """sign(w)/8 at 8x8 was called a normal draw."""
    for seed in range(20):
        torch.manual_seed(seed)
        w = torch.randn(8, 8).sign() / 8
        (law,) = weight_laws([("w", w)])
        assert (law.family, law.initializer, law.kurtosis, law.scale_error) == ("other", None, 1.0, 0.0)  # fmt: skip


@pytest.mark.parametrize("seed", [7, 30, 49])
def test_fan_out_is_not_taken_for_fan_in(seed):
    """Layers of 14 of 20 inputs, He by fan_in: the doubt is stated, or the name is right."""
    torch.manual_seed(seed)
    layers = [nn.Linear(20, 14), nn.Linear(14, 14), nn.Linear(14, 14)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    law = trace(model).layers[0].weight
    assert abs(math.log(law.variance * 10)) <= 3 * law.scale_error + 1e-9
