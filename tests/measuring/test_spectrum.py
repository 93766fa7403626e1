"""Measured singular values against the definition: signs put into real weights by hand, `torch.func.jacrev`, numpy's SVD."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from styles import mlp, seeded

from initdiag import SpectralMeasurement, measure_spectrum
from initdiag.measuring import random_numbers


def singular_values(model, x):
    jacobian = torch.func.jacrev(model)(x).reshape(-1, x.numel())
    return np.linalg.svd(jacobian.detach().double().numpy(), compute_uv=False)


def with_signs(widths, model, seed, draw):
    """The network of one draw: ``R W S`` and ``R b`` written into a plain copy."""
    flipped = mlp(widths).double()
    for stream, index in enumerate(range(0, 2 * len(widths) - 2, 2)):
        w, b = model[index].weight, model[index].bias
        signs = torch.from_numpy(random_numbers.signs(seed, range(draw + 1), stream, sum(w.shape))[draw]).double()
        s, r = signs[: w.shape[1]], signs[w.shape[1] :]
        with torch.no_grad():
            flipped[index].weight.copy_(r[:, None] * w * s)
            flipped[index].bias.copy_(r * b)
    return flipped


@pytest.mark.parametrize("widths", [[6, 9, 7, 8], [9, 12, 5], [7, 7]], ids=["forward", "reverse", "square"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_against_the_definition(widths, dtype):
    model = seeded(lambda: mlp(widths)).to(dtype)
    x = torch.randn(3, widths[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    found = measure_spectrum(model, x, draws=5, seed=42)
    assert found.is_dense
    for draw in range(5):
        flipped = with_signs(widths, model, 42, draw)
        expected = singular_values(flipped, x[draw % 3].double()) ** 2
        np.testing.assert_allclose(found.squared_singular_values[draw], expected, rtol=1e-9, atol=1e-12)


def test_the_record_survives_json():
    found = measure_spectrum(seeded(lambda: mlp([6, 9, 5], init="he_normal")), draws=3)
    assert SpectralMeasurement.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
