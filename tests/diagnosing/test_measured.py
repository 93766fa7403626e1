"""The ensemble that a network is measured by is the one that it was drawn from.

Truth by brute force: builds of the factory, each measured by itself in reverse mode.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from initdiag import diagnose

X = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


def chain(gain=1.0, end=None):
    layers = [nn.Linear(8, 8, bias=False) for _ in range(4)]
    for layer in layers:
        nn.init.normal_(layer.weight, 0, gain * math.sqrt(2 / 8))
    parts = [part for layer in layers for part in (layer, end() if end else nn.ReLU())]
    return nn.Sequential(*parts)


def random_slope():
    part = nn.PReLU()
    nn.init.normal_(part.weight)
    return part


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.gain = chain(), nn.Parameter(torch.exp(2 * torch.randn(())))

    def forward(self, x):
        return self.gain * self.net(x)


def deeper():
    return nn.Sequential(chain(float(torch.exp(torch.randn(())))), nn.Linear(8, 4))


FACTORIES = {
    "a gain a build": lambda: chain(math.exp(float(torch.randn(())))),
    "two gains": lambda: chain(1.0 if torch.rand(()) < 0.5 else 0.2),
    "a gain in a part": deeper,
    "slopes": lambda: chain(end=random_slope),
    "a raw parameter": Scaled,
}


def truth(build, builds=400):
    generator, logs = torch.Generator().manual_seed(1), []
    for seed in range(builds):
        torch.manual_seed(seed)
        net, x = build(), X[seed % 8].clone().requires_grad_()
        y = net(x[None])[0]
        jacobian = torch.stack([torch.autograd.grad(v, x, retain_graph=True)[0] for v in y])
        u = torch.randn(8, generator=generator)
        logs.append(float((jacobian @ (u / u.norm())).double().square().sum().log()))
    finite = np.array([one for one in logs if math.isfinite(one)])
    return finite.mean(), finite.var(ddof=1), len(finite)


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_is_measured_by_its_builds_unless_signs_show_the_same(name):
    build = FACTORIES[name]
    torch.manual_seed(3)
    measurement = diagnose(build, X, draws=512).measurement
    mean, variance, count = truth(build)
    assert measurement.fixed == ()
    error = math.hypot(measurement.log_mean_se, math.sqrt(variance / count))
    assert abs(measurement.log_mean - mean) < 5 * error
    ratio = math.log(measurement.log_variance / variance)
    assert abs(ratio) < 5 * math.sqrt(2 / count + 2 / 512) * 1.5


def test_an_honest_factory_is_measured_by_signs():
    assert diagnose(chain, X, draws=64).measurement.method == "signs"


def test_a_factory_of_random_gain_is_not():
    torch.manual_seed(0)
    assert diagnose(FACTORIES["a gain a build"], X, draws=64).measurement.method == "redraw"


@pytest.mark.parametrize(
    ("build", "names"), [(Scaled, {"gain"}), (FACTORIES["slopes"], {"1.weight"})]
)
def test_what_one_build_leaves_fixed_is_named(build, names):
    torch.manual_seed(0)
    assert names <= set(diagnose(build(), X, draws=32).measurement.fixed)


def test_a_number_that_was_written_is_not_called_fixed():
    model = nn.Sequential(chain(), nn.PReLU(), nn.Linear(8, 8), nn.PReLU(init=0.3))
    assert diagnose(model, X, draws=32).measurement.fixed == ()


SKEWED = {
    "exponential": lambda w: w.exponential_().sub_(1).mul_(0.4),
    "shifted": lambda w: w.normal_(0.3, 0.5),
    "positive": lambda w: w.uniform_(0, 0.5),
    "two values": lambda w: w.bernoulli_(0.3).sub_(0.3),
    "gamma": lambda w: w.copy_(torch.distributions.Gamma(2.0, 4.0).sample(w.shape) - 0.4),
}


@pytest.mark.parametrize("name", SKEWED)
def test_skewed_weights_without_a_name_are_shuffled(name):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(9)))
    with torch.no_grad():
        for layer in model:
            SKEWED[name](layer.weight)
    measurement = diagnose(model, X, draws=32).measurement
    assert measurement.method == "redraw"
    assert any("shuffled" in note for note in measurement.notes)


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 0.3 * g


def test_a_custom_function_without_a_forward_mode_is_measured_in_reverse():
    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x):
            return Clipped.apply(self.net(x))

    torch.manual_seed(0)
    plain = diagnose(chain(), X, draws=64).measurement.log_mean
    torch.manual_seed(0)
    found = diagnose(Custom(), X, draws=64).measurement.log_mean
    assert found == pytest.approx(plain + 2 * math.log(0.3), abs=1e-6)


def test_a_hook_that_clips_is_no_verdict():
    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x):
            y = self.net(x)
            if y.requires_grad:
                y.register_hook(lambda g: g.clamp(-0.1, 0.1))
            return y

    report = diagnose(Hooked(), X, draws=32)
    assert report.verdict.name == "NO_VERDICT"
    assert any("not linear" in finding.message for finding in report.findings)


def test_a_factory_that_sets_its_own_seed_is_measured_by_signs_and_agrees():
    def build():
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(12)]
        return nn.Sequential(*layers, nn.Linear(16, 4))

    report = diagnose(build, draws=512)
    assert report.measurement.method == "signs"
    assert report.agreement.agrees
