"""A small part of the example; the whole of it asserts its own claims when it is run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "examples" / "universality.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("universality", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_four_moments_follow_the_law_and_fewer_do_not(example):
    rademacher, _ = example.study(example.FOUR_MOMENTS["Rademacher"], 200)
    no_fourth_moment, _ = example.study(example.BEYOND["Student t(2.5)"], 200)
    no_variance, edge = example.study(example.BEYOND["Student t(1.5)"], 200)
    assert rademacher < 0.015 < 0.05 < no_fourth_moment < 0.5 < no_variance
    assert edge > 100


@pytest.mark.parametrize(
    "name", ["Gaussian", "uniform", "Rademacher", "sparse (20 %)", "Student t(5)", "Student t(2.5)"]
)
def test_entries_have_unit_variance(example, name):
    import numpy as np

    draw = {**example.FOUR_MOMENTS, **example.BEYOND}[name]
    sample = draw(np.random.default_rng(0), (2000, 1000))
    assert sample.std() == pytest.approx(1.0, abs=0.15 if "2.5" in name else 0.005)
