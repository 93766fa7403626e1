"""Verdicts, and the records they come in."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import Architecture, AtRisk, Report, Thresholds, Verdict
from initdiag.diagnosing import diagnose as diagnose_module
from initdiag.diagnosing.agreement import _scale_p_value, agreement
from initdiag.diagnosing.basis import Numbers
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.diagnosing.risk import Training
from initdiag.network.weights import WeightLaw
from initdiag.project.outcome import outcome


def verdict(widths, **assumptions):
    return diagnose_architecture(Architecture.from_widths(widths, **assumptions)).verdict


def test_the_modes_are_named():
    assert verdict([64] * 31 + [10]) is Verdict.VANISHING
    assert verdict([64, *[128] * 20, 10], init="he_normal", gain=1.5) is Verdict.EXPLODING
    assert verdict([64, *[14] * 40, 10], init="he_normal") is Verdict.UNSTABLE
    assert verdict([64, 2, 2, 2, 2, 10], init="he_normal") is Verdict.DEAD
    for healthy in ([64, 256, 256, 256, 256, 256, 10], [784, 64, 64, 64, 1]):
        assert verdict(healthy, init="he_normal") is Verdict.HEALTHY
    assert verdict([64, 128, 128, 10]) is Verdict.HEALTHY
    assert verdict([64, *[128] * 6, 10], activation="tanh", init="xavier_normal") is Verdict.HEALTHY
    assert verdict([64, *[128] * 20, 10], activation="tanh") is Verdict.VANISHING


def test_a_single_output_is_not_bad_luck():
    """With one output (g.u)^2 varies by psi'(1/2) = 4.9 with the direction alone; no weight's gradient does."""
    for activation in ("relu", "tanh"):
        arch = Architecture.from_widths([2, 64, 64, 64, 1], activation=activation)
        pred = diagnose_architecture(arch).prediction
        assert pred.log_variance > 4.9
        assert pred.hidden_log_variance < 0.6
        assert diagnose_architecture(arch).verdict is Verdict.HEALTHY
    one, ten = (initdiag.predict([64, 64, 64, n], init="he_normal") for n in (1, 10))
    assert one.hidden_log_variance == pytest.approx(ten.hidden_log_variance)
    assert one.hidden_drift == pytest.approx(ten.hidden_drift)
    assert initdiag.failure_risk(one) == pytest.approx(initdiag.failure_risk(ten))


def test_one_decision_rule():
    arch = Architecture.from_widths([64] * 12 + [10])
    risk = diagnose_architecture(arch).risk["sgd"]
    at, above = Thresholds(max_risk=risk), Thresholds(max_risk=math.nextafter(risk, 1))
    assert diagnose_architecture(arch, thresholds=at).verdict.is_at_risk
    assert diagnose_architecture(arch, thresholds=above).verdict is Verdict.HEALTHY


def test_the_default_judges_for_sgd_and_shows_both():
    arch = Architecture.from_widths([64, *[128] * 15, 10])
    default, adam = diagnose_architecture(arch), diagnose_architecture(arch, optimizer="adam")
    assert default.verdict is Verdict.VANISHING
    assert adam.verdict is Verdict.HEALTHY
    assert default.risk == adam.risk
    assert set(default.risk) == {"sgd", "adam"}
    assert "SGD" in str(default)
    assert "Adam" in str(default)


def test_risk_rises_with_each_number():
    from initdiag.diagnosing.risk import Training, risk_of_moments

    for optimizer in ("sgd", "adam"):
        for drifts in ([0, -1, -5, -30, -300], [0, 1, 5, 30, 300]):
            risks = [risk_of_moments(d, 0.5, 0.0, 9, Training(optimizer)) for d in drifts]
            assert risks == sorted(risks)
            assert risks[-1] > 0.9
        variances = [
            risk_of_moments(-1.0, v, 0.0, 9, Training(optimizer))
            for v in (0.0, 0.01, 1.0, 30.0, 3000.0)
        ]
        assert variances == sorted(variances)
        assert risk_of_moments(0.0, 0.1, 0.9, 9, Training(optimizer)) >= 0.9
        assert risk_of_moments(-math.inf, 0.0, 1.0, 9, Training(optimizer)) == 1.0


def test_advice_mends_what_it_is_given_for():
    report = diagnose_architecture(Architecture.from_widths([64] * 31 + [10]))
    assert [a.action.split("(")[0] for a in report.advice[:2]] == [
        "nn.init.kaiming_normal_",
        "nn.init.orthogonal_",
    ]
    for advice in report.advice:
        assert advice.risk_after < advice.risk_before == report.risk["sgd"]
        assert advice.drift_before == report.prediction.rms_gain_log_mean
    narrow = diagnose_architecture(Architecture.from_widths([64, *[6] * 20, 10], init="he_normal"))
    assert any("widen" in advice.action for advice in narrow.advice)
    assert any("fewer layers" in advice.action for advice in narrow.advice)
    assert all(advice.risk_after < 0.5 for advice in narrow.advice if "widen" in advice.action)


def test_the_advised_initialiser_does_what_is_promised():
    """Paste the first advice, trace again: the drift is the promised one."""
    model = seeded(lambda: mlp([32] * 21 + [4]))
    before = initdiag.diagnose(model, method="none")
    for w, b in ((m.weight, m.bias) for m in model if isinstance(m, nn.Linear)):
        exec(before.advice[0].code, {"nn": nn, "w": w, "b": b})
    after = initdiag.diagnose(model, draws=4096)
    assert after.prediction.rms_gain_log_mean == pytest.approx(
        before.advice[0].drift_after, abs=1e-6
    )
    assert after.prediction.log_variance == pytest.approx(
        before.advice[0].log_variance_after, abs=1e-6
    )
    assert after.agreement.agrees


def test_check_prints_the_report_and_returns_it():
    console = Console(record=True, width=100, file=io.StringIO())
    report = initdiag.check(seeded(lambda: mlp([16, 64, 4])), console=console, draws=64)
    text = console.export_text()
    assert "HEALTHY" in text
    assert report.ok
    assert report.measurement.draws == 64


def test_fail_on_and_assert_trainable():
    deep = seeded(lambda: mlp([32] * 31))
    quiet = Console(quiet=True)
    assert not initdiag.check(deep, console=quiet, draws=64).ok
    with pytest.raises(AtRisk, match="VANISHING") as caught:
        initdiag.check(deep, console=quiet, fail_on="risk", draws=64)
    assert caught.value.report.verdict is Verdict.VANISHING
    with pytest.raises(AtRisk, match="What to do"):
        initdiag.assert_trainable(deep, draws=64)
    initdiag.assert_trainable(seeded(lambda: mlp([16, 64, 4])), draws=64)


def _unjudged() -> nn.Module:
    """Neither covered (a norm) nor measured (rows of weights that are others turned round)."""
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            row = layer.weight[0].clone()
            layer.weight.copy_(torch.stack([row.roll(shift) for shift in range(8)]))
    return model


def test_no_verdict_is_never_a_pass():
    quiet = Console(quiet=True)
    report = initdiag.check(_unjudged(), console=quiet, fail_on="risk")
    assert report.verdict is Verdict.NO_VERDICT
    assert not report.ok
    assert {"IND006", "IND009", "IND010"} <= {f.code for f in report.findings}
    for call in (
        lambda m: initdiag.check(m, console=quiet, fail_on="no-verdict"),
        initdiag.assert_trainable,
    ):
        with pytest.raises(AtRisk):
            call(_unjudged())


def test_what_is_no_chain_is_simulated_through_its_own_forward():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            return x + self.b(self.a(x).relu())

    report = initdiag.diagnose(seeded(Residual), draws=2048)
    assert (report.basis, report.prediction.coverage) == ("law", "simulated")
    assert report.verdict is Verdict.HEALTHY
    assert report.agreement.agrees
    assert report.prediction.log_variance_se > 0
    assert "not a plain chain" in str(report)


def test_what_cannot_be_simulated_is_judged_from_its_measurement():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(64, 64)

        def forward(self, x):
            return self.w(self.w(x).relu())

    report = initdiag.diagnose(seeded(Tied), draws=512)
    assert (report.basis, report.prediction.coverage) == ("measurement", "none")
    assert report.prediction.log_mean is None
    assert report.verdict is Verdict.HEALTHY


@pytest.mark.slow
def test_agreement_p_values_are_calibrated_and_sabotage_is_seen():
    p_values = []
    for seed in range(40):
        init = "he_normal" if seed % 2 else "torch_default"
        model = seeded(functools.partial(mlp, [20, 32, 24, 32, 8], init), seed)
        p_values.append(initdiag.diagnose(model, draws=1024, seed=seed).agreement.p_value)
    assert sum(p < 0.1 for p in p_values) <= 11
    assert min(p_values) > 1e-3
    assert 0.2 < sorted(p_values)[20] < 0.9


def test_json_round_trip():
    for model in (mlp([16, 32, 4]), _unjudged(), mlp([8, 1, 1, 8], init="he_normal")):
        report = initdiag.diagnose(model, draws=32)
        assert Report.from_dict(json.loads(report.to_json())) == report
        assert json.dumps(report.to_dict(), allow_nan=False)


def test_metrics_are_finite_floats():
    metrics = initdiag.diagnose(mlp([16, 32, 4]), draws=32).to_metrics()
    assert metrics["initdiag/ok"] == 1.0
    assert all(type(v) is float and math.isfinite(v) for v in metrics.values())
    assert metrics["initdiag/predicted_log_variance"] > 0


def test_diagnosing_is_pure(capsys):
    model = seeded(lambda: mlp([16, 32, 4]))
    first, second = initdiag.diagnose(model, draws=64), initdiag.diagnose(model, draws=64)
    assert capsys.readouterr() == ("", "")
    assert first.to_dict() | {"elapsed": 0} == second.to_dict() | {"elapsed": 0}


def test_a_factory_and_its_module_are_judged_alike():
    torch.manual_seed(0)
    report = initdiag.diagnose(lambda: mlp([16, 64, 4], init="he_normal"), draws=64)
    assert report.ok
    assert report.architecture.source == "Sequential"


def test_dead_draws_disagree_where_every_one_is_dead():
    """Inputs that are exactly 0 close every gate: no mean or variance can be tested, the share of dead draws can."""
    report = initdiag.diagnose(
        mlp([16, 16, 16, 16], init="he_normal"), torch.zeros(2, 16), draws=64
    )
    assert report.measurement.dead_fraction == 1.0
    assert not report.agreement.agrees
    assert (report.agreement.moments_p_value, report.agreement.shape_p_value) == (None, None)
    (finding,) = (f for f in report.findings if f.code == "IND005")
    assert "another share of draws is dead" in finding.message
    assert "nan" not in finding.message
    assert Report.from_dict(report.to_dict()).to_dict() == report.to_dict()


class Sliced(nn.Module):
    """One draw in a thousand is dead: a share that a simulation of as many draws does not know."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(10, 5)

    def forward(self, x):
        return self.b(self.a(x).relu()[:, :10])


@pytest.mark.slow
def test_a_simulated_share_of_dead_draws_has_an_error_of_its_own():
    found = [initdiag.diagnose(seeded(Sliced, seed), seed=seed) for seed in range(12)]
    assert all(report.prediction.coverage == "simulated" for report in found)
    assert all(report.agreement.agrees for report in found)
    assert sum(report.agreement.dead_p_value is not None for report in found) > 6


def test_another_share_than_the_simulations_is_seen():
    report = initdiag.diagnose(seeded(Sliced), torch.zeros(2, 12), draws=256)
    moments = dataclasses.replace(report.prediction.moments, dead_probability=0.0)
    simulated = dataclasses.replace(report.prediction, samples=np.arange(256.0), moments=moments)
    dead = dataclasses.replace(report.measurement, dead_fraction=0.1)
    assert agreement(report.architecture, dead, 0.001, simulated).dead_p_value < 1e-6


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)


NO_LINEAR = {
    "rnn": (lambda: nn.RNN(12, 16, batch_first=True), (3, 7, 12), 112),
    "lstm": (lambda: nn.LSTM(12, 16, batch_first=True), (3, 7, 12), 112),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3)),
        (2, 3, 8),
        8,
    ),
    "attention": (Attention, (2, 5, 12), 60),
}


@pytest.mark.parametrize("name", NO_LINEAR)
def test_no_linear_layer_is_no_verdict_but_a_factory_can_be_redrawn(name):
    build, size, outputs = NO_LINEAR[name]
    report = initdiag.diagnose(build(), input_size=size, draws=4)
    assert (report.verdict, report.basis) == (Verdict.NO_VERDICT, "none")
    assert report.findings[0].code == "IND010"
    assert "reaches no linear layer" in report.findings[0].message
    result = outcome(name, report)
    assert result.exit_code == 3
    assert result.failures[0].startswith("NO_VERDICT")
    for stage in (initdiag.trace, initdiag.measure, initdiag.measure_spectrum, initdiag.repair):
        with pytest.raises(
            initdiag.UnsupportedArchitecture, match=r"reaches no linear layer .* method='redraw'"
        ):
            stage(build(), input_size=size)
    report = initdiag.diagnose(build, input_size=size, draws=8)  # as the error advises
    assert (report.verdict, report.basis) == (Verdict.HEALTHY, "measurement")
    assert report.measurement.output_size == outputs
    assert Report.from_dict(report.to_dict()) == report


def test_what_becomes_of_a_gap_is_said_as_it_is():
    def remedies(report):
        return {finding.remedy for finding in report.findings if finding.code == "IND006"}

    unjudged = initdiag.diagnose(_unjudged())
    assert unjudged.findings[0].code == "IND010"
    assert all(remedy.startswith("not judged: measure it") for remedy in remedies(unjudged))
    assert remedies(initdiag.diagnose(Sliced(), draws=16)) == {
        "judged from a simulation through the module's own forward"
    }
    report = initdiag.diagnose(Attention, input_size=(2, 5, 12), draws=8)
    assert remedies(report) == {"judged from measurement"}


def test_why_nothing_is_covered_is_in_every_text():
    model = mlp([12, 16, 16, 5])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in model[::2]:
            nn.init.sparse_(layer.weight, 0.5)
    report = initdiag.diagnose(model, draws=16)
    reason = report.prediction.reasons[0].split(": log-variance")[0]
    assert "entries of kurtosis" in reason
    for text in (str(report), report.to_markdown(), report.to_html()):
        flat = " ".join(text.replace("\\", "").split())
        assert f"Covered by the theory: 0 of 3 linear layers ({reason}" in flat


@pytest.mark.parametrize(
    "widths", [[1, 1], [1, 1, 1, 1], [2, 2], [4, 1], [8, 8], [1, 1, 16], [16, 1, 1, 16]], ids=str
)
@pytest.mark.slow
def test_signs_that_cannot_show_the_variance_do_not_disagree(widths):
    for seed in range(6):
        report = initdiag.diagnose(
            seeded(functools.partial(mlp, widths), seed), draws=256, seed=seed
        )
        assert report.agreement is None or (
            report.agreement.agrees and report.agreement.moments_p_value is None
        )
    assert "do not show how they vary: not compared" in " ".join(str(report).split())
    drawn = initdiag.diagnose(functools.partial(mlp, widths), draws=256, method="redraw")
    assert drawn.agreement.agrees
    assert drawn.agreement.moments_p_value is not None
    assert "not compared" not in str(drawn)


def zero_headed(depth: int = 2) -> nn.Sequential:
    """He weights behind an output layer of zeros."""
    hidden = [part for _ in range(depth) for part in (nn.Linear(32, 32), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(32, 4))
    for part in hidden[::2]:
        nn.init.kaiming_normal_(part.weight)
    nn.init.zeros_(model[-1].weight)
    return model


def test_an_output_layer_that_starts_at_zero_is_no_dead_network():
    report = initdiag.diagnose(seeded(zero_headed), draws=64)
    assert report.verdict is Verdict.HEALTHY
    assert [(f.code, f.severity, f.layer) for f in report.findings] == [
        ("IND015", "note", "4.weight")
    ]
    with_output = seeded(zero_headed)
    nn.init.normal_(with_output[-1].weight, 0.0, 32**-0.5)
    assert report.risk["sgd"] == pytest.approx(
        initdiag.diagnose(with_output, draws=64).risk["sgd"], abs=0.01
    )
    hidden_too = seeded(zero_headed)
    nn.init.zeros_(hidden_too[2].weight)
    assert initdiag.diagnose(hidden_too, draws=64).verdict is Verdict.SYMMETRIC


class ZeroHeadedSum(nn.Module):
    """A residual sum before an output layer of zeros: no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        nn.init.zeros_(self.out.weight)

    def forward(self, x):
        return self.out(x + self.b(torch.relu(self.a(x))))


def test_off_chains_an_output_layer_of_zeros_counts_as_one_of_gain_1():
    report = initdiag.diagnose(seeded(ZeroHeadedSum), draws=256)
    assert (report.verdict, report.basis) == (Verdict.HEALTHY, "law")
    assert ("IND015", "note", "out.weight") in codes(report)
    with_output = seeded(ZeroHeadedSum)
    nn.init.normal_(with_output.out.weight, 0.0, 0.25)
    with torch.no_grad():  # the gain is 1, not about 1
        with_output.out.weight.mul_(0.25 / with_output.out.weight.square().mean().sqrt())
    usual = initdiag.diagnose(with_output, draws=256)
    assert report.prediction.hidden_drift == pytest.approx(usual.prediction.hidden_drift, abs=0.2)
    assert report.risk["sgd"] == pytest.approx(usual.risk["sgd"], abs=0.02)


class TiedZeroHead(nn.Module):
    """Nothing simulates a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.out = nn.Linear(16, 16), nn.Linear(16, 2)
        nn.init.zeros_(self.out.weight)

    def forward(self, x):
        return self.out(self.w(self.w(x).relu()).relu())


def test_an_output_layer_of_zeros_that_cannot_be_simulated_leaves_no_verdict():
    report = initdiag.diagnose(seeded(TiedZeroHead), draws=64)
    assert report.verdict is Verdict.NO_VERDICT
    assert report.findings[0].code == "IND015"
    assert "does not tell how it trains" in str(report)


class ZeroBranch(nn.Module):
    """A residual branch whose last layer starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b1, self.b2 = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.out = nn.Linear(32, 4)
        nn.init.zeros_(self.b2.weight)
        nn.init.zeros_(self.b2.bias)

    def forward(self, x):
        h = self.a(x).relu()
        return self.out(h + self.b2(self.b1(h).relu()))


@pytest.mark.parametrize("of", [seeded(ZeroBranch), ZeroBranch], ids=["module", "factory"])
def test_a_residual_branch_that_starts_at_zero_is_a_note(of):
    report = initdiag.diagnose(of, draws=64)
    assert report.verdict is Verdict.HEALTHY
    assert ("IND015", "note", "b2.weight") in codes(report)
    assert all(severity == "note" for _, severity, _ in codes(report))


def zero_in_the_middle() -> nn.Module:
    model = zero_headed()
    nn.init.zeros_(model[2].weight)
    return model


@pytest.mark.parametrize("of", [seeded(zero_in_the_middle), zero_in_the_middle])
def test_a_hidden_layer_of_zeros_is_symmetric_also_by_a_factory(of):
    report = initdiag.diagnose(of, draws=16)
    assert report.verdict is Verdict.SYMMETRIC
    assert set(report.risk.values()) == {1.0}
    (finding,) = (f for f in report.findings if f.code == "IND007")
    assert (finding.severity, finding.layer) == ("error", "2.weight")
    assert "symmetry" in finding.message


def constant() -> nn.Module:
    model = mlp([64, 64, 64, 10])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.05)
    return model


def copied_rows() -> nn.Module:
    model = mlp([16, 32, 32, 4], init="he_normal")
    with torch.no_grad():
        model[2].weight[16:] = model[2].weight[:16]
    return model


@pytest.mark.parametrize("build", [constant, copied_rows])
@pytest.mark.parametrize("as_factory", [True, False])
def test_units_that_are_alike_are_at_risk_and_symmetry_is_named(build, as_factory):
    report = initdiag.diagnose(build if as_factory else seeded(build), draws=16)
    assert (report.verdict, report.basis) == (Verdict.SYMMETRIC, "structure")
    assert set(report.risk.values()) == {1.0}
    assert report.findings[0].severity == "error"
    assert "symmetry" in report.findings[0].message
    assert "symmetry" not in str(initdiag.diagnose(lambda: mlp([16, 32, 32, 4]), draws=16))
    assert Report.from_dict(json.loads(report.to_json())) == report


class Handed(nn.Module):
    """Layers are called, and what they give is not used, or detached."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.way = way

    def forward(self, x):
        h = self.b(self.a(x).relu()).relu()
        if self.way == "input":
            return x
        if self.way == "detached branch":
            return x + h.detach()
        if self.way == "detached body":
            return self.out(x + h.detach())
        if self.way == "rounded":
            return x + h.data
        return self.out(x + h)


@pytest.mark.parametrize("way", ["input", "detached branch", "detached body", "rounded"])
@pytest.mark.parametrize("as_factory", [True, False])
def test_a_module_whose_weights_get_no_gradient_is_at_risk(way, as_factory):
    build = functools.partial(Handed, way)
    report = initdiag.diagnose(build if as_factory else build(), torch.randn(8, 16), draws=16)
    assert (report.verdict, report.basis) == (Verdict.DEAD, "structure")
    assert set(report.risk.values()) == {1.0}
    assert report.findings[0].code == "IND017"
    assert "get no gradient" in report.findings[0].message


def test_a_module_whose_weights_get_their_gradient_past_a_sum_is_not_called_cut_off():
    report = initdiag.diagnose(Handed("honest"), torch.randn(8, 16), draws=64)
    assert report.verdict is Verdict.HEALTHY
    assert "IND017" not in str(report.findings)


class SwiGLU(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(n, n, bias=False) for _ in range(3))
        for layer in (self.a, self.b, self.c):
            nn.init.normal_(layer.weight, std=1.5 * (2 / n) ** 0.5)

    def forward(self, x):
        return self.c(nn.functional.silu(self.a(x)) * self.b(x))


def test_a_network_that_overflows_is_at_risk_with_a_number():
    """The values of such blocks square from one to the next, beyond any float."""
    model = seeded(lambda: nn.Sequential(*(SwiGLU(13) for _ in range(14))))
    report = initdiag.diagnose(model, torch.randn(16, 13), draws=64)
    assert report.verdict is Verdict.EXPLODING
    assert all(risk == 1.0 for risk in report.risk.values())
    assert "overflow" in report.findings[0].message


def test_no_risk_is_nan_whatever_the_numbers():
    for drift, variance, dead, overflows in (
        (math.nan, math.nan, 1.0, False),
        (math.inf, math.nan, 0.5, True),
        (math.nan, math.nan, 0.0, True),
        (-math.inf, math.nan, 1.0, False),
    ):
        numbers = Numbers.of(drift, variance, dead, 9, overflows)
        assert numbers.risk(Training()) == 1.0
    assert Numbers.of(0.0, math.nan, 0.0, 9, overflows=False) is None
    assert Numbers.of(math.nan, 1.0, 0.0, 9, overflows=False) is None


def tiny_layer(scale: float = 1e-6) -> nn.Sequential:
    """He weights; one small layer among wide ones is ``scale`` times too small."""
    model = mlp([64, 5, 5, 64, 64], init="he_normal")
    with torch.no_grad():
        model[2].weight.mul_(scale)
    return model


def taken_for_he(model: nn.Module) -> Architecture:
    """The model's trace, with each layer taken for He normal whatever its scale."""
    found = initdiag.trace(model)
    layers = tuple(
        dataclasses.replace(
            layer,
            weight=dataclasses.replace(
                WeightLaw.from_initializer("he_normal", layer.fan_in, layer.fan_out),
                sample_variance=layer.weight.sample_variance,
            ),
        )
        for layer in found.layers
    )
    return dataclasses.replace(found, layers=layers)


def judged_with(arch: Architecture, measurement: initdiag.Measurement) -> Report:
    """The report of an architecture and a measurement, as `diagnose` puts them together."""
    seen = diagnose_module._Seen(arch, measurement)
    rule = diagnose_module._Rule.of(None, None, None, None, False)
    return diagnose_module._report(seen, rule, None, 0.0)


def test_a_prediction_that_the_measurement_refutes_is_not_judged_by():
    """Printed -0.6 beside -28 used to agree: signs keep the size of the weights."""
    model = seeded(tiny_layer)
    arch = taken_for_he(model)
    measured = initdiag.measure(model, draws=256)
    report = judged_with(arch, measured)
    assert abs(report.prediction.log_mean - measured.log_mean) > 20
    assert not report.agreement.agrees
    assert report.agreement.scale_p_value < 1e-10
    assert (report.verdict, report.basis) == (Verdict.VANISHING, "measurement")
    first_lines = " ".join(str(report).split("\n\n")[0].split())
    assert "The measurement refutes the prediction, so the measurement is judged." in first_lines
    assert report.advice == ()
    honest = seeded(functools.partial(tiny_layer, 1.0))
    right = judged_with(taken_for_he(honest), initdiag.measure(honest))
    assert (right.agreement.agrees, right.basis) == (True, "law")


def test_a_factory_that_random_signs_refute_is_drawn_afresh(monkeypatch):
    """Of a factory the weights of one draw are not what is judged."""

    def refuting(arch, measurement, level, prediction):
        found = agreement(arch, measurement, level, prediction)
        return dataclasses.replace(found, agrees=measurement.method != "signs")

    monkeypatch.setattr(diagnose_module, "agreement", refuting)
    build = functools.partial(mlp, [16, 32, 4])
    drawn = initdiag.diagnose(build, draws=64)
    assert (drawn.measurement.method, drawn.basis) == ("redraw", "law")
    kept = initdiag.diagnose(build(), draws=64)
    assert (kept.measurement.method, kept.basis) == ("signs", "measurement")
    asked = initdiag.diagnose(build, draws=64, method="signs")
    assert (asked.measurement.method, asked.basis) == ("signs", "measurement")


def test_the_size_of_honest_weights_is_not_refused():
    """Its p-value is uniform over models, also where layers have few entries."""
    p_values = []
    for seed in range(400):
        init = ("he_normal", "torch_default")[seed % 2]
        widths = [[16, 32, 32, 4], [6, 6, 6, 6], [64, 5, 40, 3]][seed // 2 % 3]
        torch.manual_seed(seed)
        model = mlp(widths, init=init)
        p_values.append(_scale_p_value(named(model, widths, init).layers))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def named(model: nn.Module, widths: list[int], init: str) -> Architecture:
    """The widths under an initialiser, with what the model's weights show."""
    arch = Architecture.from_widths(widths, init=init)
    weights = [part.weight.detach().double() for part in model if isinstance(part, nn.Linear)]
    layers = tuple(
        dataclasses.replace(
            layer,
            weight=dataclasses.replace(layer.weight, sample_variance=float((w * w).mean())),
        )
        for layer, w in zip(arch.layers, weights, strict=True)
    )
    return dataclasses.replace(arch, layers=layers)


def codes(report: Report) -> list[tuple[str, str, str | None]]:
    return [(f.code, f.severity, f.layer) for f in report.findings]


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_too_few_draws_are_no_verdict(draws):
    model = seeded(ZeroHeadedSum)
    nn.init.normal_(model.out.weight, 0.0, 0.25)
    report = initdiag.diagnose(model, draws=draws)
    assert (report.verdict, report.risk) == (Verdict.NO_VERDICT, {})
    assert report.findings[0].message == "too few draws have a gradient for a log-variance"
    assert initdiag.diagnose(model, draws=8).verdict is Verdict.HEALTHY


def test_an_input_that_no_gradient_passes_is_dead_whatever_the_law_says():
    model = seeded(lambda: zero_headed(3))
    nn.init.normal_(model[-1].weight, 0.0, 32**-0.5)
    for part in model[::2]:
        nn.init.zeros_(part.bias)
    report = initdiag.diagnose(model, torch.zeros(8, 32), draws=64)
    assert (report.verdict, report.basis, report.advice) == (Verdict.DEAD, "measurement", ())
    assert initdiag.diagnose(model, torch.randn(8, 32), draws=64).ok


def test_a_law_that_is_refused_for_its_error_is_a_finding():
    model = seeded(lambda: mlp([64, 64, 64, 64, 4]))
    for part in model[:-1:2]:  # of the output layer nothing would be left
        nn.init.sparse_(part.weight, 0.95, 0.1)
    report = initdiag.diagnose(model, draws=64)
    assert report.prediction.coverage == "none"
    assert any(f.code == "IND006" and "too far from Gaussian" in f.message for f in report.findings)


def test_a_risk_just_below_the_limit_does_not_read_as_the_limit():
    report = diagnose_architecture(Architecture.from_widths([64, 128, 128, 10]))
    close = dataclasses.replace(report, risk={"sgd": 0.4961, "adam": 0.1})
    assert "Training may start or not: risk 49.6 % (SGD), 10 % (Adam)." in str(close)
    assert "49.6 %" in close.to_html()
    assert "49.996 % (SGD)" in str(dataclasses.replace(report, risk={"sgd": 0.49996, "adam": 0.1}))


def test_luck_is_told_in_pairs_and_beside_it_what_is_typical():
    """ln gain^2 is near normal: two draws differ by 0.954 sd or more in half of all pairs."""
    report = diagnose_architecture(Architecture.from_widths([12] * 62 + [10], init="he_normal"))
    text = " ".join(str(report).split())
    pair, rare, typical = map(
        float, re.search(r"pairs of initialisations differ by a factor (\S+) or more, one in twenty by (\S+)\. A typical one is (\S+) times too small", text).groups()
    )  # fmt: skip
    draws = report.prediction.law.rvs(size=(2, 20_000), random_state=0)
    apart = np.abs(draws[0] - draws[1]) / 2
    assert np.quantile(apart, 0.5) == pytest.approx(math.log(pair), rel=0.05)
    assert np.quantile(apart, 0.95) == pytest.approx(math.log(rare), rel=0.05)
    assert math.log(typical) == pytest.approx(-report.prediction.hidden_drift / 2, rel=0.02)


def test_a_module_is_not_predicted_untraced():
    with pytest.raises(initdiag.InvalidInput, match=r"predict\(initdiag.trace\(model\)\)"):
        initdiag.predict(mlp([8, 2]))
