"""The study of remedies: its summary is of its runs, a run can be run again, and its machinery is what it says."""

from __future__ import annotations

import itertools

import pytest
import torch
from evidence.calibration.tasks import digits
from evidence.remedies import study
from scipy import stats
from torch import nn

import initdiag


def test_the_committed_summary_is_of_the_committed_runs():
    assert (study.HERE / "summary.txt").read_text(encoding="utf-8") == study.text()


@pytest.mark.parametrize("name", study.PLANS)
def test_every_plan_has_its_population_and_every_remedy_its_runs(name):
    found = study.read(study.PLANS[name].path)
    for optimizer in study.PLANS[name].rates:
        own = [
            row for row in found if row["optimizer"] == optimizer and row["remedy"] == "as built"
        ]
        roles = [row["role"] for row in own]
        assert (roles.count("flagged"), roles.count("healthy")) == (study.FLAGGED, study.HEALTHY)
        for remedy in ("first advice", *study.REPAIRS, "lsuv", "anyinit"):
            assert (
                sum(r["remedy"] == remedy and r["optimizer"] == optimizer for r in found)
                == study.FLAGGED
            )


def test_a_committed_verdict_and_run_come_again():
    """The first shallow network called healthy under Adam, judged and trained as the fourth plan says."""
    plan, task = study.FOURTH, digits()
    rows = study.read(plan.path)
    healthy = {r["network"]: r for r in rows if (r["optimizer"], r["role"]) == ("adam", "healthy")}
    number, model, init, report = next(
        (number, *rest)
        for optimizer, role, number, *rest in study.population(plan)
        if (optimizer, role) == ("adam", "healthy") and int(healthy[str(number)]["hidden"]) < 12
    )
    committed = healthy[str(number)]
    assert committed["init"] == init
    assert report.risk["adam"] == pytest.approx(float(committed["risk"]), abs=2e-3)
    again = study.trained([study.Arm(model)], "adam", plan.rates["adam"], task, number)[0]
    assert again[0] == pytest.approx(float(committed["first_loss"]), rel=1e-3)
    assert again[2] == pytest.approx(float(committed["score"]), abs=0.05)


def test_a_stack_with_skip_connections_is_what_the_advice_writes():
    torch.manual_seed(0)
    networks = [study.mlp([64, 9, 9, 9, 10]) for _ in range(2)]
    x = torch.randn(5, 64)
    for out, network in zip(
        type("", (study.SkipStack,), {"skip": 0.3})(networks)(x), networks, strict=True
    ):
        first, second, third, last = study.linears(network)
        h = first(x)
        for layer in (second, third):
            h = h + 0.3 * layer(torch.relu(h))
        torch.testing.assert_close(out, last(torch.relu(h)))
        assert not torch.allclose(out, network(x), atol=1e-2)


def test_advice_is_followed_to_the_letter():
    model = study.mlp([64, *[64] * 40, 10])
    for linear in study.linears(model):
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
    report = initdiag.diagnose(model, method="none", optimizer="sgd", lr=0.3, loss="classification")
    arm = study.advised(report.advice[0], model)
    assert arm.lr == 0.03
    assert arm.skip is None
    for linear in study.linears(arm.network)[1:-1]:
        torch.testing.assert_close(
            linear.weight @ linear.weight.T, 2 * torch.eye(64), atol=1e-4, rtol=0
        )
    skip = initdiag.diagnosing.advice.Advice(
        "skip", "pass  # and: skip, x + 0.16 * layer(relu(x))", *[0.0] * 6
    )
    assert study.advised(skip, model).skip == 0.16


def test_wilsons_interval_is_scipys():
    for k, n in itertools.product((0, 1, 7, 20), (20, 60)):
        known = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
        assert study.wilson(k, n) == pytest.approx((known.low, known.high), abs=1e-4)
