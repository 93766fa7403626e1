"""On a CUDA device: the numbers are those of the CPU, and the model leaves as it came."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from support.untouched import assert_same, state
from torch import nn

import initdiag

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device is here to run on"
)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.norm = nn.LayerNorm(32)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.c(h + self.norm(self.b(h)))


MODELS = {
    "ReLU": lambda: mlp([12, 32, 32, 4], "he_normal"),
    "default": lambda: mlp([12, 32, 32, 4]),
    "leaky, dropout": lambda: nn.Sequential(
        *(nn.Linear(12, 32), nn.LeakyReLU(0.1), nn.Dropout(0.2), nn.Linear(32, 4))
    ),
    "tanh": lambda: nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 4)),
    "residual": Residual,
}


def he(module):
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)


def rows():
    return torch.randn(6, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_every_draw_is_that_of_the_cpu(build, method):
    """Signs and laws draw the same numbers; redraws draw on the device, from its own stream."""
    init = {"init": he} if method == "redraw" else {}
    here = initdiag.measure(seeded(build), rows(), draws=64, method=method, **init)
    there = initdiag.measure(seeded(build).cuda(), rows().cuda(), draws=64, method=method, **init)
    if method == "redraw":
        error = math.hypot(here.log_mean_se, there.log_mean_se)
        assert abs(here.log_mean - there.log_mean) < 4 * error
    else:
        np.testing.assert_allclose(there.log_norms, here.log_norms, atol=2e-3)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_the_trace_is_that_of_the_cpu(build):
    here = initdiag.trace(seeded(build), rows())
    there = initdiag.trace(seeded(build).cuda(), rows().cuda())
    assert here.gaps == there.gaps
    assert [layer.activation for layer in here.layers] == [x.activation for x in there.layers]
    for a, b in zip(here.layers, there.layers, strict=True):
        assert b.weight.initializer == a.weight.initializer
        assert b.weight.variance == pytest.approx(a.weight.variance, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_verdicts_are_those_of_the_cpu(build, dtype):
    model, x = seeded(build).to(dtype), rows().to(dtype)
    here = initdiag.diagnose(model, x, draws=64)
    there = initdiag.diagnose(model.cuda(), x.cuda(), draws=64)
    assert there.verdict == here.verdict
    assert there.architecture.gaps == here.architecture.gaps


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_model_and_generators_are_untouched(build):
    model, x = seeded(build).cuda(), rows().cuda()
    before, stream = state(model), torch.cuda.get_rng_state()
    initdiag.diagnose(model, x, draws=32)
    initdiag.measure_spectrum(model, x, draws=2)
    assert_same(before, state(model))
    assert torch.equal(stream, torch.cuda.get_rng_state())


def test_tf32_and_autocast_change_no_verdict():
    model, x = seeded(MODELS["ReLU"]).cuda(), rows().cuda()
    expected = initdiag.diagnose(model, x, draws=64).verdict
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert initdiag.diagnose(model, x, draws=64).verdict == expected
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert initdiag.diagnose(model, x, draws=64).verdict == expected


def test_a_default_device_changes_nothing():
    model, x = seeded(MODELS["ReLU"]), rows()
    expected = initdiag.measure(model, x, draws=32).log_norms
    torch.set_default_device("cuda")
    try:
        found = initdiag.measure(model, x, draws=32).log_norms
        np.testing.assert_allclose(found, expected, atol=1e-5)
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_models_are_unwrapped(wrap):
    model = seeded(MODELS["ReLU"]).cuda()
    assert initdiag.trace(wrap(model), rows().cuda()).gaps == ()


def test_repair_works_in_place_on_the_device():
    model = seeded(lambda: mlp([12] + [32] * 20 + [4])).cuda()
    assert initdiag.diagnose(model, rows().cuda(), draws=32).verdict.is_at_risk
    initdiag.repair(model, "he_normal", example_input=rows().cuda())
    assert not initdiag.diagnose(model, rows().cuda(), draws=32).verdict.is_at_risk
