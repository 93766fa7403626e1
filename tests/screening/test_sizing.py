"""The best widths against brute force, and against the conditions of the real optimum."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from initdiag.errors import InvalidInput
from initdiag.screening.sizing import Budget, best_widths, real_widths

KINDS = ("parameters", "sum_of_widths", "flops")


def plain_cost(kind, widths):
    """Of a network written out layer by layer."""
    pairs = list(itertools.pairwise(widths))
    if kind == "sum_of_widths":
        return sum(widths[1:-1])
    if kind == "flops":
        return sum(2 * a * b for a, b in pairs)
    return sum(a * b + b for a, b in pairs)


def by_brute_force(kind, depth, fan_in, fan_out, limit, widest):
    within = (
        hidden
        for hidden in itertools.product(range(1, widest + 1), repeat=depth - 1)
        if plain_cost(kind, [fan_in, *hidden, fan_out]) <= limit
    )
    return min(sum(1 / n for n in hidden) for hidden in within)


def random_case(generator):
    depth, kind = generator.choice([2, 3, 4]), generator.choice(KINDS)
    widest = {2: 300, 3: 40, 4: 16}[depth]
    fan_in, fan_out = generator.randint(1, 20), generator.randint(1, 12)
    hidden = [generator.randint(1, widest // 2) for _ in range(depth - 1)]
    limit = plain_cost(kind, [fan_in, *hidden, fan_out]) + generator.randint(0, 5)
    return kind, depth, fan_in, fan_out, limit, widest


@pytest.mark.parametrize("seed", range(40))
def test_no_widths_in_reach_of_brute_force_are_better(seed):
    kind, depth, fan_in, fan_out, limit, widest = random_case(random.Random(seed))
    widths = best_widths(depth, fan_in, fan_out, **{kind: limit})
    assert (len(widths), widths[0], widths[-1]) == (depth + 1, fan_in, fan_out)
    assert plain_cost(kind, widths) <= limit
    value = sum(1 / n for n in widths[1:-1])
    assert value <= by_brute_force(kind, depth, fan_in, fan_out, limit, widest) + 1e-12


@pytest.mark.parametrize("depth", [20, 300])
def test_deep_networks_come_near_the_real_optimum(depth):
    limit = 30_000 * depth
    widths = best_widths(depth, 784, 10, parameters=limit)
    real, _ = real_widths(depth, 784, 10, Budget.of(parameters=limit))
    assert plain_cost("parameters", widths) <= limit
    assert sum(1 / n for n in widths[1:-1]) <= sum(1 / real) * 1.001


def test_the_real_widths_are_stationary_and_use_the_budget():
    budget = Budget.of(parameters=200_000)
    real, multiplier = real_widths(9, 100, 10, budget)
    around = np.concatenate([[100], real, [10]])
    np.testing.assert_allclose(real**2 * (around[:-2] + around[2:] + 1) * multiplier, 1, rtol=1e-9)
    assert budget.cost(list(around)) == pytest.approx(200_000, rel=1e-9)
    more, _ = real_widths(9, 100, 10, Budget.of(parameters=200_001))
    assert sum(1 / real) - sum(1 / more) == pytest.approx(multiplier, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_is_that_of_the_network_written_out(kind):
    widths = [7, 5, 3, 11]
    assert Budget.of(**{kind: 1}).cost(widths) == plain_cost(kind, widths)


def test_parameters_are_torchs():
    from torch import nn

    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    assert Budget.of(parameters=1).cost([7, 5, 3]) == sum(p.numel() for p in model.parameters())


def test_one_layer_has_no_choice():
    assert best_widths(1, 784, 10, parameters=7850) == [784, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ((4, 784, 10), {"parameters": 100}),
            "parameters of at least 809, hidden layers of one unit",
        ),
        (((4, 784, 10), {}), "one budget"),
        (((4, 784, 10), {"parameters": 10**6, "flops": 10**6}), "parameters, flops"),
        (((0, 784, 10), {"parameters": 10**6}), "depth: a positive integer"),
        (((4, 784, 10), {"flops": 0}), "flops: a positive integer"),
    ],
)
def test_impossible_questions(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        best_widths(*arguments[0], **arguments[1])
