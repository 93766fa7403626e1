"""Weights that are not Gaussian: against explicit products, enumeration, and the true redraws of the evidence."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.places import EVIDENCE

import initdiag
from initdiag import InvalidInput, UnsupportedArchitecture
from initdiag.law import layer as layer_law
from initdiag.law import predict as predict_module
from initdiag.law.kurtosis import corrections
from initdiag.law.kurtosis.entry_squares import pearson, sparse
from initdiag.law.kurtosis.layer_response import respond
from initdiag.law.prediction import Prediction
from initdiag.network.architecture import Activation, Architecture, Gate, Layer, WeightLaw

FOLDER = EVIDENCE / "entries"
RELU, LINEAR = Gate((0.0, 1.0), (0.5, 0.5)), Gate((1.0,), (1.0,))
RELU_LAYER = Activation("relu")
LEAKY_DROPOUT = Activation("leaky_relu", 0.3, 0.2)

KURTOSES = {"normal": 3.0, "uniform": 1.8, "rademacher": 1.0, "t8": 4.5, "t5": 9.0, "sparse": 6.0}


def entries(name, shape, rng):
    """Variance 1."""
    if name == "uniform":
        return rng.uniform(-math.sqrt(3), math.sqrt(3), shape)
    if name == "rademacher":
        return 2.0 * rng.integers(0, 2, shape) - 1
    if name in ("t8", "t5"):
        degrees = int(name[1])
        return rng.standard_t(degrees, shape) * math.sqrt((degrees - 2) / degrees)
    normal = rng.standard_normal(shape)
    return normal if name == "normal" else normal * (rng.random(shape) < 0.5) * math.sqrt(2)


def layers(name, widths, activation=RELU_LAYER, output=None, variance=1.0):
    """The chain that the theory is told of."""
    family = name if name in ("normal", "sparse") else "other"
    weight = WeightLaw(family, variance, KURTOSES[name])
    activations = [activation] * (len(widths) - 2) + [output or activation]
    return tuple(
        Layer(str(i), n, m, weight, a)
        for i, ((n, m), a) in enumerate(zip(itertools.pairwise(widths), activations, strict=True))
    )


def predict(found, u_fourth=None):
    return initdiag.predict(
        Architecture(found, found[0].fan_in, found[-1].fan_out), u_fourth=u_fourth
    )


def products(name, found, direction, draws, seed):
    """``ln||Ju||^2`` of explicit products ``D W``, gates by coins; -inf where dead."""
    rng = np.random.default_rng(seed)
    n = found[0].fan_in
    start = {
        "one-hot": np.eye(n)[:1],
        "alike": np.ones((1, n)),
        "uniform": rng.standard_normal((draws, n)),
    }[direction]
    u = np.broadcast_to(start / np.linalg.norm(start, axis=1, keepdims=True), (draws, n))
    total = np.zeros(draws)
    for layer in found:
        gate = layer.activation.gate
        h = np.einsum("dij,dj->di", entries(name, (draws, layer.fan_out, layer.fan_in), rng), u)
        h = h * rng.choice(gate.values, p=gate.probabilities, size=h.shape)
        norm = np.linalg.norm(h, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            total += 2 * np.log(norm)
            u = np.nan_to_num(h / norm[:, None])
    return total


def seen(log_norms):
    """Mean, its standard error, variance, its standard error, over the living."""
    alive = log_norms[np.isfinite(log_norms)]
    variance = alive.var()
    fourth = np.mean((alive - alive.mean()) ** 4)
    return (
        alive.mean(),
        math.sqrt(variance / len(alive)),
        variance,
        math.sqrt((fourth - variance**2) / len(alive)),
    )


# --- one layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "activation", [Activation("relu"), Activation("linear"), LEAKY_DROPOUT], ids=lambda a: a.name
)
@pytest.mark.parametrize("width", [1, 2, 7, 60])
def test_a_gaussian_layers_response_is_the_exact_law(activation, width):
    gate = activation.gate
    response = respond(gate, width, 0.0, 0.3)
    exact = layer_law.layer_log_moments(
        Layer("l", 3, width, WeightLaw("normal", 1.0, 3.0), activation)
    )
    assert (response.log_mean, response.log_variance) == pytest.approx(
        (exact.mean, exact.variance), abs=1e-9
    )
    assert response.dead_probability == pytest.approx(
        gate.closed_probability**width, rel=1e-12, abs=1e-300
    )


@pytest.mark.parametrize("width", [1, 3, 20])
def test_concentration_of_a_gaussian_relu_layer(width):
    """Given ``K`` open gates the output's direction is uniform: ``E k = 3/(K+2)``, independent of the norm."""
    k, p = layer_law.open_gates(RELU, width)
    concentration = 3 / (k + 2)
    log_norm = np.array([stats.loggamma(j / 2).mean() + math.log(2) for j in k])
    square = (105 + 9 * (k - 1)) / ((k + 2) * (k + 4) * (k + 6))
    response = respond(RELU, width, 0.0, 0.3)
    assert response.concentration == pytest.approx(p @ concentration, rel=1e-9)
    assert response.concentration_square == pytest.approx(p @ square, rel=1e-9)
    covariance = p @ (log_norm * concentration) - (p @ log_norm) * (p @ concentration)
    assert response.covariance == pytest.approx(covariance, abs=1e-9)


@pytest.mark.parametrize("width", [1, 2, 9])
def test_rademacher_entries_and_a_one_hot_input_count_open_gates(width):
    k, p = layer_law.open_gates(RELU, width)
    response = respond(RELU, width, -2.0, 1.0)
    assert response.log_mean == pytest.approx(p @ np.log(k), abs=1e-9)
    assert response.log_variance == pytest.approx(
        p @ np.log(k) ** 2 - (p @ np.log(k)) ** 2, abs=1e-9
    )
    assert response.concentration == pytest.approx(p @ (1 / k), rel=1e-9)


@pytest.mark.parametrize("name", ["uniform", "t8", "t5", "sparse"])
@pytest.mark.parametrize("activation", [Activation("relu"), LEAKY_DROPOUT], ids=lambda a: a.name)
def test_a_one_hot_input_is_exact(name, activation):
    """Then an entry of ``W x`` is an entry of ``W``."""
    found = layers(name, [3, 5], activation)
    mean, mean_se, variance, variance_se = seen(products(name, found, "one-hot", 100_000, seed=5))
    response = respond(
        activation.gate, 5, KURTOSES[name] - 3, 1.0, 0.5 if name == "sparse" else None
    )
    assert abs(response.log_mean - mean) < 4 * mean_se
    assert abs(response.log_variance - variance) < 4 * variance_se
    gaussian = respond(activation.gate, 5, 0.0, 1.0)
    assert abs(gaussian.log_variance - variance) > 8 * variance_se


@pytest.mark.parametrize("excess", [-2.0, -1.999, -1.2, -0.3, -1e-3, 1e-3, 0.4, 3.0])
def test_pearsons_laws_have_their_moments(excess):
    law = pearson(excess, 60.0)
    fourth = law.weights @ law.values**2 * (3 if law.is_scale else 1)
    assert law.weights.sum() == pytest.approx(1, rel=1e-12)
    assert law.weights @ law.values == pytest.approx(1, rel=1e-9)
    assert fourth == pytest.approx(3 + excess, rel=2e-3 if -2 < excess < -1.99 else 1e-6)


@given(share=st.floats(0.02, 0.98), concentration=st.floats(0.004, 1.0))
def test_sparse_laws_have_their_moments(share, concentration):
    law = sparse(share, concentration)
    assert law.weights @ law.values == pytest.approx(1, rel=1e-7)
    assert 3 * law.weights @ law.values**2 - 3 == pytest.approx(
        3 * (1 / share - 1) * concentration, rel=1e-5, abs=1e-6
    )


# --- chains against explicit products ---------------------------------------------------------------------------------

CASES = [
    ("uniform", [4] * 6, "uniform", 40_000),
    ("uniform", [8] * 4, "one-hot", 30_000),
    ("uniform", [32, 16, 8, 1], "uniform", 30_000),
    ("uniform", [16] * 21, "alike", 2_000),
    ("uniform", [128, 128, 128], "uniform", 600),
    ("rademacher", [16] * 6, "uniform", 8_000),
    ("t8", [10] * 5, "uniform", 20_000),
    ("t5", [48, 48, 48, 48], "one-hot", 3_000),
    ("t5", [16] * 4, "uniform", 10_000),
    ("sparse", [16] * 3, "one-hot", 15_000),
    ("sparse", [24] * 4, "uniform", 8_000),
]


@pytest.mark.parametrize(("name", "widths", "direction", "draws"), CASES)
def test_chains_are_predicted_within_the_stated_error(name, widths, direction, draws):
    found = layers(name, widths, output=Activation("linear"))
    u_fourth = {"one-hot": 1.0, "alike": 1 / widths[0], "uniform": None}[direction]
    prediction = predict(found, u_fourth)
    assert prediction.coverage == "first-order"
    mean, mean_se, variance, variance_se = seen(
        products(name, found, direction, draws, seed=len(widths))
    )
    assert abs(prediction.log_mean - mean) < 3.5 * math.hypot(mean_se, prediction.log_mean_error)
    assert abs(prediction.log_variance - variance) < 3.5 * math.hypot(
        variance_se, prediction.log_variance_error
    )


@pytest.mark.parametrize(
    ("name", "widths", "direction"),
    [("uniform", [4] * 6, "uniform"), ("sparse", [24] * 4, "uniform")],
)
def test_what_the_error_covers_is_small_beside_the_correction(name, widths, direction):
    """No wide error hides a wrong law: it is a tenth of what the Gaussian law is off, or about."""
    found = layers(name, widths)
    gaussian = math.fsum(
        layer_law.layer_log_moments(layer).variance for layer in layers("normal", widths)
    )
    _, _, variance, variance_se = seen(products(name, found, direction, 30_000, seed=9))
    prediction = predict(found)
    off = abs(gaussian - variance)
    assert off > 8 * variance_se
    assert abs(prediction.log_variance - variance) < 0.12 * off + 3 * variance_se


@pytest.mark.parametrize("sabotage", ["sign", "one-hot for uniform"])
def test_a_wrong_correction_is_seen(monkeypatch, sabotage):
    found = layers("uniform", [8, 8])
    _, _, variance, variance_se = seen(products("uniform", found, "uniform", 60_000, seed=4))
    honest = predict(found)
    if sabotage == "sign":
        found = tuple(dataclasses.replace(f, weight=WeightLaw("other", 1.0, 4.2)) for f in found)
    wrong = predict(found, 1.0 if sabotage != "sign" else None)
    assert abs(honest.log_variance - variance) < 3 * math.hypot(
        variance_se, honest.log_variance_error
    )
    assert abs(wrong.log_variance - variance) > 3 * math.hypot(
        variance_se, honest.log_variance_error
    )


# --- limits and properties --------------------------------------------------------------------------------------------


@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    slope=st.sampled_from([0.0, 0.2]),
    share=st.floats(0, 1),
)
def test_kurtosis_three_is_gaussian(widths, slope, share):
    activation = Activation("leaky_relu", slope) if slope else Activation("relu")
    found = layers("normal", widths, activation)
    other = tuple(dataclasses.replace(f, weight=WeightLaw("other", 1.0, 3.0)) for f in found)
    u_fourth = 1 / widths[0] + share * (1 - 1 / widths[0])
    gaussian, same = predict(found), predict(other, u_fourth)
    assert (gaussian.coverage, same.coverage) == ("exact", "first-order")
    assert (same.log_mean, same.log_variance) == (gaussian.log_mean, gaussian.log_variance)
    assert (same.log_mean_error, same.log_variance_error) == (0.0, 0.0)


@given(
    widths=st.lists(st.integers(4, 60), min_size=2, max_size=6),
    excess=st.floats(-1.9, 3.0).filter(lambda e: abs(e) > 0.05),
)
def test_the_correction_has_the_sign_of_the_excess(widths, excess):
    found = [
        dataclasses.replace(f, weight=WeightLaw("other", 1.0, 3 + excess))
        for f in layers("normal", widths)
    ]
    for correction in corrections.corrections(found):
        assert correction.log_variance * excess > 0
        assert correction.log_mean * excess < 0
        assert 0 <= correction.log_variance_error <= abs(correction.log_variance)
        assert correction.excess * excess > 0


@given(excess=st.sampled_from([-1.2, -0.6, 1.5]), a=st.floats(0.05, 1), b=st.floats(0.05, 1))
def test_a_more_concentrated_direction_feels_the_kurtosis_more(excess, a, b):
    found = [
        dataclasses.replace(f, weight=WeightLaw("other", 1.0, 3 + excess))
        for f in layers("normal", [20, 9])
    ]
    low, high = (corrections.corrections(found, k)[0].log_variance for k in sorted((a, b)))
    assert abs(low) <= abs(high) + 1e-9


@pytest.mark.parametrize("name", ["uniform", "t8", "t5"])
def test_width_recovers_the_leading_order(name):
    """Hanin and Nica's ``(mu4 - 3) k c/n`` for the first layer, minus half of it for the log-mean."""
    excess = KURTOSES[name] - 3
    for width in (300, 3000):
        (correction,) = corrections.corrections(layers(name, [width, width]))
        leading = excess * 3 / (width + 2) * 2 / width
        assert correction.log_variance == pytest.approx(leading, rel=40 / width)
        assert correction.log_mean == pytest.approx(-leading / 2, rel=40 / width)


@pytest.mark.parametrize("center", [-2.0, -1e-9, 0.0, 1e-9])
def test_the_response_is_continuous_in_the_kurtosis(center):
    low, high = (respond(RELU, 6, max(center + e, -2.0), 1.0).log_variance for e in (-1e-4, 1e-4))
    assert low == pytest.approx(high, abs=4e-3 if center == -2.0 else 2e-4)


def test_long_chains_share_work_and_stay_finite():
    prediction = initdiag.predict([12] * 10_001)
    share = [layer.log_variance for layer in prediction.layers]
    assert prediction.log_variance == pytest.approx(10_000 * share[5000], rel=1e-3)
    assert math.isfinite(prediction.law.log_moment(2))


# --- the second moment of ||Ju||^2 ------------------------------------------------------------------------------------


def test_the_fourth_norm_by_enumeration():
    """All 2^6 sign matrices of a 3-2-1 Rademacher chain, all gates, at an uneven ``u``."""
    u = np.array([0.8, 0.6, 0.0])
    slope = 0.5
    total = 0.0
    for signs in itertools.product((-1, 1), repeat=8):
        w1, w2 = np.array(signs[:6]).reshape(2, 3), np.array(signs[6:]).reshape(1, 2)
        for gates in itertools.product((slope, 1.0), repeat=3):
            y = gates[2] * (w2 @ (np.array(gates[:2]) * (w1 @ u)))
            total += float(y @ y) ** 2 / 2**11
    found = layers("rademacher", [3, 2, 1], Activation("leaky_relu", slope))
    assert corrections.log_fourth_norm(found, float((u**4).sum())) == pytest.approx(
        math.log(total), rel=1e-12
    )


@pytest.mark.parametrize("name", ["uniform", "t8", "sparse"])
@pytest.mark.slow
def test_the_fourth_norm_against_products(name):
    found = layers(name, [9, 6, 8, 5], LEAKY_DROPOUT)
    squares = np.exp(products(name, found, "one-hot", 200_000, seed=8))
    fourths = squares**2
    se = fourths.std() / math.sqrt(len(fourths))
    assert abs(math.exp(corrections.log_fourth_norm(found, 1.0)) - fourths.mean()) < 4 * se
    if name == "uniform":
        wrong = (
            corrections.log_fourth_norm(found),
            corrections.log_fourth_norm(layers("normal", [9, 6, 8, 5], LEAKY_DROPOUT), 1.0),
        )
        assert all(abs(math.exp(w) - fourths.mean()) > 5 * se for w in wrong)


def test_the_first_two_moments_of_the_law_are_exact_whatever_the_weights():
    found = layers("uniform", [9, 6, 8, 5], LEAKY_DROPOUT)
    law = predict(found, 1.0).law
    assert law.log_moment(2) == corrections.log_fourth_norm(found, 1.0)
    squares = np.exp(products("uniform", found, "one-hot", 50_000, seed=8))
    assert abs(math.exp(law.log_moment(1)) - squares.mean()) < 4 * squares.std() / math.sqrt(
        len(squares)
    )
    # Other orders are those of the moved and scaled law.
    assert law.log_moment(1 + 1e-9) == pytest.approx(law.log_moment(1), abs=0.1)


@given(
    widths=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    init=st.sampled_from(["he_normal", "orthogonal"]),
    slope=st.sampled_from([0.0, 0.1]),
    dropout=st.sampled_from([0.0, 0.3]),
)
@pytest.mark.slow
def test_the_fourth_norm_is_the_exact_laws_second_moment(widths, init, slope, dropout):
    activation = "leaky_relu" if slope else "relu"
    prediction = initdiag.predict(
        widths, init=init, activation=activation, negative_slope=slope, dropout=dropout
    )
    assert corrections.log_fourth_norm(prediction.layers) == pytest.approx(
        prediction.law.log_moment(2), abs=1e-9
    )


def test_the_fourth_norm_needs_a_chain_with_gates():
    with pytest.raises(UnsupportedArchitecture, match="discrete gates"):
        corrections.log_fourth_norm(initdiag.predict([4, 4, 2], activation="tanh", draws=16).layers)


# --- the record, refusals ---------------------------------------------------------------------------------------------


def test_the_error_is_carried_through_json():
    prediction = initdiag.predict([6, 5, 4], u_fourth=0.5)
    assert prediction.log_variance_error > prediction.log_mean_error > 0
    again = Prediction.from_dict(json.loads(json.dumps(prediction.to_dict())))
    assert again == prediction
    assert again.law.log_moment(2) == prediction.law.log_moment(2)


def test_a_prediction_written_before_there_was_an_error_still_loads():
    data = initdiag.predict([6, 5, 4], init="he_normal").to_dict()
    for name in ("log_mean_error", "log_variance_error", "u_fourth"):
        del data[name]
    for layer in data["layers"]:
        del layer["kurtosis"]
    assert Prediction.from_dict(data) == initdiag.predict([6, 5, 4], init="he_normal")


def test_gaussian_and_haar_weights_have_no_error():
    for init in ("he_normal", "orthogonal"):
        prediction = initdiag.predict([6, 5, 4], init=init)
        assert (prediction.log_mean_error, prediction.log_variance_error) == (0.0, 0.0)
        assert (
            initdiag.predict([6, 5, 4], init=init, u_fourth=1.0).log_variance
            == prediction.log_variance
        )


def test_the_law_is_moved_to_the_corrected_moments():
    prediction = predict(layers("t5", [30, 20, 20, 5]), 1.0)
    law = prediction.law
    assert (law.mean(), law.var()) == pytest.approx(
        (prediction.log_mean, prediction.log_variance), rel=1e-9
    )


def test_the_moved_and_scaled_law_is_nearer_to_explicit_products_than_the_gaussian_one():
    """Its shape is not corrected: 0.01 to 0.02 of Kolmogorov distance are left, where the Gaussian law has 0.09."""
    log_norms = products("uniform", layers("uniform", [4] * 4), "uniform", 20_000, seed=1)
    alive = log_norms[np.isfinite(log_norms)]
    corrected, gaussian = (
        stats.kstest(alive, predict(layers(name, [4] * 4)).law.cdf).statistic
        for name in ("uniform", "normal")
    )
    assert corrected < 0.035
    assert gaussian > 0.06


@pytest.mark.parametrize("degrees", [1, 3, 4, math.nan, math.inf])
def test_no_fourth_moment_no_law(degrees):
    with pytest.raises(InvalidInput, match="more than 4 degrees of freedom"):
        WeightLaw.student_t(degrees, 1.0)


def test_an_infinite_kurtosis_is_refused():
    with pytest.raises(InvalidInput, match="kurtosis"):
        WeightLaw("other", 1.0, math.inf)


def test_student_t_has_its_kurtosis():
    assert WeightLaw.student_t(5, 2.0) == WeightLaw("other", 2.0, 9.0)
    assert WeightLaw.student_t(8, 2.0).kurtosis == pytest.approx(stats.t(8).stats("k") + 3)


def test_entries_of_two_values_are_refused_behind_narrow_layers():
    """Sums of signs cancel exactly: of 4,000 true networks of 10 layers with widths 8 to 46, 87 were dead, others dead but for rounding."""
    assert predict(layers("rademacher", [4, 16, 16])).coverage == "first-order"
    prediction = predict(layers("rademacher", [16, 12, 16]))
    assert prediction.coverage == "none"
    assert "1: entries of two values +-s cancel exactly behind 12 units" in prediction.reasons[0]


def test_an_error_too_large_refuses():
    """Kurtosis 60 at width 8: what is said of such a layer may be wrong by half."""
    found = tuple(
        dataclasses.replace(f, weight=WeightLaw("other", 1.0, 60.0))
        for f in layers("normal", [8] * 4)
    )
    prediction = predict(found)
    assert prediction.coverage == "none"
    assert prediction.log_variance_error is None
    assert "entries of kurtosis 60 are too far from Gaussian at this width" in prediction.reasons[0]
    assert predict_module.LARGEST_ERROR < 0.5


def test_a_fourth_norm_of_no_unit_vector_is_refused():
    with pytest.raises(InvalidInput, match="of a unit vector"):
        initdiag.predict([9, 4, 2], u_fourth=0.01)


# --- the evidence -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("entries_study", FOLDER / "study.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("coverage", ["exact", "first-order"])
def test_true_redraws_in_small(study, coverage):
    """Eight modules, half of them redrawn by torch: the sum of squared z-scores is chi-square."""
    rows = [
        {k: str(v) for k, v in study.run(coverage, seed, 500, deepest=4, widest=24).items()}
        for seed in range(100, 108)
    ]
    for what in ("mean", "variance"):
        z = study.z_scores(rows, what, with_error=True)
        assert float((z**2).sum()) < stats.chi2(len(z)).ppf(0.9999)


@pytest.mark.parametrize("coverage", ["exact", "first-order"])
def test_the_committed_evidence_shows_standard_normal_z_scores(study, coverage):
    """At least 40 modules, 4,000 true redraws each."""
    rows = [row for row in study.read(FOLDER / "redraws.csv") if row["coverage"] == coverage]
    assert len(rows) >= 40
    assert {row["draws"] for row in rows} == {"4000"}
    for what in ("mean", "variance"):
        z = study.z_scores(rows, what, with_error=True)
        assert abs(z.mean()) < 3.3 / math.sqrt(len(rows))
        assert 0.65 < z.std(ddof=1) < 1.4
