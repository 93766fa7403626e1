"""Rejection inside sampling, as Ray Tune calls it; the executor is in test_fleet."""

from __future__ import annotations

import random

import pytest

import initdiag

pytest.importorskip("ray", reason="needs ray: pip install 'initdiag[ray]'")
from initdiag.integrations.ray import sample_accepted


def test_only_accepted_candidates_come_out_and_they_are_drawn_as_before():
    rng = random.Random(0)
    drawn: list[list[int]] = []

    def draw() -> list[int]:
        drawn.append([16, *[rng.randint(4, 64)] * rng.randint(1, 40), 10])
        return drawn[-1]

    kept = [sample_accepted(draw, init="he_normal", max_risk=0.1) for _ in range(30)]
    naive = [w for w in drawn if initdiag.failure_risk(initdiag.predict(w, init="he_normal")) < 0.1]
    assert kept == naive
    assert len(drawn) > 30


def test_as_tune_samples():
    try:
        from ray import tune
        from ray.tune.search.variant_generator import generate_variants
    except ImportError as error:  # of pyarrow, too, which may want another NumPy than there is
        pytest.skip(f"needs ray[tune]: pip install 'initdiag[ray]' ({error})")

    rng = random.Random(0)
    draw = lambda: [16, *[32] * rng.randint(1, 60), 10]  # noqa: E731
    space = {"widths": tune.sample_from(lambda config: sample_accepted(draw))}
    for _ in range(20):
        (_, config), *_ = generate_variants(space)
        assert initdiag.failure_risk(initdiag.predict(config["widths"])) < 0.5


def test_it_gives_up():
    with pytest.raises(initdiag.InitdiagError, match="none in 5 draws"):
        sample_accepted(lambda: [64] * 100, attempts=5)
    with pytest.raises(initdiag.InvalidInput, match="max_risk"):
        sample_accepted(lambda: [8, 8], max_risk=0)
