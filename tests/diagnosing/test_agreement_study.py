"""The committed study of the agreement test, and a seeded part of it done again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from evidence.agreement import study
from scipy import stats

PATH = Path(study.__file__).with_name("p_values.csv")
ROWS = list(csv.DictReader(PATH.read_text().splitlines()))


def test_the_committed_p_values_are_uniform_and_sabotage_is_refused():
    honest = [float(row["p_value"]) for row in ROWS if row["kind"] == "honest"]
    sabotaged = [float(row["p_value"]) for row in ROWS if row["kind"] != "honest"]
    assert (len(honest), len(sabotaged)) == (study.HONEST, study.SABOTAGED)
    assert stats.kstest(honest, "uniform").pvalue > 0.01
    assert np.mean(np.array(sabotaged) < study.LEVEL) >= 0.95
    assert study.summary(PATH) in PATH.with_suffix(".txt").read_text()


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 200, 201, 202, 203])
@pytest.mark.slow
def test_rows_come_out_again(seed):
    row, test = study.tested(seed)
    assert row["kind"] == ROWS[seed]["kind"]
    assert test.p_value == pytest.approx(float(ROWS[seed]["p_value"]), rel=0.05, abs=0.01)
