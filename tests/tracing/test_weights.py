"""Which initialiser the weights came from, and what the hypotheses tests say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

from initdiag import predict, trace
from initdiag.network.architecture import KURTOSIS
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.weights import bias_laws, weight_laws

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
    alike |= (
        {"he_normal", "he_normal_fan_out"}
        if shape[0] == shape[1] and name.startswith("he_normal")
        else set()
    )
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


@pytest.mark.slow
def test_false_alarms_are_rare():
    """2,000 true draws: at level 1e-6 a test, none is expected to fail."""
    generator = torch.Generator().manual_seed(0)
    laws = weight_laws([(str(i), torch.randn(16, 16, generator=generator)) for i in range(1000)])
    laws += weight_laws(
        [(str(i), torch.rand(16, 16, generator=generator) - 0.5) for i in range(1000)]
    )
    assert not [law for law in laws if law.failed]
    values = sorted(h.p_value for law in laws for h in law.hypotheses if h.name == "zero mean")
    assert (
        max(abs(p - (i + 0.5) / len(values)) for i, p in enumerate(values))
        < 1.63 / math.sqrt(len(values)) + 0.01
    )


def bias_law(bias, fan_in):
    return bias_laws({"b": (bias, fan_in)})["b"]


def test_biases():
    generator = torch.Generator().manual_seed(0)
    assert bias_law(torch.zeros(8), 4).symmetric
    assert not bias_law(torch.full((8,), 0.1), 4).symmetric
    assert bias_law((torch.rand(100, generator=generator) - 0.5), 4).symmetric
    assert not bias_law(torch.rand(400, generator=generator), 4).symmetric
    assert bias_law(torch.tensor([0.3]), 4).symmetric
    assert not bias_law(torch.tensor([0.7]), 4).symmetric


@pytest.mark.parametrize("layers", [3, 24])
def test_positive_biases_of_narrow_layers_are_found_together(layers):
    """One layer of 16 positive biases passes at any level that a deep network can afford."""
    for seed in range(100):
        torch.manual_seed(seed)
        laws = bias_laws({str(i): (2 * torch.rand(16), 16) for i in range(layers)})
        assert not any(law.symmetric for law in laws.values()), seed


def test_zero_biases_pass_beside_positive_ones():
    torch.manual_seed(0)
    laws = bias_laws({str(i): (torch.rand(16) * (i > 0), 16) for i in range(9)})
    assert laws["0"].symmetric
    assert not any(laws[str(i)].symmetric for i in range(1, 9))


def default_bias(n, fan_in):
    return (2 * torch.rand(n) - 1) / fan_in**0.5


ONE_SIDED = {
    "uniform": lambda n: 2 * torch.rand(n),
    "negative": lambda n: -2 * torch.rand(n),
    "half normal": lambda n: torch.randn(n).abs(),
    "exponential": lambda n: torch.empty(n).exponential_(),
    "far from zero": lambda n: 1 + 0.3 * torch.randn(n),
}


@pytest.mark.parametrize("size", [0.0, 1.0], ids=["zeros", "default"])
@pytest.mark.parametrize("draw", ONE_SIDED.values(), ids=ONE_SIDED.keys())
def test_one_large_bias_of_one_sign_is_found_however_few_units_it_has(draw, size):
    """Of 8 units, among four usual biases; at a network's level it takes 18 units."""
    torch.manual_seed(0)
    found = 0
    for _ in range(100):
        usual = {str(i): (size * default_bias(8, 8), 8) for i in range(4)}
        laws = bias_laws({**usual, "odd": (draw(8), 8)})
        assert all(laws[name].symmetric for name in usual)
        found += not laws["odd"].symmetric
    assert found >= 97


def test_a_bias_off_zero_is_found_though_it_has_both_signs():
    """Mean 1, standard deviation 1, 24 units: 957 of 1,000 are found."""
    torch.manual_seed(0)
    assert sum(not bias_law(1 + torch.randn(24), 24).symmetric for _ in range(100)) >= 85


@pytest.mark.slow
def test_honest_biases_are_not_refused():
    """1,000 networks of 20 layers, PyTorch's default, of 1 to 16 units: none is refused."""
    torch.manual_seed(0)
    for trial in range(1000):
        shapes = [1 + (trial + i) % 16 for i in range(20)]
        fan_in = 16 if trial % 2 else 1
        drawn = {str(i): (default_bias(n, fan_in), fan_in) for i, n in enumerate(shapes)}
        assert all(law.symmetric for law in bias_laws(drawn).values()), trial


def test_unusual_biases_are_refused_once_in_a_hundred_networks():
    """400 networks of 12 layers of 4 to 15 units with normal biases of variance 1 (four
    standard errors)."""
    torch.manual_seed(0)
    refused = 0
    for _ in range(400):
        drawn = {str(n): (torch.randn(n), 16) for n in range(4, 16)}
        refused += not all(law.symmetric for law in bias_laws(drawn).values())
    assert refused <= 4 + 4 * 2


def test_sums_against_numpy_in_slices(monkeypatch):
    from initdiag.tracing import entries

    monkeypatch.setattr(entries, "_SLICE", 7)
    w = torch.randn(11, 13, generator=torch.Generator().manual_seed(2))
    sums = EntrySums.of(w, "w")
    x = w.double().numpy()
    assert sums.count == 143
    for power, value in ((1, sums.s1), (2, sums.s2), (3, sums.s3), (4, sums.s4), (6, sums.s6)):
        assert value == pytest.approx((x**power).sum(), rel=1e-12)
    assert sums.largest == abs(x).max()
    assert sums.kurtosis == pytest.approx((x**4).mean() / (x**2).mean() ** 2)


def test_truncated_normals_are_recognised():
    """Keras's and JAX's: cut at two standard deviations, then scaled to the variance."""
    generator = torch.Generator().manual_seed(0)
    w = nn.init.trunc_normal_(torch.empty(300, 200), generator=generator)
    assert KURTOSIS["truncated_normal"] == pytest.approx(
        float((w**4).mean() / (w**2).mean() ** 2), abs=0.02
    )
    (law,) = weight_laws([("w", 0.05 * w)])
    assert (law.family, law.initializer) == ("truncated_normal", None)
    (law,) = weight_laws([("w", w / math.sqrt(0.7737413 * 200))])
    assert law.initializer == "lecun_truncated_normal"
    far = nn.init.trunc_normal_(torch.empty(300, 200), std=0.02, generator=generator)
    assert weight_laws([("w", far)])[0].family == "normal", (
        "PyTorch's bounds are absolute: +-2 is 100 sd here"
    )


def test_sparse_weights_are_recognised():
    torch.manual_seed(0)
    (law,) = weight_laws([("w", nn.init.sparse_(torch.empty(80, 60), 0.75, std=0.1))])
    assert law.family == "sparse"
    assert law.kurtosis == pytest.approx(12.0)
    assert law.variance == pytest.approx(0.0025, rel=0.1)


SHAPES = ((32, 16), (96, 32), (24, 96))


@pytest.mark.parametrize(
    ("init", "gain", "name"),
    [
        (lambda w: nn.init.xavier_normal_(w, 5 / 3), 5 / 3, "xavier_normal"),
        (lambda w: nn.init.xavier_uniform_(w, 5 / 3), 5 / 3, "xavier_uniform"),
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu").mul_(1.5), 1.5, "he_normal"),
        (
            lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu").mul_(2),
            2.0,
            "he_normal_fan_out",
        ),
    ],
)
def test_an_initialiser_times_a_gain(init, gain, name):
    torch.manual_seed(1)
    laws = weight_laws([(str(shape), init(torch.empty(shape)).detach()) for shape in SHAPES])
    assert {law.initializer for law in laws} == {name}
    assert laws[0].gain == pytest.approx(gain, rel=1e-6)
    assert all(law.variance == pytest.approx(law.sample_variance, rel=0.25) for law in laws)


def test_no_gain_is_claimed_without_evidence():
    """One shape, or one standard deviation for all: the sample's variance is all that is known."""
    torch.manual_seed(1)
    alike = weight_laws([(str(i), 0.07 * torch.randn(64, 64)) for i in range(3)])
    fixed = weight_laws([(str(shape), 0.02 * torch.randn(shape)) for shape in SHAPES])
    assert {law.initializer for law in (*alike, *fixed)} == {None}
    assert {law.family for law in (*alike, *fixed)} == {"normal"}


def test_several_initialisers_in_one_model():
    torch.manual_seed(0)
    model = mlp([40, 80, 60, 10], init="he_normal")
    nn.init.xavier_uniform_(model[4].weight)
    nn.init.orthogonal_(model[2].weight)
    names = [layer.weight.initializer for layer in trace(model).layers]
    assert names == ["he_normal", "orthogonal", "xavier_uniform"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 2), (40, 30)])
def test_zeros_are_no_initialisers_draw(shape):
    (law,) = weight_laws([("w", torch.zeros(shape))])
    assert (law.variance, law.initializer, law.hypotheses) == (0.0, None, ())


@pytest.mark.parametrize(
    ("sparsity", "width", "coverage"),
    [(0.5, 64, "first-order"), (0.9, 16, "none"), (0.9, 256, "first-order")],
)
def test_first_order_is_claimed_only_where_it_holds(sparsity, width, coverage):
    """At 90 % zeros and width 16 the first order would say a log-variance of 22 for a true 11."""
    torch.manual_seed(0)
    model = mlp([width] * 4, init="he_normal")
    for index in (0, 2, 4):
        nn.init.sparse_(model[index].weight, sparsity, std=0.3)
    pred = predict(trace(model))
    assert pred.coverage == coverage
    assert (
        coverage != "none" or "kurtosis 30" in pred.reasons[0] or "kurtosis 48" in pred.reasons[0]
    )


HALF_SHAPES = (
    (10, 64),
    (64, 10),
    (64, 64),
    (64, 256),
    (256, 256),
    (256, 784),
    (10, 784),
    (2, 64),
    (8, 64),
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["torch_default", "he_normal", "orthogonal"])
def test_half_precision_leaves_the_family_recognisable(name, dtype):
    family = {"torch_default": "uniform", "he_normal": "normal", "orthogonal": "haar"}[name]
    for seed in range(4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            matrices = [(str(shape), torch.empty(shape)) for shape in HALF_SHAPES]
            for _, w in matrices:
                INITIALISERS[name](w)
        for (shape, _), law in zip(
            matrices, weight_laws([(n, w.to(dtype)) for n, w in matrices]), strict=True
        ):
            assert (law.initializer, law.family) == (name, family), f"{shape}, seed {seed}"
            assert law.failed == (), f"{shape}, seed {seed}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_drawn_in_half_precision_pass_the_hypotheses(dtype):
    def build():
        widths = (784, 256, 64, 10)
        return nn.Sequential(*(nn.Linear(a, b, dtype=dtype) for a, b in itertools.pairwise(widths)))

    for seed in range(4):
        arch = trace(seeded(build, seed=seed), torch.ones(1, 784, dtype=dtype))
        assert {layer.weight.initializer for layer in arch.layers} == {"torch_default"}
        assert all(layer.weight.failed == () and layer.bias.symmetric for layer in arch.layers)


def test_half_precision_does_not_hide_a_real_shift():
    w = (torch.randn(256, 784, generator=torch.Generator().manual_seed(0)) + 0.05).bfloat16()
    assert "zero mean" in weight_laws([("w", w)])[0].failed


def leaky(a: float, depth: int, width: int) -> nn.Module:
    """``kaiming_normal_(a=a)`` in front of leaky ReLUs of slope ``a``, the output layer included."""
    widths = [width] * (depth + 1)
    model = nn.Sequential(
        *(
            part
            for m, n in itertools.pairwise(widths)
            for part in (nn.Linear(m, n, bias=False), nn.LeakyReLU(a))
        )
    )
    for layer in model[::2]:
        nn.init.kaiming_normal_(layer.weight, a=a)
    return model


@pytest.mark.parametrize("width", [48, 300])
def test_he_for_a_leaky_relu_is_recognised_with_its_gain(width):
    """At width 48 each matrix alone passes for He's own variance, 4 % above; all together do not."""
    for seed in range(3):
        arch = trace(seeded(lambda: leaky(0.2, 16, width), seed=seed))
        assert {layer.weight.initializer for layer in arch.layers} == {"he_normal"}
        assert {round(layer.weight.gain, 12) for layer in arch.layers} == {
            round(1 / math.sqrt(1.04), 12)
        }


def test_the_drift_of_a_leaky_network_is_that_of_its_initialisation():
    """Against the definition: products of fresh matrices and coins."""
    generator = torch.Generator().manual_seed(0)
    logs = []
    for _ in range(300):
        u = torch.randn(48, generator=generator, dtype=torch.float64)
        start = u.square().sum()
        for _ in range(16):
            w = torch.randn(48, 48, generator=generator, dtype=torch.float64) * math.sqrt(
                2 / 1.04 / 48
            )
            gate = torch.where(torch.rand(48, generator=generator) < 0.5, 1.0, 0.2)
            u = gate * (w @ u)
        logs.append(float((u.square().sum() / start).log()))
    error = torch.tensor(logs).std() / math.sqrt(len(logs))
    assert (
        abs(predict(trace(seeded(lambda: leaky(0.2, 16, 48)))).log_mean - sum(logs) / len(logs))
        < 4 * error
    )


def test_many_matrices_a_little_too_small_keep_their_own_variance():
    generator = torch.Generator().manual_seed(0)
    small = [
        (str(i), torch.randn(48, 48, generator=generator) * math.sqrt(0.96 * 2 / 48))
        for i in range(16)
    ]
    laws = weight_laws(small)
    assert {law.initializer for law in laws} == {None}
    assert {law.family for law in laws} == {"normal"}
    assert all(law.variance == law.sample_variance for law in laws)
    assert weight_laws(small[:1])[0].initializer == "he_normal", (
        "one alone is within sampling error"
    )


@pytest.mark.parametrize("name", sorted(set(INITIALISERS) - {"orthogonal"}))
@pytest.mark.slow
def test_true_draws_pass_together(name):
    """8 models of 20 matrices, one of them used 50 times: together they are tested as 20 draws."""
    torch.manual_seed(0)
    for _ in range(8):
        draws = [torch.empty(40, 25) for _ in range(20)]
        for w in draws:
            INITIALISERS[name](w)
        laws = weight_laws([(str(i), w) for i, w in enumerate(draws)] + [("again", draws[0])] * 50)
        assert {law.initializer for law in laws} == {name}
