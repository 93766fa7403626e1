"""The angle between two inputs against explicit networks, the infinite-width recursion, and its known failures."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

import initdiag
from initdiag import Architecture, InvalidInput, UnsupportedArchitecture
from initdiag.architecture import Gap
from initdiag.diagnosis import diagnose_architecture
from initdiag.law.angle import angles, least_log_sine, separation
from initdiag.verdict import LEAST_LOG_SINE


def explicit(widths, init, angle, draws, seed):
    """ln sin^2 of the angle after each layer, for explicit ReLU networks on two inputs."""
    rng = np.random.default_rng(seed)
    frame, _ = np.linalg.qr(rng.standard_normal((draws, widths[0], 2)))
    pair = math.sqrt(widths[0]) * frame @ np.array([[1.0, math.cos(angle)], [0.0, math.sin(angle)]])
    found = []
    for n, m in itertools.pairwise(widths):
        if init == "torch_default":
            w, b = rng.uniform(-1, 1, (draws, m, n)) / math.sqrt(n), rng.uniform(-1, 1, (draws, m, 1)) / math.sqrt(n)
        else:
            w, b = rng.standard_normal((draws, m, n)) * math.sqrt(2 / n), np.zeros((draws, m, 1))
        pair = np.maximum(np.einsum("smn,snk->smk", w, pair) + b, 0)
        x, y = pair[..., 0], pair[..., 1]
        xx, yy, xy = (np.einsum("sm,sm->s", a, b) for a, b in ((x, x), (y, y), (x, y)))
        with np.errstate(all="ignore"):
            found.append(np.log(1 - xy**2 / (xx * yy)))
    return np.array(found)


@pytest.mark.parametrize("init", ["he_normal", "torch_default"])
@pytest.mark.parametrize("angle", [math.pi / 2, 0.3])
def test_against_explicit_networks(init, angle):
    widths = [24, 32, 40, 32, 32]
    found = angles(Architecture.from_widths(widths, init=init, output="relu"), angle, draws=6400)
    values = explicit(widths, init, angle, 3000, 1)
    for layer, row in zip(found, values, strict=True):
        alive = row[np.isfinite(row)]
        tolerance = 3.5 * math.hypot(layer.log_mean_se, alive.std() / math.sqrt(len(alive)))
        assert abs(layer.log_mean - alive.mean()) < tolerance + (0.02 if init == "torch_default" else 0)


def test_wide_relu_layers_follow_the_arccosine_recursion():
    layers = angles(Architecture.from_widths([2000] * 4, init="he_normal", output="relu"), 1.2, draws=64)
    angle = 1.2
    for layer in layers:
        cosine = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
        angle = math.acos(cosine)
        assert layer.log_mean == pytest.approx(math.log1p(-(cosine**2)), abs=0.02)


def test_small_angles_keep_their_accuracy():
    """At angle 1e-9 a ReLU layer takes (2/(3 pi)) angle and about 2/n off ln sin^2: nothing like rounding's noise."""
    (layer,) = angles(Architecture.from_widths([50, 100], init="he_normal", output="relu"), 1e-9, draws=6400)
    assert layer.log_mean - 2 * math.log(1e-9) == pytest.approx(-2 / 100, abs=4 * layer.log_mean_se + 0.01)


def test_default_biases_collapse_inputs_and_the_report_says_so():
    deep, wide = (
        Architecture.from_widths([64] * 31 + [10]),
        Architecture.from_widths([64, *[512] * 20, 10], init="orthogonal"),
    )
    assert angles(deep)[-2].log_mean < 2 * math.log(1e-8)
    collapsed = [f for f in diagnose_architecture(deep).findings if f.code == "IND012"]
    assert [f.layer for f in collapsed] == ["29"]
    assert "radians apart" in collapsed[0].message
    assert not [f for f in diagnose_architecture(wide).findings if f.code == "IND012"]


def test_bad_input():
    chain = Architecture.from_widths([4, 8, 2])
    for angle in (0, math.pi, -1.0, math.nan):
        with pytest.raises(InvalidInput, match="an angle in"):
            angles(chain, angle)
    with pytest.raises(UnsupportedArchitecture, match="a sum"):
        angles(dataclasses.replace(chain, gaps=(Gap("block", "add", "a sum"),)))
    assert initdiag.predict([4, 8, 2]).coverage == "first-order"


def random_chains(count, seed):
    """Chains of 1 to 14 layers, half of them with widths under 10, of every discrete gate, some with biases."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        most = int(rng.choice([4, 10, 30, 120]))
        widths = [*rng.integers(1, 40, 1), *rng.integers(1, most, rng.integers(1, 15)), 3]
        yield Architecture.from_widths(
            [int(n) for n in widths],
            activation=str(rng.choice(["relu", "relu", "leaky_relu", "linear"])),
            init=str(rng.choice(["he_normal", "torch_default", "orthogonal"])),
            gain=float(rng.choice([0.5, 1, 2])),
            negative_slope=float(rng.choice([0.01, 0.3, -0.5])),
            input_rms=float(rng.choice([0.1, 1, 10])),
        )


def test_the_bound_is_below_what_is_simulated_and_says_something():
    found = [(least_log_sine(chain), separation(chain), angles(chain)[-2]) for chain in random_chains(400, 0)]
    assert all(repr(short) == repr(full) for _, short, full in found)
    assert not [pair for pair in found if pair[1].log_mean < pair[0]]
    assert 0.2 < np.mean([bound > LEAST_LOG_SINE for bound, *_ in found]) < 0.9
    wide = Architecture.from_widths([64, *[256] * 30, 10], init="he_normal")
    assert least_log_sine(wide) > -7 > LEAST_LOG_SINE


def test_a_bound_that_allows_for_less_would_fail(monkeypatch):
    monkeypatch.setattr("initdiag.law.angle._DROP", 0.0)
    monkeypatch.setattr("initdiag.law.angle._CERTAIN", 0.0)
    monkeypatch.setattr("initdiag.law.angle._ROUNDING", 0.0)
    assert [chain for chain in random_chains(100, 0) if separation(chain).log_mean < least_log_sine(chain)]


def test_no_bound_where_there_is_no_recursion():
    for chain in (
        Architecture.from_widths([8, 8, 2], activation="tanh"),
        Architecture.from_widths([8, *[8] * 700, 2], init="he_normal", gain=4.0),
        Architecture.from_widths([8, *[8] * 700, 2], init="he_normal", gain=0.2),
    ):
        assert least_log_sine(chain) == -math.inf


def test_the_finding_is_there_or_not_as_if_all_were_simulated():
    for chain in random_chains(60, 1):
        codes = [f.code for f in diagnose_architecture(chain).findings]
        if initdiag.predict(chain).coverage != "none":
            assert ("IND012" in codes) == (angles(chain)[-2].log_mean < LEAST_LOG_SINE)
