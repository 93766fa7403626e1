"""Lanczos' iteration and its quadrature against explicit eigendecompositions."""

from __future__ import annotations

import numpy as np
import pytest

from initdiag.spectrum.lanczos import gauss_quadrature, lanczos


def matrices(rows, n, spread, seed=0):
    """Symmetric matrices with eigenvalues over ``spread`` decades, and a unit vector each."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((rows, n, n)))[0]
    values = 10.0 ** rng.uniform(-spread, 0, (rows, n))
    start = rng.standard_normal((rows, n))
    found = basis * values[:, None] @ np.swapaxes(basis, 1, 2)
    return found, values, basis, start / np.linalg.norm(start, axis=1, keepdims=True)


def product(a):
    return lambda v: (a @ v[:, :, None])[:, :, 0]


def quadrature(a, start, steps):
    return gauss_quadrature(*lanczos(product(a), start, steps))


@pytest.mark.parametrize("spread", [1, 12])
def test_polynomials_of_degree_below_twice_the_steps_are_exact(spread):
    a, values, basis, start = matrices(3, 40, spread)
    nodes, weights = quadrature(a, start, 6)
    share = np.einsum("rni,rn->ri", basis, start) ** 2
    for degree in range(12):
        exact = np.sum(share * values**degree, axis=1)
        np.testing.assert_allclose(np.sum(weights * nodes**degree, axis=1), exact, rtol=1e-9)
    wrong = np.sum(weights * nodes**12, axis=1) / np.sum(share * values**12, axis=1)
    assert np.abs(wrong - 1).max() > 1e-8  # and no further


def test_all_steps_give_all_eigenvalues_and_full_reorthogonalisation_no_ghosts():
    a, values, _, start = matrices(2, 60, 10)
    nodes, weights = quadrature(a, start, 60)
    np.testing.assert_allclose(nodes, -np.sort(-values, axis=1), rtol=0, atol=1e-13)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert np.all(np.diff(nodes, axis=1) <= 0)


def test_a_krylov_space_that_ends_early():
    """Three distinct eigenvalues, a multiple of the identity, and zero: three nodes, one, one, with the right weights."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    values = np.stack([np.repeat([5.0, 2.0, 0.0], 10), np.full(30, 7.0), np.zeros(30)])
    a = np.stack([basis * v @ basis.T for v in values])
    start = np.tile(rng.standard_normal(30), (3, 1))
    start /= np.linalg.norm(start[0])
    nodes, weights = quadrature(a, start, 10)
    share = (basis.T @ start[0]) ** 2
    for row in range(3):
        for value in np.unique(values[row]):
            near = np.abs(nodes[row] - value) < 1e-9
            assert weights[row, near].sum() == pytest.approx(
                share[values[row] == value].sum(), abs=1e-12
            )


def test_rows_do_not_know_of_each_other():
    a, _, _, start = matrices(4, 25, 3)
    together = quadrature(a, start, 9)
    for row in range(4):
        alone = quadrature(a[row : row + 1], start[row : row + 1], 9)
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[row], one[0], rtol=1e-10, atol=1e-13)
