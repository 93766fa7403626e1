"""Recognition by likelihood: names that are right, scales whose error is what is stated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from support.styles import seeded
from torch import nn

from initdiag import predict, trace
from initdiag.network.weights import INITIALIZERS
from initdiag.tracing.families import Spread
from initdiag.tracing.weights import weight_laws

DRAWS = {
    "torch_default": lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "he_normal_fan_out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "lecun_normal": lambda w: nn.init.normal_(w, std=1 / math.sqrt(w.shape[1])),
    "orthogonal": lambda w: nn.init.orthogonal_(w, math.sqrt(2)),
}


def drawn(names, widths):
    """One matrix a layer, each by its initialiser."""
    shapes = [(m, n) for n, m in itertools.pairwise(widths)]
    return [DRAWS[name](torch.empty(shape)) for name, shape in zip(names, shapes, strict=True)]


def off(law, name, w):
    """Distance of the law's log variance from the true one; 0 error is stated where it is 0."""
    true = INITIALIZERS[name][1](w.shape[1], w.shape[0])
    return 0.0 if law.family == "haar" else math.log(law.variance / true)


def judge(names, widths):
    """Wrong names (of another variance), and the drift's distance from the truth in its errors."""
    matrices = drawn(names, widths)
    laws = weight_laws([(str(i), w) for i, w in enumerate(matrices)])
    far = [off(law, name, w) for law, name, w in zip(laws, names, matrices, strict=True)]
    named = [(law, d) for law, d in zip(laws, far, strict=True) if law.initializer is not None]
    wrong = sum(abs(d) > 1e-6 for _, d in named)
    assert all(abs(d) <= 1.001 * law.scale_error + 1e-6 for law, d in named), (names, widths)
    error = math.hypot(*(law.scale_error for law in laws))
    drift = math.fsum(far)
    return wrong, drift / error if error else (math.inf if abs(drift) > 1e-5 else 0.0)


def widths_of(rng):
    return rng.integers(4, 65, rng.integers(3, 9)).tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_one_initialiser(name):
    """A seeded part of `tests/evidence/recognition`."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    results = [judge([name] * (len(w) - 1), w) for w in (widths_of(rng) for _ in range(20))]
    assert sum(wrong > 0 for wrong, _ in results) <= 1
    assert max(abs(z) for _, z in results) < 4


def test_mixtures():
    """Each layer its own initialiser: a wrong name is one that the stated error covers."""
    rng = np.random.default_rng(2)
    torch.manual_seed(2)
    results = []
    for _ in range(100):
        widths = widths_of(rng)
        results.append(judge(rng.choice(list(DRAWS), len(widths) - 1).tolist(), widths))
    assert sum(wrong for wrong, _ in results) <= 20
    assert sum(abs(z) > 3 for _, z in results) <= 2


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


def test_an_estimated_scale_has_the_error_that_is_stated():
    """Over 100 models the predicted log-mean scatters about the true one as stated."""
    sizes = [17, 16, 16, 3]
    true = predict(sizes, init="lecun_normal", gain=[1.3, 1.3, 0.013]).log_mean
    z = []
    for seed in range(100):
        pred = predict(trace(seeded(lambda: heads(sizes), seed=seed)))
        assert pred.coverage == "first-order"
        assert any("estimated from" in reason for reason in pred.reasons)
        z.append((pred.log_mean - true) / pred.log_mean_error)
    assert abs(np.mean(z)) < 4 / math.sqrt(100)
    assert 1 - 4 / math.sqrt(200) < np.std(z) < 1 + 4 / math.sqrt(200)


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
