"""`repair`: gain 1 layer by layer on every chain of the zoo, a measured drift of 0 elsewhere; all of it or nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support.styles import seeded
from support.untouched import assert_same, random_states, state
from torch import nn
from torch.nn.utils import parametrizations
from zoo.models import CHAINS, NO_CHAINS, SMOOTH
from zoo.test_zoo import built

import initdiag
from initdiag import (
    Architecture,
    InvalidInput,
    UnsupportedArchitecture,
    measure,
    predict,
    repair,
    trace,
)
from initdiag.repairing import plan as plan_module
from initdiag.repairing import repair as repair_module

FIXED = ("spectral_norm", "old spectral_norm", "orthogonal parametrisation")
"""Parametrisations that cannot hold the weights a ReLU net needs."""

ONE_BY_ONE = ("feature dropout", "alpha dropout")
"""Random themselves in ways that are not taken for known: each draw is a pass of its own, which takes long."""

METHODS = ("he_normal", "orthogonal", "rescale")
MENDABLE = [s for s in CHAINS if s.name not in (*FIXED, "lazy layers")]
SINGULAR = ("softmax",)
"""Its gradient grows faster than its weights: no factor makes the drift 0."""


def mlp(width: int = 24, depth: int = 6, act=nn.ReLU) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Linear(10, width), act()]
    for _ in range(depth - 2):
        parts += [nn.Linear(width, width), act()]
    return nn.Sequential(*parts, nn.Linear(width, 4))


def as_drawn(arch: Architecture) -> Architecture:
    """The trace with the weights' own variances in place of nominal ones, which may be sampling error away."""
    weights = (
        dataclasses.replace(w, variance=w.sample_variance)
        for w in (layer.weight for layer in arch.layers)
    )
    layers = (
        dataclasses.replace(layer, weight=w) for layer, w in zip(arch.layers, weights, strict=True)
    )
    return dataclasses.replace(arch, layers=tuple(layers))


def mean_square_slope(gate: str) -> float:
    """E d^2 of a gate by its label, by hand: half the units open (or at the slope), inverted dropout of rate r divides by 1 - r."""
    words = gate.replace(",", "").split()
    slope = float(words[words.index("leaky") + 2]) if "leaky" in words else 0.0
    rate = float(words[words.index("dropout") + 1]) if "dropout" in words else 0.0
    return (1.0 if words[0] == "linear" else (1 + slope**2) / 2) / (1 - rate)


@pytest.mark.parametrize("method", ["he_normal", "orthogonal"])
@pytest.mark.parametrize("specimen", MENDABLE, ids=str)
def test_fresh_weights_have_gain_1_in_every_layer(specimen, method):
    model = built(specimen)
    done = repair(model, method, seed=1, input_size=specimen.input_size)
    stds = {c.name: c.std_after for c in done.changes if c.what != "zeroed"}
    assert tuple(stds) == specimen.layers
    for layer, gate in zip(
        trace(model, input_size=specimen.input_size).layers, specimen.gates, strict=True
    ):
        wanted = (layer.fan_in * mean_square_slope(gate)) ** -0.5
        error = 1e-3 if method == "orthogonal" else 4 / math.sqrt(2 * layer.fan_in * layer.fan_out)
        assert math.log(stds[layer.name] / wanted) == pytest.approx(0, abs=error + 4e-3)
        assert layer.bias is None or layer.bias.variance == 0


@pytest.mark.parametrize("specimen", MENDABLE, ids=str)
@pytest.mark.slow
def test_rescaled_chains_have_no_drift(specimen):
    model = built(specimen)
    done = repair(model, "rescale", seed=1, input_size=specimen.input_size)
    assert done.basis == "law"
    assert done.drift_after == pytest.approx(0, abs=1e-3)
    found = predict(as_drawn(trace(model, input_size=specimen.input_size)))
    assert found.hidden_drift == pytest.approx(0, abs=1e-2)
    seen = measure(model, input_size=specimen.input_size, draws=512, seed=3, gradients=False)
    output = found.rms_gain_log_mean - found.hidden_drift  # the linear output's own draw
    one_network = math.sqrt(
        sum(2 / (layer.fan_in * layer.fan_out) for layer in found.layers)
    )  # its own offset
    assert abs(seen.rms_gain_log_mean - output) < 4 * math.hypot(seen.log_mean_se, one_network)


BOUNDED = ("tanh", "sigmoid", "hardtanh", "relu6")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "specimen", [s for s in SMOOTH if s.name != "RReLU in train mode"], ids=str
)
def test_smooth_chains_have_no_drift_but_for_what_saturates(specimen, method):
    model = built(specimen)
    done = repair(model, method, seed=1)
    seen = measure(model, draws=1024, seed=3, gradients=False)
    assert done.basis == "law"
    assert seen.rms_gain_log_mean == pytest.approx(done.drift_after, abs=0.5)
    if set(specimen.gates) & set(BOUNDED):
        assert done.drift_before + 2 < done.drift_after < 0.2
    else:
        assert abs(done.drift_after) < 0.3 < abs(done.drift_before) - 2


def tanh_net() -> nn.Sequential:
    """2 to 8 x 64 to 1: a narrow input, as of a physics-informed network."""
    hidden = [part for _ in range(7) for part in (nn.Linear(64, 64), nn.Tanh())]
    return nn.Sequential(nn.Linear(2, 64), nn.Tanh(), *hidden, nn.Linear(64, 1))


def trained(model: nn.Module, lr: float, steps: int) -> float:
    """R^2 of a wave after steps of plain SGD."""
    x = torch.rand(256, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.sin(3 * x[:, :1]) * torch.cos(2 * x[:, 1:])
    y = (y - y.mean()) / y.std()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    return 1 - loss.item()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_a_repaired_tanh_network_does_not_saturate_and_trains(method):
    as_built, mended = seeded(tanh_net), seeded(tanh_net)
    repair(mended, method, seed=1)
    x = torch.rand(256, 2) * 2 - 1
    for part in mended[:-1:2]:
        h = part(x)
        assert 0.3 < h.std() < 1.7
        x = torch.tanh(h)
    assert trained(mended, 0.02, 200) > 0.9 > trained(as_built, 0.02, 200)


def test_an_output_activation_counts_as_linear():
    model = seeded(lambda: nn.Sequential(*mlp(64, 8), nn.Sigmoid()))
    done = repair(model, seed=1)
    std = {change.name: change.std_after for change in done.changes}
    assert std["14.weight"] == pytest.approx(64**-0.5, rel=0.2)


class TwoHeads(nn.Module):
    """An actor and a critic: orthogonal, the policy's head a hundred times smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, 4), nn.Linear(64, 1)
        for part, gain in (
            (self.body[0], 1.4),
            (self.body[2], 1.4),
            (self.policy, 0.01),
            (self.value, 1.0),
        ):
            nn.init.orthogonal_(part.weight, gain)

    def forward(self, x):
        h = self.body(x)
        return self.policy(h), self.value(h)


@pytest.mark.parametrize("method", METHODS)
def test_one_small_head_does_not_blow_up_the_others(method):
    model = seeded(TwoHeads)
    repair(model, method, seed=1, input_size=(16, 8))
    x = torch.randn(512, 8)
    assert model.body[0](x).std() < 1.7
    assert all(0.3 < out.std() < 1.5 for out in model(x))


@pytest.mark.parametrize(
    "specimen",
    [
        pytest.param(s, marks=pytest.mark.slow if s.name in ONE_BY_ONE else ())
        for s in NO_CHAINS
        if s.name not in (*SINGULAR, *FIXED)
    ],
    ids=str,
)
def test_what_is_no_chain_is_measured_without_drift(specimen):
    model = built(specimen)
    done = repair(model, "rescale", seed=1, input_size=specimen.input_size)
    assert done.basis == "measurement"
    draws = 512 if specimen.name in ONE_BY_ONE else 4096
    seen = measure(model, input_size=specimen.input_size, draws=draws, seed=7, gradients=False)
    spread = math.sqrt(
        seen.log_variance
    )  # repair stops at a drift within one standard error of its 1,024 draws
    assert abs(seen.rms_gain_log_mean) < spread * (
        math.sqrt(1 / 1024) + 4 * math.sqrt(1 / 1024 + 1 / draws)
    )


def test_the_drift_of_a_deep_default_net_goes_and_its_verdict_with_it():
    for method in METHODS:
        model = seeded(lambda: mlp(96, 24))
        assert initdiag.diagnose(model, method="none").verdict.name == "VANISHING"
        repair(model, method, seed=2)
        assert initdiag.diagnose(model, method="none").ok


@pytest.mark.slow
def test_sabotage_without_the_gate_the_gain_is_wrong(monkeypatch):
    """Were the slope of leaky ReLU (or any gate) left out of the variance, the measurement would show it."""
    act = lambda: nn.LeakyReLU(0.7)  # noqa: E731
    good, bad = seeded(lambda: mlp(64, 12, act)), seeded(lambda: mlp(64, 12, act))
    repair(good, seed=1)
    right = plan_module.std
    monkeypatch.setattr(
        plan_module, "std", lambda layer, is_output: right(layer, is_output) * math.sqrt(1 + 0.7**2)
    )
    repair(bad, seed=1)
    drift = [measure(m, draws=512, gradients=False).rms_gain_log_mean for m in (good, bad)]
    assert abs(drift[0]) < 1.5 < 4 < drift[1]


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_what_cannot_be_done_changes_nothing(name, method):
    """The first layers could be written; the last cannot: nothing is."""
    wrap = next(s for s in (*CHAINS, *NO_CHAINS) if s.name == name).build()
    model = nn.Sequential(nn.Linear(wrap[0].in_features, wrap[0].in_features), nn.ReLU(), *wrap)
    before, random_before = state(model), random_states()
    with pytest.raises(UnsupportedArchitecture, match="cannot"):
        repair(model, method, seed=1)
    assert_same(before, state(model))
    for old, new in zip(random_before, random_states(), strict=True):
        assert str(old) == str(new)


def test_no_factor_helps_a_softmax_and_nothing_changes():
    model = built(next(s for s in NO_CHAINS if s.name == "softmax"))
    before = state(model)
    with pytest.raises(UnsupportedArchitecture, match="no common factor"):
        repair(model, "rescale", seed=1)
    assert_same(before, state(model))


def test_an_interrupt_changes_nothing(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    model = mlp()
    before = state(model)
    monkeypatch.setattr(plan_module, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        repair(model)
    assert_same(before, state(model))


def test_a_parameter_that_cannot_be_written_leaves_the_others_as_they_were():
    model = mlp()
    model[-1].weight = nn.Parameter(torch.full((1, 1), 0.1).expand(4, 24))
    before = state(model)
    with pytest.raises(UnsupportedArchitecture, match="cannot be written") as raised:
        repair(model, seed=1)
    assert "single memory location" in str(raised.value.__cause__)
    assert_same(before, state(model))


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_fault_right_after_a_write_changes_nothing_not_even_versions(monkeypatch, fault, at):
    model = mlp()
    before, random_before = state(model), random_states()
    right, writes = torch.Tensor.copy_, iter(range(10**6))

    def copied(tensor, value):
        done = right(tensor, value)
        if next(writes) == at:
            raise fault
        return done

    commit = repair_module._commit

    def committed(module, work):
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "copy_", copied)
            commit(module, work)

    monkeypatch.setattr(repair_module, "_commit", committed)
    expected = UnsupportedArchitecture if isinstance(fault, Exception) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        repair(model, seed=1)
    assert fault in (raised.value, raised.value.__cause__)
    assert_same(before, state(model))
    for old, new in zip(random_before, random_states(), strict=True):
        assert str(old) == str(new)


def test_autograd_is_told_that_the_weights_changed():
    model = mlp()
    loss = model(torch.randn(3, 10)).square().sum()
    repair(model, seed=1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Residual(nn.Module):
    """A residual network of five linear layers, which is not a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.blocks = nn.ModuleList(nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = h + 3 * torch.relu(block(h))
        return h


@pytest.fixture
def linears(monkeypatch):
    """Every call of a linear layer's forward pass, of whatever copy."""
    calls, forward = [], nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: calls.append(1) or forward(self, x))
    return calls


def test_the_module_is_traced_once_however_often_it_is_measured(monkeypatch, linears):
    traces, measurements = [], []
    for name, seen in (("trace_with_biases", traces), ("measure", measurements)):
        right = getattr(plan_module, name)
        watched = lambda *a, right=right, seen=seen, **k: seen.append(1) or right(*a, **k)  # noqa: E731
        monkeypatch.setattr(plan_module, name, watched)
    done = repair(seeded(Residual), seed=1, input_size=(4, 12))
    assert done.basis == "measurement"
    assert len(traces) == 1
    assert len(measurements) >= 2
    # Can a gradient flow, are rows mixed, and the draws; the rest is what a measurement looks
    # at before (`initdiag.measuring.survey`), 16 passes of one draw among it.
    a_measurement = 3 + 23
    assert len(linears) == 5 * (1 + a_measurement * len(measurements))


def test_a_chain_is_repaired_on_one_trace(linears):
    """One watched pass, and the six runs of the proof that it is a chain."""
    model = seeded(mlp)
    repair(model, seed=1)
    layers = sum(isinstance(module, nn.Linear) for module in model)
    assert len(linears) == (1 + 6) * layers


def test_orthogonal_parametrisation_without_gates_can_hold_orthogonal_weights():
    model = nn.Sequential(*(parametrizations.orthogonal(nn.Linear(12, 12)) for _ in range(4)))
    before = model[1].weight.detach().clone()
    done = repair(model, "orthogonal", seed=1)
    assert done.drift_after == pytest.approx(0, abs=1e-5)
    assert not torch.allclose(before, model[1].weight)
    torch.testing.assert_close(
        model[1].weight @ model[1].weight.T, torch.eye(12), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("method", METHODS)
def test_ties_dtypes_modes_and_random_states_are_kept(method):
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)
        )
    )
    model[2].weight = model[0].weight
    model.to(torch.float64)[2].eval()
    model[4].weight.requires_grad_(False)
    before, random_before = state(model), random_states()
    done = repair(model, method, seed=1)
    assert [c.name for c in done.changes] == ["0.weight", "4.weight", "0.bias", "2.bias", "4.bias"]
    assert model[2].weight is model[0].weight
    after = state(model)
    assert before["modes"] == after["modes"]
    assert before["attributes"] == after["attributes"]
    for old, new in zip(before["tensors"], after["tensors"], strict=True):
        assert (old[:2], old[3:5], old[5].dtype) == (new[:2], new[3:5], new[5].dtype)
    for old, new in zip(random_before, random_states(), strict=True):
        assert str(old) == str(new)


def test_the_seed_makes_the_draw_and_the_record_tells_it():
    first, second, third = (seeded(mlp) for _ in range(3))
    done = repair(first)
    repair(second, seed=done.seed)
    repair(third, seed=done.seed + 1)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, third[0].weight)


def test_an_unused_layer_and_a_norm_stay_as_they_are():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b, self.spare = (
                nn.Linear(6, 9),
                nn.LayerNorm(9),
                nn.Linear(9, 2),
                nn.Linear(3, 3),
            )

        def forward(self, x):
            return self.b(torch.relu(self.norm(self.a(x))))

    model = Net()
    kept = [p.detach().clone() for p in (*model.norm.parameters(), *model.spare.parameters())]
    done = repair(model, seed=0)
    assert {c.name for c in done.changes} == {"a.weight", "b.weight", "a.bias", "b.bias"}
    now = [*model.norm.parameters(), *model.spare.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(kept, now, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((mlp,), "the module itself"),
        ((mlp(), "xavier"), "he_normal, orthogonal, rescale"),
        ((mlp(), "he_normal", -1), "non-negative"),
        ((mlp(), "he_normal", True), "non-negative"),
        ((nn.Sequential(nn.LazyLinear(3)),), "lazy"),
        ((mlp().to("meta"),), "meta"),
    ],
)
def test_usage_faults(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        repair(*arguments)


def test_zero_weights_cannot_be_rescaled():
    model = mlp()
    nn.init.zeros_(model[-1].weight)
    with pytest.raises(InvalidInput, match="all zero"):
        repair(model, "rescale")
