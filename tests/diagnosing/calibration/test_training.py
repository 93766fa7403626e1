"""The calibration study's machinery: stacked training is training, every draw comes from the index, proxies are what their papers say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from evidence.calibration import population, proxies, study, tasks, training
from torch import nn

RATES = {"sgd": 0.05, "momentum": 0.02, "adam": 0.003, "adamw": 0.01}
STEPS = 25


def alone(network: nn.Sequential, optimizer: str, task: tasks.Task) -> tuple[float, float]:
    """Training loss and test score after training one network by torch.optim."""
    kinds = {
        "sgd": torch.optim.SGD,
        "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    steps = kinds[optimizer](network.parameters(), lr=RATES[optimizer])
    loss = tasks.loss_module(task)
    target = task.y if task.is_classification else task.y.unsqueeze(1)
    for rows in itertools.islice(training.batches(len(task.x), 16, 5), STEPS):
        steps.zero_grad()
        loss(network(task.x[rows]), target[rows]).backward()
        steps.step()
    with torch.no_grad():
        after = float(loss(network(task.x[:256]), target[:256]))
        outputs = network(task.x_test)
    if task.is_classification:
        return after, float((outputs.argmax(1) == task.y_test).float().mean())
    rest = (outputs.squeeze(1) - task.y_test).square().sum()
    return after, float(1 - rest / (task.y_test - task.y_test.mean()).square().sum())


@pytest.mark.parametrize("name", ["digits", "teacher"])
@pytest.mark.parametrize("at_once", [4, 3, 1])
def test_a_stack_trains_as_each_network_alone(name, at_once, monkeypatch):
    task = tasks.task(name)
    widths = (task.x.shape[1], 12, 9, task.outputs)
    inits = (("he_normal", 1.0), ("orthogonal", 1.0), ("torch_default", 1.0), ("lecun_normal", 1.5))
    networks = [population.network(widths, *init, seed=k) for k, init in enumerate(inits)]
    size = sum(p.numel() for p in networks[0].parameters())
    monkeypatch.setattr(training, "STACK_PARAMETERS", at_once * size)
    trace = training.train(networks, list(RATES), list(RATES.values()), task, 16, 5, (10, STEPS))
    for k, (network, optimizer) in enumerate(zip(networks, RATES, strict=True)):
        loss, score = alone(network, optimizer, task)
        assert float(trace.losses[-1, k]) == pytest.approx(loss, rel=2e-4)
        assert float(trace.scores[-1, k]) == pytest.approx(score, abs=0.003)
        assert (
            abs(float(trace.losses[0, k]) / loss - 1) > 0.01
        )  # it did learn, so that the agreement says something


def test_a_network_that_blows_up_leaves_the_others_alone():
    task = tasks.task("teacher")
    widths = (16, 8, 1)
    networks = [population.network(widths, "he_normal", gain, seed=1) for gain in (1.0, 1e12)]
    both = training.train(networks, ["sgd", "sgd"], [0.01, 0.01], task, 16, 0, (5, 10))
    one = training.train(networks[:1], ["sgd"], [0.01], task, 16, 0, (5, 10))
    assert both.losses[1:, 1].isnan().all()
    torch.testing.assert_close(both.losses[:, :1], one.losses)


def test_groups_come_from_their_index_alone():
    assert population.group(17) == population.group(17)
    assert population.group(17) != population.group(22)
    groups = [population.group(i) for i in range(400)]
    assert {g.task for g in groups} == set(tasks.NAMES)
    assert {g.shape for g in groups} == set(population.SHAPES)
    assert all(
        3 <= len(g.hidden) <= 45 and 8 <= min(g.hidden) <= max(g.hidden) <= 128 for g in groups
    )
    assert all(len(set(g.inits)) == population.INITS_PER_GROUP for g in groups)
    assert all(study.expanded(study.compact(g.hidden)) == g.hidden for g in groups)


@pytest.mark.parametrize(("init", "gain"), population.INITS)
def test_networks_are_what_the_law_is_told(init, gain):
    """The weights' sample variance is the one that `Architecture.from_widths` assumes for the same names."""
    import initdiag

    widths = (40, 120, 60, 3)
    network = population.network(widths, init, gain, seed=3)
    assumed = initdiag.Architecture.from_widths(list(widths), init=init, gain=gain)
    for linear, layer in zip(
        [m for m in network if isinstance(m, nn.Linear)], assumed.layers, strict=True
    ):
        n = linear.weight.numel()
        assert float(linear.weight.detach().square().mean()) == pytest.approx(
            layer.weight.variance, rel=6 / math.sqrt(n)
        )
        assert bool((linear.bias == 0).all()) == (layer.bias is None)


def test_tasks_are_scaled_and_told_apart():
    for name in tasks.NAMES:
        task = tasks.task(name)
        assert float(task.x.square().mean()) == pytest.approx(1, abs=0.1)
        assert len(task.x_test) <= tasks.TEST_ROWS
        outputs = torch.zeros(2, len(task.x_test), task.outputs)
        scores = task.scores(outputs)
        assert float(scores[0]) <= task.chance + 1e-6
        if not task.is_classification:
            assert float(task.y.var()) == pytest.approx(1, abs=0.1)


def test_proxies_of_a_network_by_hand():
    """Against explicit sums on a net small enough to write down."""
    task = tasks.task("clusters")
    network = population.network((20, 40, 5), "he_normal", 1.0, seed=0)
    w1, w2 = network[0].weight.detach().double(), network[2].weight.detach().double()
    flow = (w2.abs() @ w1.abs()).sum()
    assert proxies.synflow(network, task) == pytest.approx(float((2 * flow).log()), rel=1e-9)

    code = (task.x[: proxies.ROWS] @ network[0].weight.T > 0).double()
    agree = torch.stack([(code == row).sum(1) for row in code]).double()
    assert proxies.naswot(network, task) in (
        -math.inf,
        pytest.approx(float(torch.logdet(agree)), rel=1e-6),
    )

    logits = network(task.x[: proxies.ROWS])
    error = logits.softmax(1) - nn.functional.one_hot(task.y[: proxies.ROWS], 5)
    last = (error.T @ network[1](network[0](task.x[: proxies.ROWS]))) / proxies.ROWS
    assert proxies.grad_norm(network, task) > float(last.detach().norm())

    jacobian = torch.einsum("oh,bh,hi->bi", w2, code, w1).numpy()
    values = np.linalg.eigvalsh(np.corrcoef(jacobian))
    expected = -np.sum(np.log(values.clip(0) + 1e-5) + 1 / (values.clip(0) + 1e-5))
    assert proxies.jacob_cov(network, task) == pytest.approx(expected, rel=1e-3)


def test_a_cell_says_who_started():
    cell = study.Cell(chance=0.1, gain=0.8, healthy_started=8, start=20)
    scores, losses = np.array([0.2, 0.17, 0.5, np.nan]), np.array([2.0, 2.0, 3.0, np.nan])
    assert cell.started(scores, losses, np.full(4, 2.3)).tolist() == [True, False, False, False]
    assert cell.is_kept
    assert not study.Cell(chance=0.1, gain=0.8, healthy_started=6, start=20).is_kept
    assert not study.Cell(chance=0.1, gain=0.2, healthy_started=8, start=20).is_kept
