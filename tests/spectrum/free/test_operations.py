"""Sums, products and scalings of several laws: moments, atoms, and eigenvalues of matrices."""

from __future__ import annotations

import numpy as np
import pytest

import initdiag
from initdiag import free
from initdiag.errors import InitdiagError, InvalidInput

LAWS = {
    "projection": free.Projection(0.3),
    "semicircle": free.Semicircle(2.0),
    "wide Marchenko-Pastur": free.MarchenkoPastur(0.4, 1.5),
    "tall Marchenko-Pastur": free.MarchenkoPastur(3.0, 0.5),
    "Fuss-Catalan": free.FussCatalan(3),
    "empirical": free.Empirical((-0.5, 1.0, 3.0), (0.2, 0.5, 0.3)),
    "scaled": 2.5 * free.Projection(0.6),
    "sum": free.Projection(0.3) + free.MarchenkoPastur(0.4) + free.Semicircle(0.5),
    "product": free.Projection(0.7) @ free.MarchenkoPastur(2.0) @ free.Projection(0.5),
}
NESTED = free.Projection(0.7) @ free.MarchenkoPastur() + free.Projection(0.5)
"""Each point of such a law follows a path whose every place follows a path of its own."""


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_moments_are_the_contour_integrals_of_the_cauchy_transform(law):
    """``m_n = (1/2 pi i) int z^n G(z) dz`` around the support; below the axis G is conjugate."""
    count, radius = 200, 1.2 * law.radius
    z = radius * np.exp(2j * np.pi * (np.arange(count) + 0.5) / count)
    upper = z[z.imag > 0]
    g = law.cauchy(upper)
    found = [(2 * (upper ** (n + 1) * g).real).sum() / count for n in range(6)]
    np.testing.assert_allclose(found, np.append(1.0, law.moments(5)), rtol=1e-8, atol=1e-8)
    assert law.mean == pytest.approx(law.moments(1)[0])


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_atoms_are_what_the_cauchy_transform_says(law):
    """``i h G(x + i h)`` goes to the mass at ``x``."""
    for x, mass in law.atoms.items():
        if x == 0 and isinstance(law, free.FreeProduct):
            continue  # its G is not asked for at 0
        assert complex(law.cauchy(x + 1e-7j)) * 1e-7j == pytest.approx(mass, abs=1e-3)


def test_the_mass_at_zero_of_a_product_is_the_worst_factors():
    product = free.Projection(0.7) @ free.Projection(0.9) @ free.MarchenkoPastur(2.0)
    assert product.atoms == {0.0: pytest.approx(0.3)}


def test_atoms_of_a_rectangular_isometry():
    """30 columns into 50 rows, half of which are kept: a subspace of 5 is left as it is."""
    gate = free.Empirical((0.5, 1.0), (0.5, 0.5))
    product = free.FreeProduct((free.Projection(1.0), gate), (30, 50))
    assert product.atoms == {0.5: pytest.approx(5 / 30), 1.0: pytest.approx(5 / 30)}


def test_r_and_s_of_sums_and_products_are_consistent():
    for law in (LAWS["sum"], LAWS["product"]):
        m = np.array([0.05, -0.05, 0.05j])
        np.testing.assert_allclose(law.r_transform(m * law.s_transform(m)), m, rtol=1e-8)
        z = 5 * law.radius * np.array([1 + 1j, 1j])
        np.testing.assert_allclose(1 + law.r_transform(law.cauchy(z)), z * law.cauchy(z), rtol=1e-8)


def test_a_sum_of_products_and_its_series():
    z = np.array([3 * NESTED.radius * 1j])
    series = np.append(1.0, NESTED.moments(30)) / z ** np.arange(1, 32)
    np.testing.assert_allclose(NESTED.cauchy(z), series.sum(), rtol=1e-8)


def test_sums_and_products_are_taken_apart():
    a, b, c = free.Projection(0.5), free.MarchenkoPastur(), free.FussCatalan(2)
    assert (a + b) + c == a + (b + c) == free.FreeSum((a, b, c))
    assert (a @ b) @ c == a @ (b @ c) == free.FreeProduct((a, b, c))


def eigenvalue_error(law, eigenvalues, z):
    """Largest error of ``G`` at points above the axis, where a histogram needs no bins."""
    naive = np.mean(1 / (z[:, None] - np.ravel(eigenvalues)), axis=1)
    return np.max(np.abs(law.cauchy(z) - naive))


def test_eigenvalues_of_a_rectangular_product():
    rng, (n0, n1, n2) = np.random.default_rng(3), (200, 300, 120)
    gate = rng.permutation(np.repeat([0.0, 1.0], [100, 200]))
    jacobian = (
        rng.standard_normal((n2, n1)) @ (gate[:, None] * rng.standard_normal((n1, n0)))
    ) / np.sqrt(n0 * n1)
    factors = (
        free.MarchenkoPastur(n1 / n0, 1.0),
        free.Projection(2 / 3),
        free.MarchenkoPastur(n2 / n1, 1.0),
    )
    law = free.FreeProduct(factors, (n0, n1, n1))
    z = np.array([0.1, 0.6, 1.5]) + 0.1j
    found = np.linalg.eigvalsh(jacobian.T @ jacobian)
    assert eigenvalue_error(law, found, z) < 0.06  # 0.03 to 0.04 over seeds, falling with n
    assert eigenvalue_error(free.FreeProduct(factors), found, z) > 0.3
    assert law.atoms == {0.0: pytest.approx(1 - n2 / n0)}


def test_eigenvalues_of_a_sum_of_three():
    rng, n = np.random.default_rng(4), 250
    noise = rng.standard_normal((n, n))
    x = rng.standard_normal((n // 2, n))
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    projection = basis[:, : n // 5] @ basis[:, : n // 5].T
    total = (noise + noise.T) / np.sqrt(2 * n) + x.T @ x / n + projection
    law = free.Semicircle() + free.MarchenkoPastur(0.5) + free.Projection(0.2)
    z = np.array([-1.0, 0.5, 2.0]) + 0.1j
    assert eigenvalue_error(law, np.linalg.eigvalsh(total), z) < 0.02


def test_the_package_shows_it():
    assert initdiag.free is free
    for name in free.__all__:
        assert hasattr(free, name)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: free.FreeProduct((free.Projection(0.5),), (1.0, 2.0)), "a size for each of the 1"),
        (lambda: free.FreeProduct((free.Projection(0.5),), (0.0,)), "a size: a finite number > 0"),
        (lambda: -1.0 * free.Projection(0.5), "factor: a finite number > 0"),
    ],
)
def test_impossible_input_is_refused(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()


def test_the_density_on_an_atom_is_refused():
    law = free.Projection(0.9) @ free.Projection(0.9)
    with pytest.raises(InitdiagError, match="lies on an atom"):
        law.density(1.0)
    assert law.density(1.0, height=0.01) == pytest.approx(0.8 / (0.01 * np.pi), rel=0.05)
