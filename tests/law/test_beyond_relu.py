"""The simulated law against the committed redraws of ``tests/evidence/law/beyond_relu.py``."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import initdiag

FOLDER = Path(__file__).parent.parent / "evidence" / "law"


def load_study():
    spec = importlib.util.spec_from_file_location("beyond_relu_study", FOLDER / "beyond_relu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUDY = load_study()
ROWS = STUDY.read(FOLDER / "beyond_relu.csv")
EXAMPLE = STUDY.example()


def redraws(name):
    """Count, log-mean, its standard error, log-variance, its standard error."""
    return STUDY.moments(
        [row for row in ROWS if row["network"] == name and row["method"] == "redraw"]
    )


def z_scores(found, name):
    _, mean, mean_se, variance, variance_se = redraws(name)
    return (
        (found.log_mean - mean) / math.hypot(found.log_mean_se, mean_se),
        (found.log_variance - variance) / math.hypot(found.log_variance_se, variance_se),
    )


def test_the_committed_study_is_whole_and_agrees():
    """20,000 redraws of every network of the example: the z-scores of law against redraws look standard normal."""
    assert {row["network"] for row in ROWS} == set(EXAMPLE.NETWORKS)
    keys = [(row["network"], row["method"], row["seed"]) for row in ROWS]
    assert len(set(keys)) == len(keys)
    for name in EXAMPLE.NETWORKS:
        assert redraws(name)[0] >= 20_000
    z = np.array([STUDY.scores(ROWS, name) for name in EXAMPLE.NETWORKS])
    assert np.abs(z).max() < 3.5
    assert 0.4 < math.sqrt(np.mean(z**2)) < 1.6


@pytest.mark.parametrize("name", EXAMPLE.NETWORKS)
def test_the_law_today_against_the_committed_redraws(name):
    model, x = EXAMPLE.subject(name)
    found = initdiag.measure(model, x, method="law", draws=2048, seed=77)
    assert max(map(abs, z_scores(found, name))) < 4


def test_the_merged_moments_are_those_of_the_pooled_draws():
    rng = np.random.default_rng(0)
    parts = [rng.gamma(2.0, size=n) for n in (50, 120)]
    rows = [
        {"alive": str(len(y)), **{f"s{k}": repr(float((y**k).sum())) for k in (1, 2, 3, 4)}}
        for y in parts
    ]
    pooled = np.concatenate(parts)
    n, mean, mean_se, variance, variance_se = STUDY.moments(rows)
    assert (n, mean, variance) == (
        170,
        pytest.approx(pooled.mean()),
        pytest.approx(pooled.var(ddof=1)),
    )
    assert mean_se == pytest.approx(pooled.std(ddof=1) / math.sqrt(170))
    fourth = np.mean((pooled - pooled.mean()) ** 4)
    assert variance_se == pytest.approx(math.sqrt((fourth - variance**2) / 170), rel=1e-9)


def without_norms(model):
    """Sabotage: every LayerNorm taken out."""
    for module in model.modules():
        for child, part in module.named_children():
            if isinstance(part, nn.LayerNorm):
                setattr(module, child, nn.Identity())


def wider_weights(model):
    """Sabotage: weights with twice the variance."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(math.sqrt(2))


@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("pre-norm GELU, residual", without_norms),
        ("post-norm ReLU, residual", without_norms),
        ("SwiGLU, residual", wider_weights),
        ("tanh chain", wider_weights),
    ],
)
def test_another_network_would_be_seen(name, sabotage):
    model, x = EXAMPLE.subject(name)
    sabotage(model)
    found = initdiag.measure(model, x, method="law", draws=2048, seed=77)
    assert max(map(abs, z_scores(found, name))) > 10
