"""The exact law as a distribution, against chi-squares, Beta laws, quadrature, high precision and explicit samples."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from support.places import EVIDENCE

import initdiag
from initdiag.errors import InvalidInput, UnsupportedArchitecture
from initdiag.law import layer as layer_law
from initdiag.law.distributions import line
from initdiag.law.distributions.chain import ChainLaw
from initdiag.network.architecture import Architecture, Gap, Gate

STUDY = EVIDENCE / "law" / "study.py"
TAILS = np.array([1e-12, 1e-10, 1e-7, 1e-4, 0.01, 0.2, 0.5])


def law(widths, output="linear", init="he_normal", **assumptions):
    return initdiag.predict(widths, output=output, init=init, **assumptions).law


def study():
    spec = importlib.util.spec_from_file_location("law_study", STUDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relu_mixture(n):
    """``K`` and its probabilities given ``K >= 1``, from binomial coefficients."""
    k = np.arange(1, n + 1)
    return k, np.array([math.comb(n, int(j)) for j in k]) / (2.0**n - 1)


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 50, 1000, 10**6])
def test_one_linear_layer_is_ln_chi_square_in_both_tails(n):
    d, v = stats.chi2(n), 2 / 3
    one = law([3, n])
    lower, upper = np.log(v * d.ppf(TAILS)), np.log(v * d.isf(TAILS))
    rtol = (
        1e-8 if n < 10**6 else 1e-7
    )  # rounding of x = ln(v y) alone: 1e-16 * 7 deviations * 1400 per unit of x
    np.testing.assert_allclose(one.cdf(lower), d.cdf(np.exp(lower) / v), rtol=rtol)
    np.testing.assert_allclose(one.sf(upper), d.sf(np.exp(upper) / v), rtol=rtol)
    np.testing.assert_allclose(one.logsf(upper), d.logsf(np.exp(upper) / v), rtol=rtol)
    both = np.concatenate([lower, upper])
    y = np.exp(both) / v
    np.testing.assert_allclose(one.pdf(both), d.pdf(y) * y, rtol=1e-8 if n < 10**6 else 1e-6)


@pytest.mark.parametrize("n", [1, 3, 10, 40, 60, 200, 1000])
def test_one_relu_layer_is_a_binomial_mixture_of_chi_squares(n):
    k, p = (
        relu_mixture(n)
        if n < 1000
        else (np.arange(1, n + 1), stats.binom.pmf(np.arange(1, n + 1), n, 0.5))
    )
    one = law([2, n], output="relu")
    lower, upper = one.ppf(TAILS), one.isf(TAILS)
    cdf = np.array([p @ stats.chi2.cdf(math.exp(x), k) for x in lower])
    sf = np.array([p @ stats.chi2.sf(math.exp(x), k) for x in upper])
    np.testing.assert_allclose(one.cdf(lower), cdf, rtol=1e-4)
    np.testing.assert_allclose(one.sf(upper), sf, rtol=1e-6)
    bulk = cdf > 1e-7
    np.testing.assert_allclose(one.cdf(lower[bulk]), cdf[bulk], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (20, 2)])
@pytest.mark.slow
def test_two_linear_layers_against_thirty_digits(n, m):
    """``P(X_1 X_2 > x)`` by mpmath's quadrature of one chi-square's tail over the other's density."""
    two = law([4, n, m], activation="linear")
    scale = (2 / 4) * (2 / n)

    def tail(x, upper):
        a, b = mpmath.mpf(n) / 2, mpmath.mpf(m) / 2

        def integrand(t):  # t = ln X_1/2
            y = mpmath.exp(x) / scale / 4 * mpmath.exp(-t)
            inner = (
                mpmath.gammainc(b, y, mpmath.inf, regularized=True)
                if upper
                else mpmath.gammainc(b, 0, y, regularized=True)
            )
            return mpmath.exp(a * t - mpmath.exp(t)) / mpmath.gamma(a) * inner

        return float(
            mpmath.quad(integrand, [-160, -80, -40, -20, -10, -5, -2, 0, 1, 2, 3, 4, 5, 6])
        )

    with mpmath.workdps(30):
        for q in (1e-12, 0.3):
            lower, upper = float(two.ppf(q)), float(two.isf(q))
            assert two.cdf(lower) == pytest.approx(tail(lower, upper=False), rel=1e-6)
            assert two.sf(upper) == pytest.approx(tail(upper, upper=True), rel=1e-6)


@pytest.mark.parametrize("slope", [0.01, 0.5, -0.3])
@pytest.mark.parametrize("n", [1, 2, pytest.param(6, marks=pytest.mark.slow)])
def test_one_leaky_layer_against_quadrature(n, slope):
    """Conditional on ``j`` gates that are 1, ``chi2_j + slope^2 chi2_{n - j}``: one chi-square's tail over the other's density."""
    one = law([2, n], output="leaky_relu", negative_slope=slope)

    def tail(x, j, function):
        y = math.exp(x)
        if j in (0, n):
            return function(y / (slope**2 if j == 0 else 1), n)

        def integrand(t):  # t = ln of the small part
            small = math.exp(t)
            rest = max(y - slope**2 * small, 0.0)
            value = function(rest, j) if rest else float(function == stats.chi2.sf)
            return stats.chi2.pdf(small, n - j) * small * value

        turn = math.log(y / slope**2)
        points = sorted({-60.0, turn - 20, turn - 3, turn - 0.1, turn, 0.0, 3.0, 5.0})
        return sum(
            integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-9, limit=200)[0]
            for a, b in itertools.pairwise(points)
            if b > a
        )

    for q in (1e-9, 0.4):
        for x, function, value in (
            (one.ppf(q), stats.chi2.cdf, one.cdf),
            (one.isf(q), stats.chi2.sf, one.sf),
        ):
            expected = sum(
                math.comb(n, j) / 2**n * tail(float(x), j, function) for j in range(n + 1)
            )
            assert value(x) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("n_in", "n_out"), [(2, 2), (5, 5), (10, 10), (40, 40), (7, 3), (3, 9), (300, 200)]
)
def test_one_orthogonal_layer_is_a_mixture_of_betas_with_an_atom_at_its_edge(n_in, n_out):
    one, larger = law([n_in, n_out], output="relu", init="orthogonal"), max(n_in, n_out)
    k, p = relu_mixture(n_out)
    edge = math.log(2)
    atom = p[-1] if n_out == larger else 0.0
    inner, weights = k[k < larger], p[k < larger]
    x = np.concatenate(
        [one.ppf([1e-12, 1e-7, 0.01, 0.3]), edge - np.array([0.5, 1e-2, 1e-5, 1e-9])]
    )
    beta = [stats.beta(j / 2, (larger - j) / 2) for j in inner]
    cdf = np.array(
        [sum(w * b.cdf(math.exp(at) / 2) for w, b in zip(weights, beta, strict=True)) for at in x]
    )
    sf = atom + np.array(
        [sum(w * b.sf(math.exp(at) / 2) for w, b in zip(weights, beta, strict=True)) for at in x]
    )
    np.testing.assert_allclose(one.cdf(x), cdf, rtol=1e-4)
    np.testing.assert_allclose(one.cdf(x[cdf > 1e-6]), cdf[cdf > 1e-6], rtol=0, atol=1e-11)
    far = sf > 1e-12
    np.testing.assert_allclose(one.sf(x[far]), sf[far], rtol=1e-5)
    assert one.support()[1] == pytest.approx(edge, abs=1e-14)
    assert one.cdf(edge + 1e-9) == 1.0
    assert one.sf(edge + 1e-9) == 0.0


@pytest.mark.slow
def test_two_orthogonal_layers_against_quadrature():
    two = law([6, 4, 3], output="relu", init="orthogonal")
    (k, p), (j, q) = relu_mixture(4), relu_mixture(3)

    def first(b):
        return sum(w * stats.beta.pdf(b, a / 2, (6 - a) / 2) for a, w in zip(k, p, strict=True))

    def second(b):
        rest = [(w, a) for a, w in zip(j, q, strict=True)]
        return sum(w * stats.beta.cdf(b, a / 2, (4 - a) / 2) for w, a in rest)

    for x in two.ppf([1e-4, 0.1, 0.6, 0.99]):
        y = math.exp(x) / 4
        expected, _ = integrate.quad(
            lambda b, y=y: first(b) * second(y / b),
            0,
            1,
            points=[min(y, 0.999)],
            limit=400,
            epsrel=1e-10,
        )
        assert two.cdf(x) == pytest.approx(expected, abs=1e-7)


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_explicit_samples_and_rvs_follow_the_cdf(seed):
    """A small part of ``tests/evidence/law/study.py``: random architectures, mixed gates and weights."""
    row = study().run(seed, 20_000)
    for name in ("p_explicit", "p_rvs"):
        assert float(row[name]) > 1e-3
    assert abs(float(row["z_mean"])) < 3.5


def test_the_committed_study_has_uniform_p_values():
    """30 architectures, a million samples each: the histogram of p-values is flat, the z-scores are standard normal."""
    rows = study().read(STUDY.with_name("ks.csv"))
    assert len(rows) == 30
    assert {row["samples"] for row in rows} == {"1000000"}
    for name in ("p_explicit", "p_rvs"):
        p = np.array([float(row[name]) for row in rows])
        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert p.min() > 0.001
    for name in ("z_mean", "z_variance"):
        z = np.array([float(row[name]) for row in rows])
        assert abs(z.mean()) < 3 / math.sqrt(30)
        assert 0.65 < z.std(ddof=1) < 1.4


@pytest.mark.parametrize(
    "wrong",
    [
        {"gain": 1.02},
        {"activation": "linear"},
        {"activation": "leaky_relu", "negative_slope": 0.2},
        {"dropout": 0.05},
        {"init": "orthogonal"},
        {"init": "he_normal_fan_out"},
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_wrong_law_would_be_seen(wrong):
    """Sabotage: the same samples, a law that is off in one assumption."""
    module, right = study(), {"init": "he_normal"}
    values = module.explicit_log_norms(
        Architecture.from_widths([9, 10, 12, 8, 4], **right), 30_000, np.random.default_rng(5)
    )
    assert stats.kstest(values, law([9, 10, 12, 8, 4], **right).cdf).pvalue > 0.01
    assert stats.kstest(values, law([9, 10, 12, 8, 4], **(right | wrong)).cdf).pvalue < 1e-6


def test_explicit_matrices_follow_the_cdf():
    """Products of matrices ``D W`` on a real input, gates from the signs of the pre-activations: nothing assumed about them."""
    rng = np.random.default_rng(11)
    widths, draws = [4, 6, 5, 3], 20_000
    x = np.tile(rng.standard_normal(4), (draws, 1))
    u = np.tile(np.eye(4)[0], (draws, 1))
    for index, (n, m) in enumerate(itertools.pairwise(widths)):
        w = rng.standard_normal((draws, m, n)) * math.sqrt(2 / n)
        x, u = np.einsum("smn,sn->sm", w, x), np.einsum("smn,sn->sm", w, u)
        if index < 2:
            u, x = u * (x > 0), x * (x > 0)
    norms = np.sum(u * u, axis=1)
    assert stats.kstest(np.log(norms[norms > 0]), law(widths).cdf).pvalue > 0.01


# --- moments ----------------------------------------------------------------------------------------------------------


NETS = {
    "relu": ([6, 5, 3, 4], {}),
    "linear": ([6, 5, 3, 4], {"activation": "linear"}),
    "leaky": ([6, 9, 7, 2], {"activation": "leaky_relu", "negative_slope": 0.2}),
    "leaky with dropout": (
        [6, 9, 30, 2],
        {"activation": "leaky_relu", "negative_slope": 0.2, "dropout": 0.3},
    ),
    "orthogonal": ([6, 9, 9, 2], {"init": "orthogonal"}),
    "orthogonal leaky": ([6, 30, 30, 2], {"init": "orthogonal", "activation": "leaky_relu"}),
    "uniform": ([30, 40, 50, 6], {"init": "torch_default"}),
    "deep": ([8] * 200, {}),
}


@pytest.mark.parametrize("name", NETS)
def test_mean_and_variance_are_the_predictions(name):
    widths, assumptions = NETS[name]
    prediction = initdiag.predict(widths, **({"init": "he_normal"} | assumptions))
    exact = prediction.law
    assert exact.mean() == pytest.approx(prediction.log_mean, abs=1e-9)
    assert exact.var() == pytest.approx(prediction.log_variance, rel=1e-9)
    assert exact.std() ** 2 == pytest.approx(exact.var())


@pytest.mark.parametrize(
    "name", ["relu", "leaky with dropout", "orthogonal leaky", "uniform", "deep"]
)
def test_the_density_integrates_to_one_and_to_the_moments_and_is_the_slope_of_the_cdf(name):
    widths, assumptions = NETS[name]
    exact = law(widths, **assumptions)
    x = np.linspace(exact.mean() - 40 * exact.std(), exact.mean() + 12 * exact.std(), 8001)
    f = exact.pdf(x)
    total, first = integrate.trapezoid(f, x), integrate.trapezoid(f * x, x)
    assert total == pytest.approx(1, abs=1e-6)
    assert first == pytest.approx(exact.mean(), abs=1e-5 * exact.std())
    at, h = exact.mean() + exact.std() * np.array([-2.0, -0.3, 1.0, 3.0]), 1e-4 * exact.std()
    low, high = (
        at[:2],
        at[2:],
    )  # differences of the smaller tail: near 1 the CDF has no digits left to tell them
    slopes = np.concatenate(
        [exact.cdf(low + h) - exact.cdf(low - h), exact.sf(high - h) - exact.sf(high + h)]
    ) / (2 * h)
    np.testing.assert_allclose(slopes, exact.pdf(at), rtol=1e-5)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 0.5, 7])
def test_log_moment_is_the_unconditional_binomial_sum(k):
    """Dead draws count 0, so that the sum over ``K`` leaves out ``K = 0`` and is not divided by anything."""
    widths = [6, 5, 3, 4]
    expected = 0.0
    for index, (n, m) in enumerate(itertools.pairwise(widths)):
        j = np.arange(1, m + 1)
        pmf = stats.binom.pmf(j, m, 0.5) if index < 2 else (j == m).astype(float)
        rising = np.exp(special.gammaln(j / 2 + k) - special.gammaln(j / 2))
        expected += k * math.log(2 * 2 / n) + math.log(pmf @ rising)
    assert law(widths).log_moment(k) == pytest.approx(expected, abs=1e-12)


def test_log_moment_of_any_gate_from_its_own_moments():
    """``E X^2 = 3 n E d^4 + n (n - 1) (E d^2)^2``, and so on, for leaky gates with dropout; Haar: over the radius's."""
    gate = (
        initdiag.predict([5, 7], output="leaky_relu", negative_slope=0.3, init="he_normal")
        .layers[0]
        .gate
    )
    assert gate.values == (0.3, 1.0)
    a, b, c = (gate.moment(2), gate.moment(4), gate.moment(6))
    n, v = 7, 2 / 5
    second = 3 * n * b + n * (n - 1) * a**2
    third = 15 * n * c + 3 * n * (n - 1) * 3 * a * b + n * (n - 1) * (n - 2) * a**3
    one = law([5, 7], output="leaky_relu", negative_slope=0.3)
    assert one.log_moment(2) == pytest.approx(math.log(v**2 * second), abs=1e-12)
    assert one.log_moment(3) == pytest.approx(math.log(v**3 * third), abs=1e-12)
    haar = law([5, 7], output="leaky_relu", negative_slope=0.3, init="orthogonal")
    assert haar.log_moment(2) == pytest.approx(math.log(4 * second / (7 * 9)), abs=1e-12)


def test_log_moment_of_high_order_feels_the_rarest_gates():
    """At n = 60, k = 200 the sum is carried by ``K`` near n, which has probability 2^-60: nothing may be dropped."""
    n, k = 60, 200
    j = np.arange(1, n + 1)
    expected = special.logsumexp(
        stats.binom.logpmf(j, n, 0.5) + special.gammaln(j / 2 + k) - special.gammaln(j / 2)
    ) + k * math.log(2 * 2 / 3)
    assert law([3, n], output="relu").log_moment(k) == pytest.approx(expected, rel=1e-12)


def test_log_moment_zero_is_the_probability_to_be_alive():
    prediction = initdiag.predict([4, 2, 3, 2], init="he_normal", output="relu")
    assert prediction.law.log_moment(0) == pytest.approx(
        math.log1p(-prediction.dead_probability), abs=1e-14
    )
    with pytest.raises(InvalidInput, match="order k >= 0"):
        prediction.law.log_moment(-1)


# --- quantiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_quantiles_invert_the_tails(name):
    widths, assumptions = NETS[name]
    exact = law(widths, **assumptions)
    q = np.array([1e-12, 1e-9, 1e-5, 0.01, 0.3, 0.5, 0.8, 0.99])
    np.testing.assert_allclose(exact.cdf(exact.ppf(q)), q, rtol=1e-9, atol=1e-17)
    np.testing.assert_allclose(exact.sf(exact.isf(q)), q, rtol=1e-9, atol=1e-17)
    assert exact.median() == pytest.approx(exact.ppf(0.5), abs=0)
    low, high = exact.interval(0.9)
    assert exact.cdf(high) - exact.cdf(low) == pytest.approx(0.9, abs=1e-9)


def test_a_quantile_inside_the_atom_is_the_edge():
    exact = law([3, 3], output="relu", init="orthogonal")
    atom = 1 / 7
    assert exact.ppf([1 - 0.9 * atom, 1 - 0.1 * atom]) == pytest.approx(
        [math.log(2)] * 2, abs=1e-14
    )
    assert exact.ppf(1 - 1.1 * atom) < math.log(2) - 1e-4


# --- properties -------------------------------------------------------------------------------------------------------

architectures = st.builds(
    lambda widths, activation, slope, rate, init: initdiag.predict(
        widths, activation=activation, negative_slope=slope, dropout=rate, init=init
    ),
    st.lists(st.integers(1, 80), min_size=2, max_size=6),
    st.sampled_from(["relu", "linear", "leaky_relu"]),
    st.floats(0.01, 0.9),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from(["he_normal", "xavier_normal"]),
)
few = settings(deadline=None, derandomize=True, max_examples=12)


@few
@given(architectures, st.floats(-8, 8), st.floats(0, 3))
def test_the_cdf_is_monotone_within_zero_and_one_and_complements_the_sf(prediction, z, step):
    exact = prediction.law
    x = exact.mean() + exact.std() * np.array([z, z + step])
    cdf, sf = exact.cdf(x), exact.sf(x)
    assert 0 <= cdf[0] <= cdf[1] * (1 + 1e-9) <= 1 + 1e-9
    np.testing.assert_allclose(cdf + sf, 1, rtol=0, atol=1e-12)
    assert (exact.pdf(x) >= 0).all()


@few
@given(architectures, st.randoms(use_true_random=False))
def test_the_order_of_the_layers_does_not_matter(prediction, random):
    layers = list(prediction.layers)
    random.shuffle(layers)
    shuffled = ChainLaw.of(dataclasses.replace(prediction, layers=tuple(layers)))
    x = prediction.law.mean() + prediction.law.std() * np.linspace(-4, 3, 9)
    np.testing.assert_allclose(shuffled.cdf(x), prediction.law.cdf(x), rtol=1e-10)


@few
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.floats(0.1, 10))
def test_a_gain_shifts_the_law(widths, gain):
    plain, scaled = law(widths), law(widths, gain=gain)
    shift = 2 * (len(widths) - 1) * math.log(gain)
    x = plain.mean() + plain.std() * np.linspace(-4, 3, 9)
    np.testing.assert_allclose(scaled.cdf(x + shift), plain.cdf(x), rtol=1e-8, atol=1e-14)


@few
@given(st.integers(1, 30), st.integers(1, 8), st.sampled_from(["relu", "leaky_relu"]))
@pytest.mark.slow
def test_merging_equal_layers_changes_nothing(n, pairs, activation):
    """Layers with gains g and 1/g are two kinds; the law of their sum is that of equal layers, which are one kind."""
    widths, depth = [n] * (2 * pairs + 1), 2 * pairs
    merged = law(widths, activation=activation, output=activation)
    apart = law(widths, activation=activation, output=activation, gain=[2.0, 0.5] * pairs)
    distinct = law(
        widths,
        activation=activation,
        output=activation,
        gain=[math.exp(g - (depth - 1) / 2) for g in range(depth)],
    )
    x = merged.mean() + merged.std() * np.linspace(-5, 4, 10)
    expected = merged.cdf(x)
    np.testing.assert_allclose(apart.cdf(x), expected, rtol=1e-8)
    np.testing.assert_allclose(distinct.cdf(x), expected, rtol=1e-8)


@few
@given(architectures, st.lists(st.floats(0.01, 100), min_size=5, max_size=5))
@pytest.mark.slow
def test_scaling_one_layers_variance_shifts_the_law(prediction, factors):
    """Any gates, any layer: ``v -> f v`` moves the law by ``ln f`` and leaves its shape."""
    layers = tuple(
        dataclasses.replace(
            layer, weight_variance=f * layer.weight_variance, log_mean=layer.log_mean + math.log(f)
        )
        for layer, f in zip(prediction.layers, factors, strict=False)
    )
    shift = math.fsum(map(math.log, factors[: len(layers)]))
    moments = dataclasses.replace(prediction.known, log_mean=prediction.log_mean + shift)
    scaled = ChainLaw.of(dataclasses.replace(prediction, layers=layers, moments=moments))
    x = prediction.law.mean() + prediction.law.std() * np.linspace(-4, 3, 9)
    np.testing.assert_allclose(scaled.cdf(x + shift), prediction.law.cdf(x), rtol=1e-8, atol=1e-14)


@few
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.1, 10), st.floats(-4, 3))
def test_one_open_layer_is_a_scaled_chi_square(fan_in, n, gain, z):
    """p = 1: ``||Wu||^2 = v chi2_n``."""
    one, v = law([fan_in, n], gain=gain), 2 / fan_in * gain**2
    x = one.mean() + z * one.std()
    assert one.cdf(x) == pytest.approx(stats.chi2.cdf(math.exp(x) / v, n), rel=1e-8, abs=1e-14)
    assert one.sf(x) == pytest.approx(stats.chi2.sf(math.exp(x) / v, n), rel=1e-8, abs=1e-14)


@few
@given(st.lists(st.integers(1, 200), min_size=2, max_size=8), st.floats(0, 6))
def test_a_linear_chain_has_the_moments_of_its_chi_squares(widths, k):
    """p = 1 at every layer: ``E||Ju||^{2k} = prod (2v)^k Gamma(n/2 + k)/Gamma(n/2)``; digamma and trigamma for mean and variance."""
    linear, n = law(widths, activation="linear"), np.array(widths[1:])
    v = 2 / np.array(widths[:-1])
    expected = np.sum(k * np.log(2 * v) + special.gammaln(n / 2 + k) - special.gammaln(n / 2))
    assert linear.log_moment(k) == pytest.approx(expected, abs=1e-9)
    assert linear.mean() == pytest.approx(np.sum(np.log(2 * v) + special.digamma(n / 2)), abs=1e-9)
    assert linear.var() == pytest.approx(special.polygamma(1, n / 2).sum(), rel=1e-10)


@few
@given(
    st.lists(st.integers(8, 40), min_size=2, max_size=5), st.sampled_from(["relu", "leaky_relu"])
)
def test_growing_any_chain_recovers_its_beta(widths, activation):
    """Widths times 64: the log-variance tends to beta with an error 64 times smaller, and the law to the log-normal."""
    errors, distances = [], []
    for factor in (4, 256):
        grown = [factor * n for n in widths]
        prediction = initdiag.predict(
            grown, activation=activation, output=activation, init="he_normal"
        )
        exact, normal = prediction.law, prediction.asymptotic_law
        errors.append(abs(exact.var() / prediction.beta - 1))
        x = normal.mean() + normal.std() * np.linspace(-3, 3, 25)
        distances.append(np.abs(exact.cdf(x) - normal.cdf(x)).max())
    assert errors[1] < errors[0] / 40
    assert distances[1] < distances[0] / 4


def test_growing_width_recovers_beta_and_the_normal_law():
    errors, distances = [], []
    for n in (30, 300, 3000):
        prediction = initdiag.predict([n] * 11, init="he_normal", output="relu")
        exact = prediction.law
        errors.append(abs(exact.var() / (50 / n) - 1))
        x = exact.mean() + exact.std() * np.linspace(-4, 4, 81)
        distances.append(np.abs(exact.cdf(x) - prediction.asymptotic_law.cdf(x)).max())
    assert (
        errors[0] > 5 * errors[1] > 25 * errors[2]
    )  # first order in 1/n: ten times less each time
    assert distances[0] > 2.5 * distances[1] > 6 * distances[2]
    assert errors[2] < 0.01


@pytest.mark.parametrize("slope", [1e-4, 0.01, 0.3])
@pytest.mark.parametrize(("n", "depth"), [(3, 1), (6, 2), (10, 4), (16, 3), (25, 10)])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.slow
def test_both_tails_meet_at_the_mean(n, depth, slope, dropout):
    """The two come from different lines. Leaky gates that all close by chance make a second hump, ``ln slope^2`` further down."""
    exact = law(
        [n] * (depth + 1),
        activation="leaky_relu",
        output="leaky_relu",
        negative_slope=slope,
        dropout=dropout,
    )
    below, above = exact.mean() - 1e-9, exact.mean() + 1e-9
    assert exact.cdf(below) + exact.sf(above) == pytest.approx(1, abs=1e-8)
    inversion_ = exact._inversion
    center = np.array([inversion_.center.mean])
    total = sum(
        np.exp(inversion_._on_lines(center, side, line.Line.log_tail)[0]) for side in (-1, 1)
    )
    assert total == pytest.approx(1, abs=1e-12)


# --- coverage, hard cases, conventions --------------------------------------------------------------------------------


def test_first_order_coverage_is_the_gaussian_law_moved_and_scaled():
    uniform, normal = (
        initdiag.predict([30, 20, 15, 10], init=init) for init in ("he_uniform", "he_normal")
    )
    assert uniform.coverage == "first-order"
    z = np.linspace(-4, 3, 9)
    corrected, exact = uniform.law, normal.law
    assert corrected.var() < 0.99 * exact.var()
    np.testing.assert_allclose(
        corrected.cdf(corrected.mean() + corrected.std() * z),
        exact.cdf(exact.mean() + exact.std() * z),
        rtol=1e-9,
    )
    draws = corrected.rvs(size=20_000, random_state=3)
    assert stats.kstest(draws, corrected.cdf).pvalue > 0.01
    assert stats.kstest(draws, exact.cdf).pvalue < 0.2


@pytest.mark.parametrize(
    "widths", [[10] * 10_001, [1] * 2_001, [10**6] * 4, [1, 1], list(range(5, 105))]
)
def test_extreme_depths_and_widths(widths):
    exact = law(widths)
    q = np.array([1e-12, 1e-3, 0.5, 0.999])
    x = exact.ppf(q)
    assert np.isfinite(x).all()
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(exact.cdf(x), q, rtol=1e-9)


def test_depth_ten_thousand_is_normal_in_the_bulk():
    """A sum of 10,000 independent equal terms: the central limit theorem, with its skewness correction of order 1/100."""
    exact = law([10] * 10_001, output="relu")
    k, p = relu_mixture(10)
    offset = special.digamma(k / 2) - p @ special.digamma(k / 2)
    variance = p @ (special.polygamma(1, k / 2) + offset**2)
    third = p @ (special.polygamma(2, k / 2) + 3 * special.polygamma(1, k / 2) * offset + offset**3)
    skew = third / variance**1.5 / math.sqrt(10_000)
    z = np.linspace(-3, 3, 13)
    edgeworth = stats.norm.cdf(z) - skew / 6 * (z**2 - 1) * stats.norm.pdf(z)
    np.testing.assert_allclose(
        exact.cdf(exact.mean() + exact.std() * z), edgeworth, rtol=0, atol=2e-5
    )


@pytest.mark.parametrize(
    ("widths", "errors"), [([1, 1], (0.04, 0.5, 1.6)), ([8, 8, 8], (0.005, 0.06, 0.25))]
)
def test_orders_of_moments_to_first_order(widths, errors):
    """Of explicit uniform weights and coins: orders 1 and 2 are exact, the errors of others are what the docstring says."""
    draws, rng = 200_000, np.random.default_rng(4)
    t = rng.standard_normal((draws, widths[0]))
    t /= np.linalg.norm(t, axis=1)[:, None]
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths), start=1):
        t = np.einsum(
            "nba,na->nb", rng.uniform(-1, 1, (draws, fan_out, fan_in)) / math.sqrt(fan_in), t
        )
        t *= 1.0 if layer == len(widths) - 1 else rng.random(t.shape) < 0.5
    squares = np.sum(t**2, axis=1)
    found = law(widths, init="torch_default")
    for k, error in zip((1, 2, 0.5, 1.5, 3), (0.0, 0.0, *errors), strict=True):
        power = squares**k
        se = power.std() / power.mean() / math.sqrt(draws)
        assert abs(found.log_moment(k) - math.log(power.mean())) < error + 4 * se


def test_isometries_are_a_point_mass():
    exact = law([5, 5, 5], activation="linear", init="orthogonal")
    at = 2 * math.log(2)
    assert exact.mean() == pytest.approx(at, abs=1e-14)
    assert exact.var() == 0
    assert exact.cdf([at - 1e-9, at + 1e-9]).tolist() == [0, 1]
    assert exact.sf([at - 1e-9, at + 1e-9]).tolist() == [1, 0]
    assert exact.ppf([0.1, 0.9]) == pytest.approx([at, at])
    assert (exact.rvs(size=5, random_state=0) == exact.mean()).all()
    assert exact.log_moment(3) == pytest.approx(3 * at)


def test_an_isometry_beside_a_random_layer_only_shifts():
    """A square orthogonal linear output multiplies by g^2 = 2."""
    plain, longer = (
        law([6, 8, 4], init=["he_normal", "he_normal"]),
        law([6, 8, 4, 4], init=["he_normal", "he_normal", "orthogonal"]),
    )
    assert (
        longer.prediction.layers[1].gate != plain.prediction.layers[1].gate
    )  # its second layer is hidden: ReLU
    linear = law([6, 8, 4], activation="linear")
    shifted = law([6, 8, 4, 4], activation="linear", init=["he_normal", "he_normal", "orthogonal"])
    x = linear.mean() + np.linspace(-3, 2, 7)
    np.testing.assert_allclose(shifted.cdf(x + math.log(2)), linear.cdf(x), rtol=1e-12)


def test_zero_weights_are_refused():
    arch = Architecture.from_widths([4, 5, 3], init="he_normal")
    zero = dataclasses.replace(
        arch.layers[1], weight=dataclasses.replace(arch.layers[1].weight, variance=0.0)
    )
    prediction = initdiag.predict(dataclasses.replace(arch, layers=(arch.layers[0], zero)))
    with pytest.raises(UnsupportedArchitecture, match="weights that are not all zero"):
        _ = prediction.law


def test_no_coverage_no_law():
    chain = initdiag.Architecture.from_widths([4, 5, 3], init="he_normal")
    broken = dataclasses.replace(chain, gaps=(Gap("block", "add", "a residual sum"),))
    with pytest.raises(UnsupportedArchitecture, match="block: a residual sum"):
        _ = initdiag.predict(broken).law


def test_every_law_is_drawn_by_number_first():
    chain = Architecture.from_widths([6, 5, 4], init="he_normal")
    for each in (
        initdiag.predict(chain).law,
        initdiag.predict([6, 5, 4], activation="tanh").law,
        initdiag.predict_spectrum(chain).law,
    ):
        draws = each.rvs(5, 0)
        assert draws.shape == (5,)
        assert (draws == each.rvs(size=5, random_state=0)).all()
        assert np.ndim(each.rvs()) == 0
        assert each.rvs((2, 3)).shape == (2, 3)


def test_entropy():
    one, deep = law([3, 7]), law([64] * 300, gain=0.5)
    draws = stats.chi2(7)
    expected = draws.entropy() - draws.expect(np.log)  # of ln y, y chi-square: a change of variable
    assert float(one.entropy()) == pytest.approx(expected, abs=1e-9)
    normal = stats.norm(
        deep.mean(), deep.std()
    ).entropy()  # the largest at this variance, far from 0
    assert normal - 0.01 < float(deep.entropy()) < normal
    assert law([4, 4], init="orthogonal", output="linear").entropy() == -math.inf


def test_scipy_conventions():
    exact = law([6, 5, 4])
    assert isinstance(exact, stats.rv_continuous)
    assert np.ndim(exact.cdf(0.3)) == 0
    assert exact.cdf(np.zeros((2, 3))).shape == (2, 3)
    assert exact.cdf([-np.inf, np.inf]).tolist() == [0, 1]
    assert math.isnan(exact.cdf(np.nan))
    assert exact.rvs(size=(2, 3), random_state=1).shape == (2, 3)
    assert np.ndim(exact.rvs(random_state=1)) == 0
    assert (exact.rvs(size=4, random_state=7) == exact.rvs(size=4, random_state=7)).all()
    assert (exact.rvs(size=4, random_state=7) != exact.rvs(size=4, random_state=8)).all()
    frozen = exact(loc=1.0, scale=2.0)
    assert frozen.rvs(size=3, random_state=1) == pytest.approx(1 + 2 * exact.rvs(3, random_state=1))
    assert frozen.cdf(1 + 2 * 0.3) == pytest.approx(exact.cdf(0.3), rel=1e-14)
    assert exact.expect(lambda x: x, lb=-60, ub=20) == pytest.approx(exact.mean(), abs=1e-6)
    assert exact.logcdf(0.3) == pytest.approx(math.log(exact.cdf(0.3)))
    assert exact.logpdf(0.3) == pytest.approx(math.log(exact.pdf(0.3)))


def test_far_tails_stay_ordered_and_finite_in_logs():
    exact = law([64] * 4)
    x = exact.mean() + exact.std() * np.array([-200.0, -100, -50, 50, 100])
    lower, upper = exact.logcdf(x[:3]), exact.logsf(x[3:])
    assert np.isfinite(lower).all()
    assert (np.diff(lower) > 0).all()
    assert (np.diff(upper) < 0).all()


def test_a_gate_of_three_values_is_refused_but_has_moments():
    gate = Gate((0.0, 0.3, 1.5, 0.7), (0.4, 0.2, 0.2, 0.2))
    prediction = initdiag.predict([6, 5], init="he_normal")
    odd = dataclasses.replace(
        prediction, layers=(dataclasses.replace(prediction.layers[0], gate=gate),)
    )
    with pytest.raises(UnsupportedArchitecture, match="at most two different nonzero values"):
        _ = odd.law


def test_a_hand_made_gate_of_two_values_and_zero():
    """Gate {0, .3, 1.5}: the law's moments against the integrals of the Laplace transform, and samples against the law."""
    gate, n, draws = Gate((0.0, 0.3, 1.5), (0.5, 0.3, 0.2)), 9, 100_000
    prediction = initdiag.predict([6, n], init="he_normal")
    made = dataclasses.replace(prediction.layers[0], gate=gate, dead_probability=0.5**n)
    exact = ChainLaw.of(dataclasses.replace(prediction, layers=(made,)))
    integrals = layer_law._by_laplace_transform(gate, n)
    assert exact.mean() == pytest.approx(integrals.mean + math.log(2 / 6), abs=1e-11)
    assert exact.var() == pytest.approx(integrals.variance, rel=1e-11)
    rng = np.random.default_rng(8)
    squares = np.sum(
        (
            rng.choice(gate.values, (draws, n), p=gate.probabilities)
            * rng.standard_normal((draws, n))
        )
        ** 2,
        axis=1,
    )
    alive = squares[squares > 0]
    assert stats.kstest(np.log(2 / 6 * alive), exact.cdf).pvalue > 0.01
    assert stats.kstest(exact.rvs(size=draws, random_state=9), exact.cdf).pvalue > 0.01
    assert exact.log_moment(1) == pytest.approx(math.log(2 / 6 * n * gate.moment(2)), abs=1e-12)


def test_a_coarser_inversion_would_be_seen(monkeypatch):
    """Sabotage: too long a step, and the tails of one linear layer are no longer chi-square's."""
    d = stats.chi2(50)
    x = np.log(2 / 3 * d.isf(TAILS))
    np.testing.assert_allclose(law([3, 50]).sf(x), TAILS, rtol=1e-9)
    monkeypatch.setattr(line, "_LOG_ACCURACY", 4.0)
    assert np.abs(law([3, 50]).sf(x) / TAILS - 1).max() > 1e-6
