"""When a measurement ends, and that it says so."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import InvalidInput, measure
from initdiag.measuring import stopping


def test_auto_stops_when_the_variance_is_known_well_enough():
    model = seeded(lambda: mlp([16, 32, 32, 8], init="he_normal"))
    found = measure(model, draws="auto")
    assert found.stopped == "precision"
    assert found.sampling_log_variance_se <= 0.05 * found.log_variance
    before = measure(model, draws=found.draws - 256)
    assert before.sampling_log_variance_se > 0.05 * before.log_variance
    assert np.array_equal(before.log_norms, found.log_norms[: before.draws])


def test_a_tighter_error_takes_more_draws():
    model = seeded(lambda: mlp([16, 32, 32, 8], init="he_normal"))
    tight = measure(model, draws="auto", relative_error=0.02)
    assert tight.sampling_log_variance_se <= 0.02 * tight.log_variance
    assert tight.draws > 3 * measure(model, draws="auto").draws


def test_auto_stops_when_time_is_up():
    dead = seeded(lambda: mlp([4, 4, 4], init="he_normal", gain=0.0))
    begin = time.perf_counter()
    found = measure(dead, draws="auto", time_budget=0.2)
    assert found.stopped == "time"
    assert found.dead_fraction == 1.0
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize("method", ["signs", "redraw"])
def test_an_interrupt_returns_what_there_is(method, monkeypatch):
    passes = []

    class Stopped(nn.Linear):
        def forward(self, x):
            passes.append(len(x))
            if len(passes) > 4 and passes.count(256) > 2:
                raise KeyboardInterrupt
            return super().forward(x)

    monkeypatch.setattr(stopping, "_AUTO_STEP", 256)
    model = seeded(lambda: nn.Sequential(Stopped(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)))
    if method == "redraw":
        model[1] = nn.Identity()
    found = measure(model, draws="auto", relative_error=1e-6, method=method)
    assert found.stopped == "interrupted"
    assert 0 < found.draws <= 1024
    passes.clear()
    whole = measure(seeded(lambda: mlp([6, 8, 3])), draws=8)
    assert whole.stopped == "draws"


def test_an_interrupt_before_anything_was_measured_goes_on():
    class Stopped(nn.Linear):
        def forward(self, x):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(nn.Sequential(Stopped(6, 8), nn.LayerNorm(8)), draws=8)


def test_the_report_says_why_it_stopped():
    report = initdiag.diagnose(seeded(lambda: mlp([16] * 30)), draws="auto")
    assert f"measured over {report.measurement.draws} draws, enough for its error" in str(report)
    assert initdiag.Report.from_dict(report.to_dict()).measurement.stopped == "precision"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": "many"}, 'a positive integer or "auto"'),
        ({"draws": 0}, "draws"),
        ({"draws": "auto", "relative_error": 0.0}, "relative_error"),
        ({"draws": "auto", "time_budget": float("nan")}, "time_budget"),
    ],
)
def test_bad_limits(options, message):
    with pytest.raises(InvalidInput, match=message):
        measure(mlp([4, 4]), **options)


class Slow(nn.Module):
    """Takes a moment of processor time a pass, and is random itself: draws run one by one."""

    def __init__(self, seconds):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.seconds = seconds

    def forward(self, x):
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        return self.layers(x * torch.rand(()))


def test_draws_that_nobody_asked_for_end_when_time_is_up(monkeypatch):
    monkeypatch.setattr(stopping, "_PATIENCE", 0.2)
    torch.manual_seed(0)
    model = Slow(0.003)
    found = initdiag.measure(model, input_size=(1, 8), draws=None, gradients=False)
    assert found.stopped == "time"
    assert 32 <= found.draws < 1024
    asked = initdiag.measure(model, input_size=(1, 8), draws=found.draws + 1, gradients=False)
    assert asked.stopped == "draws"
    np.testing.assert_array_equal(asked.log_norms[: found.draws], found.log_norms)


def test_however_slow_there_are_draws_enough_for_an_error(monkeypatch):
    monkeypatch.setattr(stopping, "_PATIENCE", 1e-9)
    found = initdiag.measure(Slow(0.0), input_size=(1, 8), draws=None, gradients=False)
    assert (found.draws, found.stopped) == (32, "time")


def test_quick_draws_are_all_made_and_are_those_that_are_asked_for():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    usual, asked = (initdiag.measure(model, draws=draws) for draws in (None, 1024))
    assert (usual.draws, usual.stopped) == (1024, "draws")
    np.testing.assert_array_equal(usual.log_norms, asked.log_norms)
