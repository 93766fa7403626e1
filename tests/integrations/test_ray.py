"""Rejection inside sampling, as Ray Tune calls it; the executor is in test_fleet."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import initdiag

ray = pytest.importorskip("ray", reason="needs ray: pip install 'initdiag[ray]'")
from initdiag.integrations.ray import sample_accepted  # noqa: E402


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


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray leaves processes to the collector
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
def test_a_run_of_tune_tries_only_what_is_accepted(tmp_path, monkeypatch):
    """Ray's own machinery from the space to the results: what was rejected is no trial, and takes no place among the samples."""
    tune = pytest.importorskip(
        "ray.tune", reason="needs ray[tune]: pip install 'initdiag[ray]'", exc_type=ImportError
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(initdiag.__file__).parent.parent))
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    rng = random.Random(0)
    drawn: list[list[int]] = []

    def draw() -> list[int]:
        drawn.append([16, *[16] * rng.randint(1, 60), 10])
        return drawn[-1]

    def train(config: dict) -> dict:
        return {"risk": initdiag.failure_risk(initdiag.predict(config["widths"], init="he_normal"))}

    space = {"widths": tune.sample_from(lambda config: sample_accepted(draw, init="he_normal"))}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        run = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
        found = tune.Tuner(
            train, param_space=space, tune_config=tune.TuneConfig(num_samples=3), run_config=run
        ).fit()
    finally:
        ray.shutdown()
    assert not found.errors
    accepted = [
        w for w in drawn if initdiag.failure_risk(initdiag.predict(w, init="he_normal")) < 0.5
    ]
    assert sorted(r.config["widths"] for r in found) == sorted(accepted)
    assert [r.metrics["risk"] < 0.5 for r in found] == [True] * 3
    assert len(drawn) > 3


def test_it_gives_up():
    with pytest.raises(initdiag.InitdiagError, match="none in 5 draws"):
        sample_accepted(lambda: [64] * 100, attempts=5)
    with pytest.raises(initdiag.InvalidInput, match="max_risk"):
        sample_accepted(lambda: [8, 8], max_risk=1.5)
