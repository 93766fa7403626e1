"""The search of ``examples/architecture_search.py``: its parts, and the committed run of it."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from evidence.search import study
from evidence.search.study import example

ROW = example.Trial(
    "random",
    "digits",
    0,
    False,
    2,
    8,
    "he_normal",
    "adam",
    0.01,
    1,
    0.5,
    1,
    0.0,
    1.0,
    0.5,
    0.4,
    True,
)


def arms(*counts: tuple[int, int, int, int]) -> example.Arms:
    """Of each seed: failed and all trials without the filter, failed and all with it; the others' scores are 0.9 and 0.95."""
    trials = []
    for seed, (f0, n0, f1, n1) in enumerate(counts):
        for filtered, failed, count in ((False, f0, n0), (True, f1, n1)):
            row = replace(ROW, seed=seed, filtered=filtered)
            good = replace(row, failed=False, validation=0.95 if filtered else 0.9)
            trials += [row] * failed + [good] * (count - failed)
    return example.Arms(trials)


def test_the_reduction_is_that_of_the_shares():
    assert arms((5, 10, 1, 10), (5, 10, 1, 10)).reduction() == pytest.approx((0.8, 0.8, 0.8))
    reduction, low, high = arms((5, 10, 0, 20), (5, 10, 4, 20), (2, 10, 1, 20)).reduction()
    assert reduction == pytest.approx(1 - (5 / 60) / (12 / 30))
    assert low < reduction < high


def test_the_best_of_a_search_is_compared_within_seeds():
    assert arms((5, 10, 1, 10), (5, 10, 1, 10)).difference("validation") == pytest.approx(
        (0.05, 0.05, 0.05)
    )


def test_candidates_and_mutants_stay_in_the_space():
    rng = np.random.default_rng(0)
    candidate, seen = example.draw(rng), set()
    for _ in range(2000):
        parent, candidate = candidate, example.mutate(candidate, rng)
        seen.add(candidate)
        differing = [
            name
            for name in example.Candidate.__annotations__
            if getattr(parent, name) != getattr(candidate, name)
        ]
        assert len(differing) <= 1
    assert {c.depth for c in seen} == set(range(example.DEPTHS[0], example.DEPTHS[1] + 1))
    assert min(c.width for c in seen) == example.WIDTHS[0]
    assert max(c.width for c in seen) == example.WIDTHS[1]
    assert all(
        {getattr(c, name) for c in seen} == set(values) for name, values in example.CHOICES.items()
    )


def test_evolution_forgets_the_best_when_it_is_old():
    """Only the last eight are parents: one of depth 40 that was better, nine trials ago, has no child."""
    rng = np.random.default_rng(0)
    trials = [
        replace(ROW, depth=40, validation=1.0),
        *[replace(ROW, validation=0.1 * i) for i in range(8)],
    ]
    children = [example.evolve(trials, rng) for _ in range(100)]
    assert max(child.depth for child in children) <= ROW.depth + 5


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.slow
def test_a_search_keeps_its_budget_and_its_filter(monkeypatch, filtered):
    monkeypatch.setattr(example, "STEPS", 2)
    for function in (example.train, example.least_score, example.mean_cost):
        monkeypatch.setattr(example, function.__name__, functools.cache(function.__wrapped__))
    budget = 5 * example.mean_cost("friedman")
    trials = example.search("random", "friedman", 3, filtered, budget)
    assert 0 < sum(trial.cost for trial in trials) <= budget
    stream = np.random.default_rng([2027, 3])
    drawn = [example.draw(stream) for _ in range(sum(trial.screened for trial in trials))]
    assert [t.candidate for t in trials] == [
        c for c in drawn if not filtered or c.accepted(example.task("friedman"))
    ]
    assert not filtered or all(trial.risk < example.MAX_RISK for trial in trials)


@pytest.mark.slow
def test_the_committed_run_is_what_its_summary_says():
    trials = study.read()
    assert example.text(trials) in study.SUMMARY.read_text(encoding="utf-8")
    spent: dict[tuple, int] = {}
    for t in trials:
        key = t.strategy, t.task, t.seed, t.filtered
        spent[key] = spent.get(key, 0) + t.cost
    assert all(cost <= study.TRIALS * example.mean_cost(key[1]) for key, cost in spent.items())
    assert all(t.risk < example.MAX_RISK for t in trials if t.filtered)


def test_a_committed_row_comes_out_again():
    trial = min(study.read(), key=lambda t: t.seconds)
    again = example.train(trial.task, trial.candidate, trial.seed)
    assert again.validation == pytest.approx(trial.validation, abs=0.05)
