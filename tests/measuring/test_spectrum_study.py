"""Measured against predicted spectra: a small seeded part of ``tests/evidence/spectrum/study.py``, and its committed results."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import initdiag

FOLDER = Path(__file__).parents[1] / "evidence" / "spectrum"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("spectrum_study", FOLDER / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("depth", "init"), [(1, "he_uniform"), (2, "orthogonal"), (5, "he_normal")]
)
def test_at_width_400_the_distance_is_below_one_percent(study, depth, init):
    """Exactly half of the gates open; six draws, 2,400 eigenvalues."""
    row = study.run(400, depth, "exact", init, draws=6, seed=1)
    assert float(row["ks"]) < float(row["ks_positive"]) < 0.01


def test_a_gain_five_percent_off_is_seen(study):
    found = study.measured(200, 2, "exact", "he_normal", 6, seed=1)
    x, total = study.positive(found), 6 * 200
    for gain, low, high in ((1.0, 0.0, 0.015), (1.05, 0.02, 1.0), (0.95, 0.02, 1.0)):
        spectrum = initdiag.predict_spectrum([200] * 3, init="he_normal", output="relu", gain=gain)
        distance = max(study.distances(x, total, spectrum.law.cdf(x), spectrum.zero_mass))
        assert low < distance < high


def test_distances_by_hand(study):
    x = np.array([1.0, 2.0, 3.0, 4.0])
    cdf = np.array([0.25, 0.5, 0.75, 1.0])
    assert study.distances(x, 8, cdf, 0.5) == (0.125, 0.25)
    assert study.distances(x, 5, cdf, 0.5)[0] == pytest.approx(
        0.625 - 0.2
    )  # just below the first of four in five


@pytest.mark.slow
def test_counts_that_fluctuate_explain_relu(study):
    """At width 50 and depth 3 the least of three binomials is what the limit misses."""
    row = study.run(50, 3, "coins", "he_normal", draws=200, seed=2)
    assert float(row["ks_counts"]) < 0.02 < 0.04 < float(row["ks"])


def test_committed_results(study):
    rows = study.read(FOLDER / "ks.csv")
    assert [(int(r["width"]), int(r["depth"]), r["gates"], r["init"]) for r in rows] == study.plan()
    wide = [row for row in rows if int(row["width"]) >= 400]
    for row in wide:
        columns = (
            ("ks", "ks_positive")
            if row["gates"] == "exact"
            else ("ks_counts", "ks_counts_positive")
        )
        assert all(float(row[column]) < 0.01 for column in columns if row[column])
    for depth in (
        "1",
        "2",
        "3",
        "5",
    ):  # with the width the distance falls: five to seven times from 50 to 800
        at = {
            n: [
                float(r["ks"])
                for r in rows
                if (r["gates"], r["depth"], r["width"]) == ("exact", depth, n)
            ]
            for n in ("50", "800")
        }
        assert max(at["50"]) > 4 * max(at["800"])
    assert study.summary(rows) in (FOLDER / "ks.txt").read_text(encoding="utf-8")
