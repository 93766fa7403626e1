"""The conditions for training, against singular values of explicit matrices; what is promised of a change, against the changed matrices."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy.stats import ortho_group

import initdiag
from initdiag import Architecture
from initdiag.spectrum import improvements
from initdiag.spectrum.conditions import Conditions, conditions_of
from initdiag.spectrum.predict import predict_spectrum

DRAWS = 12


def matrix(layer, rng):
    shape = layer.fan_out, layer.fan_in
    if layer.weight.family != "haar":
        return math.sqrt(layer.weight.variance) * rng.standard_normal(shape)
    larger = max(shape)
    return (
        math.sqrt(layer.weight.variance * larger)
        * ortho_group.rvs(larger, random_state=rng)[: shape[0], : shape[1]]
    )


def jacobian(arch, rng):
    """An explicit product: an input is run forward for the gates of tanh; of ReLU exactly half are open, drawn by coins."""
    x, product = rng.standard_normal(arch.input_size), np.eye(arch.input_size)
    for layer in arch.layers:
        w = matrix(layer, rng)
        h = w @ x
        is_open = rng.permutation(len(h)) < len(h) // 2
        x, slope = {
            "relu": lambda h, is_open: (h * is_open, 1.0 * is_open),
            "linear": lambda h, _: (h, np.ones_like(h)),
            "tanh": lambda h, _: (np.tanh(h), 1 - np.tanh(h) ** 2),
            "hardtanh": lambda h, _: (np.clip(h, -1, 1), 1.0 * (np.abs(h) < 1)),
        }[layer.activation.name](h, is_open)
        product = slope[:, None] * (w @ product)
    return product


def numbers(sigma, output_size):
    """The same numbers, from their definitions, of one network's singular values."""
    positive = np.sort(sigma[sigma > 1e-9 * sigma.max()])
    return [
        math.log(np.sum(sigma**2) / output_size),
        max(np.mean((positive >= s) & (positive <= 10 * s)) for s in positive),
        len(positive) / len(sigma),
        len(sigma) * np.sum(sigma**4) / np.sum(sigma**2) ** 2 - 1,
        *np.log(np.quantile(positive, [0.05, 0.5, 0.95])),
    ]


def measured(arch, seed=0):
    """Mean and standard error over networks."""
    rng = np.random.default_rng(seed)
    found = [
        numbers(np.linalg.svd(jacobian(arch, rng), compute_uv=False), arch.output_size)
        for _ in range(DRAWS)
    ]
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(DRAWS)


CHAINS = {
    "He": ([300, 300, 300, 300], {"init": "he_normal"}),
    "He, mixed widths": ([200, 400, 300, 100], {"init": "he_normal", "output": "relu"}),
    "orthogonal": ([300, 300, 300, 300], {"init": "orthogonal"}),
    "bottleneck": ([200, 300, 60, 300, 250], {"init": "he_normal"}),
    "tanh": ([300, 300, 300], {"init": "xavier_normal", "activation": "tanh"}),
    "hard tanh, orthogonal": (
        [300, 300, 300, 300],
        {"init": "orthogonal", "activation": "hardtanh", "gain": 0.7},
    ),
}


def assert_alike(predicted: Conditions, found):
    """Within 4 standard errors and what is left of finite width: 2 % of each number, or 0.02."""
    mean, se = found
    values = [
        predicted.log_mean_square,
        predicted.share_within_decade,
        predicted.rank_share,
        predicted.isometry_distance,
        *predicted.log_quantiles,
    ]
    assert np.all(np.abs(values - mean) < 4 * se + 0.02 * np.maximum(np.abs(mean), 1)), (
        values,
        mean,
        se,
    )
    assert predicted.effective_directions == predicted.directions / (
        1 + predicted.isometry_distance
    )


@pytest.mark.parametrize(("widths", "assumptions"), CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.slow
def test_conditions_are_those_of_explicit_jacobians(widths, assumptions):
    arch = Architecture.from_widths(widths, **assumptions)
    assert_alike(conditions_of(predict_spectrum(arch)), measured(arch))


def test_a_wrong_gate_is_seen():
    arch = Architecture.from_widths(*CHAINS["He"][:1], init="he_normal")
    pretended = conditions_of(predict_spectrum(arch.replace(activation="linear")))
    with pytest.raises(AssertionError):
        assert_alike(pretended, measured(arch))


def test_resolved_share_is_the_share_above_single_precision():
    """64 square layers of 40: most singular values are lost; counted among draws of the predicted law."""
    law = predict_spectrum([40] * 65, init="he_normal", output="relu")
    log_sigma = law.law.rvs(size=20000, random_state=1) / 2
    share = np.mean(log_sigma > law.log_upper_edge / 2 + math.log(np.finfo(np.float32).eps)) / 2
    assert conditions_of(law).resolved_share == pytest.approx(
        share, abs=4 * 0.5 * math.sqrt(share / 20000)
    )
    assert 0.1 < share < 0.4


def test_an_isometry_is_one():
    found = conditions_of(
        predict_spectrum([50] * 9, init="orthogonal", activation="linear", gain=1 / math.sqrt(2))
    )
    assert found.isometry_distance == pytest.approx(0, abs=1e-9)
    assert (found.share_within_decade, found.rank_share, found.resolved_share) == (1, 1, 1)
    assert found.log_mean_square == pytest.approx(0, abs=1e-12)
    assert found.log_quantiles == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("depth", [1, 4, 40])
def test_isometry_distance_in_closed_form(depth):
    """Square layers, gates open with p: L/p of iid weights, L(1-p)/p of Haar ones, over the rank's share."""
    for init, distance in (("he_normal", 2 * depth), ("orthogonal", depth)):
        found = conditions_of(predict_spectrum([64] * (depth + 1), init=init, output="relu"))
        assert found.isometry_distance == pytest.approx(distance)


@pytest.mark.parametrize("name", ["He", "bottleneck", "tanh"])
@pytest.mark.slow
def test_what_is_promised_of_orthogonal_weights_comes_true(name):
    widths, assumptions = CHAINS[name]
    arch = Architecture.from_widths(widths, **assumptions)
    first = improvements.improvements(arch, conditions_of(predict_spectrum(arch)))[0]
    assert "orthogonal" in first.action
    haar = Architecture.from_widths(
        widths, activation=arch.layers[0].activation.name, init="orthogonal"
    )
    layers = (
        dataclasses.replace(
            new, weight=dataclasses.replace(new.weight, variance=old.weight.variance)
        )
        for new, old in zip(haar.layers, arch.layers, strict=True)
    )
    found = measured(dataclasses.replace(haar, layers=tuple(layers)))
    assert_alike(first.after, found)
    assert found[0][3] < 0.9 * measured(arch)[0][3]


def test_what_is_promised_of_a_wider_bottleneck_comes_true():
    arch = Architecture.from_widths([200, 300, 60, 300, 250], init="he_normal")
    _, wider = improvements.improvements(arch, conditions_of(predict_spectrum(arch)))
    assert wider.action == "widen layer 1 from 60 to 120"
    assert_alike(
        wider.after, measured(Architecture.from_widths([200, 300, 120, 300, 250], init="he_normal"))
    )


@pytest.mark.parametrize("init", ["he_normal", "he_uniform"])
def test_exact_moments_are_those_of_true_networks(init):
    """One input run forward through 20,000 narrow ReLU networks: the gates are the input's own, not coins."""
    draws, arch = 20_000, Architecture.from_widths([5, 7, 4, 6], init=init)
    rng = np.random.default_rng(11)
    x = np.broadcast_to(rng.standard_normal(5), (draws, 5))
    product = np.broadcast_to(np.eye(5), (draws, 5, 5))
    for layer in arch.layers:
        shape, scale = (draws, layer.fan_out, layer.fan_in), math.sqrt(layer.weight.variance)
        uniform = init == "he_uniform"
        w = scale * (
            rng.uniform(-math.sqrt(3), math.sqrt(3), shape)
            if uniform
            else rng.standard_normal(shape)
        )
        h = np.einsum("bij,bj->bi", w, x)
        slope = np.ones_like(h) if layer.activation.name == "linear" else 1.0 * (h > 0)
        x, product = slope * h, slope[:, :, None] * (w @ product)
    gram = np.swapaxes(product, 1, 2) @ product
    samples = np.stack([np.einsum("bii->b", gram), np.einsum("bij,bij->b", gram, gram)]) / 5
    error = samples.std(axis=1) / math.sqrt(draws)
    law = predict_spectrum(arch)
    assert np.all(np.abs(samples.mean(axis=1) - law.finite_width_moments()) < 4 * error)
    assert abs(samples.mean(axis=1)[1] - law.moments(2)[1]) > 4 * error[1]


def test_widening_keeps_initialisers_and_gains():
    for init in ("he_normal", "xavier_uniform", "orthogonal", "torch_default"):
        arch = Architecture.from_widths([20, 30, 10, 10, 40], init=init, gain=1.3)
        assert improvements.bottlenecks(arch) == (1, 2)
        expected = Architecture.from_widths([20, 30, 20, 20, 40], init=init, gain=1.3)
        got = improvements.widened(arch, (1, 2))
        assert got.widths == expected.widths
        assert [layer.weight for layer in got.layers] == [layer.weight for layer in expected.layers]


def test_widening_unrecognised_weights_keeps_the_gain():
    arch = Architecture.from_widths([20, 10, 40], init="he_normal")
    layers = tuple(
        dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, initializer=None))
        for layer in arch.layers
    )
    got = improvements.widened(dataclasses.replace(arch, layers=layers), (0,))
    assert [layer.gain for layer in got.layers] == pytest.approx(
        [layer.gain for layer in arch.layers]
    )


@pytest.mark.parametrize(
    ("widths", "assumptions"),
    [
        ([64] * 20, {}),
        ([64, 100, 30, 64], {"init": "orthogonal", "gain": 3.0}),
        ([64] * 5, {"activation": "tanh", "init": "xavier_normal", "gain": 0.5}),
        ([64] * 12, {"activation": "hardtanh", "init": "orthogonal"}),
    ],
)
@pytest.mark.slow
def test_the_advised_factor_mends_the_scale(widths, assumptions):
    arch = Architecture.from_widths(widths, **assumptions)
    assert improvements.log_mean_square(arch) == pytest.approx(
        conditions_of(predict_spectrum(arch)).log_mean_square
    )
    factor, promised = improvements.rescaled(arch)
    after = conditions_of(predict_spectrum(arch.replace(gain=factor))).log_mean_square
    assert after == pytest.approx(promised, abs=1e-9)
    assert abs(after) < 0.7


def test_an_input_scale_of_the_architecture_is_used():
    wide, given = (
        predict_spectrum([64] * 4, activation="tanh", input_rms=3.0),
        predict_spectrum([64] * 4, activation="tanh", input_second_moment=9.0),
    )
    assert wide == given != predict_spectrum([64] * 4, activation="tanh")


def test_records_survive_json():
    arch = Architecture.from_widths([30, 20, 30], init="he_normal")
    found = conditions_of(initdiag.predict_spectrum(arch))
    assert Conditions.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
    for change in improvements.improvements(arch, found):
        assert (
            improvements.Improvement.from_dict(json.loads(json.dumps(change.to_dict()))) == change
        )
