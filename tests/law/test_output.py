"""What is judged of a network with a linear output, against weight gradients of explicit networks."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

import initdiag
from initdiag.diagnosing.remedies import _totals
from initdiag.law.output import output_draw
from initdiag.law.prediction import Prediction, without_output_draw
from initdiag.law.simulate import forward
from initdiag.network.architecture import Activation, Architecture, Gate


def with_output_dropout(arch, rate):
    last = dataclasses.replace(arch.layers[-1], activation=Activation("linear", dropout=rate))
    return dataclasses.replace(arch, layers=(*arch.layers[:-1], last))


def drawn(init, draws, fan_in, fan_out, rng):
    if init == "he_normal":
        return rng.standard_normal((draws, fan_out, fan_in)) * math.sqrt(2 / fan_in)
    larger = max(fan_in, fan_out)
    q, r = np.linalg.qr(rng.standard_normal((draws, larger, larger)))
    q *= np.sign(np.einsum("sii->si", r))[:, None, :]
    return math.sqrt(2) * q[:, :fan_out, :fan_in]


def output_weight_gradients(widths, init, rate, draws, seed):
    """ln of ``n_0 ||dL/dW_L||^2`` of explicit networks, ``||x|| = ||dL/d output|| = 1``; -inf: 0."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((draws, widths[0]))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    for n, m in itertools.pairwise(widths[:-1]):
        a = np.maximum(np.einsum("smn,sn->sm", drawn(init, draws, n, m, rng), a), 0.0)
    v = rng.standard_normal((draws, widths[-1]))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    delta = v * (rng.random(v.shape) >= rate) / (1 - rate)
    with np.errstate(divide="ignore"):
        return np.log((a**2).sum(1)) + np.log((delta**2).sum(1))


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
@pytest.mark.parametrize("widths", [[8] * 5 + [3], [8] * 5 + [1], [6, 6, 12]], ids=str)
def test_hidden_moments_are_those_of_the_weights_gradients(widths, init, rate):
    """The output's own draw is in no weight's gradient, whatever its law; the dropout's mask is."""
    found = initdiag.predict(with_output_dropout(Architecture.from_widths(widths, init=init), rate))
    logs = output_weight_gradients(widths, init, rate, 20_000, 1)
    alive = logs[np.isfinite(logs)]
    n, variance = len(alive), alive.var(ddof=1)
    error = math.sqrt((np.mean((alive - alive.mean()) ** 4) - variance**2) / n)
    assert abs(variance - found.hidden_log_variance) <= 3.5 * error
    # The drift has the mean square of the output's W u in place of ||dL/d output||^2 = 1.
    gain = 2 if init == "he_normal" else 2 * widths[-2] / max(widths[-2:])
    shift = math.log(widths[0] / widths[-2] * gain)
    assert abs(alive.mean() + shift - found.hidden_drift) <= 3.5 * math.sqrt(variance / n)


def test_a_dropout_behind_the_output_leaves_the_risk_about_where_it_is():
    plain = Architecture.from_widths([64] * 10 + [1], init="he_normal")
    masked = with_output_dropout(plain, 0.1)
    before, after = initdiag.predict(plain), initdiag.predict(masked)
    assert after.hidden_log_variance == pytest.approx(before.hidden_log_variance, rel=1e-12)
    assert after.dead_probability == pytest.approx(0.1)
    assert after.hidden_dead_probability == pytest.approx(before.dead_probability, abs=1e-15)
    assert initdiag.failure_risk(after) == pytest.approx(initdiag.failure_risk(before), abs=0.005)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
def test_advice_totals_what_predict_says(init, rate):
    arch = with_output_dropout(Architecture.from_widths([20, 9, 9, 2], init=init), rate)
    found = initdiag.predict(arch)
    expected = found.hidden_drift, found.hidden_log_variance, found.hidden_dead_probability
    assert _totals(arch) == pytest.approx(expected, rel=1e-12)


def test_the_gates_that_no_activation_made():
    rates = (0.0, 0.1, 0.3, 0.5, 0.9)
    assert all(Activation("linear", dropout=rate).gate.is_linear for rate in rates)
    assert not any(Activation("relu", dropout=rate).gate.is_linear for rate in rates)
    assert not any(Activation("leaky_relu", 0.2, rate).gate.is_linear for rate in rates)
    assert Activation("leaky_relu", 1.0).gate.is_linear
    assert not Gate((2.0,), (1.0,)).is_linear


def test_a_linear_layer_that_is_not_the_last_is_no_linear_output():
    arch = Architecture.from_widths([5, 4, 3], init="he_normal")
    gap = initdiag.network.architecture.Gap("head", "other", "more follows")
    longer = dataclasses.replace(arch, output_size=7, gaps=(gap,))
    assert arch.linear_output is arch.layers[-1]
    assert longer.linear_output is None
    assert Architecture.from_widths([5, 4, 3], output="relu").linear_output is None


@pytest.mark.parametrize(
    ("widths", "init"),
    [([10] * 6, "orthogonal"), ([6, 9, 3], "orthogonal"), ([7, 5, 2], "he_normal")],
    ids=str,
)
def test_the_draw_of_the_output_follows_its_layers_law(widths, init):
    """Simulated draws give predict's hidden moments; Haar outputs have no chi-square's draw."""
    arch = Architecture.from_widths(widths, init=init)
    samples = forward.simulate(arch, 20_000, 3).log_norms[-1]
    sizes = arch.input_size, arch.output_size
    draw = output_draw(arch, as_gaussian=True)
    found = Prediction.simulated(samples, (), *sizes, draw, len(arch.layers))
    exact = initdiag.predict(arch)
    assert abs(found.hidden_drift - exact.hidden_drift) <= 3.5 * found.log_mean_se
    error = 3.5 * found.log_variance_se
    assert abs(found.hidden_log_variance - exact.hidden_log_variance) <= error


@pytest.mark.parametrize("init", ["torch_default", "he_truncated_normal", "orthogonal"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_draw_of_the_output_is_what_predict_leaves_out(init, rate):
    """Its entries' kurtosis is counted in, as predict does."""
    arch = with_output_dropout(Architecture.from_widths([5, 6, 4, 2], init=init), rate)
    found, draw = initdiag.predict(arch), output_draw(arch)
    drift, variance = without_output_draw(found.rms_gain_log_mean, found.log_variance, draw)
    assert drift == pytest.approx(found.hidden_drift, rel=1e-12)
    assert variance == pytest.approx(found.hidden_log_variance, rel=1e-12)
    ratio = output_draw(arch, as_gaussian=True).variance / draw.variance
    assert (ratio == 1) == (init == "orthogonal")
