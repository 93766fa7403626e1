"""Hanin and Nica's theorems against explicit matrix products and against the exact law at growing width."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

import initdiag
from initdiag.errors import InvalidInput, UnsupportedArchitecture
from initdiag.law import hanin_nica
from initdiag.network.architecture import Activation, Architecture, Layer, WeightLaw

DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-math.sqrt(3), math.sqrt(3), shape),
    "rademacher": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
}
KURTOSIS = {"normal": 3.0, "uniform": 9 / 5, "rademacher": 1.0}


def products(widths, draws, seed, entries="normal", keep=0.5, u=None):
    """``(n_0/n_L) ||J u||^2`` of matrices ``D W``, entries of variance ``1/(keep n)``, gates open with probability ``keep``."""
    rng = np.random.default_rng(seed)
    result = []
    for size in [500] * (draws // 500):
        if u is None:
            x = rng.standard_normal((size, widths[0]))
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        else:
            x = np.tile(u, (size, 1))
        for n, m in itertools.pairwise(widths):
            w = DRAWS[entries](rng, (size, m, n)) / math.sqrt(keep * n)
            x = np.einsum("smn,sn->sm", w, x) * (rng.random((size, m)) < keep)
        result.append(widths[0] / widths[-1] * np.sum(x * x, axis=1))
    return np.concatenate(result)


def standard_error_of_variance(values):
    return math.sqrt((np.mean((values - values.mean()) ** 4) - values.var() ** 2) / len(values))


def chain(widths, entries="normal"):
    layers = tuple(
        Layer(
            str(i),
            n,
            m,
            WeightLaw("normal" if entries == "normal" else "other", 2 / n, KURTOSIS[entries]),
            Activation("relu"),
        )
        for i, (n, m) in enumerate(itertools.pairwise(widths))
    )
    return Architecture(layers, widths[0], widths[-1])


# --- beta -------------------------------------------------------------------------------------------------------------


def test_beta_is_the_papers_sum_without_the_input_width():
    assert initdiag.beta([784, 256, 128, 10]) == 5 / 256 + 5 / 128 + 5 / 10
    assert initdiag.beta([3, 256, 128, 10]) == initdiag.beta([784, 256, 128, 10])
    assert initdiag.beta([784, 256, 10], output="linear") == 5 / 256 + 2 / 10
    with pytest.raises(InvalidInput, match='output "relu" or "linear"'):
        initdiag.beta([4, 4], output="tanh")


def test_the_mean_is_minus_half_of_beta_and_the_variance_is_beta():
    """The sign: the poster standardises with ``- beta/2``; explicit matrices say that the mean is minus ``beta/2``."""
    widths = [50] * 11
    values = np.log(products(widths, 4000, seed=1))
    beta = initdiag.beta(widths)
    se = values.std() / math.sqrt(len(values))
    assert beta == pytest.approx(1.0)
    # Both corrections are of order sum 1/n^2 = 0.004: the exact law has them.
    prediction = initdiag.predict(chain(widths))
    assert abs(values.mean() - prediction.log_mean) < 3 * se
    assert abs(prediction.log_mean + beta / 2) < 0.06
    assert values.mean() < -beta / 2 + 0.1 < 0 < beta / 2 - 3 * se
    assert abs(values.var() - beta) < 3 * standard_error_of_variance(values) + 0.1
    assert prediction.asymptotic_law.mean() == pytest.approx(-beta / 2)
    assert prediction.asymptotic_law.var() == pytest.approx(beta)


@pytest.mark.parametrize(
    ("assumptions", "numerator"),
    [
        ({}, 5.0),
        ({"activation": "linear", "output": "linear"}, 2.0),
        (
            {"activation": "leaky_relu", "output": "leaky_relu", "negative_slope": 0.3},
            6 * (1 + 0.3**4) / (1 + 0.3**2) ** 2 - 1,
        ),
        ({"init": "orthogonal"}, 3.0),
        (
            {"init": "orthogonal", "activation": "linear", "output": "linear", "dropout": 0.25},
            3 / 0.75 - 1 - 2,
        ),
        ({"dropout": 0.25}, 6 / 0.75 - 1),
    ],
    ids=str,
)
def test_the_exact_law_tends_to_beta_at_first_order_for_every_gate(assumptions, numerator):
    """``n Var - numerator`` falls like ``1/n``: a wrong numerator would leave a constant. Two layers, the one with dropout looked at."""
    errors = []
    for n in (100, 1000, 10_000):
        prediction = initdiag.predict(
            [n, n, n], **({"output": "relu", "init": "he_normal"} | assumptions)
        )
        hidden = prediction.layers[0]
        assert hidden.beta == pytest.approx(numerator / n, rel=1e-9)
        errors.append(abs(n * hidden.log_variance - numerator))
    assert errors[1] < errors[0] / 7
    assert errors[2] < errors[1] / 7 + 1e-7


@pytest.mark.parametrize("keep", [0.25, 0.8])
def test_any_probability_of_an_open_gate(keep):
    """Products of random matrices: ``beta = (3/p - 1) sum 1/n``; first order, checked where 1/n^2 is below the standard error."""
    widths, draws = [60] * 4, 6000
    values = np.log(products(widths, draws, seed=2, keep=keep))
    beta = (3 / keep - 1) * 3 / 60
    assert (
        abs(values.var() - beta)
        < 3 * standard_error_of_variance(values) + 40 * (1 / keep) ** 3 * 3 / 60**2
    )
    assert (
        abs(values.mean() + beta / 2)
        < 3 * values.std() / math.sqrt(draws) + 20 * (1 / keep) ** 3 * 3 / 60**2
    )


# --- the fourth moment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", ["uniform", "rademacher"])
@pytest.mark.parametrize("direction", ["one-hot", "dense", "sphere"])
def test_the_kurtosis_term_for_the_users_own_direction(entries, direction):
    n_0, n_1, draws = 6, 150, 20_000
    u = {"one-hot": np.eye(n_0)[0], "dense": np.full(n_0, n_0**-0.5), "sphere": None}[direction]
    u_fourth = None if u is None else float((u**4).sum())
    values = np.log(products([n_0, n_1], draws, seed=3, entries=entries, u=u))
    first = chain([n_0, n_1], entries).layers[0]
    term = hanin_nica.entry_kurtosis_term(first, u_fourth)
    expected = (
        {"one-hot": 1.0, "dense": 1 / n_0, "sphere": 3 / (n_0 + 2)}[direction]
        * (KURTOSIS[entries] - 3)
        * 2
        / n_1
    )
    assert term == pytest.approx(expected)
    predicted = 5 / n_1 + term
    assert abs(values.var() - predicted) < 3 * standard_error_of_variance(values) + 15 / n_1**2
    if direction == "one-hot":
        assert abs(values.var() - 5 / n_1) > 6 * standard_error_of_variance(
            values
        )  # without the term: seen


def test_no_unit_vector_has_that_fourth_moment():
    first = chain([6, 10], "uniform").layers[0]
    for wrong in (0.1, 1.5, math.nan):
        with pytest.raises(InvalidInput, match=r"unit vector in R\^6"):
            hanin_nica.entry_kurtosis_term(first, wrong)
    assert hanin_nica.entry_kurtosis_term(chain([6, 10]).layers[0], 1.0) == 0


# --- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_asymptotic_moments_are_the_exact_ones_to_order_one_over_n_squared(k):
    """At k = 2, 3 the constants of sum 1/n^2 are -12.5 and -68.5 for ReLU."""
    gaps = []
    for n in (500, 1000, 2000):
        prediction = initdiag.predict([n] * 6, init="he_normal", output="relu")
        gaps.append(
            (prediction.law.log_moment(k) - hanin_nica.log_moment(prediction, k)) / (5 / n**2)
        )
    constant = {0: 0, 1: 0, 2: -12.5, 3: -68.5, 4: -199}[k]
    assert gaps[-1] == pytest.approx(constant, rel=0.01, abs=1e-3)
    assert gaps[0] == pytest.approx(constant, rel=0.05, abs=1e-3)


def test_the_second_moment_of_explicit_matrices():
    """``E Z^2 = exp(beta)`` for the squared gain, dead draws included: narrow layers, where many are dead."""
    widths, draws = [3, 4, 3], 60_000
    values = products(widths, draws, seed=4)
    prediction = initdiag.predict(chain(widths))
    second = np.mean(values**2)
    se = np.std(values**2) / math.sqrt(draws)
    exact = math.exp(prediction.law.log_moment(2)) * (widths[0] / widths[-1]) ** 2
    assert (values == 0).mean() == pytest.approx(prediction.dead_probability, abs=0.01)
    assert abs(second - exact) < 3 * se
    assert (
        abs(second - exact / (1 - prediction.dead_probability)) > 6 * se
    )  # the conditional moment is another number


# --- Kolmogorov distance ----------------------------------------------------------------------------------------------


def test_the_rates_in_closed_form():
    prediction = initdiag.predict([50] * 33, init="he_normal")
    assert hanin_nica.kolmogorov_rate(prediction) == pytest.approx((32 / 2500) ** 0.2)
    assert hanin_nica.relative_kolmogorov_rate(prediction) == pytest.approx(32**-0.2) == 0.5


@pytest.mark.parametrize(
    ("widths", "assumptions"),
    [
        ([6, 5, 4], {}),
        ([64] * 10, {}),
        ([9, 9, 9, 1], {"activation": "leaky_relu"}),
        ([4, 4, 4], {"init": "orthogonal", "output": "relu"}),
        ([30, 20, 10], {"init": "he_uniform"}),
    ],
    ids=str,
)
def test_the_distance_is_the_largest_gap_of_the_two_cdfs(widths, assumptions):
    prediction = initdiag.predict(widths, **({"init": "he_normal"} | assumptions))
    distance = hanin_nica.ks_distance(prediction)
    exact, normal = prediction.law, prediction.asymptotic_law
    x = exact.mean() + exact.std() * np.linspace(-8, 8, 20_001)
    gap = np.abs(exact.cdf(x) - normal.cdf(x)).max()
    assert gap <= distance + 1e-12
    assert distance - gap < 1e-5 if "orthogonal" not in assumptions.values() else distance >= gap
    draws = exact.rvs(size=200_000, random_state=5)
    assert abs(stats.kstest(draws, normal.cdf).statistic - distance) < 2 / math.sqrt(200_000)


def test_the_distance_sees_the_sign_of_the_mean():
    prediction = initdiag.predict([40] * 9, init="he_normal", output="relu")
    exact, beta = prediction.law, prediction.beta
    wrong = stats.norm(prediction.log_second_moment + beta / 2, math.sqrt(beta))
    x = exact.mean() + exact.std() * np.linspace(-5, 5, 2001)
    assert np.abs(exact.cdf(x) - wrong.cdf(x)).max() > 10 * hanin_nica.ks_distance(prediction)


def test_at_an_atom_the_gap_is_on_either_side_of_the_jump():
    """One square orthogonal layer of width 2: the atom 1/3 sits at ln 2; before it F = 2/3."""
    prediction = initdiag.predict([2, 2], init="orthogonal", output="relu")
    normal = prediction.asymptotic_law
    edge = math.log(2)
    assert prediction.law.cdf(edge - 1e-13) == pytest.approx(2 / 3, abs=1e-6)
    assert (
        hanin_nica.ks_distance(prediction)
        >= max(abs(1 - normal.cdf(edge)), abs(2 / 3 - normal.cdf(edge))) - 1e-6
    )


def test_wider_is_closer_like_one_over_the_root_of_the_width():
    d = [
        hanin_nica.ks_distance(initdiag.predict([n] * 4, init="he_normal", output="relu"))
        for n in (50, 200, 800)
    ]
    assert d[0] / d[1] == pytest.approx(2, rel=0.1)
    assert d[1] / d[2] == pytest.approx(2, rel=0.05)


def test_an_isometry_is_at_distance_zero_and_no_coverage_has_none():
    assert hanin_nica.ks_distance(initdiag.predict([4, 4], init="orthogonal")) == 0
    with pytest.raises(UnsupportedArchitecture, match="a positive beta, got None"):
        hanin_nica.ks_distance(initdiag.predict([4, 4], output="tanh"))
