"""What the exact law costs: ``pytest tests/benchmarks/bench_law.py -m benchmark -s``. Prints; never fails for being slow."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch
from scipy import special, stats
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag.law import layer as layer_law
from initdiag.law.distributions import mixture
from initdiag.network.log_moments import LogMoments

pytestmark = pytest.mark.benchmark

TEN_WIDTHS = [100, 120, 140, 160, 180, 200, 220, 240, 250, 256]
NETS = {
    "depth 100, ten widths": ([784, *TEN_WIDTHS * 10], {}),
    "depth 100, ten widths, orthogonal": ([784, *TEN_WIDTHS * 10], {"init": "orthogonal"}),
    "depth 100, ten widths, leaky ReLU": (
        [784, *TEN_WIDTHS * 10],
        {"activation": "leaky_relu", "output": "leaky_relu"},
    ),
    "one layer of 256": ([256, 256], {}),
    "1,000 equal layers of 256": ([256] * 1001, {}),
}


def milliseconds(function, repeats=7):
    """Median processor time of a call (one thread), after one to warm up (imports, cached mixtures)."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append((time.process_time() - start) * 1e3)
    return statistics.median(times)


def thousand_values(prediction):
    law = prediction.law
    x = law.mean() + law.std() * np.linspace(-4, 4, 1000)
    return law.cdf(x)


def by_gil_pelaez(prediction, points=4000):
    """The plain way, for comparison: ``1/2 - (1/pi) int Im(e^{-itx} phi(t))/t dt`` on a line of 4,000 points; absolute accuracy only."""
    x = prediction.log_mean + np.sqrt(prediction.log_variance) * np.linspace(-4, 4, 1000)
    t = (np.arange(points) + 0.5) * 10 / np.sqrt(prediction.log_variance) / points
    log_phi = np.zeros(points, dtype=complex)
    for layer in prediction.layers:
        k, p = layer_law.open_gates(layer.gate, layer.fan_out)
        rising = np.exp(
            special.loggamma(k[:, None] / 2 + 1j * t) - special.loggamma(k / 2)[:, None]
        )
        log_phi += np.log(p @ rising) + 1j * t * np.log(2 * layer.weight_variance)
    integrand = np.exp(-1j * np.outer(x, t) + log_phi).imag / t
    return 0.5 - integrand.sum(axis=1) * (t[1] - t[0]) / np.pi


def from_nothing(widths, assumptions):
    """Prediction, law and values, with no mixture or moment left from a call before."""
    for cached in (mixture.gated_chi_square, layer_law._gated_chi2):
        cached.cache_clear()
    prediction = initdiag.predict(widths, **({"init": "he_normal", "output": "relu"} | assumptions))
    return thousand_values(prediction)


def test_construction_and_a_thousand_values():
    times = {}
    for name, (widths, assumptions) in NETS.items():
        prediction = initdiag.predict(
            widths, **({"init": "he_normal", "output": "relu"} | assumptions)
        )
        times[name] = milliseconds(lambda prediction=prediction: thousand_values(prediction))
        cold = milliseconds(
            lambda widths=widths, assumptions=assumptions: from_nothing(widths, assumptions), 3
        )
        print(
            f"\n{name}: law + 1,000 cdf values {times[name]:.1f} ms, with nothing cached {cold:.1f} ms",
            end="",
        )
    ratio = times["1,000 equal layers of 256"] / times["one layer of 256"]
    print(f"\n1,000 equal layers cost {ratio:.1f} times one layer")


def test_against_plain_inversion():
    """The oracle of the same call: both agree to 1e-8 in the bulk."""
    widths, _ = NETS["depth 100, ten widths"]
    prediction = initdiag.predict(widths, init="he_normal", output="relu")
    start = time.process_time()
    plain = by_gil_pelaez(prediction)
    slow = (time.process_time() - start) * 1e3
    np.testing.assert_allclose(thousand_values(prediction), plain, rtol=0, atol=1e-7)
    fast = milliseconds(lambda: thousand_values(prediction))
    print(
        f"\nplain Gil-Pelaez {slow:.0f} ms, shifted lines {fast:.1f} ms: {slow / fast:.0f} times faster"
    )


def test_quantiles_and_draws():
    prediction = initdiag.predict([64] * 21, init="he_normal", output="relu")
    law = prediction.law
    q = np.linspace(0.0005, 0.9995, 1000)
    print(
        f"\n1,000 quantiles {milliseconds(lambda: law.ppf(q)):.1f} ms, 100,000 draws of 20 layers",
        end=" ",
    )
    print(f"{milliseconds(lambda: law.rvs(size=100_000, random_state=0), 3):.0f} ms")
    np.testing.assert_allclose(law.cdf(law.ppf(q)), q, rtol=1e-9)
    assert stats.kstest(law.rvs(size=100_000, random_state=0), law.cdf).pvalue > 1e-3


def reinitialised(model, draws):
    """ln||Ju||^2 of ``draws`` networks: He weights drawn anew, then ``torch.func.jvp``."""
    width, found = model[0].in_features, []
    for _ in range(draws):
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        u = torch.randn(1, width)
        _, tangent = torch.func.jvp(model, (torch.randn(1, width),), (u / u.norm(),))
        found.append(float(tangent.detach().double().square().sum().log()))
    return np.array(found)


def test_the_simulated_law_against_redrawing():
    """256x20: processor time a network. The oracle: both samples have the exact law's mean and variance."""
    model = seeded(lambda: mlp([256] * 21, "he_normal"))
    exact = initdiag.predict(initdiag.trace(model))
    initdiag.measure(model, draws=256, method="law")
    other = seeded(lambda: mlp([256] * 21, "he_normal"))
    torch.manual_seed(0)
    reinitialised(other, 3)
    samples, times = {}, {}
    for name, draws, call in (
        ("law", 4096, lambda n: initdiag.measure(model, draws=n, method="law").log_norms),
        ("redraw", 100, lambda n: reinitialised(other, n)),
    ):
        start = time.process_time()
        samples[name] = LogMoments.of(call(draws))
        times[name] = (time.process_time() - start) / draws
    for found in samples.values():
        assert abs(found.mean - exact.log_mean) < 4 * found.mean_se
        assert abs(found.variance - exact.log_variance) < 4 * found.variance_se
    ratio = times["redraw"] / times["law"]
    print(
        f"\n256x20: law {1e6 * times['law']:.0f} us a network (tracing and replica included), ",
        end="",
    )
    print(f"re-initialise and jvp {1e3 * times['redraw']:.1f} ms: {ratio:.0f} times")
