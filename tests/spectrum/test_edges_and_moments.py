"""Edges, moments and masses of chains with gates 0 or one value, against figures and formulas that stand outside the code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from initdiag.errors import InvalidInput, UnsupportedArchitecture
from initdiag.network.architecture import Architecture, Gap
from initdiag.spectrum.predict import predict_spectrum

HE_RELU = {"init": "he_normal", "output": "relu"}


def integral(spectrum, order):
    """``int lambda^order`` against the density of ln lambda, by Gauss-Legendre in an angle that meets square-root edges."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = np.pi / 4 * (nodes + 1)
    low = float(spectrum.law.ppf(1e-9)) if spectrum.lower_edge == 0 else spectrum.log_lower_edge
    x = low + (spectrum.log_upper_edge - low) * np.sin(angle) ** 2
    rate = (spectrum.log_upper_edge - low) * np.sin(2 * angle) * np.pi / 4
    return float(
        weights @ (spectrum.density(x) * np.exp(order * (x - spectrum.log_mean_eigenvalue)) * rate)
    )


@pytest.mark.parametrize(
    ("widths", "edge"),
    [
        ([400] * 3, 11.090),
        ([400] * 6, 27.273),
        ([300, 500, 200, 400], 20.617),
        ([17] * 21, 108.754),
    ],
)
def test_upper_edges_of_he_initialised_relu_chains(widths, edge):
    assert predict_spectrum(widths, **HE_RELU).upper_edge == pytest.approx(edge, abs=1e-3)


def test_upper_edge_of_the_rms_gain():
    assert predict_spectrum(
        [300, 500, 200, 400], **HE_RELU
    ).upper_edge * 300 / 400 == pytest.approx(15.463, abs=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 100])
def test_all_open_square_chain_has_fuss_catalan_moments_and_edge(depth):
    spectrum = predict_spectrum([50] * (depth + 1), activation="linear", init="lecun_normal")
    exact = [math.comb((depth + 1) * k, k) // (depth * k + 1) for k in range(1, 9)]
    np.testing.assert_allclose(spectrum.moments(8), exact, rtol=1e-12)
    assert spectrum.upper_edge == pytest.approx(
        (depth + 1) ** (depth + 1) / depth**depth, rel=1e-12
    )
    assert spectrum.lower_edge == 0.0
    assert spectrum.zero_mass == 0.0


@pytest.mark.parametrize(
    ("widths", "assumptions"),
    [
        ([100, 100], HE_RELU),
        ([100] * 11, HE_RELU),
        ([100] * 101, HE_RELU),
        ([100] * 201, HE_RELU),
        ([300, 500, 200, 400], HE_RELU),
        ([60, 40, 90, 90, 50, 70], HE_RELU),
        ([64] * 7, {"activation": "linear"}),
        ([784, 256, 256, 10], {"init": "he_uniform"}),
        ([100] * 5, {"init": "orthogonal", "output": "relu"}),
        ([50, 80, 70, 40, 90], {"init": "orthogonal", "output": "relu"}),
        (
            [50, 80, 70, 40, 90],
            {"init": ["orthogonal", "he_normal", "orthogonal", "xavier_normal"]},
        ),
        ([100] * 4, {"init": "he_normal", "dropout": 0.1}),
    ],
)
def test_density_holds_the_mass_and_two_moments(widths, assumptions):
    spectrum = predict_spectrum(widths, **assumptions)
    log_moments = spectrum.log_moments(2) - np.array([1, 2]) * spectrum.log_mean_eigenvalue
    assert integral(spectrum, 0) == pytest.approx(1 - spectrum.zero_mass, abs=1e-5)
    assert integral(spectrum, 1) == pytest.approx(1.0, abs=1e-5)
    assert integral(spectrum, 2) == pytest.approx(math.exp(log_moments[1]), rel=1e-5)


@pytest.mark.parametrize("p_open", [0.5, 1.0])
@pytest.mark.parametrize("haar", [False, True])
def test_relative_variance_by_hand(haar, p_open):
    """Relative variance n_0 sum (1/K_l - [Haar] 1/N_l), from the moments."""
    widths = [60, 40, 90, 50]
    activation = "relu" if p_open == 0.5 else "linear"
    spectrum = predict_spectrum(
        widths, activation=activation, output=activation, init="orthogonal" if haar else "he_normal"
    )
    m1, m2 = spectrum.moments(2)
    by_hand = 60 * sum(
        1 / (p_open * n) - haar / max(n, before) for before, n in itertools.pairwise(widths)
    )
    assert m2 / m1**2 - 1 == pytest.approx(by_hand, rel=1e-12, abs=1e-12)


def test_a_gain_moves_the_spectrum_and_nothing_else():
    plain = predict_spectrum([80, 60, 70], **HE_RELU)
    scaled = predict_spectrum([80, 60, 70], gain=3.0, **HE_RELU)
    assert scaled.upper_edge == pytest.approx(81 * plain.upper_edge)
    x = np.linspace(-3, 2, 9)
    np.testing.assert_allclose(scaled.density(x + 4 * math.log(3)), plain.density(x), rtol=1e-9)


def test_depth_ten_thousand_neither_overflows_nor_underflows():
    spectrum = predict_spectrum([64] * 10001, **HE_RELU)
    assert spectrum.moments(2) == pytest.approx([1.0, 20001.0])
    assert spectrum.upper_edge == pytest.approx(2 * math.e * 10000, rel=1e-3)
    quantiles = spectrum.law.ppf([1e-6, 1e-3, 0.01, 0.5, 0.99])
    np.testing.assert_allclose(
        spectrum.law.cdf(quantiles), [1e-6, 1e-3, 0.01, 0.5, 0.99], atol=1e-11
    )
    vanished = predict_spectrum([64] * 10001)
    assert vanished.mean == 0.0
    assert vanished.log_mean_eigenvalue == pytest.approx(9999 * math.log(1 / 6) + math.log(1 / 3))


def test_refuses_what_is_no_plain_chain():
    arch = Architecture.from_widths([8, 8])
    broken = Architecture(arch.layers, 8, 8, gaps=(Gap("blocks.0", "sum", "residual sum"),))
    with pytest.raises(
        UnsupportedArchitecture, match=r"blocks\.0: residual sum.*Measure it instead"
    ):
        predict_spectrum(broken)


def test_refuses_assumptions_beside_an_architecture():
    with pytest.raises(InvalidInput, match="assumptions with widths only"):
        predict_spectrum(Architecture.from_widths([8, 8]), init="he_normal")


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_refuses_a_number_of_moments_that_is_none(k):
    with pytest.raises(InvalidInput, match="positive integer"):
        predict_spectrum([8, 8]).moments(k)
