"""Two witnesses, one decision: a trial enters the risk, and what is believed is said."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import initdiag
from initdiag import InvalidInput, Report, Thresholds, Verdict
from initdiag.diagnosing import findings
from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.calibration import Training
from initdiag.diagnosing.findings import Severity
from initdiag.diagnosing.setting import training_of
from initdiag.diagnosing.verdict import Judgement
from initdiag.diagnosing.witness import heard
from initdiag.measuring.trial_record import LossTerm, Trial, TrialLayer


def layer(log_gradient=-2.0):
    return TrialLayer("0.weight", np.full(3, log_gradient), np.full(3, -5.0))


def trial(*started: bool, **changes) -> Trial:
    """A trial whose draws started, or did not."""
    losses = tuple(np.array([2.0, 1.5, 1.0] if one else [2.0, 2.0, 2.0]) for one in started)
    found = Trial(
        50, 2, losses, 2.0, started, False, "steps", None, (layer(),), (), "SGD(lr=0.1)",
        "squared error", (), (), 8, 0.1,
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def law(risk: float | None, verdict=None, basis=Basis.LAW) -> Judgement:
    if risk is None:
        return Judgement(Verdict.NO_VERDICT, Basis.NONE, {}, ())
    if verdict is None:
        verdict = Verdict.VANISHING if risk >= 0.5 else Verdict.HEALTHY
    error = (findings.VANISHING.at(None, "m", "r"),) if verdict.is_at_risk else ()
    return Judgement(verdict, basis, {"sgd": risk, "adam": 0.1}, error)


def after(judgement: Judgement, found: Trial | None, **limits) -> Judgement:
    return heard(judgement, found, Training(), Thresholds(**limits))


def codes(judgement: Judgement) -> list[str]:
    return [one.code for one in judgement.findings]


def test_without_a_trial_nothing_changes():
    assert after(law(0.2), None) == law(0.2)
    assert after(law(None), None) == law(None)


def test_where_they_agree_the_law_stays():
    assert after(law(0.01), trial(True)).risk == {"sgd": 0.01, "adam": 0.1}
    both = after(law(0.9), trial(False))
    assert (both.verdict, both.basis, both.risk["sgd"]) == (Verdict.VANISHING, Basis.LAW, 0.9)
    assert [one.severity for one in both.findings] == [Severity.ERROR, Severity.WARNING]


def test_a_trial_that_does_not_start_is_believed():
    found = after(law(0.01), trial(False))
    assert (found.verdict, found.basis) == (Verdict.VANISHING, Basis.TRIAL)
    assert found.risk == {"sgd": 0.5, "adam": 0.1}
    diverged = after(law(0.01), trial(False, nonfinite_step=1))
    assert diverged.risk == {"sgd": 0.75, "adam": 0.1}
    assert codes(found)[:2] == [findings.TRIAL_FAILED.code, findings.WITNESSES_DIFFER.code]
    assert found.findings[0].severity is Severity.ERROR


def test_a_made_up_setting_that_does_not_start_is_believed_too():
    found = after(law(0.01), trial(False, made_up=("random labels",)))
    assert found.verdict.is_at_risk
    assert findings.TRIAL_SETTING.code in codes(found)


def test_one_that_starts_in_the_users_own_setting_is_believed():
    found = after(law(0.9), trial(True))
    assert (found.verdict, found.basis, found.risk["sgd"]) == (Verdict.HEALTHY, Basis.TRIAL, 0.35)
    assert codes(found)[0] == findings.WITNESSES_DIFFER.code
    assert all(one.severity is not Severity.ERROR for one in found.findings)


def test_one_that_starts_in_a_made_up_setting_makes_nothing_healthy():
    of_law = after(law(0.9), trial(True, made_up=("random labels",)))
    assert (of_law.verdict, of_law.risk["sgd"]) == (Verdict.VANISHING, 0.9)
    of_none = after(law(None), trial(True, made_up=("random labels",)))
    assert (of_none.verdict, of_none.risk) == (Verdict.NO_VERDICT, {})


def test_without_a_law_the_trial_judges():
    found = after(law(None), trial(True))
    assert (found.verdict, found.basis, found.risk) == (Verdict.HEALTHY, Basis.TRIAL, {"sgd": 0.25})
    assert after(law(None), trial(False)).verdict is Verdict.VANISHING


def test_a_verdict_from_the_structure_stays():
    certain = law(1.0, Verdict.SYMMETRIC, Basis.STRUCTURE)
    assert after(certain, trial(True)) == certain


def test_what_was_cut_short_tells_nothing():
    assert after(law(0.01), trial(False, is_cut=True)).risk["sgd"] == 0.01
    assert after(law(None), trial(False, is_cut=True)).verdict is Verdict.NO_VERDICT


@pytest.mark.parametrize("risk", [None, 0.0, 0.2, 0.49, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("started", [(True,), (False,), (True, False), (True,) * 8, (False,) * 8])
@pytest.mark.parametrize("limit", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("made_up", [(), ("random labels",)])
def test_at_risk_if_and_only_if_the_risk_is_at_the_limit(risk, started, limit, made_up):
    """And no trial that did not start lowers a risk, nor does one in a made-up setting."""
    before = (
        law(risk) if risk is None else law(risk, Verdict.DEAD if risk >= limit else Verdict.HEALTHY)
    )
    found = after(before, trial(*started, made_up=made_up), max_risk=limit)
    if found.verdict is Verdict.NO_VERDICT:
        assert found.risk == {}
        return
    assert found.verdict.is_at_risk == (found.risk["sgd"] >= limit)
    if risk is not None and (made_up or not trial(*started).starts):
        assert found.risk["sgd"] >= risk


MODES = {
    "nothing is finite": ({"nonfinite_step": 1}, Verdict.EXPLODING),
    "the loss grows": ({"losses": (np.array([1.0, 9.0, 9.0]),)}, Verdict.EXPLODING),
    "no gradient": ({"layers": (layer(-math.inf),)}, Verdict.DEAD),
    "it stays": ({}, Verdict.VANISHING),
}


@pytest.mark.parametrize("name", MODES)
def test_the_mode_of_a_failed_trial(name):
    changes, verdict = MODES[name]
    assert after(law(0.0), trial(False, **changes)).verdict is verdict


def test_a_term_that_is_lost_is_named():
    def term(name, log_gradient):
        return LossTerm(name, 1.0, 1.0, log_gradient, np.zeros(1))

    lost = (term("boundary", 0.0), term("equation", 2 * math.log(500)))
    found = after(law(0.0), trial(True, terms=lost))
    (said,) = [one for one in found.findings if one.code == findings.TERMS_IMBALANCED.code]
    assert "'equation' is 5e+02 times that of 'boundary'" in said.message
    near = (term("boundary", 0.0), term("equation", 2 * math.log(50)))
    assert codes(after(law(0.0), trial(True, terms=near))) == []


SETTINGS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.2), ("sgd", 0.2)),
    "heavy": (lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.95), ("momentum", 0.2)),
    "adamw": (lambda p: torch.optim.AdamW(p), ("adamw", 1e-3)),
    "rmsprop": (lambda p: torch.optim.RMSprop(p), ("adam", 1e-2)),
    "tensor": (lambda p: torch.optim.Adam(p, lr=torch.tensor(0.5)), ("adam", 0.5)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_optimiser_tells_how_it_is_trained(name):
    make, wanted = SETTINGS[name]
    found = training_of(make(nn.Linear(2, 2).parameters()), None, nn.MSELoss())
    assert ((found.optimizer, found.lr), found.loss) == (wanted, "regression")


def test_what_is_no_optimiser_is_refused():
    with pytest.raises(InvalidInput, match=r"torch\.optim"):
        initdiag.diagnose(nn.Linear(2, 2), optimizer=nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match="trial=50"):
        initdiag.diagnose(nn.Linear(2, 2), loss_fn=lambda out, y: out.sum())


def test_through_the_door():
    """Inputs a thousand times too large: the batch shows it, and the trial says so, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    x, y = torch.randn(16, 16) * 1000, torch.arange(16) % 4
    how = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "draws": 64}
    report = initdiag.diagnose(model, x, target=y, loss_fn=nn.CrossEntropyLoss(), trial=20, **how)
    assert report.cause == "input scale"
    assert findings.TRIAL_FAILED.code in [one.code for one in report.findings]
    assert report.verdict.is_at_risk
    assert (report.optimizer, report.lr, report.loss) == ("sgd", 0.1, "classification")
    assert report.trial.steps <= 20
    assert Report.from_dict(json.loads(report.to_json())) == report
    assert report.to_metrics()["initdiag/trial_share"] == 0.0
    well = initdiag.diagnose(model, x / 1000, target=y, trial=20, **how)
    assert well.verdict is Verdict.HEALTHY
    assert well.trial.starts


def test_what_neither_law_nor_batch_can_know():
    """Targets a thousand times too large: the trial alone says so."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)), torch.randn(16, 16)
    how = {"optimizer": torch.optim.Adam(model.parameters(), lr=1e-3), "draws": 64}
    y = 1000 * torch.randn(16, 4)
    report = initdiag.diagnose(model, x, target=y, loss_fn=nn.MSELoss(), trial=50, **how)
    assert report.basis is Basis.TRIAL
    assert report.verdict.is_at_risk


def test_a_network_without_a_gradient_is_not_tried():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x).detach() + 0 * x.sum()

    report = initdiag.diagnose(Cut(), torch.randn(8, 6), trial=5, draws=8)
    assert report.trial is None
    assert findings.NO_TRIAL.code in [one.code for one in report.findings]
