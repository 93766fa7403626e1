"""Transforms against series and naive definitions; free convolutions against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initdiag.errors import InitdiagError, InvalidInput
from initdiag.spectrum.free import (
    Empirical,
    FussCatalan,
    MarchenkoPastur,
    Projection,
    Semicircle,
    squared_slope,
)
from initdiag.spectrum.predict import predict_spectrum

LAWS = [
    Projection(0.3),
    Projection(1.0),
    Semicircle(2.0),
    MarchenkoPastur(0.4, 1.5),
    MarchenkoPastur(1.0),
    MarchenkoPastur(3.0, 0.5),
    FussCatalan(1),
    FussCatalan(3),
    Empirical((0.5, 1.0, 3.0), (0.2, 0.5, 0.3)),
]
WITH_MEAN = [law for law in LAWS if law.mean != 0]


def names(law):
    return repr(law)


@pytest.mark.parametrize("law", LAWS, ids=names)
def test_r_of_g_is_the_definition(law):
    """1 + R(G(z)) = z G(z), at z far enough for R to be on its first branch."""
    z = law.radius * np.array([3.0 + 0.5j, -2.5 + 1j, 4j])
    g = law.cauchy(z)
    np.testing.assert_allclose(1 + law.r_transform(g), z * g, rtol=1e-10)


@pytest.mark.parametrize("law", WITH_MEAN, ids=names)
def test_s_of_m_is_the_definition(law):
    z = law.radius * np.array([3.0 + 0.5j, -2.5 + 1j, 4j])
    g = law.cauchy(z)
    np.testing.assert_allclose(law.s_transform(z * g - 1), g / (z * g - 1), rtol=1e-10)


@pytest.mark.parametrize("law", WITH_MEAN, ids=names)
def test_r_and_s_are_inverse_to_each_other(law):
    """R(m S(m)) = m."""
    m = np.array([0.05, -0.1, 0.1j])
    np.testing.assert_allclose(law.r_transform(m * law.s_transform(m)), m, rtol=1e-9)


@pytest.mark.parametrize("law", LAWS[2:8], ids=names)
def test_cauchy_transform_is_the_integral_of_its_density(law):
    x, weight = np.polynomial.legendre.leggauss(600)
    low = -law.radius if isinstance(law, Semicircle) else 0.0
    angle = np.pi / 4 * (x + 1)
    points = low + (law.radius - low) * np.sin(angle) ** 2
    rho = law.density(points) * (law.radius - low) * np.sin(2 * angle) * np.pi / 4 * weight
    z = law.radius * (0.3 + 0.4j)
    missing = 1 - min(law.ratio, 1.0) if isinstance(law, MarchenkoPastur) else 0.0
    value = np.sum(rho / (z - points)) + missing / z
    assert value == pytest.approx(complex(law.cauchy(np.array(z))), abs=5e-4)


def test_moment_transform_has_fuss_catalan_moments():
    law, w = FussCatalan(2), 0.01
    series = law.moments(39) @ w ** np.arange(1.0, 40)
    assert law.moment_transform(w) == pytest.approx(series, rel=1e-12)
    assert law.moments(3).tolist() == [1, 3, 12]


# Free sums


def test_semicircles_add_to_a_semicircle():
    x = np.linspace(-3, 3, 41)
    total = Semicircle(1.0) + Semicircle(2.0)
    np.testing.assert_allclose(total.density(x), Semicircle(3.0).density(x), atol=1e-8)


def test_marchenko_pastur_laws_add_to_one():
    """Rows of X stacked: ratios add."""
    x = np.linspace(0.2, 5.5, 41)
    total = MarchenkoPastur(0.7) + MarchenkoPastur(0.8)
    np.testing.assert_allclose(total.density(x), MarchenkoPastur(1.5).density(x), atol=1e-8)


def test_two_fair_projections_add_to_the_arcsine_law():
    x = np.linspace(0.03, 1.97, 30)
    total = Projection(0.5) + Projection(0.5)
    np.testing.assert_allclose(total.density(x), 1 / (np.pi * np.sqrt(x * (2 - x))), rtol=1e-7)


# Free products


def test_two_projections_multiply_to_the_jacobi_law():
    """sqrt((high - x)(x - low))/(2 pi x (1 - x)), edges p + q - 2pq -+ 2 sqrt(pq(1-p)(1-q))."""
    p, q = 0.4, 0.7
    centre, half = p + q - 2 * p * q, 2 * math.sqrt(p * q * (1 - p) * (1 - q))
    x = centre + half * np.linspace(-0.97, 0.97, 30)
    expected = np.sqrt(half**2 - (x - centre) ** 2) / (2 * np.pi * x * (1 - x))
    product = Projection(p) @ Projection(q)
    np.testing.assert_allclose(product.density(x), expected, rtol=1e-7)


def test_gated_gaussian_layer_is_marchenko_pastur_again():
    """W^T D W, square, gates open with p: K = p n rows, and the same eigenvalues (but for zeros) as D^(1/2) W W^T D^(1/2)."""
    p = 0.5
    x = np.linspace(0.15, 2.8, 30)
    product = Projection(p) @ MarchenkoPastur(1.0)
    np.testing.assert_allclose(product.density(x), MarchenkoPastur(p).density(x), rtol=1e-7)


def test_marchenko_pastur_laws_multiply_to_fuss_catalan():
    """Against its density in closed form, at lambda = sin^3(3f)/(sin f sin^2(2f))."""
    f = np.linspace(0.1, 0.9, 20) * np.pi / 3
    x = np.sin(3 * f) ** 3 / (np.sin(f) * np.sin(2 * f) ** 2)
    expected = np.sin(f) ** 2 * np.sin(2 * f) / (np.pi * np.sin(3 * f) ** 2)
    product = MarchenkoPastur(1.0) @ MarchenkoPastur(1.0)
    np.testing.assert_allclose(product.density(x), expected, rtol=1e-7)
    np.testing.assert_allclose(FussCatalan(2).density(x), expected, rtol=1e-9)


def test_leaky_gate_times_a_gaussian_layer_agrees_with_the_chain():
    gate = Empirical((0.04, 1.0), (0.5, 0.5))
    product = gate @ MarchenkoPastur(1.0, 2.0)
    spectrum = predict_spectrum([50, 50], init="he_normal", output="leaky_relu", negative_slope=0.2)
    x = np.linspace(-3, 1.5, 25)
    np.testing.assert_allclose(
        product.density(np.exp(x)) * np.exp(x), spectrum.density(x), atol=1e-8
    )
    z = np.array([3.0 + 40j])
    m = z * product.cauchy(z) - 1
    np.testing.assert_allclose(product.s_transform(m), (1 + m) / (m * z), rtol=1e-8)


def test_quadrature_of_a_smooth_gate_by_its_moments():
    law = squared_slope(lambda h: 1 - np.tanh(h) ** 2, q=0.8)
    draws = (
        1 - np.tanh(math.sqrt(0.8) * np.random.default_rng(1).standard_normal(400_000)) ** 2
    ) ** 2
    assert law.mean == pytest.approx(draws.mean(), abs=4 * draws.std() / math.sqrt(draws.size))


def test_eigenvalues_of_a_matrix_sum_follow_the_free_sum():
    rng = np.random.default_rng(2)
    n = 300
    a, b = rng.uniform(-1, 1, n), np.repeat([0.0, 2.0], n // 2)
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    eigenvalues = np.linalg.eigvalsh(np.diag(a) + q * b @ q.T)
    total = Empirical.of(a) + Empirical.of(b)
    z = np.array([-0.5 + 0.1j, 1.0 + 0.1j, 2.2 + 0.1j])
    naive = np.mean(1 / (z[:, None] - eigenvalues), axis=1)
    np.testing.assert_allclose(total.cauchy(z), naive, atol=0.02)
    unrotated = np.mean(1 / (z[:, None] - np.sort(a) - b), axis=1)
    assert np.max(np.abs(total.cauchy(z) - unrotated)) > 0.2


@settings(max_examples=8, deadline=None, derandomize=True)
@given(p=st.floats(0.05, 0.95), ratio=st.floats(0.2, 4.0), height=st.floats(0.01, 2.0))
def test_free_operations_commute(p, ratio, height):
    a, b, z = Projection(p), MarchenkoPastur(ratio), np.array([0.7 + 1j * height])
    np.testing.assert_allclose((a + b).cauchy(z), (b + a).cauchy(z), rtol=1e-8)
    np.testing.assert_allclose((a @ b).cauchy(z), (b @ a).cauchy(z), rtol=1e-8)


# Impossible input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Projection(1.5), "p: a probability > 0, got 1.5"),
        (lambda: Projection(0.0), "Change p"),
        (lambda: Semicircle(-1.0), "variance: a finite number > 0"),
        (lambda: MarchenkoPastur(math.nan), "ratio: a finite number > 0"),
        (lambda: FussCatalan(0), "depth: a positive integer"),
        (lambda: Empirical((1.0,), (0.5,)), "sum to 1"),
        (lambda: Empirical.of([]), "as many values as weights"),
        (lambda: Empirical.of([1.0, math.inf]), "finite values"),
        (lambda: Semicircle() @ Projection(0.5), "positive half line"),
        (lambda: Semicircle().s_transform(np.array([0.1])), "a mean that is not 0"),
        (lambda: squared_slope(np.cos, 0.0), "q: a finite number > 0"),
    ],
)
def test_impossible_input_is_refused(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()


@pytest.mark.parametrize(
    ("law", "x"),
    [
        ((Projection(0.9) + Projection(0.9)), 2.0),
        ((Projection(0.9) @ Projection(0.9)), 1.0),
    ],
)
def test_mass_of_an_atom(law, x):
    height = 1e-4j
    assert law.cauchy(np.array([x + height]))[0] * height == pytest.approx(0.8, abs=1e-3)


def test_a_transform_beyond_its_domain_is_refused():
    """S of a projection has its pole at m = -p."""
    with pytest.raises(InitdiagError, match="beyond the transform's domain"):
        Empirical((0.0, 1.0), (0.5, 0.5)).s_transform(np.array([-0.5]))
