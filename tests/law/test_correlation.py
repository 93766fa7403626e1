"""The angle between two inputs against explicit networks, the infinite-width recursion, and its known failures."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import special

import initdiag
from initdiag import Architecture, InvalidInput, UnsupportedArchitecture
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.diagnosing.remarks import LEAST_LOG_SINE
from initdiag.law.correlation import _finite_width, _Loss, separation
from initdiag.law.simulate.angles import angles, log_sines
from initdiag.network.architecture import Gap


def explicit(widths, init, angle, draws, seed):
    """ln sin^2 of the angle after each layer, for explicit ReLU networks on two inputs."""
    rng = np.random.default_rng(seed)
    frame, _ = np.linalg.qr(rng.standard_normal((draws, widths[0], 2)))
    pair = math.sqrt(widths[0]) * frame @ np.array([[1.0, math.cos(angle)], [0.0, math.sin(angle)]])
    found = []
    for n, m in itertools.pairwise(widths):
        if init == "torch_default":
            w, b = (
                rng.uniform(-1, 1, (draws, m, n)) / math.sqrt(n),
                rng.uniform(-1, 1, (draws, m, 1)) / math.sqrt(n),
            )
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
        assert abs(layer.log_mean - alive.mean()) < tolerance + (
            0.02 if init == "torch_default" else 0
        )


def test_wide_relu_layers_follow_the_arccosine_recursion():
    layers = angles(
        Architecture.from_widths([2000] * 4, init="he_normal", output="relu"), 1.2, draws=64
    )
    angle = 1.2
    for layer in layers:
        cosine = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
        angle = math.acos(cosine)
        assert layer.log_mean == pytest.approx(math.log1p(-(cosine**2)), abs=0.02)


def test_small_angles_keep_their_accuracy():
    """At angle 1e-9 a ReLU layer takes (2/(3 pi)) angle and about 2/n off ln sin^2: nothing like rounding's noise."""
    (layer,) = angles(
        Architecture.from_widths([50, 100], init="he_normal", output="relu"), 1e-9, draws=6400
    )
    assert layer.log_mean - 2 * math.log(1e-9) == pytest.approx(
        -2 / 100, abs=4 * layer.log_mean_se + 0.01
    )


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


def random_chains(count, seed, least):
    """Chains of 1 to 40 layers of ``least`` units or more, half of them of hardly more, of every discrete gate, some with biases."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        most = int(rng.choice([least + 4, least + 4, 30, 120]))
        widths = [*rng.integers(1, 40, 1), *rng.integers(least, most, int(41 ** rng.random())), 3]
        yield Architecture.from_widths(
            [int(n) for n in widths],
            activation=str(rng.choice(["relu", "relu", "leaky_relu", "linear"])),
            init=str(rng.choice(["he_normal", "torch_default", "orthogonal"])),
            gain=float(rng.choice([0.5, 1, 2])),
            negative_slope=float(rng.choice([0.01, 0.3, -0.5])),
            input_rms=float(rng.choice([0.1, 1, 10])),
        )


def beside_simulation(chain, draws=320):
    """The closed form's error in ln sin^2 and in P(parallel), and whether both say that the inputs collapse."""
    values = log_sines(chain, chain.layers[:-1], math.pi / 2, draws, 0)[-1]
    alive, apart = ~np.isnan(values), np.isfinite(values)
    found, parallel = separation(chain), 1 - apart.sum() / max(alive.sum(), 1)
    mean = values[apart].mean() if apart.sum() > 30 else math.nan
    both = [
        p > 0.5 or m < LEAST_LOG_SINE
        for p, m in ((found.parallel, found.log_sine), (parallel, mean))
    ]
    off = found.log_sine - mean if mean > -60 else math.nan  # below, the simulation's own rounding
    return off, found.parallel - parallel, both[0] == both[1]


@pytest.mark.parametrize(("least", "median", "most"), [(8, 0.2, 2.0), (4, 0.3, 5.0)])
def test_the_closed_form_beside_the_simulation(least, median, most):
    off, parallel, agrees = np.array(
        [beside_simulation(chain) for chain in random_chains(80, 0, least)]
    ).T
    off = np.abs(off[np.isfinite(off)])
    assert len(off) > 50
    assert np.median(off) < median
    assert np.quantile(off, 0.95) < most
    assert np.quantile(np.abs(parallel), 0.9) < 0.1
    assert agrees.mean() > 0.95


def test_it_would_show_if_finite_widths_were_left_out(monkeypatch):
    monkeypatch.setattr(
        "initdiag.law.correlation._finite_width", lambda n, *_: _Loss(n, 0.0, -math.inf)
    )
    off, *_ = np.array([beside_simulation(chain) for chain in random_chains(50, 0, 4)]).T
    assert np.nanquantile(np.abs(off), 0.95) > 6


@pytest.mark.parametrize("n", [2, 3, 5, 16, 100])
@pytest.mark.parametrize("angle", [1e-6, 1.0, 2.5])
@pytest.mark.slow
def test_a_linear_layer_is_exact_at_any_angle(n, angle):
    """1 - r^2 of a sample correlation: psi((n - 1)/2) - psi(n/2) off, whatever the angle."""
    chain = Architecture.from_widths([7, n, 2], activation="linear", init="lecun_normal")
    (first, _) = angles(chain, angle, draws=64_000)
    exact = special.digamma((n - 1) / 2) - special.digamma(n / 2)
    assert first.log_mean - 2 * math.log(math.sin(angle)) == pytest.approx(
        exact, abs=4 * first.log_mean_se
    )
    assert separation(chain).log_sine == pytest.approx(exact, abs=0.002)


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_a_relu_layer_is_exact_at_small_angles(n):
    chain = Architecture.from_widths([7, n, 2], init="he_normal")
    values = log_sines(chain, chain.layers[:1], 1e-6, 64_000, 0)[0]
    alive, apart = ~np.isnan(values), np.isfinite(values)
    loss = _finite_width(n, 0.0, False)
    change = values[apart] - 2 * math.log(1e-6)
    assert loss.log_sine == pytest.approx(
        change.mean(), abs=4 * change.std() / math.sqrt(len(change))
    )
    share = 1 - apart.sum() / alive.sum()
    assert math.exp(loss.log_parallel) == pytest.approx(
        share, abs=4 * math.sqrt(share / alive.sum()) + 1e-9
    )


def test_parallel_images_are_no_small_angle():
    """One open unit of two, most of the time: the images are multiples of one another, not 1e-16 radians apart."""
    narrow = Architecture.from_widths([9, 20, 2, 20, 2, 20, 3], init="he_normal")
    (finding,) = [f for f in diagnose_architecture(narrow).findings if f.code == "IND012"]
    assert "parallel in" in finding.message
    assert angles(narrow)[-2].log_mean > -15
    assert (
        separation(Architecture.from_widths([9, 1, 9, 3], init="he_normal")).log_sine == -math.inf
    )


def test_depth_neither_overflows_nor_underflows():
    deep = separation(Architecture.from_widths([64] * 3001 + [10]))
    assert -1e5 < deep.log_sine < -1000
    assert deep.parallel < 1e-9
    for gain in (0.2, 4.0):
        chain = Architecture.from_widths([8, *[64] * 1500, 2], init="he_normal", gain=gain)
        assert separation(chain) == separation(chain.replace(gain=1.0))


def test_smooth_activations_are_simulated():
    chain = Architecture.from_widths([8, 16, 16, 2], activation="tanh", init="xavier_normal")
    assert separation(chain).log_sine == angles(chain)[-2].log_mean
