"""The second calibration study's machinery: any architecture's stack trains as `torch.optim` does,
and committed rows come out again.
"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from evidence.calibration.training import batches
from evidence.calibration2 import families, population, study, tasks, training
from evidence.calibration2.families import Spec

OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.05), 0.05),
    "momentum": (lambda p: torch.optim.SGD(p, 0.02, momentum=0.9), 0.02),
    "adam": (lambda p: torch.optim.Adam(p, 0.003), 0.003),
    "adamw": (lambda p: torch.optim.AdamW(p, 0.01), 0.01),
}
STEPS = 8


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("gelu", "advection", marks=pytest.mark.slow),
        ("batchnorm", "clusters"),
        ("transformer_pre", "digits"),
        pytest.param("lstm", "copying", marks=pytest.mark.slow),
    ],
)
def test_a_stack_of_any_architecture_trains_as_torch_optim_does(family, name):
    task = tasks.task(name)
    torch.manual_seed(3)
    network = families.build(task, Spec(family, 2, 8))
    rates = [lr for _, lr in OPTIMIZERS.values()]
    copies = [copy.deepcopy(network) for _ in rates]
    found = training.train(copies, list(OPTIMIZERS), rates, task, 2.0, 5, STEPS)
    for k, (steps_of, _) in enumerate(OPTIMIZERS.values()):
        alone = copy.deepcopy(network)
        steps = steps_of(alone.parameters())
        for rows in itertools.islice(batches(len(task.x), population.BATCH, 5), STEPS):
            steps.zero_grad()
            _loss(alone, task, 2 * task.x[rows], task.y[rows]).backward()
            steps.step()
        with torch.no_grad():
            after = float(_loss(alone, task, 2 * task.x[:256], task.y[:256]))
        assert found.after[k] == pytest.approx(after, rel=2e-4)
        assert found.after[k] != pytest.approx(found.before[k], rel=6e-4)


def _loss(network, task, x, y):
    return task.losses(task.run(network, x).unsqueeze(0), x, y)[0]


def test_losses_and_constant_guesses_are_those_of_torch():
    copying, digits = tasks.task("copying"), tasks.task("digits")
    outputs = torch.randn(1, 10, *copying.output)
    expected = torch.nn.functional.cross_entropy(outputs[0].transpose(1, 2), copying.y[:10])
    torch.testing.assert_close(copying.losses(outputs, copying.x[:10], copying.y[:10])[0], expected)
    shares = digits.y.bincount() / len(digits.y)
    constant = shares.log().expand(1, len(digits.y), -1)
    assert float(digits.losses(constant, digits.x, digits.y)) == pytest.approx(digits.constant)
    field = tasks.task("autoencoding")
    mean = field.x.mean(0).expand(1, len(field.x), -1)
    assert float(field.losses(mean, field.x, field.y)) == pytest.approx(field.constant, rel=1e-4)


def test_groups_come_from_their_index_and_each_block_has_every_family():
    assert population.group(31) == population.group(31)
    groups = [population.group(i) for i in range(10 * len(families.FAMILIES))]
    for block in range(10):
        part = groups[block * len(families.FAMILIES) :][: len(families.FAMILIES)]
        assert {g.spec.family for g in part} == set(families.FAMILIES)
    assert {g.task for g in groups} == set(tasks.NAMES)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.25), ("adam", 0.0015)])
def test_committed_rows_come_out_again(optimizer, lr):
    """One run of a small network, trained again alone: at rates where it is not chaotic."""
    (row,) = [
        r
        for r in population.rows()
        if (r["group"], r["k"], r["optimizer"], float(r["lr"])) == ("20", "0", optimizer, lr)
    ]
    (again,) = study.group_rows(population.group(20), study.cells(), (0,), [(optimizer, lr)])
    new = dict(zip(study.FIELDS, map(str, again), strict=True))
    for name in ("family", "task", "init", "optimizer", "lr", "steps", "started"):
        assert new[name] == row[name]
    assert float(new["first_loss"]) == pytest.approx(float(row["first_loss"]), rel=1e-3)
    assert float(new["final_loss"]) == pytest.approx(float(row["final_loss"]), rel=0.1)


def test_a_row_gives_back_its_network_and_batch():
    row = population.rows()[0]
    network, (x, y) = population.network(row), population.batch(row)
    assert x.shape[0] == y.shape[0] == population.BATCH
    task = tasks.task(row["task"])
    x, y = task.x[:256] * float(row["scale"]), task.y[:256]
    with torch.no_grad():
        assert float(_loss(network, task, x, y)) == pytest.approx(
            float(row["first_loss"]), rel=2e-3
        )
