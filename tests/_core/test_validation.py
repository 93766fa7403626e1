"""One rule each for seeds, probabilities, counts and choices, at every door."""

from __future__ import annotations

import numpy as np
import pytest
from support.styles import mlp

import initdiag
from initdiag import InvalidInput
from initdiag._core.choices import FAMILIES
from initdiag._core.validation import choice, did_you_mean, number_in, positive_integer
from initdiag.diagnosing.parallel import candidate_seed
from initdiag.errors import shown

SEEDED = {
    "predict": lambda seed: initdiag.predict([4, 4, 2], activation="tanh", draws=8, seed=seed),
    "parameter_gradients": lambda seed: initdiag.parameter_gradients([4, 4, 2], draws=8, seed=seed),
    "measure": lambda seed: initdiag.measure(mlp([4, 8, 2]), draws=4, seed=seed),
    "measure_spectrum": lambda seed: initdiag.measure_spectrum(mlp([4, 8, 2]), draws=2, seed=seed),
    "diagnose": lambda seed: initdiag.diagnose(mlp([4, 8, 2]), draws=4, seed=seed),
    "repair": lambda seed: initdiag.repair(mlp([4, 8, 2]), seed=seed),
    "check_many": lambda seed: list(initdiag.check_many([[4, 4]], seed=seed)),
    "candidate_seed": lambda seed: candidate_seed(seed, 3),
}


@pytest.mark.parametrize("call", SEEDED.values(), ids=SEEDED.keys())
def test_a_seed_is_an_integer_of_any_type(call):
    call(np.int64(3))


@pytest.mark.parametrize("call", SEEDED.values(), ids=SEEDED.keys())
@pytest.mark.parametrize("seed", [-1, True, 1.0, "1", 2**63, [1]], ids=repr)
def test_what_is_no_seed_is_refused_in_the_same_words(call, seed):
    with pytest.raises(InvalidInput, match=r"seed: a non-negative int below 2\*\*63, got "):
        call(seed)


LIMITED = {
    "Thresholds": lambda limit: initdiag.Thresholds(max_risk=limit),
    "screen": lambda limit: initdiag.screen([[4, 4]], max_risk=limit),
    "accepts": lambda limit: initdiag.accepts([4, 4], max_risk=limit),
    "widths_for": lambda limit: initdiag.widths_for(
        3, 1000, fan_in=4, fan_out=2, init="he_normal", max_risk=limit
    ),
}


@pytest.mark.parametrize("call", LIMITED.values(), ids=LIMITED.keys())
@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan"), "0.5", True, None, [0.5]], ids=repr)
def test_what_is_no_probability_is_refused_in_the_same_words(call, limit):
    with pytest.raises(InvalidInput, match=r"max_risk in \[0, 1\], got "):
        call(limit)


@pytest.mark.parametrize("call", LIMITED.values(), ids=LIMITED.keys())
@pytest.mark.parametrize("limit", [0, 1, 0.5, np.float32(0.5)], ids=repr)
def test_both_ends_are_probabilities(call, limit):
    call(limit)


def test_no_optimizer_is_plain_sgd_at_every_door():
    law = initdiag.predict([64] * 20, init="he_normal")
    plain = initdiag.failure_risk(law, "sgd")
    assert initdiag.failure_risk(law, None) == plain
    assert initdiag.screen([[64] * 20], init="he_normal", optimizer=None).risk[0] == pytest.approx(
        plain, rel=1e-9
    )
    assert initdiag.accepts([64] * 5, init="he_normal", optimizer=None)


def test_a_misspelt_name_is_answered_with_the_nearest():
    for given, meant in (("Adam", "adam"), ("adam-w", "adamw"), ("momentun", "momentum")):
        with pytest.raises(InvalidInput, match=f"Did you mean '{meant}'"):
            choice(given, "optimizer", FAMILIES)
    assert did_you_mean("kaiming", FAMILIES) == ""
    with pytest.raises(InvalidInput, match=r"Did you mean 'orthogonal'"):
        initdiag.predict([4, 4], init="orthogonl")
    with pytest.raises(InvalidInput, match=r"Did you mean 'leaky_relu'"):
        initdiag.predict([4, 4, 2], activation="Leaky-ReLU")


@pytest.mark.parametrize("width", [10**400, 10**6000, 2**53 + 1], ids=["400", "6000", "16"])
def test_a_width_of_any_number_of_digits_is_refused_in_words(width):
    with pytest.raises(InvalidInput, match="width 1: a positive integer of at most"):
        initdiag.predict([4, width, 2])
    assert positive_integer(2**53, "width") == 2**53


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")

    __index__ = __float__ = __repr__


def test_a_value_without_a_repr_is_refused_in_words():
    assert shown(Unprintable()) == "a Unprintable (its repr raises RuntimeError)"
    with pytest.raises(InvalidInput, match="a finite number"):
        number_in(Unprintable(), "gain", 0.0)
