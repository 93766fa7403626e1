"""The calculus of free probability: laws of eigenvalues, their sums and their products.

Two large random matrices are *free* when their eigenvectors are in general position, as
those of independent matrices are if one of them has a distribution that no rotation
changes. The eigenvalues of their sum and of their product then follow from the
eigenvalues of the two alone. This package computes with such laws: ``a + b`` is the law
of the sum, ``a @ b`` that of the product, ``2.0 * a`` that of the scaled matrix.

Examples -------- A square ReLU layer is a projection that keeps half of the units,
times a Gaussian matrix:

>>> from initdiag import free
>>> layer = free.Projection(0.5) @ free.MarchenkoPastur(ratio=1.0, scale=2.0)
>>> layer.mean, layer.moments(3).tolist()
(1.0, [1.0, 3.0, 11.0])
>>> round(float(layer.density(1.0)), 4)
0.1592

Notes
-----
The conventions, for a law with moments ``m_n``:

- The Cauchy transform is ``G(z) = E 1/(z - x) = sum m_n/z^(n+1)``. The density is
  ``-(1/pi) lim Im G(x + i0)`` (Stieltjes inversion).
- The moment transform is ``M(w) = sum_{n >= 1} m_n w^n = G(1/w)/w - 1``.
- The R-transform satisfies ``1 + R(G(z)) = z G(z)``, equivalently
  ``R(w (1 + M(w))) = M(w)``. It is ``w`` times what some authors call R.
- The S-transform satisfies ``S(M(w)) = w (1 + M(w))/M(w)``.

R adds under free sums, and S multiplies under free products.

References
----------
D. Voiculescu, K. Dykema and A. Nica, "Free Random Variables", AMS 1992. J. Mingo and
R. Speicher, "Free Probability and Random Matrices", Springer 2017.
"""

from initdiag.spectrum.free.base import Law
from initdiag.spectrum.free.convolution import FreeProduct, FreeSum, Scaled
from initdiag.spectrum.free.empirical import Empirical, squared_slope
from initdiag.spectrum.free.laws import FussCatalan, MarchenkoPastur, Projection, Semicircle

__all__ = [
    "Empirical",
    "FreeProduct",
    "FreeSum",
    "FussCatalan",
    "Law",
    "MarchenkoPastur",
    "Projection",
    "Scaled",
    "Semicircle",
    "squared_slope",
]
