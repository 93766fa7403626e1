"""The records say what is wrong with what they are given."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest

from initdiag import Architecture, InvalidInput, Prediction, predict
from initdiag.network.architecture import Activation, Gap, Gate, InputMap, Layer, WeightLaw
from initdiag.network.weights import INITIALIZERS, Initializer


def test_from_widths_builds_the_stated_chain():
    arch = Architecture.from_widths(
        [784, 256, 128, 10], init="kaiming_normal", dropout=[0.1, 0.2], gain=2.0
    )
    assert arch.widths == (784, 256, 128, 10)
    assert [layer.weight.variance for layer in arch.layers] == pytest.approx(
        [8 / 784, 8 / 256, 8 / 128]
    )
    assert [layer.activation.label for layer in arch.layers] == [
        "ReLU, dropout 0.1",
        "ReLU, dropout 0.2",
        "linear",
    ]
    assert arch.layers[0].weight.initializer == "he_normal"


@pytest.mark.parametrize(
    ("init", "variance", "kurtosis"),
    [
        ("torch_default", 1 / 30, 1.8),
        ("he_normal", 2 / 10, 3),
        ("he_uniform", 2 / 10, 1.8),
        ("xavier_normal", 2 / 30, 3),
        ("glorot_uniform", 2 / 30, 1.8),
        ("lecun_normal", 1 / 10, 3),
        ("he_normal_fan_out", 2 / 20, 3),
        ("orthogonal", 2 / 20, 3 * 20 / 22),
    ],
)
def test_initialisers_have_their_textbook_moments(init, variance, kurtosis):
    law = WeightLaw.from_initializer(init, fan_in=10, fan_out=20)
    assert law.variance == pytest.approx(variance, rel=1e-15)
    assert law.kurtosis == pytest.approx(kurtosis, rel=1e-15)


def test_replace_keeps_what_is_not_named():
    arch = Architecture.from_widths([8, 16, 4], init="he_normal", dropout=0.1)
    other = arch.replace(init="orthogonal")
    assert other.widths == arch.widths
    assert [layer.activation for layer in other.layers] == [
        layer.activation for layer in arch.layers
    ]
    assert other.layers[0].weight.family == "haar"
    doubled = arch.replace(gain=2.0)
    assert doubled.layers[0].weight.variance == pytest.approx(4 * arch.layers[0].weight.variance)
    assert (
        arch.replace(activation="leaky_relu", negative_slope=0.3).layers[0].activation.dropout
        == 0.1
    )
    assert arch.replace() == arch


def test_gates():
    assert Activation("relu").gate == Gate((0.0, 1.0), (0.5, 0.5))
    assert Activation("linear").gate == Gate((1.0,), (1.0,))
    assert Activation("tanh").gate is None
    gate = Activation("leaky_relu", negative_slope=0.1, dropout=0.2).gate
    assert gate.second_moment == pytest.approx(0.5 * (1 + 0.01) / 0.8)
    assert gate.closed_probability == pytest.approx(0.2)
    assert Activation("relu", dropout=0.2).gate.kurtosis == pytest.approx(1 / 0.4)


def test_layer_gain_is_one_for_he():
    layer = Architecture.from_widths([30, 40, 5], init="he_normal").layers[0]
    assert layer.gain == pytest.approx(1.0)
    assert math.isnan(Layer("x", 3, 4, layer.weight, Activation("tanh")).gain)


BAD_WIDTHS = {
    "empty": [], "one": [3], "zero": [3, 0, 2], "negative": [3, -1], "float": [3, 2.5], "text": "784,10", "bool": [True, 3],
    "none": None, "nested": [[3, 4]],
}  # fmt: skip


@pytest.mark.parametrize("widths", BAD_WIDTHS.values(), ids=BAD_WIDTHS.keys())
def test_bad_widths(widths):
    with pytest.raises(InvalidInput, match=r"expected .*width.*, got "):
        Architecture.from_widths(widths)


BAD_ASSUMPTIONS = {
    "unknown init": ({"init": "xaviour"}, "init: one of"),
    "unknown activation": ({"activation": "rleu"}, "activation: one of"),
    "gain zero": ({"gain": 0.0}, "gain: a finite number > 0"),
    "gain nan": ({"gain": math.nan}, "gain"),
    "dropout one": ({"dropout": 1.0}, "dropout: a finite number >= 0 and < 1"),
    "inits too few": ({"init": ["he_normal"]}, "init: one value, or 2"),
    "slope infinite": ({"activation": "leaky_relu", "negative_slope": math.inf}, "negative_slope"),
}


@pytest.mark.parametrize(
    ("assumptions", "message"), BAD_ASSUMPTIONS.values(), ids=BAD_ASSUMPTIONS.keys()
)
def test_bad_assumptions(assumptions, message):
    with pytest.raises(InvalidInput, match=message):
        Architecture.from_widths([4, 8, 2], **assumptions)


def test_a_broken_chain_must_name_its_gap():
    layers = Architecture.from_widths([4, 8, 2]).layers
    with pytest.raises(InvalidInput, match="every fan_in equal to the fan_out before it"):
        Architecture(layers[1:] + layers[:1], 8, 8)
    assert Architecture(layers[1:], 4, 2, gaps=(Gap("block", "add", "a sum"),)).gaps


@pytest.mark.parametrize(
    ("values", "probabilities"),
    [((0.0,), (1.0,)), ((1.0, 0.0), (0.5, 0.4)), ((1.0,), (0.5, 0.5)), ((math.inf,), (1.0,))],
)
def test_bad_gates(values, probabilities):
    with pytest.raises(InvalidInput, match="gate"):
        Gate(values, probabilities)


def test_a_saved_gap_says_what_is_done_to_the_input():
    """A report of schema 1 keeps the map of the input among its gaps alone."""
    chain = Architecture.from_widths([8, 16, 4])
    gap = Gap("input", "preprocessing", "sin, cat: a fixed map of the input, as it was worded")
    other = Gap("1", "layer_norm", "a layer norm")
    behind = dataclasses.replace(chain, input_size=3, gaps=(gap,))
    assert behind.input_map == InputMap(("sin", "cat"))
    assert behind.input_map.gap.kind == gap.kind
    assert behind.first_layer == chain.layers[0]
    assert behind.chain == chain
    both = dataclasses.replace(behind, gaps=(gap, other))
    assert both.input_map == InputMap(("sin", "cat"))
    assert both.chain is None
    assert chain.input_map is dataclasses.replace(chain, gaps=(other,)).input_map is None


def test_every_initialiser_that_may_be_named_says_what_it_draws():
    assert set(get_args(Initializer)) == set(INITIALIZERS)


def test_a_saved_name_outside_its_closed_set_is_refused():
    saved = predict([8, 4]).to_dict()
    assert Prediction.from_dict(saved) == predict([8, 4])
    with pytest.raises(InvalidInput, match=r"coverage.*'exact', 'first-order'.*'approximate'"):
        Prediction.from_dict(saved | {"coverage": "approximate"})
