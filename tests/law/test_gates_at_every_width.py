"""Leaky, dropout and Haar layers against explicit products ``D W u``, at widths 2 to 128."""

from __future__ import annotations

import math

import numpy as np
import pytest

from initdiag.law.layer import layer_log_moments
from initdiag.network.architecture import Activation, Layer, WeightLaw

GATES = {
    "leaky": Activation("leaky_relu", 0.2),
    "negative slope": Activation("leaky_relu", -0.5),
    "dropout": Activation("relu", dropout=0.3),
    "dropout of a linear layer": Activation("linear", dropout=0.4),
    "leaky and dropout": Activation("leaky_relu", 0.1, 0.25),
}
DRAWS = 20_000
STANDARD_ERRORS = 3.5
"""62 comparisons: 3 would be crossed by chance in one suite out of six."""


def gates_drawn(activation, shape, rng):
    """The definition: the slope on a random side, times inverted dropout."""
    negative = {"relu": 0.0, "linear": 1.0}.get(activation.name, activation.negative_slope)
    slopes = np.where(rng.random(shape) < 0.5, 1.0, negative)
    keep = 1 - activation.dropout
    return slopes * (rng.random(shape) < keep) / keep


def assert_agrees(squares, layer):
    logs = np.log(squares[squares > 0])
    moments = layer_log_moments(layer)
    centred = logs - logs.mean()
    variance_se = math.sqrt((np.mean(centred**4) - logs.var() ** 2) / len(logs))
    assert abs(logs.mean() - moments.mean) < STANDARD_ERRORS * logs.std() / math.sqrt(len(logs))
    assert abs(logs.var(ddof=1) - moments.variance) < STANDARD_ERRORS * variance_se


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("width", [2, 3, 8, 32, 128])
def test_gates(name, width):
    rng = np.random.default_rng([7, width, len(name)])
    fan_in = 5
    u = rng.standard_normal((DRAWS, fan_in))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    weights = rng.standard_normal((DRAWS, width, fan_in)) * math.sqrt(0.4)
    out = gates_drawn(GATES[name], (DRAWS, width), rng) * np.einsum("kij,kj->ki", weights, u)
    assert_agrees(
        (out**2).sum(1), Layer("0", fan_in, width, WeightLaw("normal", 0.4, 3.0), GATES[name])
    )


@pytest.mark.parametrize(
    ("fan_out", "fan_in"), [(2, 2), (2, 7), (9, 3), (16, 16), (64, 24), (128, 128)]
)
@pytest.mark.slow
def test_haar(fan_out, fan_in):
    """Rows or columns of orthogonal matrices drawn by QR; large ones serve for several directions each."""
    rng = np.random.default_rng([11, fan_out, fan_in])
    n = max(fan_out, fan_in)
    directions = 1 if n <= 16 else 50
    squares = []
    for _ in range(DRAWS // directions):
        q, r = np.linalg.qr(rng.standard_normal((n, n)))
        w = math.sqrt(2) * (q * np.sign(np.diag(r)))[:fan_out, :fan_in]
        u = rng.standard_normal((fan_in, directions))
        out = w @ (u / np.linalg.norm(u, axis=0))
        squares.append(((out * (rng.random(out.shape) < 0.5)) ** 2).sum(0))
    law = WeightLaw.from_initializer("orthogonal", fan_in, fan_out)
    assert_agrees(np.concatenate(squares), Layer("0", fan_in, fan_out, law, Activation("relu")))
