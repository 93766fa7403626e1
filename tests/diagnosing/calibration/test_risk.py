"""The shipped risk: it is what the runs say, it is monotone, averages as it claims, and costs next to nothing."""

from __future__ import annotations

import csv
import functools
import json
import math
import time

import numpy as np
import pytest
import torch
from evidence.calibration import alarms, analyse, fitting, population, study, validation
from hypothesis import given
from hypothesis import strategies as st

import initdiag
from initdiag import InvalidInput, UnsupportedArchitecture
from initdiag.diagnosing import verdict
from initdiag.diagnosing.calibration import FAMILIES, Training, calibration
from initdiag.diagnosing.risk import (
    LOSSES,
    OPTIMIZERS,
    log_odds,
    risk_of_moments,
    risk_terms,
    risks,
)
from initdiag.diagnosing.verdict import Verdict
from initdiag.law.correlation import separation


@functools.cache
def runs() -> fitting.Runs:
    """All committed runs of kept cells. They take seconds to read: a test of them is marked slow."""
    return fitting.load()


@functools.cache
def shipped() -> dict:
    return json.loads(analyse.COEFFICIENTS.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_coefficients_are_fitted_to_the_committed_runs():
    document = shipped()
    assert document["provenance"]["runs"] <= len(runs())
    first = runs().where(runs().group < document["provenance"]["groups"])
    again = analyse.coefficients(
        first, "", "", curves={"sgd": ("regression",)}
    )  # one of four, for its time
    assert again["provenance"]["runs"] == document["provenance"]["runs"]
    assert again["rates"] == document["rates"]
    assert again["curves"] == {
        "sgd": {
            "regression": pytest.approx(document["curves"]["sgd"]["regression"], rel=2e-2, abs=2e-2)
        }
    }


def told_risk(of: fitting.Runs) -> np.ndarray:
    """The package's risk of each run, told the optimiser, the learning rate and the loss."""
    found = np.empty(len(of))
    for key in sorted(set(zip(of.optimizer, of.lr, of.kind, strict=True))):
        here = (of.optimizer == key[0]) & (of.lr == key[1]) & (of.kind == key[2])
        found[here] = risks(
            *of.x[here, :3].T, of.x[here, 4], Training(str(key[0]), float(key[1]), str(key[2]))
        )
    return found


@pytest.mark.slow
def test_the_package_and_the_fit_compute_the_same_risk():
    for family, members in fitting.FAMILIES.items():
        for kind in LOSSES:
            part = runs().where((runs().kind == kind) & np.isin(runs().optimizer, members))
            curve = shipped()["curves"][family][kind]
            low, high = math.log(curve["lowest"]), math.log(curve["highest"])
            weights = np.array([curve[name] for name in fitting.NAMES])
            fitted = fitting.Fitted(weights, curve["centre"], low, high)
            np.testing.assert_allclose(told_risk(part), fitted.risk(part.x), atol=2e-5)


@pytest.mark.slow
def test_the_risk_describes_the_runs_and_a_wrong_sign_does_not():
    """In sample, told everything: areas and calibration that a curve of the wrong sign is far from."""
    for kind in LOSSES:
        part = runs().where(runs().kind == kind)
        right = told_risk(part)
        assert validation.roc_area(part.failed, right) > 0.9
        assert validation.calibration_error(part.failed, right) < 0.06
        turned = part.x.copy()
        turned[:, 0] *= -1
        wrong = told_risk(fitting.Runs(**{**vars(part), "x": turned}))
        assert (
            validation.roc_area(part.failed, wrong) < validation.roc_area(part.failed, right) - 0.03
        )
        assert validation.calibration_error(part.failed, 1 - right) > 0.2


drifts, variances = st.floats(0, 1e6), st.floats(0, 1e4)
rates = st.one_of(st.none(), st.floats(1e-6, 10))


@given(
    drifts,
    drifts,
    variances,
    variances,
    st.floats(0, 1),
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from(sorted(FAMILIES)),
    rates,
    st.sampled_from([None, *LOSSES]),
)
def test_the_risk_rises_with_every_number(a, b, v, w, dead, shallow, deep, optimizer, lr, loss):
    """Down, up, in log-variance, dead probability and depth, at every learning rate."""
    a, b, v, w, shallow, deep = *sorted((a, b)), *sorted((v, w)), *sorted((shallow, deep))
    training = Training(optimizer, lr, loss)
    risk = functools.partial(risk_of_moments, depth=shallow, training=training)
    assert (
        0 <= risk(a, v, dead) <= risk(b, v, dead) + 1e-12 <= risk(b, w, dead) + 2e-12 <= 1 + 3e-12
    )
    assert risk(-a, v, dead) <= risk(-b, v, dead) + 1e-12
    assert risk(a, v, 0.0) <= risk(a, v, dead) + 1e-12
    assert risk(a, v, dead) >= dead - 1e-12
    assert risk(a, v, 1.0) == pytest.approx(1.0)
    assert risk(a, v, dead) <= risk_of_moments(a, v, dead, deep, training) + 1e-12


def test_what_is_not_told_is_averaged_over():
    numbers = (-12.0, 1.5, 0.01, 14)
    for optimizer in FAMILIES:
        by_loss = []
        for loss in LOSSES:
            known = calibration().rates[optimizer, loss]
            assert sum(share for _, share in known) == pytest.approx(1, abs=1e-3)
            told = [risk_of_moments(*numbers, Training(optimizer, lr, loss)) for lr, _ in known]
            mean = np.average(told, weights=[share for _, share in known])
            assert risk_of_moments(*numbers, Training(optimizer, loss=loss)) == pytest.approx(mean)
            assert np.ptp(told) > 0.01
            by_loss.append(mean)
        assert risk_of_moments(*numbers, Training(optimizer)) == pytest.approx(
            np.mean(by_loss), rel=1e-3
        )


def test_momentum_is_ten_times_the_learning_rate():
    risk = functools.partial(risk_of_moments, -12.0, 1.5, 0.0, 14)
    assert (
        risk(Training("momentum", 0.01))
        == risk(Training("sgd", 0.1))
        != risk(Training("sgd", 0.01))
    )


def test_rates_beyond_the_study_count_as_the_nearest():
    risk = functools.partial(risk_of_moments, -9.0, 1.0, 0.0, 14)
    assert risk(Training("adam", 1e-9)) == risk(Training("adam", 3e-4))
    assert risk(Training("adam", 10)) == risk(Training("adam", 0.01))


def test_depths_beyond_the_study_count_as_the_nearest_and_an_unknown_one_as_middling():
    risk = functools.partial(risk_of_moments, -9.0, 1.0, 0.0, training=Training())
    assert risk(1) == risk(4) < risk(5) < risk(46) == risk(10_000)
    assert risk(4) < risk(None) == risk(12) < risk(46)


def test_arrays_in_arrays_out():
    drift, variance = np.array([[-20.0, 0.0], [5.0, -np.inf]]), np.array([[1.0, 2.0], [0.0, 0.1]])
    found = risks(drift, variance, 0.0, 9, Training())
    assert found.shape == (2, 2)
    each = [
        risk_of_moments(float(d), float(v), 0.0, 9, Training())
        for d, v in zip(drift.flat, variance.flat, strict=True)
    ]
    np.testing.assert_allclose(found.ravel(), each, rtol=1e-12)
    assert risk_of_moments(-math.inf, 0.0, 1.0, None, Training("adam")) == 1.0


def test_the_terms_are_the_risks():
    """Where all curves agree on a network's fate, the averaged terms say the same as the averaged risk."""
    for optimizer in OPTIMIZERS:
        calm, lost = (
            risk_terms(*numbers, 12, Training(optimizer))
            for numbers in ((0.0, 0.1, 0.0), (-60.0, 3.0, 0.0))
        )
        assert lost.downward > calm.downward == 0
        assert lost.upward == calm.upward == 0
        assert lost.fluctuation > calm.fluctuation
        assert calm.step_probability == lost.step_probability
        assert (
            calm.step_probability
            < risk_terms(0.0, 0.1, 0.0, 13, Training(optimizer)).step_probability
        )
        assert lost.signal == lost.intercept + lost.fluctuation + lost.downward
        assert (lost.signal > 0) == (
            risk_of_moments(-60.0, 3.0, 0.0, 12, Training(optimizer)) > 0.5
        )


def test_told_everything_the_risk_is_one_minus_the_product_of_three_ways_to_start():
    training = Training("sgd", 0.1, "classification")
    terms = risk_terms(-9.0, 2.0, 0.25, 30, training)
    starts = (1 - 0.25) * (1 - terms.step_probability) / (1 + math.exp(terms.signal))
    assert risk_of_moments(-9.0, 2.0, 0.25, 30, training) == pytest.approx(1 - starts)


def test_a_network_that_overflows_is_at_risk_and_no_number_is_nan():
    """An overflow makes the drift infinite and the log-variance NaN."""
    for optimizer in FAMILIES:
        numbers = (math.inf, math.nan, 0.25, 12, Training(optimizer))
        assert risk_of_moments(*numbers) == 1.0
        assert risk_terms(*numbers).signal > 1e6
        assert log_odds(*numbers) < -1e6
        assert risks([math.inf, -1.0], [math.nan, 1.0], 0.0, 12, Training(optimizer))[0] == 1.0


def test_log_odds_do_not_saturate():
    for optimizer in FAMILIES:
        training = Training(optimizer)
        risk = risk_of_moments(-9.0, 2.0, 0.01, 30, training)
        assert log_odds(-9.0, 2.0, 0.01, 30, training) == pytest.approx(math.log((1 - risk) / risk))
        assert (
            log_odds(-900.0, 2.0, 0.0, 30, training)
            < log_odds(-800.0, 2.0, 0.0, 30, training)
            < -50
        )
        assert log_odds(-900.0, 2.0, 1.0, 30, training) == -math.inf


@pytest.mark.parametrize("widths", [[64] * 31, [64, *[5, 3, 12] * 15, 10], [784, *[256] * 40, 10]])
def test_a_verdict_costs_less_than_a_millisecond_beyond_the_prediction(widths):
    architecture = initdiag.Architecture.from_widths(widths)
    prediction = initdiag.predict(architecture)
    known = architecture, prediction, None, None, Training(), verdict.Thresholds(), None
    assert verdict.judge(*known, separation(architecture)).verdict.is_at_risk
    seconds = []
    for _ in range(20):  # the least of them: machines are noisy
        started = time.process_time()
        for _ in range(20):
            verdict.judge(*known, separation(architecture))
        seconds.append((time.process_time() - started) / 20)
    assert min(seconds) < 1e-3


@pytest.mark.slow
def test_the_earlier_pilot_is_told_apart_by_curves_that_have_not_seen_its_task():
    for part in validation.pilot(runs()):
        assert len(part.failed) == 200
        assert validation.roc_area(part.failed, part.risk) > 0.93
        assert validation.calibration_error(part.failed, part.risk) < 0.13


def test_bad_input_is_told():
    prediction = initdiag.predict([8, 8, 2])
    with pytest.raises(
        InvalidInput, match="optimizer: one of sgd, momentum, adam, adamw, got 'lion'"
    ):
        initdiag.failure_risk(prediction, "lion")
    with pytest.raises(InvalidInput, match="lr: a positive number"):
        initdiag.failure_risk(prediction, lr=0.0)
    with pytest.raises(InvalidInput, match="loss: one of classification, regression, got 'hinge'"):
        initdiag.failure_risk(prediction, loss="hinge")
    uncovered = initdiag.trace(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)))
    with pytest.raises(UnsupportedArchitecture, match="so that there is no risk"):
        initdiag.failure_risk(initdiag.predict(uncovered))


def test_the_areas_and_errors_by_their_definitions():
    rng = np.random.default_rng(0)
    risk = rng.random(200).round(1)  # ties
    failed = rng.random(200) < risk
    pairs = [(x > y) + 0.5 * (x == y) for x in risk[failed] for y in risk[~failed]]
    assert validation.roc_area(failed, risk) == pytest.approx(np.mean(pairs))
    order = np.argsort(risk, kind="stable").reshape(10, 20)
    by_hand = np.mean([abs(failed[b].mean() - risk[b].mean()) for b in order])
    assert validation.calibration_error(failed, risk) == pytest.approx(by_hand)
    assert validation.calibration_error(failed, np.full(200, failed.mean())) < 0.15
    assert math.isnan(validation.roc_area(np.ones(3, bool), risk[:3]))


@pytest.mark.slow
def test_left_out_runs_are_not_fitted_to():
    """Turning a task's outcomes round changes the others' risks, never its own."""
    few = runs().where(runs().group < 60)
    before = validation.left_out_tasks(few)
    of = few.task == "wave"
    turned = fitting.Runs(**{**vars(few), "failed": few.failed ^ of})
    after = validation.left_out_tasks(turned)
    np.testing.assert_allclose(after[of], before[of], atol=1e-9)
    assert np.abs(after - before)[few.task == "teacher"].max() > 0.1
    assert not np.isnan(before).any()


def test_a_committed_run_can_be_run_again():
    """Group 1 of the study (28 layers in all) gives the rows in the file: seeds come from the index."""
    with study.RUNS.open() as file:
        committed = [row for row in csv.DictReader(file) if row["group"] == "1"]
    again = study.group_rows(population.group(1), study.cells())
    assert len(committed) == len(again) == population.INITS_PER_GROUP
    for old, new in zip(committed, again, strict=True):
        row = dict(zip(study.RUN_FIELDS, map(str, new), strict=True))
        assert [row[k] for k in ("task", "batch", "hidden", "init")] == [
            old[k] for k in ("task", "batch", "hidden", "init")
        ]
        for name in ("loss_before", "grad_norm", "synflow"):
            assert float(row[name]) == pytest.approx(float(old[name]), rel=1e-2)
        for optimizer in population.OPTIMIZERS:
            assert float(row[f"{optimizer}_lr"]) == float(old[f"{optimizer}_lr"])
            assert float(row[f"{optimizer}_score"]) == pytest.approx(
                float(old[f"{optimizer}_score"]), abs=0.1
            )


@pytest.mark.parametrize(
    "setting", [s for s in alarms.SETTINGS if "512" not in s.name], ids=lambda s: s.name
)
@pytest.mark.slow
def test_false_alarms_and_detection(setting):
    """A small part of ``evidence/calibration/alarms.py``."""
    for seed in (10_000, 10_001):
        called, risk = alarms.judged(setting, seed)
        assert (called == "HEALTHY") == setting.is_healthy
        assert Verdict(called) is not Verdict.NO_VERDICT
        assert (risk < 0.5) == setting.is_healthy


def test_the_committed_alarms_are_of_these_settings_and_as_the_readme_says():
    with alarms.RESULTS.open() as file:
        rows = {row["setting"]: row for row in csv.DictReader(file)}
    assert set(rows) == {setting.name for setting in alarms.SETTINGS}
    assert sum(row["expected"] == "HEALTHY" for row in rows.values()) == 8
    for row in rows.values():
        assert int(row["seeds"]) == 1000
        assert int(row["as_expected"]) >= 990
