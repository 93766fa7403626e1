"""Each claim has a test that a wrong implementation fails: here the implementation is made wrong, and the test must fail."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.styles import mlp, seeded

from initdiag import Architecture, measure, predict, trace
from initdiag.diagnosing.agreement import agreement
from initdiag.law import predict as predict_module
from initdiag.law.kurtosis import corrections
from initdiag.measuring import survey
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.ensembles.signs import SignFlips

MODEL = seeded(lambda: mlp([16] * 10))
ARCH = trace(MODEL)


def p_value(arch=ARCH, model=MODEL, draws=8192):
    return agreement(arch, measure(model, draws=draws, architecture=ARCH), level=0.01).p_value


def with_layer(arch, index, **changes):
    layers = list(arch.layers)
    layers[index] = dataclasses.replace(layers[index], **changes)
    return dataclasses.replace(arch, layers=tuple(layers))


def test_the_honest_implementation_agrees():
    assert p_value() > 0.01


def test_a_wrong_gain_is_seen():
    weight = ARCH.layers[4].weight
    wrong = dataclasses.replace(
        weight, variance=2 * weight.variance, sample_variance=2 * weight.sample_variance
    )
    assert p_value(with_layer(ARCH, 4, weight=wrong)) < 1e-6


def test_a_wrong_gate_is_seen():
    assert p_value(with_layer(ARCH, 4, activation=ARCH.layers[-1].activation)) < 1e-6


def test_an_unflipped_bias_is_seen(monkeypatch):
    monkeypatch.setattr(SignFlips, "flips_bias", lambda self, name: False)
    assert p_value(draws=16384) < 1e-3


@pytest.fixture
def shared_signs(monkeypatch):
    """Every row gets the same signs, and so is one network, not an ensemble."""
    honest = random_numbers.bits
    monkeypatch.setattr(
        random_numbers, "bits", lambda *a: np.repeat(honest(*a)[:1], len(a[1]), axis=0)
    )


def test_shared_signs_are_seen(shared_signs, monkeypatch):
    """The agreement sees them where the measurement does not look at its own draws."""
    monkeypatch.setattr(survey, "signs_are_the_modules", lambda task: True)
    assert p_value(draws=2048) < 1e-6


def test_shared_signs_are_seen_by_the_measurement_itself(shared_signs, monkeypatch):
    """Its draws one by one are not those of the batch, so that it takes them one by one."""
    seen = []
    honest = survey.signs_are_the_modules
    monkeypatch.setattr(
        survey, "signs_are_the_modules", lambda task: seen.append(honest(task)) or seen[-1]
    )
    measure(MODEL, draws=16, architecture=ARCH, gradients=False)
    assert seen == [False]


def test_a_wrong_kurtosis_sign_is_seen(monkeypatch):
    """Against a tabulated simulation: PyTorch's default at 16 x 10 has log-variance 3.07 (explicit products, 200,000 draws)."""
    widths = [16] * 10
    right = predict(widths).log_variance
    assert abs(right - 3.07) < 0.12
    honest = corrections.corrections

    def turned(*arguments):
        return [dataclasses.replace(c, log_variance=-c.log_variance) for c in honest(*arguments)]

    monkeypatch.setattr(predict_module.corrections, "corrections", turned)
    assert abs(predict(widths).log_variance - 3.07) > 0.5


@pytest.mark.parametrize("widths", [[16] * 10, [24, 12, 24, 12]])
def test_a_missing_relu_is_seen(widths):
    model = seeded(lambda: mlp(widths, init="he_normal"))
    pretended = Architecture.from_widths(widths, init="he_normal", activation="linear")
    assert agreement(pretended, measure(model, draws=4096), level=0.01).p_value < 1e-6
