"""Density and CDF against closed forms, polynomial roots, and naive integration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from initdiag.spectrum.predict import predict_spectrum


def haar_square(depth, p, theta):
    """``ln lambda`` and its density of ``D W ... D W``, square, Haar, gates open with probability p (by hand, from S-transforms)."""
    r = p * np.sin(depth * theta) / np.sin((depth - 1) * theta)
    t = r * np.exp(-1j * theta)
    m = (t - p) / (1 - t)
    return np.log((1 - p) * r**depth / np.abs(t - p)), -m.imag / np.pi


@pytest.mark.parametrize(
    ("depth", "rate"), [(2, 0.0), (3, 0.0), (10, 0.0), (40, 0.0), (3, 0.2), (6, 0.4)]
)
def test_haar_square_relu_chain_has_its_closed_form(depth, rate):
    """Dropout on the hidden layers only would mix gates: here every gate is the same, open with p = (1 - rate)/2."""
    keep = 1 - rate
    spectrum = equal_gates(depth, "orthogonal", rate)
    theta = np.linspace(0.02, 0.98, 49) * np.pi / depth
    x, density = haar_square(depth, keep / 2, theta)
    shift = depth * math.log(2 / keep**2)  # g^2 = 2, open gates 1/keep
    np.testing.assert_allclose(spectrum.density(x + shift), density, rtol=1e-6, atol=1e-9)


def equal_gates(depth, init, rate=0.0, activation="relu", width=60, slope=0.01):
    """A square chain whose last layer is gated, and dropped out, as the others are."""
    from dataclasses import replace

    from initdiag.network.architecture import Activation, Architecture

    arch = Architecture.from_widths([width] * (depth + 1), init=init)
    gate = Activation(activation, slope if activation == "leaky_relu" else 0.0, rate)
    return predict_spectrum(
        replace(arch, layers=tuple(replace(layer, activation=gate) for layer in arch.layers))
    )


@pytest.mark.parametrize(("depth", "low"), [(2, 0.9), (4, 0.8), (1, 0.6)])
def test_haar_chain_with_few_closed_gates_keeps_an_isometric_fraction(depth, low):
    """Hard tanh: gates 0 or 1, p from q; the mass of the atom at the top is 1 - L(1 - p) for equal p."""
    from initdiag.spectrum.edges import atoms
    from initdiag.spectrum.record import SpectralFactor

    factor = SpectralFactor("x", 50, 50, True, 2 / 50, 3.0, (0.0, 1.0), (1 - low, low))
    found = atoms(50, (factor,) * depth)
    assert [atom.mass for atom in found] == pytest.approx([1 - depth * (1 - low)])
    assert found[0].log_eigenvalue == pytest.approx(depth * math.log(2))


def test_haar_closed_form_with_an_atom():
    spectrum = predict_spectrum(
        [64] * 4, init="orthogonal", activation="hardtanh", output="hardtanh", gain=0.5
    )
    (atom,) = spectrum.atoms
    ps = [factor.probabilities[-1] for factor in spectrum.factors]
    assert atom.mass == pytest.approx(1 - sum(1 - p for p in ps), abs=1e-12)
    x = np.linspace(spectrum.log_lower_edge, atom.log_eigenvalue - 1e-6, 20001)
    density = spectrum.density(x)
    assert integrate.simpson(density, x=x) + atom.mass == pytest.approx(
        1 - spectrum.zero_mass, abs=1e-4
    )
    law = spectrum.law
    jump = law.cdf(atom.log_eigenvalue + 1e-9) - law.cdf(atom.log_eigenvalue - 1e-9)
    assert jump == pytest.approx(atom.mass / (1 - spectrum.zero_mass), abs=1e-6)
    draws = law.rvs(size=4000, random_state=1)
    share = np.mean(np.abs(draws - atom.log_eigenvalue) < 1e-9)
    assert share == pytest.approx(
        atom.mass / (1 - spectrum.zero_mass), abs=4 * math.sqrt(0.25 / 4000)
    )


@pytest.mark.parametrize("depth", [1, 2, 5, 30])
def test_all_open_square_chain_has_the_fuss_catalan_density(depth):
    spectrum = predict_spectrum([70] * (depth + 1), activation="linear", init="lecun_normal")
    f = np.linspace(0.02, 0.98, 49) * np.pi / (depth + 1)
    log_lambda = (
        (depth + 1) * np.log(np.sin((depth + 1) * f))
        - np.log(np.sin(f))
        - depth * np.log(np.sin(depth * f))
    )
    rho = (
        np.sin(f) ** 2
        * np.sin(depth * f) ** (depth - 1)
        / (np.pi * np.sin((depth + 1) * f) ** depth)
    )
    np.testing.assert_allclose(spectrum.density(log_lambda), rho * np.exp(log_lambda), rtol=1e-6)


def test_one_gaussian_layer_is_marchenko_pastur():
    """n_0 = 90 columns, 60 rows, entry variance 1/90: eigenvalues of W^T W, ratio c = 60/90."""
    spectrum = predict_spectrum([90, 60], init="lecun_normal", activation="linear")
    c = 60 / 90
    low, high = (1 - math.sqrt(c)) ** 2, (1 + math.sqrt(c)) ** 2
    assert spectrum.lower_edge == pytest.approx(low, rel=1e-12)
    assert spectrum.upper_edge == pytest.approx(high, rel=1e-12)
    lam = np.linspace(low, high, 22)[1:-1]
    density = np.sqrt((high - lam) * (lam - low)) / (2 * np.pi)  # of lambda, times lambda
    np.testing.assert_allclose(spectrum.density(np.log(lam)), density, rtol=1e-9)
    assert spectrum.zero_mass == pytest.approx(1 / 3)


def root_of_zero_phase(widths, openings, variances, lam):
    """``m`` from the companion matrix: among the roots in the lower half plane, the one whose total phase is 0."""
    n0 = widths[0]
    zeros = [1.0] + [p * n / n0 for p, n in zip(openings, widths[1:], strict=True)]
    scale = math.prod(v * n0 for v in variances)
    polynomial = scale * np.poly([-c for c in zeros])
    polynomial[-2] -= lam
    roots = np.roots(polynomial)
    roots = roots[roots.imag < -1e-12]
    phase = [sum(np.angle(m + c) for c in zeros) - np.angle(m) for m in roots]
    return roots[np.argmin(np.abs(phase))]


@pytest.mark.parametrize(
    "widths",
    [
        [100, 100],
        [100, 100, 100],
        [300, 500, 200, 400],
        [60, 40, 90, 90, 50],
        [50] * 7,
        [40, 64, 64, 33, 90, 70],
    ],
)
@pytest.mark.parametrize("output", ["relu", "linear"])
def test_density_by_polynomial_roots(widths, output):
    spectrum = predict_spectrum(widths, init="he_normal", output=output)
    openings = [0.5] * (len(widths) - 2) + [0.5 if output == "relu" else 1.0]
    x = spectrum.law.ppf(
        np.linspace(0.1, 0.98, 25)
    )  # below, nearly multiple roots lose digits in the companion matrix
    variances = [2 / n for n in widths[:-1]]
    roots = np.array([root_of_zero_phase(widths, openings, variances, lam) for lam in np.exp(x)])
    np.testing.assert_allclose(spectrum.density(x), -roots.imag / np.pi, rtol=1e-6)


@pytest.mark.parametrize(
    ("widths", "assumptions"),
    [
        ([80, 50, 70], {"init": "he_normal"}),
        ([64] * 6, {"init": "he_normal", "output": "relu"}),
        ([64, 64, 64, 64], {"init": "orthogonal"}),
        ([64, 64, 64], {"init": "he_normal", "activation": "leaky_relu", "negative_slope": 0.2}),
    ],
)
def test_cdf_is_the_integral_of_the_density(widths, assumptions):
    spectrum = predict_spectrum(widths, **assumptions)
    law = spectrum.law
    points = law.ppf(np.linspace(0.1, 0.95, 12))
    for low, high in itertools.pairwise(points):
        nodes, weights = np.polynomial.legendre.leggauss(40)
        x = low + (high - low) * (nodes + 1) / 2
        area = (high - low) / 2 * (weights @ law.pdf(x))
        assert law.cdf(high) - law.cdf(low) == pytest.approx(area, abs=1e-7)


def test_tail_by_the_formula_of_the_theory():
    """``P(Lambda > lambda) = Im[L m - ln(1 + m) - sum c ln(m + c)]/pi`` at roots from the companion matrix."""
    widths = [60, 40, 90, 50]
    spectrum = predict_spectrum(widths, init="he_normal", output="relu")
    c = np.array([0.5 * n / 60 for n in widths[1:]])
    for x in spectrum.law.ppf([0.1, 0.4, 0.7, 0.9]):
        m = root_of_zero_phase(widths, [0.5] * 3, [2 / n for n in widths[:-1]], math.exp(x))
        tail = (3 * m - np.log(1 + m) - np.sum(c * np.log(m + c))).imag / np.pi
        assert spectrum.law.sf(x) * (1 - spectrum.zero_mass) == pytest.approx(tail, abs=1e-10)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(1, 300), min_size=2, max_size=6),
    inits=st.sampled_from(["he_normal", "orthogonal", "torch_default"]),
    activation=st.sampled_from(["relu", "linear", "leaky_relu"]),
)
@pytest.mark.slow
def test_any_chain_is_a_distribution(widths, inits, activation):
    spectrum = predict_spectrum(widths, init=inits, activation=activation, negative_slope=0.3)
    law = spectrum.law
    assert 0 <= spectrum.zero_mass < 1
    assert spectrum.log_lower_edge <= spectrum.log_upper_edge + 1e-12
    q = np.array([0.0, 0.03, 0.2, 0.5, 0.8, 0.97, 1.0])
    x = law.ppf(q)
    assert np.all(np.diff(x) >= -1e-9)
    cdf = law.cdf(x + 1e-7)
    assert np.all(np.diff(cdf) >= -1e-12)
    if not spectrum.atoms:
        np.testing.assert_allclose(law.cdf(x[1:-1]), q[1:-1], atol=1e-6)
    assert np.all(spectrum.density(np.linspace(x[1], x[-2], 11)) >= 0)
    # ln of a positive variable: mean of the log below log of the mean
    assert law.mean() <= spectrum.log_mean_eigenvalue - math.log(1 - spectrum.zero_mass) + 1e-6


def test_phase_and_homotopy_agree_at_every_kind_of_chain():
    """Two routes to the same ``m``: neither shares a line with the other but the equation itself."""
    from initdiag.spectrum import homotopy
    from initdiag.spectrum.equation import chain_equation

    for widths, init in [
        ([60, 40, 90, 50], "he_normal"),
        ([50] * 5, "orthogonal"),
        ([5, 8, 300], "orthogonal"),
    ]:
        spectrum = predict_spectrum(widths, init=init, output="relu")
        x = spectrum.law.ppf(np.linspace(0.03, 0.97, 21))
        equation = chain_equation(spectrum.input_size, spectrum.factors)
        state = homotopy.solve(equation, x)
        np.testing.assert_allclose(-state.y.imag / np.pi, spectrum.density(x), rtol=1e-8)
        tail = equation.tail(state.y, state.log_tau)
        np.testing.assert_allclose(tail, spectrum.law.sf(x) * (1 - spectrum.zero_mass), atol=1e-10)


def test_a_ray_may_meet_the_curve_twice_and_the_mass_tells():
    """Two poles far apart: with the farthest at infinity the curve folds, and 15 % of the mass would be missed."""
    spectrum = predict_spectrum([5, 8, 300], init="orthogonal", output="relu")
    x = np.linspace(spectrum.log_lower_edge, spectrum.log_upper_edge, 4001)
    density = spectrum.density(x)
    assert integrate.simpson(density, x=x) == pytest.approx(1 - spectrum.zero_mass, abs=1e-3)
    mean = integrate.simpson(x * density, x=x) / (1 - spectrum.zero_mass)
    assert spectrum.law.mean() == pytest.approx(mean, abs=5e-3)  # by the curve's own quadrature


def test_a_leaky_chain_has_a_gap_and_keeps_its_mass_across_it():
    """One Gaussian layer, 60 rows, half of them scaled by 0.001: two bands, six decades apart, none of which is lost."""
    spectrum = predict_spectrum(
        [90, 60], init="he_normal", output="leaky_relu", negative_slope=0.001
    )
    law = spectrum.law
    x = np.linspace(spectrum.log_lower_edge + 1e-6, spectrum.log_upper_edge - 1e-6, 4001)
    density = spectrum.density(x)
    assert (
        np.sum(np.diff((density > 1e-9).astype(int)) != 0) == 2
    )  # out of one band, into the other
    assert law.sf(math.log(1e-3)) == pytest.approx(0.5, abs=1e-9)  # 30 open rows of 60
    assert law.ppf(0.49) < -8 < -3 < law.ppf(0.51)


def test_one_orthogonal_leaky_layer_is_two_atoms():
    spectrum = predict_spectrum(
        [40, 40], init="orthogonal", output="leaky_relu", negative_slope=0.5
    )
    assert [(math.exp(atom.log_eigenvalue), atom.mass) for atom in spectrum.atoms] == [
        (pytest.approx(0.5), 0.5),
        (pytest.approx(2.0), 0.5),
    ]
    assert np.exp(spectrum.law.ppf([0.2, 0.8])) == pytest.approx([0.5, 2.0])
    assert spectrum.law.mean() == pytest.approx(0.0, abs=1e-12)
    assert np.all(spectrum.density([-0.69, 0.0, 0.69]) == 0)
