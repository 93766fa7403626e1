"""What the phase parametrisation, and products in place of Jacobians, buy: ratios within one run. Prints, and gates on results only, never on time.

pytest tests/benchmarks/bench_spectrum.py -m benchmark -s
"""

from __future__ import annotations

import copy
import itertools
import time

import numpy as np
import pytest
import torch
from scipy import integrate

import initdiag
from initdiag.measuring.ensembles import random_numbers
from initdiag.spectrum import distribution, equation, mean_field
from initdiag.spectrum.predict import predict_spectrum

pytestmark = pytest.mark.benchmark


def best_of(function, repeat):
    """Shortest CPU time in seconds, caches of the spectrum emptied before each run; and the last result."""
    times = []
    for _ in range(repeat):
        distribution._table.cache_clear()
        equation.chain_equation.cache_clear()
        mean_field._gate.cache_clear()
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
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
    x = predict_spectrum(widths, init="he_normal", output="relu").law.ppf(
        np.linspace(0.1, 0.999, 1000)
    )
    ours, density = best_of(
        lambda: predict_spectrum(widths, init="he_normal", output="relu").density(x), 5
    )
    theirs, by_roots = best_of(lambda: densities_by_roots(10, x), 2)
    np.testing.assert_allclose(density, by_roots, rtol=1e-4)
    print(
        f"\n1,000 densities, L = 10: {1e3 * ours:.1f} ms, polynomial roots {1e3 * theirs:.0f} ms: {theirs / ours:.0f} times"
    )


@pytest.mark.parametrize(
    "widths", [[400] * 101, list(range(200, 403, 2))], ids=["equal", "all different"]
)
def test_density_at_depth_100(widths):
    spectrum = predict_spectrum(widths, init="he_normal", output="relu")
    x = np.linspace(-60.0, spectrum.log_upper_edge, 1002)[1:-1]
    ours, density = best_of(
        lambda: predict_spectrum(widths, init="he_normal", output="relu").density(x), 5
    )
    mass = spectrum.law.sf(-60.0) * (1 - spectrum.zero_mass)
    assert integrate.trapezoid(density, x) == pytest.approx(mass, abs=1e-3)
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
    print(
        f"\n1,000 quantiles: {1e3 * ours:.1f} ms, one draw of width {n} {theirs:.1f} s: {theirs / ours:.0f} times"
    )


def test_leaky_gates_by_the_homotopy():
    assumptions = {
        "init": "he_normal",
        "activation": "leaky_relu",
        "negative_slope": 0.2,
        "output": "leaky_relu",
    }
    x = np.linspace(-8, 3, 1000)
    ours, density = best_of(lambda: predict_spectrum([400] * 11, **assumptions).density(x), 3)
    spectrum = predict_spectrum([400] * 11, **assumptions)
    mass = np.diff(spectrum.law.cdf([-8.0, 3.0]))[0]
    assert integrate.trapezoid(density, x) == pytest.approx(mass, abs=1e-4)
    print(f"\n1,000 densities of a leaky chain, L = 10: {1e3 * ours:.0f} ms")


def module(widths):
    torch.manual_seed(0)
    layers = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


def test_measuring_against_reverse_mode_row_by_row():
    """One draw of a real module, against `torch.func.jacrev` and numpy's SVD on the network with the draw's signs written in."""
    model = module([600, 600, 600, 600]).double()
    x = torch.ones(1, 600, dtype=torch.float64)

    def naive():
        flipped = copy.deepcopy(model)
        for stream, layer in enumerate(flipped[::2]):
            signs = torch.from_numpy(random_numbers.signs(0, range(1), stream, 1200)[0]).double()
            layer.weight.data *= signs[600:, None] * signs[:600]
            layer.bias.data *= signs[600:]
        jacobian = torch.func.jacrev(flipped)(x[0]).detach()
        return np.linalg.svd(jacobian.numpy(), compute_uv=False) ** 2

    architecture = initdiag.trace(model, x)
    ours, found = best_of(
        lambda: initdiag.measure_spectrum(model, x, draws=1, architecture=architecture), 3
    )
    theirs, expected = best_of(naive, 3)
    np.testing.assert_allclose(found.squared_singular_values[0], expected, rtol=1e-8, atol=1e-12)
    print(
        f"\nall singular values, 3 x 600: {1e3 * ours:.0f} ms, by hand {1e3 * theirs:.0f} ms: {theirs / ours:.1f} times"
    )


def test_products_against_the_dense_decomposition():
    model = module([1500] * 4)
    architecture = initdiag.trace(model)
    options = {"draws": 4, "architecture": architecture}
    dense, all_values = best_of(lambda: initdiag.measure_spectrum(model, dense=True, **options), 1)
    large, found = best_of(lambda: initdiag.measure_spectrum(model, **options), 1)
    assert not found.is_dense
    assert np.all(np.abs(found.moments() - all_values.moments()) < 4 * found.moments_se())
    np.testing.assert_allclose(found.log_largest, all_values.log_largest[:2], atol=2e-4)
    print(
        f"\n4 draws, 3 x 1,500: dense {dense:.1f} s, by products {large:.1f} s: {dense / large:.1f} times"
    )
