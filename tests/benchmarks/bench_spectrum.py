"""What the phase parametrisation buys, as ratios within one run. Prints, and gates on results only, never on time.

pytest tests/benchmarks/bench_spectrum.py -m benchmark -s
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from initdiag.spectrum import distribution, equation
from initdiag.spectrum.jacobian import predict_spectrum

pytestmark = pytest.mark.benchmark


def best_of(function, repeat):
    """Shortest wall time in seconds, caches of the spectrum emptied before each run; and the last result."""
    times = []
    for _ in range(repeat):
        distribution._table.cache_clear()
        equation.chain_equation.cache_clear()
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def densities_by_roots(depth, log_lambda):
    """He-initialised square ReLU chain: ``lambda m = (1 + m) (1 + 2m)^L``, a companion matrix a point."""
    polynomial = np.poly([-1.0] + [-0.5] * depth) * 2.0**depth
    density = np.empty(len(log_lambda))
    for i, lam in enumerate(np.exp(log_lambda)):
        shifted = polynomial.copy()
        shifted[-2] -= lam
        roots = np.roots(shifted)
        roots = roots[roots.imag < -1e-12]
        phase = np.angle(1 + roots) + depth * np.angle(1 + 2 * roots) - np.angle(roots)
        density[i] = -roots[np.argmin(np.abs(phase))].imag / np.pi
    return density


def test_density_against_polynomial_roots():
    widths = [400] * 11
    x = predict_spectrum(widths, init="he_normal", output="relu").law.ppf(np.linspace(0.1, 0.999, 1000))
    ours, density = best_of(lambda: predict_spectrum(widths, init="he_normal", output="relu").density(x), 5)
    theirs, by_roots = best_of(lambda: densities_by_roots(10, x), 2)
    np.testing.assert_allclose(density, by_roots, rtol=1e-4)
    print(
        f"\n1,000 densities, L = 10: {1e3 * ours:.1f} ms, polynomial roots {1e3 * theirs:.0f} ms: {theirs / ours:.0f} times"
    )


@pytest.mark.parametrize("widths", [[400] * 101, list(range(200, 403, 2))], ids=["equal", "all different"])
def test_density_at_depth_100(widths):
    spectrum = predict_spectrum(widths, init="he_normal", output="relu")
    x = np.linspace(-60.0, spectrum.log_upper_edge, 1002)[1:-1]
    ours, density = best_of(lambda: predict_spectrum(widths, init="he_normal", output="relu").density(x), 5)
    mass = spectrum.law.sf(-60.0) * (1 - spectrum.zero_mass)
    assert np.trapezoid(density, x) == pytest.approx(mass, abs=1e-3)
    print(f"\n1,000 densities, L = 100: {1e3 * ours:.1f} ms")


def test_whole_spectrum_against_one_monte_carlo_draw():
    n, depth = 2000, 5
    q = np.linspace(0.0005, 0.9995, 1000)

    def predicted():
        return predict_spectrum([n] * (depth + 1), init="he_normal", output="relu").law.ppf(q)

    def one_draw():
        rng = np.random.default_rng(0)
        jacobian = np.eye(n)
        for _ in range(depth):
            jacobian = np.sqrt(2 / n) * rng.standard_normal((n // 2, len(jacobian))) @ jacobian
            jacobian = np.vstack([jacobian, np.zeros_like(jacobian)])
        return 2 * np.log(np.linalg.svd(jacobian, compute_uv=False)[: n // 2])

    ours, quantiles = best_of(predicted, 5)
    theirs, sample = best_of(one_draw, 1)
    at = np.quantile(sample, q)
    assert np.max(np.abs(np.interp(at, quantiles, q) - q)) < 0.01
    print(f"\n1,000 quantiles: {1e3 * ours:.1f} ms, one draw of width {n} {theirs:.1f} s: {theirs / ours:.0f} times")


def test_leaky_gates_by_the_homotopy():
    assumptions = {"init": "he_normal", "activation": "leaky_relu", "negative_slope": 0.2, "output": "leaky_relu"}
    x = np.linspace(-8, 3, 1000)
    ours, density = best_of(lambda: predict_spectrum([400] * 11, **assumptions).density(x), 3)
    spectrum = predict_spectrum([400] * 11, **assumptions)
    mass = np.diff(spectrum.law.cdf([-8.0, 3.0]))[0]
    assert np.trapezoid(density, x) == pytest.approx(mass, abs=1e-4)
    print(f"\n1,000 densities of a leaky chain, L = 10: {1e3 * ours:.0f} ms")
