"""The risk of networks that hardly fluctuate, against committed runs (tests/evidence/low_fluctuation)."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from evidence.calibration import validation
from evidence.low_fluctuation import study

from initdiag.diagnosing.risk import LEAST_VARIANCE, Training, risk_of_moments


@pytest.mark.parametrize(
    ("family", "area", "brier"),
    [(("sgd", "momentum"), 0.97, 0.07), (("adam", "adamw"), 0.92, 0.12)],
    ids=["sgd", "adam"],
)
def test_the_risk_of_networks_that_hardly_fluctuate(family, area, brier):
    with study.RUNS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["optimizer"] in family]
    failed = np.array([row["started"] == "0" for row in rows])
    risk = study.risks(rows, LEAST_VARIANCE)
    assert validation.roc_area(failed, risk) > area
    assert validation.brier(failed, risk) < brier
    before = study.risks(rows, 1e-4)
    assert validation.brier(failed, before) > validation.brier(failed, risk)


def test_a_large_drift_is_at_risk_however_little_it_fluctuates():
    """Tanh 20 x 64, orthogonal times 0.1, has a drift of -82: under Adam it stays at chance."""
    training = Training("adam", 1e-3, "classification")
    risks = [risk_of_moments(-82.0, v, 0.0, 21, training) for v in (0.0, 1e-6, 0.01, 0.1, 1.0)]
    assert min(risks) > 0.5
    assert risks == sorted(risks)
