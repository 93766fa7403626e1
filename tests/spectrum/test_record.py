"""The record: plain data, saved and loaded; its law as scipy.stats has laws; what is imported for it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import initdiag
from initdiag.errors import InvalidInput, UnsupportedArchitecture
from initdiag.network.architecture import ACTIVATIONS, Architecture, BiasLaw, Layer, WeightLaw
from initdiag.spectrum.record import SpectralLaw


@pytest.fixture(params=["relu", "orthogonal leaky", "tanh"])
def spectrum(request):
    assumptions = {
        "relu": {"init": "he_normal"},
        "orthogonal leaky": {"init": "orthogonal", "activation": "leaky_relu"},
        "tanh": {"activation": "tanh", "init": "xavier_normal"},
    }[request.param]
    return initdiag.predict_spectrum([30, 40, 20], **assumptions)


def test_survives_json_bit_for_bit(spectrum):
    loaded = SpectralLaw.from_dict(json.loads(json.dumps(spectrum.to_dict(), allow_nan=False)))
    assert loaded == spectrum
    assert loaded.factors == spectrum.factors
    assert loaded.law.cdf(0.3) == spectrum.law.cdf(0.3)


def test_survives_pickling_with_its_law(spectrum):
    assert pickle.loads(pickle.dumps(spectrum)) == spectrum
    law = spectrum.law
    assert pickle.loads(pickle.dumps(law)).cdf(0.3) == law.cdf(0.3)
    assert law().cdf(0.3) == law.cdf(0.3)  # frozen


def test_law_is_a_scipy_distribution(spectrum):
    law = spectrum.law
    assert isinstance(law, stats.rv_continuous)
    low, high = law.interval(0.9)
    assert law.cdf(high) - law.cdf(low) == pytest.approx(0.9, abs=1e-9)
    draws = law.rvs(size=3000, random_state=5)
    assert np.array_equal(draws, law.rvs(size=3000, random_state=5))
    assert draws.mean() == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(3000))
    assert stats.kstest(draws, law.cdf).pvalue > 1e-3
    assert law.sf(law.median()) == pytest.approx(0.5, abs=1e-9)


def test_density_keeps_the_shape_and_is_zero_outside(spectrum):
    x = np.array([[spectrum.log_upper_edge + 1, 0.0], [-np.inf, np.inf]])
    density = spectrum.density(x)
    assert density.shape == x.shape
    assert density[0, 0] == density[1, 0] == density[1, 1] == 0
    assert spectrum.density(0.0).shape == ()


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "rrelu"])
def test_every_activation_has_a_spectrum(name):
    spectrum = initdiag.predict_spectrum(
        [20, 30, 20], activation=name, init="xavier_normal", dropout=0.1
    )
    assert spectrum.mean > 0
    assert spectrum.log_moments(1)[0] == pytest.approx(spectrum.log_mean_eigenvalue, abs=1e-9)
    assert spectrum.factors[0].discrete == (name in ("linear", "relu", "leaky_relu"))


def test_random_slopes_of_unknown_range_are_refused():
    with pytest.raises(
        UnsupportedArchitecture, match="the spectrum needs the derivative of 'rrelu'"
    ):
        initdiag.predict_spectrum([20, 30, 20], activation="rrelu")


def test_smooth_activations_have_no_exact_moments_at_finite_width():
    spectrum = initdiag.predict_spectrum([20, 30, 20], activation="gelu")
    assert spectrum.second_moment_ratio is None
    assert spectrum.caveat is None
    with pytest.raises(
        UnsupportedArchitecture, match=r"layers 0 have a smooth derivative\. Use moments\(2\)"
    ):
        spectrum.finite_width_moments()


def layer(**changes):
    defaults = {
        "name": "fc",
        "fan_in": 8,
        "fan_out": 8,
        "weight": WeightLaw.from_initializer("he_normal", 8, 8),
    }
    relu = Architecture.from_widths([8, 8], output="relu").layers[0].activation
    return Layer(**(defaults | {"activation": relu} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": BiasLaw(1.0, symmetric=False)}, "fc: its bias is not symmetric"),
        ({"weight": WeightLaw("other", 0.0, 3.0)}, "fc: all its weights are zero"),
    ],
)
def test_refuses_what_the_theory_does_not_cover(changes, message):
    with pytest.raises(UnsupportedArchitecture, match=message):
        initdiag.predict_spectrum(Architecture((layer(**changes),), 8, 8))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_an_impossible_input(value):
    with pytest.raises(InvalidInput, match="input_second_moment: a finite number > 0"):
        initdiag.predict_spectrum([8, 8], activation="tanh", input_second_moment=value)


def test_predicting_loads_neither_torch_nor_scipy_stats():
    code = "import sys, initdiag; initdiag.predict_spectrum([8, 8]); print([m in sys.modules for m in ('torch', 'scipy.stats')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[False, False]"


def test_an_atom_counts_at_its_place_on_either_side():
    law = initdiag.predict_spectrum([16] * 4, init="orthogonal", activation="linear").law
    (atom,) = law.spectrum.atoms
    x = atom.log_eigenvalue
    for at, below in ((x - 1e-9, 0.0), (x, 1.0), (x + 1e-9, 1.0)):
        assert (law.cdf(at), law.sf(at)) == (below, 1 - below)
