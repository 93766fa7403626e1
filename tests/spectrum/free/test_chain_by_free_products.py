"""A chain's predicted spectrum against the general calculus: the free product of its factors.

The prediction solves one equation in closed form. The product knows nothing of chains: it
follows each factor's own Cauchy transform by subordination, or multiplies power series.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from initdiag import free, predict_spectrum

CHAINS = {
    "iid, square": ([60] * 4, {"init": "he_normal", "output": "relu"}),
    "iid, rectangular": ([60, 40, 90, 50], {"init": "he_normal", "output": "relu"}),
    "iid, widening": ([30, 45, 80], {"init": "torch_default", "output": "linear"}),
    "Haar, square": ([50] * 4, {"init": "orthogonal", "output": "relu"}),
    "Haar, rectangular": ([60, 40, 90, 50], {"init": "orthogonal", "output": "relu"}),
    "mixed": ([50, 80, 40], {"init": ["orthogonal", "he_normal"], "output": "relu"}),
    "leaky": (
        [60, 40, 70],
        {"init": "he_normal", "activation": "leaky_relu", "negative_slope": 0.2},
    ),
    "hard tanh, Haar: an atom": (
        [64] * 4,
        {"init": "orthogonal", "activation": "hardtanh", "output": "hardtanh", "gain": 0.5},
    ),
}
BY_NAME = pytest.mark.parametrize(("widths", "assumptions"), CHAINS.values(), ids=CHAINS.keys())


def weight_law(factor):
    """The law of ``W^T W``, by hand from what a layer's matrix is."""
    ratio = factor.fan_out / factor.fan_in
    if factor.haar:
        rank = free.Projection(min(1.0, ratio))
        return factor.variance * max(factor.fan_in, factor.fan_out) * rank
    return free.MarchenkoPastur(ratio, factor.variance * factor.fan_in)


def product_of(spectrum):
    """The free product of every layer's weights and gates, each in the space it acts on."""
    laws, sizes = [], []
    for factor in spectrum.factors:
        gate = free.Empirical(factor.squared_gates, factor.probabilities)
        laws += [weight_law(factor), gate]
        sizes += [factor.fan_in, factor.fan_out]
    return free.FreeProduct(tuple(laws), tuple(sizes))


@BY_NAME
def test_density(widths, assumptions):
    spectrum = predict_spectrum(widths, **assumptions)
    share = 1 - sum(a.mass for a in spectrum.atoms) / (1 - spectrum.zero_mass)
    x = spectrum.law.ppf(share * np.linspace(0.2, 0.95, 7))  # the atoms are at the top
    lam = np.exp(x)
    found = product_of(spectrum).density(lam) * lam
    np.testing.assert_allclose(found, spectrum.density(x), rtol=1e-6, atol=1e-9)


@BY_NAME
def test_moments(widths, assumptions):
    spectrum = predict_spectrum(widths, **assumptions)
    np.testing.assert_allclose(product_of(spectrum).moments(6), spectrum.moments(6), rtol=1e-9)


@BY_NAME
def test_atoms(widths, assumptions):
    spectrum = predict_spectrum(widths, **assumptions)
    found = product_of(spectrum).atoms
    assert found.pop(0.0, 0.0) == pytest.approx(spectrum.zero_mass, abs=1e-12)
    expected = {atom.log_eigenvalue: atom.mass for atom in spectrum.atoms}
    assert np.log(sorted(found)) == pytest.approx(sorted(expected), abs=1e-12)
    assert [found[x] for x in sorted(found)] == pytest.approx(
        [expected[x] for x in sorted(expected)], abs=1e-12
    )


@pytest.mark.parametrize("name", [name for name in CHAINS if "leaky" not in name])
def test_upper_edge(name):
    """The edge is the least ``z = (1 + m)/(m S(m))`` over ``m > 0``, or its limit: an atom."""
    widths, assumptions = CHAINS[name]
    spectrum = predict_spectrum(widths, **assumptions)
    product = product_of(spectrum)
    factors = [law for law in product.factors if not isinstance(law, free.Empirical)]
    gates = [free.Projection(f.probabilities[-1]) for f in spectrum.factors]
    scale = np.prod([factor.squared_gates[-1] for factor in spectrum.factors])
    laws = tuple(law for pair in zip(factors, gates, strict=True) for law in pair)
    plain = free.FreeProduct(laws, product.sizes)  # with S in closed form, at any m

    def log_z(log_m):
        m = np.exp(log_m)
        return float(np.log(scale * (1 + m) / (m * plain.s_transform(m).real)))

    best = optimize.minimize_scalar(log_z, bounds=(-12, 25), method="bounded").fun
    assert best == pytest.approx(spectrum.log_upper_edge, abs=1e-6)


def test_a_wrong_size_is_seen():
    spectrum = predict_spectrum([60, 40, 90, 50], init="he_normal", output="relu")
    right = product_of(spectrum)
    wrong = free.FreeProduct(right.factors)
    assert abs(wrong.moments(2)[1] / spectrum.moments(2)[1] - 1) > 1e-3  # 1e-9 when right
