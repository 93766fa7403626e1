"""A fixed map of the input in front of all layers is no part of what is judged; ways around layers are counted."""

from __future__ import annotations

import math

import pytest
import torch
from support.styles import seeded
from torch import nn

import initdiag
from initdiag import Verdict

FREQUENCIES = 8


class Encoding(nn.Module):
    """A positional encoding, whose derivative grows to 2^7 pi."""

    def forward(self, x):
        angles = (x[..., None] * 2.0 ** torch.arange(FREQUENCIES) * math.pi).flatten(1)
        return torch.cat([x, torch.sin(angles), torch.cos(angles)], 1)


def field(init: str, depth: int = 10) -> nn.Sequential:
    """An encoding and a ReLU chain of 64 units."""
    widths = [3 + 6 * FREQUENCIES, *[64] * depth, 4]
    parts = [Encoding()]
    for i in range(len(widths) - 1):
        linear = nn.Linear(widths[i], widths[i + 1])
        if init == "he":
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Scaled(nn.Module):
    """Pixels from 0 to ``scale``, divided by it in the forward."""

    def __init__(self, scale: float, inner: nn.Module) -> None:
        super().__init__()
        self.scale, self.inner = scale, inner

    def forward(self, x):
        return self.inner(x.flatten(1) / self.scale)


POINTS = torch.rand(32, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("init", "verdict"), [("default", Verdict.VANISHING), ("he", Verdict.HEALTHY)]
)
def test_behind_an_encoding_the_chain_is_judged(init, verdict):
    model = seeded(lambda: field(init))
    whole = initdiag.diagnose(model, POINTS)
    rest = initdiag.diagnose(model[1:], model[0](POINTS))
    assert whole.verdict is rest.verdict is verdict
    assert whole.risk["sgd"] == pytest.approx(rest.risk["sgd"], abs=0.03)
    law = initdiag.predict(rest.architecture)
    assert whole.prediction.hidden_drift == pytest.approx(law.hidden_drift, abs=0.25)
    assert whole.prediction.hidden_log_variance == pytest.approx(law.hidden_log_variance, abs=0.15)
    assert (
        abs(whole.prediction.rms_gain_log_mean - law.rms_gain_log_mean) > 5
    )  # the encoding's own derivative
    assert [(g.path, g.kind) for g in whole.architecture.gaps] == [("input", "preprocessing")]
    assert whole.architecture.input_map.functions[-2:] == ("cos", "cat")
    assert rest.architecture.input_map is None
    assert "from the first layer on" in str(whole)


@pytest.mark.slow
def test_a_chain_at_risk_behind_an_encoding_gets_its_advice():
    model = seeded(lambda: field("default"))
    found, alone = (
        initdiag.diagnose(model, POINTS).advice,
        initdiag.diagnose(model[1:], model[0](POINTS)).advice,
    )
    assert [one.action for one in found] == [one.action for one in alone] != []
    # The batch is shown to the remedies of the chain alone, whose input it is.
    assert found[0].risk_after == pytest.approx(alone[0].risk_after, abs=0.01)


@pytest.mark.slow
def test_the_measurement_is_judged_alike_where_nothing_is_predicted():
    report = initdiag.diagnose(seeded(lambda: field("he")), POINTS)
    alone = seeded(lambda: field("he"))
    measured = initdiag.measure(alone, POINTS, draws=512)
    first = report.architecture.first_layer
    drift, variance = measured.from_first_layer(first.weight.variance, first.fan_in, first.fan_out)
    rest = initdiag.measure(alone[1:], alone[0](POINTS), draws=512)
    assert drift == pytest.approx(
        rest.rms_gain_log_mean, abs=4 * math.hypot(measured.log_mean_se, rest.log_mean_se)
    )
    assert variance == pytest.approx(rest.log_variance, abs=0.2)


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
def test_the_unit_of_the_input_changes_no_verdict(scale):
    model = seeded(lambda: Scaled(scale, field("he", 4)[1:]))
    report = initdiag.diagnose(model, torch.rand(8, 51) * scale)
    assert report.verdict is Verdict.HEALTHY
    assert report.risk["sgd"] < 0.02


def test_a_first_layer_of_zeros_behind_an_encoding_is_symmetric():
    model = seeded(lambda: field("he", 3))
    nn.init.zeros_(model[1].weight)
    assert initdiag.diagnose(model, POINTS, draws=64).verdict is Verdict.SYMMETRIC


class Around(nn.Module):
    """The raw input joins again behind the layers, so that the encoding is not all there is of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding, self.a, self.b = Encoding(), nn.Linear(51, 16), nn.Linear(19, 2)

    def forward(self, x):
        return self.b(torch.cat([torch.relu(self.a(self.encoding(x))), x], 1))


class Again(Around):
    """The encoding itself joins again: nothing goes around it."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Linear(67, 2)

    def forward(self, x):
        e = self.encoding(x)
        return self.b(torch.cat([torch.relu(self.a(e)), e], 1))


class Learnt(nn.Module):
    """Frequencies that are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(3))
        self.a, self.b = nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(torch.sin(x * self.frequency))))


def test_what_is_learnt_or_gone_around_is_no_preprocessing():
    def kinds(model):
        return [gap.kind for gap in initdiag.trace(model, POINTS).gaps]

    convolution = nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2)
    )
    for model in (Around(), Learnt(), convolution):
        assert "preprocessing" not in kinds(model)
    assert kinds(Again())[0] == "preprocessing"
    assert kinds(nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))) == []


class Residual(nn.Module):
    """Blocks with skip connections between two layers."""

    def __init__(self, blocks: int, width: int = 12) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, 4)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        for layer in (self.first, self.last, *self.blocks):
            nn.init.orthogonal_(layer.weight, 2**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = self.first(x)
        for layer in self.blocks:
            x = x + len(self.blocks) ** -0.5 * layer(torch.relu(x))
        return self.last(torch.relu(x))


@pytest.mark.slow
def test_skip_connections_are_ways_around_layers():
    """As the advice counts them: what it promises of skip connections is what their diagnosis says."""
    for blocks in (3, 59):
        architecture = initdiag.trace(seeded(lambda blocks=blocks: Residual(blocks)))
        assert (len(architecture.layers), architecture.depth) == (blocks + 2, 2)
    report = initdiag.diagnose(seeded(lambda: Residual(59)))
    assert report.verdict is Verdict.HEALTHY
    chain = initdiag.diagnose(seeded(lambda: nn.Sequential(*[p for _ in range(61) for p in (nn.Linear(12, 12), nn.ReLU())][:-1])))  # fmt: skip
    advised = next(one for one in chain.advice if "skip connections" in one.action)
    assert report.risk["sgd"] == pytest.approx(advised.risk_after, abs=0.03)


class Pair(nn.Module):
    """A policy and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.policy, self.value = nn.Linear(8, 32), nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.policy(h), self.value(h)


def test_of_several_outputs_the_first_is_judged_and_the_report_says_so():
    report = initdiag.diagnose(seeded(Pair))
    assert report.architecture.output_size == 4
    assert "judged: output[0]" in {f.message for f in report.findings if f.code == "IND019"}
    assert report.architecture.gaps == (), "what is not judged takes no coverage away"


def behind(norm, depth=4, width=24):
    torch.manual_seed(0)
    layers = [norm]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers, nn.Linear(width, 3))


NORMS = {
    "layer norm": lambda: nn.LayerNorm(24),
    "layer norm without a scale": lambda: nn.LayerNorm(24, elementwise_affine=False),
    "root mean square": lambda: nn.RMSNorm(24),
    "groups": lambda: nn.GroupNorm(4, 24),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_norm_in_front_of_all_layers_takes_the_inputs_unit_out(norm):
    x = torch.randn(16, 24)
    reports = [initdiag.diagnose(behind(norm()), x * unit, draws=64) for unit in (0.01, 1.0, 255.0)]
    assert {report.verdict for report in reports} == {Verdict.HEALTHY}
    assert all(report.architecture.input_map is not None for report in reports)
    risks = [report.risk["sgd"] for report in reports]
    assert max(risks) - min(risks) < 0.01
    chain = initdiag.predict(reports[0].architecture.chain)
    assert reports[1].prediction.hidden_drift == pytest.approx(chain.hidden_drift, abs=0.1)


def test_a_norm_between_layers_is_no_map_of_the_input():
    model = nn.Sequential(nn.Linear(24, 24), nn.LayerNorm(24), nn.Linear(24, 3))
    assert initdiag.trace(model).input_map is None
