"""Everything is allocated on the model's device. There is no second device here, so that the meta device stands in for it: a model there meets every
tensor that was left on the CPU with an error, as it would on a GPU; and as the default device it shows whatever does not say where it goes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag.measuring.ensembles.networks import Laws, Signs
from initdiag.measuring.ensembles.redraw import Source, reset_parameters
from initdiag.measuring.passes import gradients, sign_chain
from initdiag.measuring.passes.interposer import LinearUse
from initdiag.measuring.passes.log_norms import log_norms
from initdiag.measuring.task import prepared
from initdiag.tracing.replica import replica
from initdiag.tracing.trace import trace

MODELS = {
    "chain": lambda: mlp([6, 8, 8, 3], "he_normal"),
    "biases, leaky, dropout": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Dropout(0.2), nn.Linear(8, 3)
    ),
    "layer norm": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)
    ),
}


def real(build):
    """The task of a model on the CPU."""
    model, x = seeded(build), torch.randn(5, 6)
    return prepared(model, trace(model, x), x, None, 0, None)


def elsewhere(build):
    """The same on the other device."""
    task = real(build)
    return dataclasses.replace(
        task, module=replica(task.module, lambda t: t.to("meta")), rows=task.rows.to("meta")
    )


@pytest.mark.parametrize("ensemble", [Signs, Laws])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_a_pass_stays_on_its_device(build, ensemble):
    task = elsewhere(build)
    norms, logs = log_norms(task, ensemble(task).of(range(4)), range(4))
    assert norms.device.type == "meta"
    assert {log.tangent.device.type for log in logs} == {"meta"}


def test_the_fast_path_stays_on_its_device():
    task = elsewhere(MODELS["biases, leaky, dropout"])
    state = dict(task.module.named_parameters())
    steps = [
        sign_chain.Step(
            LinearUse(layer.name, state[layer.name], False),
            state[layer.name.replace("weight", "bias")],
            layer.activation,
            9.0,
        )
        for layer in task.arch.layers
    ]
    norms, logs = sign_chain.fast_log_norms(
        steps, task, Signs(task).of(range(4)), range(4), with_layers=True
    )
    assert norms.device.type == "meta"
    assert {log.activation.device.type for log in logs} == {"meta"}


def test_the_test_can_fail(monkeypatch):
    """An allocation on the CPU is seen."""
    monkeypatch.setattr(
        sign_chain, "_signs", lambda bits, like: torch.ones(bits.shape, dtype=like.dtype)
    )
    with pytest.raises(RuntimeError, match="device"):
        test_the_fast_path_stays_on_its_device()


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_gradients_stay_on_their_device(build):
    task = elsewhere(build)
    logs = gradients.gradient_logs(task, Signs(task).of(range(4)), range(4))
    assert {t.device.type for log in logs for t in (log.activation, log.weight, log.bias)} == {
        "meta"
    }


@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_another_default_device_changes_nothing(build, method):
    def init(m):
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.3)
            nn.init.normal_(m.bias, std=0.1)

    model, x = seeded(build), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    options = {"draws": 40, "method": method, "init": init if method == "redraw" else None}
    here = initdiag.measure(model, x, **options)
    with torch.device("meta"):
        there = initdiag.measure(model, x, **options)
    assert np.array_equal(here.log_norms, there.log_norms)
    assert here.layers == there.layers


def test_redraws_are_made_on_the_models_device(monkeypatch):
    # What is left is told by values, which there are none of on this device.
    monkeypatch.setattr(Source, "_left_by_init", lambda self, weights: ())
    source = Source(elsewhere(MODELS["chain"]).module, ["0.weight"], None, reset_parameters)
    assert {value.device.type for value in source.draws([1, 2]).values()} == {"meta"}
