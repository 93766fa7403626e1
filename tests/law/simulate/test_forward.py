"""The simulated law against explicit matrices, known values, and the exact law."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy import optimize

import initdiag
from initdiag.law.output import output_draw
from initdiag.law.prediction import Prediction
from initdiag.law.simulate import forward
from initdiag.network.architecture import BiasLaw


def z(found, se, expected, expected_se=0.0):
    return (found - expected) / math.hypot(se, expected_se)


@pytest.mark.parametrize("name", forward.ACTIVATIONS)
def test_slopes_are_derivatives(name):
    h = np.array([-7.3, -2.1, -0.4, 0.3, 0.9, 2.2, 6.7])
    value = forward.ACTIVATIONS[name]
    np.testing.assert_allclose(
        value(h)[1], (value(h + 1e-6)[0] - value(h - 1e-6)[0]) / 2e-6, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize(
    ("activation", "gain", "mean", "mean_se", "variance", "variance_se"),
    [
        ("tanh", 1.0, -3.752, 0.005, 0.857, 0.006),
        ("gelu", math.sqrt(1.983), -6.82, 0.02, 13.88, 0.09),
    ],
)
def test_twenty_layers_of_64_against_known_values(
    activation, gain, mean, mean_se, variance, variance_se
):
    """Values of an independent simulation (n = 64, 20 gated layers, |x|^2/n = 1)."""
    pred = initdiag.predict(
        [64] * 21,
        activation=activation,
        output=activation,
        init="lecun_normal",
        gain=gain,
        draws=8192,
    )
    assert pred.coverage == "simulated"
    assert abs(z(pred.log_mean, pred.log_mean_se, mean, mean_se)) < 3
    assert abs(z(pred.log_variance, pred.log_variance_se, variance, variance_se)) < 3


@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
@pytest.mark.parametrize("widths", [[64] * 12, [12, 30, 7, 20, 5], [9, 1, 6]], ids=str)
def test_relu_is_the_exact_law(init, widths, monkeypatch):
    """The simulation's own test: where the law is known, it is found."""
    arch = initdiag.Architecture.from_widths(widths, init=init, dropout=0.1)
    exact = initdiag.predict(arch)
    samples = forward.simulate(arch, 8192, 1).log_norms[-1]
    found = Prediction.simulated(
        samples,
        (),
        arch.input_size,
        arch.output_size,
        output_draw(arch, as_gaussian=True),
        len(arch.layers),
    )
    assert abs(z(found.log_mean, found.log_mean_se, exact.log_mean)) < 3
    assert abs(z(found.log_variance, found.log_variance_se, exact.log_variance)) < 3
    assert (
        abs(found.dead_probability - exact.dead_probability)
        < 4 * math.sqrt(exact.dead_probability / 8192) + 1e-3
    )


def explicit(widths, activation, init, bias, rms, draws, seed):
    """ln||Ju||^2 of explicit networks: matrices drawn, values and tangents pushed through."""
    rng = np.random.default_rng(seed)
    x = np.full((draws, widths[0]), rms)
    t = rng.standard_normal((draws, widths[0]))
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    for n, m in itertools.pairwise(widths):
        if init == "orthogonal":
            larger = max(n, m)
            q, r = np.linalg.qr(rng.standard_normal((draws, larger, larger)))
            w = math.sqrt(2) * (q * np.sign(np.einsum("sii->si", r))[:, None, :])[:, :m, :n]
        else:
            w = rng.standard_normal((draws, m, n)) / math.sqrt(n)
        h = np.einsum("smn,sn->sm", w, x) + rng.normal(0, bias, (draws, m))
        x, slope = forward.ACTIVATIONS[activation](h)
        t = slope * np.einsum("smn,sn->sm", w, t)
    return np.log(np.sum(t * t, axis=1))


@pytest.mark.parametrize(
    ("activation", "init", "bias", "rms"),
    [
        ("tanh", "lecun_normal", 0.5, 2.0),
        ("silu", "lecun_normal", 0.0, 1.0),
        ("elu", "orthogonal", 0.0, 0.3),
        ("tanh", "orthogonal", 0.3, 1.0),
    ],
)
def test_against_explicit_networks(activation, init, bias, rms):
    widths = [10, 16, 8, 12]
    arch = initdiag.Architecture.from_widths(
        widths, activation=activation, output=activation, init=init, input_rms=rms
    )
    layers = tuple(dataclasses.replace(layer, bias=BiasLaw(bias**2)) for layer in arch.layers)
    pred = initdiag.predict(dataclasses.replace(arch, layers=layers), draws=16384)
    values = explicit(widths, activation, init, bias, rms, 16000, 3)
    variance_se = math.sqrt(
        (np.mean((values - values.mean()) ** 4) - values.var() ** 2) / len(values)
    )
    assert (
        abs(
            z(pred.log_mean, pred.log_mean_se, values.mean(), values.std() / math.sqrt(len(values)))
        )
        < 3.5
    )
    assert abs(z(pred.log_variance, pred.log_variance_se, values.var(), variance_se)) < 3.5


def test_the_scale_of_the_input_matters_to_tanh():
    small, large = (
        initdiag.predict(
            [32] * 4, activation="tanh", init="lecun_normal", gain=2.0, input_rms=r
        ).log_mean
        for r in (0.01, 10.0)
    )
    assert small > large + 1


def test_layers_add_up_and_draws_do_not_depend_on_their_number():
    pred = initdiag.predict([20, 30, 10], activation="gelu", draws=1000)
    assert math.fsum(layer.log_mean for layer in pred.layers) == pytest.approx(
        pred.log_mean, abs=1e-12
    )
    assert math.fsum(layer.log_variance for layer in pred.layers) == pytest.approx(
        pred.log_variance, abs=1e-12
    )
    fewer = initdiag.predict([20, 30, 10], activation="gelu", draws=300)
    np.testing.assert_array_equal(fewer.samples, pred.samples[:300])
    assert not np.array_equal(
        initdiag.predict([20, 30, 10], activation="gelu", draws=300, seed=1).samples, fewer.samples
    )


def test_the_empirical_law():
    pred = initdiag.predict([16, 24, 8], activation="tanh")
    law = pred.law
    assert law.mean() == pytest.approx(pred.log_mean)
    assert law.var() == pytest.approx(pred.log_variance)
    np.testing.assert_allclose(law.cdf(law.ppf([0.1, 0.5, 0.9])), [0.1, 0.5, 0.9], atol=1e-12)
    np.testing.assert_allclose(
        law.ppf([0.25, 0.75]), np.quantile(pred.samples, [0.25, 0.75]), atol=5e-3
    )
    assert law.log_moment(1) == pytest.approx(math.log(np.exp(pred.samples).mean()), abs=1e-12)
    peak = optimize.minimize_scalar(
        lambda x: -float(law.pdf(x)), bounds=law.interval(0.5), method="bounded"
    ).x
    assert abs(peak - law.median()) < law.std()
    assert abs(
        np.mean(law.rvs(size=4000, random_state=0)) - law.mean()
    ) < 5 * law.std() / math.sqrt(4000)


def test_a_simulated_prediction_survives_json():
    pred = initdiag.predict([8, 8, 4], activation="silu", draws=64)
    assert Prediction.from_dict(json.loads(json.dumps(pred.to_dict(), allow_nan=False))) == pred
    with pytest.raises(initdiag.UnsupportedArchitecture, match="discrete gates only"):
        _ = pred.asymptotic_law
