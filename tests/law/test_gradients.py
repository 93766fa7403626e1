"""Laws of activations, gradients and J^T v, against autograd on explicit networks and against each other."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import initdiag
from initdiag import Architecture, InvalidInput, UnsupportedArchitecture, parameter_gradients
from initdiag.law import gradients as gradients_module
from initdiag.law.gradient_records import ParameterGradients
from initdiag.law.simulate import backward
from initdiag.network.architecture import BiasLaw, Gap, WeightLaw

ACTIVATIONS = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "linear": lambda h: h,
    "leaky_relu": lambda h: F.leaky_relu(h, 0.2),
}


# --- explicit networks ------------------------------------------------------------------------------------------------


def drawn_weights(layer, draws, generator):
    n, m = layer.fan_in, layer.fan_out
    if layer.weight.family == "haar":
        larger = max(n, m)
        q, r = torch.linalg.qr(
            torch.randn(draws, larger, larger, generator=generator, dtype=torch.float64)
        )
        q = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None, :]
        return math.sqrt(layer.weight.variance * larger) * q[:, :m, :n]
    if layer.weight.family == "uniform":
        w = (2 * torch.rand(draws, m, n, generator=generator, dtype=torch.float64) - 1) * math.sqrt(
            3
        )
    else:
        w = torch.randn(draws, m, n, generator=generator, dtype=torch.float64)
    return math.sqrt(layer.weight.variance) * w


def autograd(arch, cotangent, draws=4000, seed=0):
    """Log-norms by name, of ``draws`` networks with matrices of their own, stacked: one backward pass of PyTorch."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full(
        (draws, arch.input_size), arch.input_rms, dtype=torch.float64, requires_grad=True
    )
    a, found, leaves = x, {}, {}
    for i, layer in enumerate(arch.layers, start=1):
        w = drawn_weights(layer, draws, generator).requires_grad_()
        variance = layer.bias.variance if layer.bias is not None else 0.0
        b = (
            torch.randn(draws, layer.fan_out, generator=generator, dtype=torch.float64)
            * math.sqrt(variance)
        ).requires_grad_()
        a = ACTIVATIONS[layer.activation.name](torch.einsum("smn,sn->sm", w, a) + b)
        if layer.activation.dropout:
            keep = 1 - layer.activation.dropout
            a = a * (torch.rand(a.shape, generator=generator) < keep) / keep
        found["activation", i] = a.detach()
        leaves |= {("weight_gradient", i): w, ("bias_gradient", i): b}
    v = cotangent(a.detach(), generator)
    a.backward(v)
    found |= {key: leaf.grad for key, leaf in leaves.items()} | {("input_gradient", 0): x.grad}
    with np.errstate(divide="ignore"):
        return {
            key: np.log(value.flatten(1).square().sum(1).numpy()) for key, value in found.items()
        }


def sphere(outputs, generator):
    v = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    return v / v.norm(dim=1, keepdim=True)


def gaussian(outputs, generator):
    return torch.randn(outputs.shape, generator=generator, dtype=torch.float64) / math.sqrt(
        outputs.shape[1]
    )


def constant(v):
    return lambda outputs, generator: torch.tensor(v, dtype=torch.float64).expand(outputs.shape)


def laws(found):
    """All laws by the names that `autograd` uses."""
    named = {("input_gradient", 0): found.input_gradient}
    for i, layer in enumerate(found.layers, start=1):
        named |= {
            (name, i): getattr(layer, name)
            for name in ("activation", "weight_gradient", "bias_gradient")
        }
    return named


def z_scores(found, samples):
    """``{(name, layer): (z of the log-mean, of the log-variance, of the dead share)}``."""
    result = {}
    for key, law in laws(found).items():
        values = samples[key][np.isfinite(samples[key])]
        n, variance = len(values), values.var(ddof=1)
        if law.log_variance < 1e-12:
            np.testing.assert_allclose(values, law.log_mean, rtol=0, atol=1e-9)
            continue
        variance_se = math.sqrt((np.mean((values - values.mean()) ** 4) - variance**2) / n)
        p = law.dead_probability
        dead_se = math.sqrt(
            max(p * (1 - p), 1e-6)
            * (1 / len(samples[key]) + (1 / 2048 if law.coverage == "simulated" else 0))
        )
        result[key] = (
            (values.mean() - law.log_mean) / math.hypot(math.sqrt(variance / n), law.log_mean_se),
            (variance - law.log_variance) / math.hypot(variance_se, law.log_variance_se),
            (1 - n / len(samples[key]) - p) / dead_se,
        )
    return result


def biased(arch, variance):
    layers = (dataclasses.replace(layer, bias=BiasLaw(variance)) for layer in arch.layers)
    return dataclasses.replace(arch, layers=tuple(layers))


chain = Architecture.from_widths
RELU = chain([3, 8, 64, 5, 16, 2], init="he_normal", input_rms=0.6)
VECTOR = [3.0, -1.0, 0.5, 0.0]
CASES = {
    "ReLU": (RELU, "sphere", sphere, "exact"),
    "ReLU, Gaussian v": (RELU, "gaussian", gaussian, "exact"),
    "ReLU, fixed v": (chain([6, 12, 7, 4], init="he_normal"), VECTOR, constant(VECTOR), "exact"),
    "ReLU output": (chain([5, 9, 4, 6], init="he_normal", output="relu"), "sphere", sphere, "exact"),
    "ReLU output, Gaussian v": (chain([5, 9, 4, 6], init="he_normal", output="relu"), "gaussian", gaussian, "exact"),
    "orthogonal": (chain([12, 5, 20, 6, 6], init="orthogonal"), "sphere", sphere, "exact"),
    "orthogonal, leaky, dropout": (
        chain([9, 16, 6, 10], init="orthogonal", activation="leaky_relu", negative_slope=0.2, dropout=0.2),
        "gaussian",
        gaussian,
        "exact",
    ),
    "mixed": (chain([8, 10, 12, 3], init=["orthogonal", "he_normal", "orthogonal"]), "sphere", sphere, "exact"),
    "uniform": (chain([32, 24, 40, 16], init="he_uniform"), "sphere", sphere, "first-order"),
    "biases": (biased(chain([6, 10, 5, 8], init="he_normal"), 0.3), "gaussian", gaussian, None),
    "fixed v behind a gate": (chain([6, 10, 5, 4], init="he_normal", output="relu"), VECTOR, constant(VECTOR), None),
    "tanh, biases": (biased(chain([6, 10, 5, 4], activation="tanh", init="lecun_normal"), 0.1), VECTOR, constant(VECTOR), "simulated"),
    "GELU, orthogonal": (chain([9, 6, 14, 4], activation="gelu", init="orthogonal"), "sphere", sphere, "simulated"),
    "squared error": (chain([6, 10, 5, 4], init="he_normal"), lambda y: y, lambda y, generator: y, None),
    "squared error, orthogonal": (chain([6, 10, 5, 4], init="orthogonal"), lambda y: y, lambda y, generator: y, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_autograd(name):
    arch, cotangent, explicit, coverage = CASES[name]
    found = parameter_gradients(arch, cotangent=cotangent)
    weights = {layer.weight_gradient.coverage for layer in found.layers}
    assert coverage is None or weights == {coverage}
    scores = np.array(list(z_scores(found, autograd(arch, explicit)).values()))
    assert np.abs(scores).max() < 4.2
    assert len(scores) > 3 * len(arch.layers) - 3


def test_whole_distributions_against_autograd():
    """Kolmogorov-Smirnov tests of the closed laws, dead draws apart."""
    arch, cotangent, explicit, _ = CASES["ReLU output, Gaussian v"]
    samples = autograd(arch, explicit)
    for key, law in laws(parameter_gradients(arch, cotangent=cotangent)).items():
        assert stats.kstest(samples[key][np.isfinite(samples[key])], law.law.cdf).pvalue > 1e-3


def test_coverage_is_said_norm_by_norm():
    """Biases leave the laws of the deltas closed, and every activation before the first bias."""
    arch, cotangent, *_ = CASES["biases"]
    arch = dataclasses.replace(
        arch, layers=(dataclasses.replace(arch.layers[0], bias=None), *arch.layers[1:])
    )
    found = parameter_gradients(arch, cotangent=cotangent)
    assert (
        {x.bias_gradient.coverage for x in found.layers}
        == {found.input_gradient.coverage}
        == {"exact"}
    )
    assert [x.activation.coverage for x in found.layers] == ["exact", "simulated", "simulated"]
    assert [x.weight_gradient.coverage for x in found.layers] == ["exact", "exact", "simulated"]
    default = parameter_gradients([20, 16, 4])
    assert default.layers[0].bias_gradient.coverage == "first-order"
    assert default.layers[1].bias_gradient.coverage == "exact"  # delta_L = v: no weight is in it
    assert any("uniform weights" in reason for reason in default.layers[1].activation.chain.reasons)


# --- what the laws say ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(2, 60), min_size=3, max_size=7),
    st.sampled_from(["relu", "leaky_relu"]),
    st.sampled_from(["linear", "relu"]),
    st.sampled_from(["sphere", "gaussian"]),
)
def test_every_weight_gradient_has_one_law_up_to_a_factor(widths, activation, output, cotangent):
    arch = chain(widths, activation=activation, output=output, init="xavier_normal")
    found = parameter_gradients(arch, cotangent=cotangent)
    weight_gradients = [layer.weight_gradient for layer in found.layers]
    shifted = [
        g.log_mean + math.log(layer.weight.variance)
        for g, layer in zip(weight_gradients, arch.layers, strict=True)
    ]
    np.testing.assert_allclose(
        [g.log_variance for g in weight_gradients], weight_gradients[0].log_variance, rtol=1e-12
    )
    np.testing.assert_allclose(shifted, shifted[0], rtol=0, atol=1e-10)
    assert len({g.dead_probability for g in weight_gradients}) == 1


def test_the_whole_law_is_shifted():
    first, last = (
        layer.weight_gradient for layer in (parameter_gradients(RELU).layers[i] for i in (0, -1))
    )
    x = first.log_mean + math.sqrt(first.log_variance) * np.linspace(-5, 3, 9)
    shift = math.log(RELU.layers[0].weight.variance / RELU.layers[-1].weight.variance)
    np.testing.assert_allclose(last.law.cdf(x + shift), first.law.cdf(x), rtol=1e-9)
    assert np.abs(last.law.cdf(x) - first.law.cdf(x)).max() > 0.1


def test_closed_forms():
    """Hidden layers' gated chi-squares from binomial sums; ``psi'(n_0/2)`` at the input; ``psi'(n_L/2)`` for Gaussian v."""
    widths = [7, 4, 9, 5]
    hidden = 0.0
    for n in widths[1:-1]:
        k = np.arange(1, n + 1)
        p = np.array([math.comb(n, int(j)) for j in k]) / (2.0**n - 1)
        psi = special.digamma(k / 2)
        hidden += p @ special.polygamma(1, k / 2) + p @ psi**2 - (p @ psi) ** 2
    found, normal = (
        parameter_gradients(widths, init="he_normal", cotangent=c) for c in ("sphere", "gaussian")
    )
    assert found.layers[1].weight_gradient.log_variance == pytest.approx(hidden, rel=1e-12)
    assert found.input_gradient.log_variance == pytest.approx(
        hidden + special.polygamma(1, 3.5), rel=1e-12
    )
    assert normal.layers[1].weight_gradient.log_variance == pytest.approx(
        hidden + special.polygamma(1, 2.5), rel=1e-12
    )
    assert found.layers[2].bias_gradient.log_mean == pytest.approx(0, abs=1e-12)
    assert found.layers[2].activation.log_mean == pytest.approx(
        initdiag.predict(widths, init="he_normal").log_mean + math.log(7), abs=1e-12
    )


def test_orthogonal_layers_take_their_own_radius_away():
    """Haar weights: the log-variances differ by ``psi'(N_l/2)``, the layer's own matrix being absent from its gradient."""
    arch = chain([4, 12, 6, 3], init="orthogonal")
    variances = [layer.weight_gradient.log_variance for layer in parameter_gradients(arch).layers]
    radii = [float(special.polygamma(1, n / 2)) for n in (12, 12, 6)]
    np.testing.assert_allclose(np.diff(variances), np.diff(radii), atol=1e-12)
    assert variances[2] > variances[0] + 0.1


def test_a_loss_of_the_output_breaks_the_identity():
    """Squared error: ``v`` is the output itself, which is large where the gradient is: the last layers fluctuate more."""
    found = parameter_gradients([10] * 9, init="he_normal", cotangent=lambda y: y, draws=4096)
    first, last = found.layers[0].weight_gradient, found.layers[-1].weight_gradient
    fixed = parameter_gradients([10] * 9, init="he_normal").layers[0].weight_gradient
    assert last.log_variance > first.log_variance + 5 * math.hypot(
        first.log_variance_se, last.log_variance_se
    )
    assert first.log_variance > 2 * fixed.log_variance


def test_a_deep_chain_does_not_underflow():
    found = parameter_gradients([16] * 601, init="torch_default", draws=64)
    assert found.input_gradient.log_mean < -1000
    assert found.layers[0].bias_gradient.dead_probability < 0.01  # 600 * 2^-16
    assert math.isfinite(found.layers[300].weight_gradient.log_mean)
    assert np.isfinite(found.input_gradient.law.ppf([0.01, 0.5, 0.99])).all()


# --- conventions ------------------------------------------------------------------------------------------------------


def test_the_simulation_finds_the_closed_laws(monkeypatch):
    """The simulation's own test: two derivations, one answer; with a bias of variance 0 or not, dead draws included."""
    closed = parameter_gradients(RELU)
    monkeypatch.setattr(gradients_module._Laws, "_has_closed_activation", lambda self, index: False)
    simulated = parameter_gradients(
        RELU, cotangent=lambda y: np.eye(1, 2).repeat(len(y), 0), draws=8192
    )
    for key, law in laws(closed).items():
        found = laws(simulated)[key]
        assert found.coverage == "simulated"
        assert abs(found.log_mean - law.log_mean) < 4 * found.log_mean_se + 1e-9
        assert abs(found.log_variance - law.log_variance) < 4 * found.log_variance_se + 1e-9
        assert (
            abs(found.dead_probability - law.dead_probability)
            < 4 * math.sqrt(law.dead_probability / 8192) + 1e-3
        )


def test_draws_do_not_depend_on_their_number():
    def samples(draws, seed=0):
        found = parameter_gradients([6, 8, 3], activation="tanh", draws=draws, seed=seed)
        return found.layers[0].weight_gradient.chain.samples

    np.testing.assert_array_equal(samples(70), samples(300)[:70])
    assert not np.array_equal(samples(70, seed=1), samples(70))


def test_a_small_budget_changes_the_draws_not_the_law(monkeypatch):
    monkeypatch.setattr(backward, "_BUDGET", 1)  # one draw a block
    small = parameter_gradients([6, 8, 3], activation="tanh", draws=1500).layers[0].weight_gradient
    monkeypatch.undo()
    large = parameter_gradients([6, 8, 3], activation="tanh", draws=1500).layers[0].weight_gradient
    assert abs(small.log_mean - large.log_mean) < 4 * math.hypot(
        small.log_mean_se, large.log_mean_se
    )


def test_the_record_survives_json():
    for cotangent in ("sphere", lambda y: y):
        found = parameter_gradients([4, 5, 3], init="he_normal", cotangent=cotangent, draws=16)
        assert (
            ParameterGradients.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
            == found
        )


@pytest.mark.parametrize(
    "cotangent", ["ball", [1.0, 2.0], [0.0, 0.0, 0.0], [1.0, math.nan, 0.0], 3.0, None]
)
def test_a_wrong_cotangent_is_refused(cotangent):
    with pytest.raises(
        InvalidInput, match='expected cotangent: "sphere", "gaussian", 3 finite numbers'
    ):
        parameter_gradients([4, 5, 3], cotangent=cotangent)


def test_a_function_must_return_one_gradient_an_output():
    with pytest.raises(InvalidInput, match="that of the outputs"):
        parameter_gradients([4, 5, 3], cotangent=lambda y: y[:, :2])
    with pytest.raises(InvalidInput, match="not finite"):
        parameter_gradients([4, 5, 3], cotangent=lambda y: y / 0.0 if y is None else y * math.nan)


def test_no_coverage_and_zeros_are_refused():
    arch = chain([4, 5, 3], init="he_normal")
    with pytest.raises(UnsupportedArchitecture, match="block: a residual sum"):
        parameter_gradients(
            dataclasses.replace(arch, gaps=(Gap("block", "add", "a residual sum"),))
        )
    zero = dataclasses.replace(arch.layers[1], weight=WeightLaw("normal", 0.0, 3.0))
    with pytest.raises(UnsupportedArchitecture, match="zeros in 1"):
        parameter_gradients(dataclasses.replace(arch, layers=(arch.layers[0], zero)))
    with pytest.raises(UnsupportedArchitecture, match="zeros in the input"):
        parameter_gradients(dataclasses.replace(arch, input_rms=0.0))
    with pytest.raises(InvalidInput, match="assumptions with widths only"):
        parameter_gradients(arch, init="he_normal")


def test_a_chain_that_is_too_far_from_gaussian_backward_is_refused():
    """200 inputs average entries of kurtosis 30; the three outputs that they are seen from backward do not."""
    arch = chain([200, 3], init="he_normal")
    heavy = dataclasses.replace(arch.layers[0], weight=WeightLaw("other", 0.01, 30.0))
    arch = dataclasses.replace(arch, layers=(heavy,))
    assert initdiag.predict(arch).coverage == "first-order"
    with pytest.raises(
        UnsupportedArchitecture, match=r"there is no law of the parameter gradients: .*kurtosis 30"
    ):
        parameter_gradients(arch)


# --- sabotage ---------------------------------------------------------------------------------------------------------


def worst(name):
    arch, cotangent, explicit, _ = CASES[name]
    scores = z_scores(parameter_gradients(arch, cotangent=cotangent), autograd(arch, explicit))
    return max(abs(z) for triple in scores.values() for z in triple)


@pytest.mark.parametrize("name", ["squared error", "squared error, orthogonal"])
def test_a_backward_pass_with_fresh_matrices_would_be_seen(name, monkeypatch):
    """Without what the forward pass fixed of each matrix, a loss that depends on the output is wrong."""
    honest = backward._transposed

    def fresh(step, delta, rng):
        return honest(
            dataclasses.replace(step, direction=np.zeros_like(step.direction)), delta, rng
        )

    monkeypatch.setattr(backward, "_transposed", fresh)
    assert worst(name) > 8


def test_a_transposed_chain_without_its_gates_would_be_seen(monkeypatch):
    honest = gradients_module._predicted

    def shifted(layers):
        """The gates one layer off: ``W_l^T D_l`` in place of ``D_{l-1} W_l^T``."""
        if layers[0].name != "cotangent":
            return honest(layers)
        gates = [layers[0].activation, *(layer.activation for layer in layers[:-1])]
        return honest(
            tuple(dataclasses.replace(x, activation=g) for x, g in zip(layers, gates, strict=True))
        )

    monkeypatch.setattr(gradients_module, "_predicted", shifted)
    assert worst("ReLU") > 8


def test_the_output_weight_in_its_own_gradient_would_be_seen(monkeypatch):
    honest = gradients_module._Laws._back_to
    monkeypatch.setattr(
        gradients_module._Laws, "_back_to", lambda self, index: honest(self, max(index - 1, 0))
    )
    assert worst("ReLU, Gaussian v") > 8


def test_every_pair_of_norms_of_one_gradient_is_independent():
    """``||a_{l-1}||^2`` and ``||delta_l||^2``, whose product the gradient's norm is."""
    arch, _, explicit, _ = CASES["ReLU, Gaussian v"]
    samples = autograd(arch, explicit)
    for i in range(2, len(arch.layers)):
        pair = np.array([samples["activation", i - 1], samples["bias_gradient", i]])
        pair = pair[:, np.isfinite(pair).all(axis=0)]
        assert stats.spearmanr(*pair).pvalue > 1e-3
