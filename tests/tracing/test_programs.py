"""What is claimed of random programs is so: a seeded part of the study in
tests/evidence/programs, with fewer redraws."""

from __future__ import annotations

import pytest
from evidence.programs.study import CLAIMS, is_false, study

DRAWS = 100
"""Redraws of a program: 200 programs take about a minute on one core then."""

BLOCK = 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, BLOCK))
def test_no_claim_is_false(first):
    """What is said of a program holds within five standard errors of its redraws; a plain
    chain is claimed."""
    for row in (study(seed, DRAWS) for seed in range(first, first + BLOCK)):
        assert not is_false(row), row
        assert row["names"] != "plain" or row["coverage"] in CLAIMS, row


@pytest.mark.parametrize("seed", [231, 1191])
def test_what_was_false_once_is_false_no_more(seed):
    assert not is_false(study(seed, DRAWS))


def test_the_study_can_fail():
    row = {"z_mean": 0.3, "z_variance": -1.0, "p_dead": 0.5}
    assert not is_false(row)
    assert is_false({**row, "z_mean": -5.1})
    assert is_false({**row, "z_variance": float("nan")})
    assert is_false({**row, "p_dead": 1e-7})
