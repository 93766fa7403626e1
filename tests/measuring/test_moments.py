"""The printed standard errors are right: a seeded part of tests/evidence/moments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from evidence.moments.study import SIDES, row

LIMIT = 4.5
"""Standard errors; the largest of the study's 1,200 z-scores is 3.8."""


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 100])
def test_signs_redraws_and_prediction_agree_within_their_errors(first):
    rows = [row("module", module, 1) for module in range(first, first + 4)]
    scores = [
        (found[f"{a}_{of}"] - found[f"{b}_{of}"])
        / math.hypot(found[f"{a}_{of}_error"], found[f"{b}_{of}_error"])
        for found in rows
        for a, b in itertools.combinations(SIDES, 2)
        for of in ("mean", "variance")
    ]
    assert max(map(abs, scores)) < LIMIT
    # errors stated three times too large would make it a third
    assert 0.4 < np.std(scores) < 1.8
