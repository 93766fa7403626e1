"""The law against explicit products of random matrices D W, written independently."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

import initdiag
from initdiag.diagnosing.expectation import expectation
from initdiag.law import layer as layer_law
from initdiag.network.architecture import Architecture, Gap, Gate


def log_norms(widths, init, output, draws, seed, slope=0.0, dropout=0.0):
    """ln||Ju||^2 of ``draws`` products of explicit matrices; -inf where dead."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((draws, widths[0]))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for index, (n, m) in enumerate(itertools.pairwise(widths)):
        if init == "he_normal":
            w = rng.standard_normal((draws, m, n)) * math.sqrt(2 / n)
        elif init == "torch_default":
            w = rng.uniform(-1, 1, (draws, m, n)) / math.sqrt(n)
        else:
            larger = max(m, n)
            q, r = np.linalg.qr(rng.standard_normal((draws, larger, larger)))
            q *= np.sign(np.einsum("sii->si", r))[:, None, :]
            w = math.sqrt(2) * q[:, :m, :n]
        x = np.einsum("smn,sn->sm", w, x)
        if index < len(widths) - 2 or output == "relu":
            x *= np.where(rng.random(x.shape) < 0.5, 1.0, slope)
            if dropout:
                x *= (rng.random(x.shape) >= dropout) / (1 - dropout)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(x * x, axis=1))


def assert_agrees(values, prediction, mean_slack=0.0, variance_slack=0.0):
    """Mean, variance and dead share within 3 standard errors, plus what the formula itself leaves out."""
    alive = values[np.isfinite(values)]
    n = len(alive)
    variance = alive.var(ddof=1)
    variance_se = math.sqrt((np.mean((alive - alive.mean()) ** 4) - variance**2) / n)
    assert abs(alive.mean() - prediction.log_mean) <= 3 * math.sqrt(variance / n) + mean_slack
    assert abs(variance - prediction.log_variance) <= 3 * variance_se + variance_slack
    dead = prediction.dead_probability
    share_se = math.sqrt(max(dead * (1 - dead), 1 / len(values)) / len(values))
    assert abs(1 - n / len(values) - dead) <= 3 * share_se


WIDTHS = {
    "constant 2": [2] * 4,
    "constant 8": [8] * 7,
    "constant 40": [40] * 6,
    "constant 256": [256] * 4,
    "alternating": [30, 10, 30, 10, 30, 10],
    "alternating, narrow": [3, 12, 3, 12, 3],
    "random": [17, 5, 64, 23, 9, 40],
    "single output": [10, 20, 1],
}


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("output", ["linear", "relu"])
@pytest.mark.parametrize("init", ["he_normal", "torch_default"])
def test_predict_agrees_with_explicit_products(widths, output, init):
    draws = 300 if max(widths) == 256 else 10_000 if max(widths) < 40 else 3_000
    values = np.concatenate([log_norms(widths, init, output, draws // 4, [7, k]) for k in range(4)])
    arch = Architecture.from_widths(widths, init=init, output=output)
    expected = expectation(arch, initdiag.predict(arch), "redraw")
    assert_agrees(values, initdiag.predict(arch), expected.log_mean_sd, expected.log_variance_sd)


@pytest.mark.parametrize("widths", [[4] * 5, [12, 5, 20, 6], [64] * 4], ids=str)
@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gates_agree_with_explicit_products(widths, slope, dropout):
    values = log_norms(widths, "he_normal", "linear", 4_000, 2, slope, dropout)
    pred = initdiag.predict(
        widths,
        init="he_normal",
        activation="leaky_relu" if slope else "relu",
        negative_slope=slope,
        dropout=dropout,
    )
    assert pred.coverage == "exact"
    assert_agrees(values, pred)


@pytest.mark.parametrize("widths", [[6] * 5, [10, 4, 16, 3], [24] * 6], ids=str)
def test_orthogonal_weights_agree_with_explicit_products(widths):
    values = log_norms(widths, "orthogonal", "relu", 6_000, 5)
    assert_agrees(values, initdiag.predict(widths, init="orthogonal", output="relu"))


def test_beta_is_the_papers_formula():
    assert initdiag.beta([784, 256, 256, 10]) == 5 * (1 / 256 + 1 / 256 + 1 / 10)
    assert initdiag.beta([784, 256, 256, 10], output="linear") == pytest.approx(
        5 * 2 / 256 + 2 / 10, rel=1e-15
    )
    pred = initdiag.predict([784, 256, 256, 10], init="he_normal", output="relu")
    assert pred.beta == pytest.approx(initdiag.beta([784, 256, 256, 10]), rel=1e-14)
    uniform = initdiag.predict([784, 256, 256, 10], output="relu").beta
    assert uniform - pred.beta == pytest.approx(-1.2 * 3 / 786 * 2 / 256, rel=1e-9)


def test_one_linear_layer_is_a_scaled_chi_square():
    pred = initdiag.predict([9, 5], init="lecun_normal")
    assert pred.log_mean == pytest.approx(math.log(2 / 9) + special.digamma(2.5), abs=1e-14)
    assert pred.log_variance == pytest.approx(special.polygamma(1, 2.5), abs=1e-14)
    assert pred.rms_gain_log_mean == pytest.approx(pred.log_mean + math.log(9 / 5), abs=1e-14)


def test_relu_layer_against_the_definition():
    """E over the number of open gates, given that one is, summed naively."""
    n = 7
    weights = np.array([math.comb(n, k) for k in range(1, n + 1)], dtype=float)
    weights /= weights.sum()
    k = np.arange(1, n + 1)
    mean = weights @ (special.digamma(k / 2) + math.log(2 * 2 / 5))
    variance = (
        weights @ (special.polygamma(1, k / 2) + special.digamma(k / 2) ** 2)
        - (weights @ special.digamma(k / 2)) ** 2
    )
    pred = initdiag.predict([5, n], init="he_normal", output="relu")
    assert pred.log_mean == pytest.approx(mean, abs=1e-13)
    assert pred.log_variance == pytest.approx(variance, abs=1e-12)
    assert pred.dead_probability == pytest.approx(2.0**-n, rel=1e-13)


@pytest.mark.parametrize(
    "gate", [Gate((0.0, 1.0), (0.5, 0.5)), Gate((0.0, 2.0), (0.3, 0.7)), Gate((3.0,), (1.0,))]
)
@pytest.mark.parametrize("width", [1, 2, 9, 64, 1000])
def test_two_routes_to_a_layers_moments_agree(gate, width):
    """The binomial average of digammas, and the integrals over the Laplace transform."""
    direct = layer_law._gated_chi2(gate, width)
    integral = layer_law._by_laplace_transform(gate, width)
    assert integral.mean == pytest.approx(direct.mean, abs=1e-10)
    assert integral.variance == pytest.approx(direct.variance, abs=1e-9)


def test_general_gate_against_quadrature_of_its_density():
    """One gate d in {0.3, 1.5}: ln(d^2 z^2) has a density to integrate."""
    gate = Gate((0.3, 1.5), (0.4, 0.6))

    def moment(order):
        def integrand(z, d):
            return (
                2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * math.log(d * d * z * z) ** order
            )

        return sum(
            p * integrate.quad(integrand, 0, 40, args=(d,), points=[1e-6, 1e-3, 1], limit=500)[0]
            for d, p in zip(gate.values, gate.probabilities, strict=True)
        )

    found = layer_law._gated_chi2(gate, 1)
    assert found.mean == pytest.approx(moment(1), abs=1e-7)
    assert found.variance == pytest.approx(moment(2) - moment(1) ** 2, abs=1e-6)


def test_depth_ten_thousand_is_finite():
    pred = initdiag.predict([64] * 10_001)
    assert all(
        map(math.isfinite, (pred.log_mean, pred.log_variance, pred.beta, pred.dead_probability))
    )
    assert pred.log_mean == pytest.approx(10_000 * math.log(1 / 6), rel=0.05)


def test_width_one_layers_die_with_their_probability():
    pred = initdiag.predict([4, 1, 1, 4], init="he_normal")
    assert pred.dead_probability == pytest.approx(0.75, rel=1e-15)
    assert_agrees(log_norms([4, 1, 1, 4], "he_normal", "linear", 20_000, 3), pred)


def test_twenty_default_layers_lose_what_the_literature_says():
    """PyTorch's default multiplies E||.||^2 by 1/6 a layer: 2.7e-16 over twenty."""
    pred = initdiag.predict([1000] * 21, output="relu")
    assert math.exp(pred.log_second_moment) == pytest.approx(2.7e-16, rel=0.02)


def test_a_gap_leaves_no_numbers():
    chain = Architecture.from_widths([8, 8, 8])
    broken = initdiag.predict(
        dataclasses.replace(chain, gaps=(Gap("block", "add", "a residual sum"),))
    )
    assert broken.coverage == "none"
    assert broken.log_mean is None
    assert broken.reasons == ("block: a residual sum",)


@given(
    widths=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    init=st.sampled_from(["he_normal", "xavier_normal", "orthogonal"]),
    gain=st.floats(0.1, 10),
)
def test_gain_shifts_the_law_and_nothing_else(widths, init, gain):
    base = initdiag.predict(widths, init=init)
    scaled = initdiag.predict(widths, init=init, gain=gain)
    assert scaled.log_mean - base.log_mean == pytest.approx(
        2 * (len(widths) - 1) * math.log(gain), abs=1e-9
    )
    assert scaled.log_variance == base.log_variance
    assert scaled.beta == base.beta


@given(widths=st.lists(st.integers(200, 4000), min_size=2, max_size=8))
def test_wide_networks_recover_beta(widths):
    pred = initdiag.predict(widths, init="he_normal", output="relu")
    assert pred.log_variance == pytest.approx(pred.beta, rel=0.03)
    assert pred.asymptotic_law.std() == pytest.approx(math.sqrt(pred.beta), rel=1e-12)
    assert pred.asymptotic_law.mean() == pytest.approx(pred.log_mean, abs=0.02)


@given(
    values=st.lists(st.floats(0.05, 3), min_size=1, max_size=3, unique=True),
    closed=st.floats(0, 0.9),
    width=st.integers(1, 300),
)
def test_any_gate_has_sane_moments(values, closed, width):
    shares = [(1 - closed) / len(values)] * len(values)
    gate = Gate((0.0, *values), (1 - math.fsum(shares), *shares))
    found = layer_law._gated_chi2(gate, width)
    assert found.variance > 0
    assert (
        found.mean
        <= math.log(width * gate.second_moment / (1 - layer_law.dead_probability(gate, width)))
        + 1e-9
    )


def test_a_prediction_has_all_of_its_moments_or_none():
    none = initdiag.predict(Architecture((), 3, 2, gaps=(Gap("a", "other", "unknown"),)))
    assert none.coverage == "none"
    assert none.moments is None
    assert none.log_mean is None
    assert none.hidden_dead_probability is None
    with pytest.raises(initdiag.UnsupportedArchitecture, match="unknown"):
        _ = none.known
    saved = none.to_dict()
    assert saved["log_mean"] is None
    with pytest.raises(initdiag.InvalidInput, match="log_variance"):
        initdiag.Prediction.from_dict(saved | {"log_mean": 1.0})
