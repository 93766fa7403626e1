"""Activations, their derivatives and the mean-field variances, each against a naive definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from initdiag.network.architecture import Architecture
from initdiag.spectrum.mean_field import SMOOTH, gaussian_quadrature, layer_variance, squared_gates

AT_MINUS_ONE_AND_ONE = {
    "tanh": (-0.7615941559557649, 0.7615941559557649),
    "sigmoid": (0.2689414213699951, 0.7310585786300049),
    "gelu": (-0.15865525393145707, 0.8413447460685429),
    "silu": (-0.2689414213699951, 0.7310585786300049),
    "elu": (-0.6321205588285577, 1.0),
    "selu": (-1.1113307378125625, 1.0507009873554805),
    "softplus": (0.31326168751822286, 1.3132616875182228),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_activation_and_its_derivative(name):
    phi, slope = SMOOTH[name]
    np.testing.assert_allclose(phi(np.array([-1.0, 1.0])), AT_MINUS_ONE_AND_ONE[name], rtol=1e-9)
    h = np.array([-3.1, -1.0, -0.2, 0.3, 1.7, 4.0])
    np.testing.assert_allclose(
        slope(h), (phi(h + 1e-6) - phi(h - 1e-6)) / 2e-6, rtol=1e-6, atol=1e-9
    )


def test_quadrature_has_the_moments_of_the_normal_law():
    nodes, weights = gaussian_quadrature(200)
    assert [weights @ nodes**k for k in (0, 1, 2, 4)] == pytest.approx([1, 0, 1, 3], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "phi"),
    [
        ("hardtanh", lambda h: np.clip(h, -1, 1)),
        ("relu6", lambda h: np.clip(h, 0, 6)),
        ("gelu", SMOOTH["gelu"][0]),
    ],
)
def test_gates_of_the_second_layer_by_a_million_pre_activations(name, phi):
    """Bias included; the second layer's pre-activation variance comes from the first layer's outputs."""
    arch = Architecture.from_widths([10, 20, 30], activation=name, output="hardtanh", gain=4.0)
    rng = np.random.default_rng(0)
    q1 = 16 / 3 * 1.7 + 1 / 30  # v n_0 E x^2 + bias variance
    assert layer_variance(arch.layers[0], 1.7) == pytest.approx(q1)
    output = phi(math.sqrt(q1) * rng.standard_normal(1_000_000))
    q2 = 16 / 3 * np.mean(output**2) + 1 / 60
    is_open = np.abs(math.sqrt(q2) * rng.standard_normal(1_000_000)) < 1
    (_, (squares, probabilities, discrete)) = squared_gates(arch, 1.7)
    assert squares == (0.0, 1.0)
    assert probabilities[1] == pytest.approx(is_open.mean(), abs=4e-3)
    assert not discrete
