"""Narrow chains of orthogonal layers and leaky gates: laws with atoms, and densities with poles and jumps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats
from torch import nn

import initdiag
from initdiag.law.distributions import lattice
from initdiag.law.distributions.chain import _of_leaky_haar_layers
from initdiag.law.distributions.lattice import LatticeInversion

DRAWS = 20_000


def law(widths, **assumptions):
    return initdiag.predict(
        widths, **{"init": "orthogonal", "activation": "leaky_relu"} | assumptions
    ).law


def products(widths, slope, draws, dropout=0.0, seed=0):
    """``ln||D W ... D W u||^2`` of explicit matrices, Haar by QR; the last layer is linear. The gates are coins."""
    rng = np.random.default_rng(seed)
    t = rng.standard_normal((draws, widths[0], 1))
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        n = max(n_in, n_out)
        q, r = np.linalg.qr(rng.standard_normal((draws, n, n)))
        q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
        t = math.sqrt(2) * q[:, :n_out, :n_in] @ t
        if layer < len(widths) - 2:
            gates = np.where(rng.random(t.shape) < 0.5, 1.0, slope)
            t *= gates * (rng.random(t.shape) >= dropout) / (1 - dropout)
    squares = np.sum(t**2, axis=(1, 2))
    return np.log(squares[squares > 0])


def distance(sample, exact):
    """Kolmogorov and Smirnov's, of a law with atoms: from both sides of every value, in units of ``1/sqrt(n)``."""
    x = np.sort(sample)
    starts = np.flatnonzero(np.diff(x, prepend=-math.inf) > 1e-11)
    ends = np.append(starts[1:], len(x))
    at, rounding = x[starts], 1e-11 * (1 + np.abs(x[starts]))
    after = np.abs(exact.cdf(at + rounding) - ends / len(x))
    before = np.abs(exact.cdf(at - rounding) - starts / len(x))
    return math.sqrt(len(x)) * max(after.max(), before.max())


@pytest.mark.parametrize("slope", [0.01, 0.2, 0.5])
@pytest.mark.parametrize(
    "widths", [[1, 1, 1], [2, 2, 2], [3, 5, 4, 4], [8, 8, 8], [10] * 5, [9, 8, 7], [6, 6, 2]]
)
def test_against_products_of_matrices(widths, slope):
    exact = law(widths, negative_slope=slope)
    sample = products(widths, slope, DRAWS)
    assert distance(sample, exact) < 1.95  # one in a thousand; less with atoms
    assert abs(sample.mean() - exact.mean()) < 4 * exact.std() / math.sqrt(DRAWS)
    assert distance(exact.rvs(size=100_000, random_state=1), exact) < 1.95


@pytest.mark.parametrize("width", [16, 32])
def test_wider_ones_against_their_own_draws(width):
    for slope in (0.01, 0.2, 0.5):
        exact = law([width] * 3, negative_slope=slope)
        assert distance(exact.rvs(size=200_000, random_state=2), exact) < 1.95


@pytest.mark.parametrize("widths", [[1, 1, 1], [3, 3, 3], [8, 8, 8]])
def test_with_dropout(widths):
    exact = law(widths, negative_slope=0.2, dropout=0.3)
    assert isinstance(exact._inversion, LatticeInversion)
    assert distance(products(widths, 0.2, DRAWS, dropout=0.3), exact) < 1.95


def test_one_leaky_layer_is_a_mixture_of_betas_and_two_atoms():
    n, slope = 6, 0.1
    one = law([n, n, n], negative_slope=slope)
    top, bottom = 2 * math.log(2), 2 * math.log(2) + 2 * math.log(slope)
    x = np.linspace(bottom + 1e-3, top - 1e-3, 97)
    b = (np.exp(x - top) - slope**2) / (1 - slope**2)
    parts = [math.comb(n, j) / 2**n * stats.beta.cdf(b, j / 2, (n - j) / 2) for j in range(1, n)]
    np.testing.assert_allclose(one.cdf(x), 2.0**-n + np.sum(parts, axis=0), rtol=0, atol=1e-7)
    density = [math.comb(n, j) / 2**n * stats.beta.pdf(b, j / 2, (n - j) / 2) for j in range(1, n)]
    density = np.sum(density, axis=0) * np.exp(x - top) / (1 - slope**2)
    np.testing.assert_allclose(one.pdf(x[1:-1]), density[1:-1], rtol=1e-3)
    for at, below in ((bottom, 0.0), (top, 1 - 2.0**-n)):
        assert one.cdf(at) - one.cdf(at - 1e-12) == pytest.approx(2.0**-n, abs=1e-5)
        assert one.cdf(at - 1e-12) == pytest.approx(below, abs=1e-5)


def test_two_leaky_layers_against_quadrature():
    """Two equal layers: one's distribution function over the other's law, its atoms and its density by the angle of a sine squared."""
    n, slope = 4, 0.3
    two = law([n, n, n, n], negative_slope=slope)
    shift, span = 3 * math.log(2), -2 * math.log(slope)
    weights = [math.comb(n, j) / 2**n for j in range(n + 1)]

    def cdf(w):  # of one layer's ln S, from -span to 0
        b = (math.exp(w) - slope**2) / (1 - slope**2)
        inner = sum(weights[j] * stats.beta.cdf(b, j / 2, (n - j) / 2) for j in range(1, n))
        return (w >= -span) * weights[0] + inner + (w >= 0) * weights[n]

    def integrand(angle, x):
        b = math.sin(angle) ** 2
        density = sum(weights[j] * stats.beta.pdf(b, j / 2, (n - j) / 2) for j in range(1, n))
        return density * math.sin(2 * angle) * cdf(x - math.log(slope**2 + (1 - slope**2) * b))

    for x in (-1.9 * span, -1.2 * span, -0.7 * span, -0.3 * span, -0.01 * span):
        jump = math.exp(
            x if x > -span else x + span
        )  # where the inner law's argument meets an atom
        place = math.asin(math.sqrt((jump - slope**2) / (1 - slope**2)))
        value = sum(
            integrate.quad(integrand, a, b, args=(x,), epsabs=1e-9, limit=100)[0]
            for a, b in ((1e-9, place), (place, math.pi / 2 - 1e-9))
        )
        value += weights[0] * cdf(x + span) + weights[n] * cdf(x)
        assert two.cdf(x + shift) == pytest.approx(value, abs=1e-6)


def test_the_lattice_meets_the_inversion_where_both_hold():
    """Wide enough that the transform decays: an independent way to the same law."""
    exact = law([64, 64, 48], negative_slope=0.2)
    assert not isinstance(exact._inversion, LatticeInversion)
    other = LatticeInversion(exact._inversion.factors)
    x = exact.mean() + exact.std() * np.linspace(-6, 5, 45) - exact._location
    for side in (-1, 1):
        np.testing.assert_allclose(
            np.exp(other.log_tail(x, side)),
            np.exp(exact._inversion.log_tail(x, side)),
            rtol=1e-4,
            atol=1e-9,
        )


@pytest.mark.parametrize("slope", [0.01, 0.5])
@pytest.mark.parametrize("widths", [[1, 1, 1], [2, 2, 2], [8, 8, 8], [32] * 3, [10] * 5])
@pytest.mark.slow
def test_the_methods_fit_together(widths, slope):
    exact = law(widths, negative_slope=slope)
    x = np.concatenate(
        [exact.mean() + exact.std() * np.linspace(-5, 5, 41), exact.ppf([0.01, 0.5, 0.9])]
    )
    np.testing.assert_allclose(exact.cdf(x) + exact.sf(x), 1, rtol=0, atol=1e-12)
    for q in (1e-6, 0.1, 0.5, 0.999):
        at = float(exact.ppf(q))
        assert exact.cdf(at) >= q - 1e-9
        assert exact.cdf(at - 1e-6) <= q + 1e-9
        assert exact.sf(float(exact.isf(q))) <= q + 1e-9
    low, high = exact.interval(0.9)
    assert exact.support()[0] <= low < high <= exact.support()[1]
    continuous = integrate.trapezoid(
        exact.pdf(grid := np.linspace(*exact.support(), 200_001)), grid
    )
    atoms = float(exact._inversion._atoms.nearer[-1])
    assert continuous == pytest.approx(1 - atoms, abs=0.01)
    assert exact.log_moment(1) == pytest.approx(exact.prediction.log_second_moment, abs=1e-10)
    assert exact.entropy() == -math.inf  # it has atoms


def test_atoms_of_three_gates_are_binomial():
    exact = law([1, 1, 1, 1], output="leaky_relu", negative_slope=0.5)
    places = 3 * math.log(2) + np.arange(4) * 2 * math.log(0.5)
    np.testing.assert_allclose(
        exact.cdf(places), np.cumsum([1, 3, 3, 1][::-1])[::-1] / 8, atol=1e-14
    )
    np.testing.assert_allclose(exact.sf(places), 1 - exact.cdf(places), atol=1e-14)
    np.testing.assert_allclose(exact.ppf([0.1, 0.3, 0.6, 0.9]), places[::-1], atol=1e-14)


@pytest.mark.parametrize("widths", [[1, 1, 1], [5, 5, 5]])
def test_a_point_mass_has_nothing_above_it(widths):
    prediction = initdiag.predict(widths, init="orthogonal", activation="linear")
    at = prediction.log_mean
    assert (prediction.law.cdf(at), prediction.law.sf(at)) == (1.0, 0.0)
    assert (prediction.law.logcdf(at), prediction.law.logsf(at)) == (0.0, -math.inf)
    dead = initdiag.predict([1, 1, 1], init="orthogonal")
    assert (dead.law.cdf(dead.log_mean), dead.law.sf(dead.log_mean)) == (1.0, 0.0)


@pytest.mark.parametrize("widths", [[1, 1, 1], [4, 4, 4]])
def test_the_lowest_atom_is_not_above_itself(widths):
    """scipy.stats calls P(Y > a) = 1 at the lower end of the support."""
    exact = law(widths)
    lowest = float(exact.ppf(1e-9))
    assert exact.sf(lowest) == pytest.approx(1 - 2.0 ** -widths[0], abs=1e-6)
    assert exact.cdf(lowest) == pytest.approx(2.0 ** -widths[0], abs=1e-6)


def test_sums_of_cells_without_their_half_would_be_seen(monkeypatch):
    """Sabotage: the sum of two cells put into the first of its two."""
    monkeypatch.setattr(lattice, "_CELLS", 1 << 12)
    _of_leaky_haar_layers.cache_clear()
    right = law([10] * 5, negative_slope=0.2)
    monkeypatch.setattr(lattice._Lattice, "halves", 1.0)
    _of_leaky_haar_layers.cache_clear()
    wrong = law([10] * 5, negative_slope=0.2)
    _of_leaky_haar_layers.cache_clear()
    x = right.mean()
    reference = float(np.mean(right.rvs(size=200_000, random_state=3) <= x))
    assert abs(right.cdf(x) - reference) < 4 * math.sqrt(0.25 / 200_000)
    assert abs(wrong.cdf(x) - right.cdf(x)) > 1e-4


@pytest.mark.parametrize("init", ["orthogonal", "he_normal", "he_uniform"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.slow
def test_no_law_refuses_its_distribution_function(init, activation, dropout):
    for width in (1, 2, 3, 8):
        for depth in (1, 2, 3):
            exact = initdiag.predict(
                [width] * (depth + 1), init=init, activation=activation, dropout=dropout
            ).law
            x = exact.mean() + exact.std() * np.linspace(-5, 5, 21)
            cdf, sf = exact.cdf(x), exact.sf(x)
            assert (np.diff(cdf) > -1e-9).all()
            np.testing.assert_allclose(cdf + sf, 1, rtol=0, atol=1e-8)


def test_an_orthogonal_network_of_leaky_gates_is_diagnosed():
    model = nn.Sequential(
        nn.Linear(32, 32), nn.LeakyReLU(), nn.Linear(32, 32), nn.LeakyReLU(), nn.Linear(32, 32)
    )
    for layer in model[::2]:
        nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(layer.bias)
    report = initdiag.diagnose(model, draws=256)
    assert report.agreement.agrees
    assert report.agreement.shape_p_value is not None
    assert "predicted" in report.to_html()
