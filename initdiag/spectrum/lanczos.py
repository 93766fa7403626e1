"""Stochastic Lanczos quadrature: eigenvalues of a large symmetric matrix by products.

For a unit vector ``q`` the measure ``sum_i (q . e_i)^2 delta(lambda_i)`` of the
eigenpairs has a Gauss quadrature whose nodes are the eigenvalues of Lanczos'
tridiagonal matrix ``T`` and whose weights are the squared first entries of its
eigenvectors: exact for polynomials of degree up to ``2 steps - 1``. Over uniform random
``q`` the mean of the measure is the eigenvalue distribution itself.

Sources: G. Golub and G. Meurant, "Matrices, Moments and Quadrature with Applications",
Princeton 2010, chapters 4 and 6 (the quadrature); S. Ubaru, J. Chen and Y. Saad, "Fast
estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal. Appl. 38
(2017), 1075.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from initdiag._core.arrays import Real

__all__ = ["gauss_quadrature", "lanczos"]

_BREAKDOWN = 1e-13
"""Share of the largest entry of ``T`` at which the next Lanczos vector is rounding, so
that the Krylov space is exhausted: 450 times the precision of doubles."""


def lanczos(apply: Callable[[Real], Real], start: Real, steps: int) -> tuple[Real, Real]:
    """Run Lanczos' iteration for several matrices in lockstep.

    Every new vector is orthogonalised against all before it, twice (Gram-Schmidt).

    Parameters
    ----------
    apply : callable
        Maps rows ``v_i`` to ``A_i v_i``, both ``(rows, n)``; each ``A_i`` symmetric.
    start : ndarray of shape (rows, n)
        Unit vectors ``q_i``.
    steps : int
        At most ``n``.

    Returns
    -------
    diagonal, off_diagonal : ndarray of shape (rows, steps) and (rows, steps - 1)
        The entries of ``T_i``; zeros after the Krylov space of a row is exhausted.
    """
    rows, n = start.shape
    basis = np.zeros((rows, steps, n))
    diagonal, off_diagonal = np.zeros((rows, steps)), np.zeros((rows, steps))
    vector, size = start, np.zeros(rows)
    for step in range(steps):
        basis[:, step] = vector
        image = apply(vector)
        diagonal[:, step] = np.einsum("rn,rn->r", vector, image)
        known = basis[:, : step + 1]
        for _ in range(2):
            coefficients = known @ image[:, :, None]
            image = image - (np.swapaxes(coefficients, 1, 2) @ known)[:, 0]
        norm = np.linalg.norm(image, axis=1)
        size = np.maximum(size, np.maximum(np.abs(diagonal[:, step]), norm))
        norm[norm <= _BREAKDOWN * size] = 0.0
        off_diagonal[:, step] = norm
        vector = np.divide(image, norm[:, None], out=np.zeros_like(image), where=norm[:, None] > 0)
    return diagonal, off_diagonal[:, :-1]


def gauss_quadrature(diagonal: Real, off_diagonal: Real) -> tuple[Real, Real]:
    """Return the nodes and weights of the Gauss quadratures of Lanczos' matrices.

    Both have the shape ``(rows, steps)``; nodes descend, and weights sum to 1.
    """
    steps = diagonal.shape[1]
    matrices = np.zeros((len(diagonal), steps, steps))
    inner = np.arange(steps - 1)
    matrices[:, np.arange(steps), np.arange(steps)] = diagonal
    matrices[:, inner + 1, inner] = matrices[:, inner, inner + 1] = off_diagonal
    nodes, vectors = np.linalg.eigh(matrices)
    return nodes[:, ::-1], vectors[:, 0, ::-1] ** 2
