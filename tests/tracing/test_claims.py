"""What a report says of the kinds of networks in tests/evidence/claims is so.

The truths were found by brute force: `python -m evidence.claims.truth`.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from evidence.claims import truth
from evidence.claims.cases import KINDS

from initdiag import Report, Verdict, diagnose
from initdiag.diagnosing.basis import Basis

CASES = [(kind, name) for kind, cases in KINDS.items() for name in cases]
LIMIT = 5.0
"""Standard errors, of both sides, by which a number may lie off the truth."""

VERDICTS = {
    "no gradient for the weights": {Verdict.DEAD},
    "units that are equal": {Verdict.SYMMETRIC},
    "a start at zero": {Verdict.HEALTHY},
}


def report_on(kind: str, name: str) -> Report:
    factory, x = KINDS[kind][name]
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    return diagnose(factory(), x, draws=128)


def distances(said, so: dict[str, float], errors: tuple[float, float]) -> dict[str, float]:
    """How many standard errors a record's numbers lie off the truth."""
    draws = so["draws"]
    # a heavy tail's own standard error is poor: a normal variance's is the least
    variance_se = max(so["variance_se"], said.log_variance * math.sqrt(2 / draws))
    mean_se = max(so["mean_se"], math.sqrt(said.log_variance / draws))
    return {
        "mean": abs(said.log_mean - so["mean"]) / math.hypot(mean_se, errors[0]),
        "variance": abs(said.log_variance - so["variance"]) / math.hypot(variance_se, errors[1]),
    }


def dead_distance(share: float, so: dict[str, float], draws: float = math.inf) -> float:
    pooled = min(max(so["dead"], share, 0.01), 0.99)
    return abs(share - so["dead"]) / math.sqrt(
        pooled * (1 - pooled) * (1 / so["draws"] + 1 / draws)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_is_said_is_so(kind, name):
    """What is judged by lies within five standard errors of the truth, and so does a
    prediction that is called exact or first-order."""
    report, so = report_on(kind, name), truth.read()[kind, name]
    assert not math.isnan(sum(report.risk.values()))
    if kind in VERDICTS:
        assert report.verdict in VERDICTS[kind]
        return
    p, m = report.prediction, report.measurement
    if p.coverage in ("exact", "first-order") or report.basis is Basis.LAW:
        errors = (
            math.hypot(p.log_mean_error or 0, p.log_mean_se or 0),
            math.hypot(p.log_variance_error or 0, p.log_variance_se or 0),
        )
        off = distances(p, so, errors) | {"dead": dead_distance(p.dead_probability, so)}
        assert max(off.values()) < LIMIT, ("prediction", off)
    if report.basis is Basis.MEASUREMENT:
        off = distances(m, so, (m.log_mean_se, m.log_variance_se))
        off["dead"] = dead_distance(m.dead_fraction, so, m.draws)
        assert max(off.values()) < LIMIT, ("measurement", off, m.fixed)


def test_every_case_has_its_truth():
    assert set(truth.read()) == set(CASES)


@pytest.mark.parametrize("name", ["uniform", "tiny", "scaled", "by_sum"])
def test_a_truth_is_what_a_few_redraws_show(name):
    """The committed figures are those of the present cases (40 redraws)."""
    kind = next(kind for kind, case in CASES if case == name)
    factory, x = KINDS[kind][name]
    logs = truth.log_norms(factory, x, 40)
    so, alive = truth.read()[kind, name], logs[np.isfinite(logs)]
    assert abs(alive.mean() - so["mean"]) < 4 * math.sqrt(so["variance"] / len(alive))
