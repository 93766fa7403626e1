"""Chains put together at random from the vocabulary, in every surrounding people call from.

``INITDIAG_GENERATED_CHAINS=1000`` raises the number of examples.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.styles import mlp, seeded
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations

import initdiag
from initdiag import InitdiagError, measure, predict, trace

EXAMPLES = int(os.environ.get("INITDIAG_GENERATED_CHAINS", "25"))

GATED = {
    "nn.ReLU": (nn.ReLU, "ReLU"),
    "relu_": (lambda: torch.relu_, "ReLU"),
    "clamp": (lambda: lambda x: x.clamp(min=0), "ReLU"),
    "maximum": (lambda: lambda x: torch.maximum(x, torch.zeros_like(x)), "ReLU"),
    "where": (lambda: lambda x: torch.where(x > 0, x, 0.0), "ReLU"),
    "mask": (lambda: lambda x: x * (x > 0), "ReLU"),
    "masked_fill": (lambda: lambda x: x.masked_fill(x < 0, 0.0), "ReLU"),
    "threshold": (lambda: lambda x: F.threshold(x, 0.0, 0.0), "ReLU"),
    "leaky": (lambda: nn.LeakyReLU(0.3), "leaky ReLU 0.3"),
    "PReLU": (nn.PReLU, "leaky ReLU 0.25"),
    "idle RReLU": (lambda: F.rrelu, "leaky ReLU 0.229167"),
    "identity": (nn.Identity, "linear"),
}
SMOOTH = {
    "tanh": (nn.Tanh, "tanh"),
    "GELU": (nn.GELU, "gelu"),
    "RReLU": (lambda: lambda x: F.rrelu(x, training=True), "RReLU"),
    "ReLU6": (nn.ReLU6, "ReLU6"),
}
TWISTS = {
    "scaling": lambda x: 0.5 * x,
    "norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "residual": lambda x: x + x.tanh(),
    "softmax": lambda x: F.softmax(x, -1),
    "several slopes": lambda x: F.prelu(x, torch.linspace(0, 0.5, x.shape[-1], dtype=x.dtype)),
}  # fmt: skip
LINEAR = {
    "nn.Linear": lambda m, n: nn.Linear(m, n),
    "no bias": lambda m, n: nn.Linear(m, n, bias=False),
    "weight_norm": lambda m, n: parametrizations.weight_norm(nn.Linear(m, n)),
    "raw": lambda m, n: RawLinear(m, n),
}
INITIALISERS = {
    "default": lambda w: None,
    "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
    "zeros": nn.init.zeros_,
}
SURROUNDINGS = ("plain", "no_grad", "inference_mode", "float64 default", "deterministic")


class RawLinear(nn.Module):
    def __init__(self, m: int, n: int) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(m, n) / m**0.5), nn.Parameter(torch.zeros(n))

    def forward(self, x):
        return x @ self.w + self.b


class Generated(nn.Module):
    """Linear layers, each followed by functions."""

    def __init__(self, parts):
        super().__init__()
        self.linear = nn.ModuleList(linear for linear, _ in parts)
        self.after = [functions for _, functions in parts]
        self.acts = nn.ModuleList(
            f for _, functions in parts for f in functions if isinstance(f, nn.Module)
        )

    def forward(self, x):
        for linear, functions in zip(self.linear, self.after, strict=True):
            x = linear(x)
            for function in functions:
                x = function(x)
        return x


@st.composite
def chains(draw):
    """A module, its widths, its labels, and whether the theory covers it."""
    widths = draw(st.lists(st.integers(1, 24), min_size=2, max_size=6))
    covered, labels, parts = True, [], []
    for m, n in itertools.pairwise(widths):
        kind = draw(st.sampled_from(sorted({**GATED, **SMOOTH})))
        make, label = {**GATED, **SMOOTH}[kind]
        rate = draw(st.sampled_from([0.0, 0.0, 0.25, 0.5]))
        twist = draw(st.sampled_from([None] * 12 + sorted(TWISTS)))
        functions = [make()]
        functions.insert(
            draw(st.integers(0, 1)) if kind in GATED else 1, nn.Dropout(rate)
        )  # smooth ones see its scale
        functions += [TWISTS[twist]] if twist else []
        linear = LINEAR[draw(st.sampled_from(sorted(LINEAR)))](m, n)
        if type(linear) is nn.Linear:
            INITIALISERS[draw(st.sampled_from(sorted(INITIALISERS)))](linear.weight)
        parts.append((linear, functions))
        labels.append(f"{label}, dropout {rate:g}" if rate else label)
        covered = covered and twist is None and kind in GATED
        if twist is not None:
            labels.append("a gap")
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    return Generated(parts).to(dtype), tuple(widths), labels, covered


@contextlib.contextmanager
def surrounding(name):
    if name == "float64 default":
        torch.set_default_dtype(torch.float64)
    if name == "deterministic":
        torch.use_deterministic_algorithms(True)
    modes = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    try:
        with modes.get(name, contextlib.nullcontext)():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


def state(model):
    """Everything of the model, and of the process, that must stay as it is."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        {n: (t.detach().clone(), t._version, t.grad, t.requires_grad, id(t), t.data_ptr()) for n, t in tensors.items()},
        [(id(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(m.__dict__)) for m in model.modules()],
        (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), forward_ad._current_level, torch.get_default_dtype()),
        torch._C._len_torch_function_stack(),
    )  # fmt: skip


def assert_unchanged(before, after):
    for name, (value, *facts) in before[0].items():
        now, *now_facts = after[0][name]
        assert torch.equal(value, now), name
        assert facts == now_facts, name
    assert before[1] == after[1]
    assert torch.equal(before[2][0], after[2][0])
    assert np.array_equal(before[2][1], after[2][1])
    assert before[2][2] == after[2][2]
    assert before[3:] == after[3:]


@settings(max_examples=EXAMPLES)
@given(chains(), st.booleans(), st.sampled_from(SURROUNDINGS))
@pytest.mark.slow
def test_generated_chains(chain, training, where):
    model, widths, labels, covered = chain
    model.train(training)
    with surrounding(where):
        x = torch.randn(3, widths[0]).to(next(model.parameters()).dtype)
        before = state(model)
        arch = trace(model, x)
        found = None
        try:
            found = measure(model, x, draws=8)
        except InitdiagError as error:
            refusal = str(error)
        assert_unchanged(before, state(model))
    pred = predict(arch)
    if "a gap" in labels:
        assert arch.gaps
        assert not covered
    else:
        assert arch.gaps == ()
        assert arch.widths == widths
        expected = labels if training else [label.split(", dropout")[0] for label in labels]
        assert [layer.activation.label for layer in arch.layers] == expected
    too_coarse = any("too far from Gaussian at this width" in reason for reason in pred.reasons)
    assert (pred.coverage in ("exact", "first-order")) == (covered and not too_coarse), pred.reasons
    if found is None:
        assert refusal
        assert not covered
    else:
        assert not np.isnan(found.log_norms).any()


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("function", [trace, measure, initdiag.diagnose])
def test_an_interrupt_in_mid_forward_changes_nothing(function, call, monkeypatch):
    calls = []  # not in the model, where they would be put back

    def interrupted(_self, x):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return x.relu()

    monkeypatch.setattr(nn.ReLU, "forward", interrupted)
    model = seeded(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    )
    before = state(model)
    try:
        function(model)
    except KeyboardInterrupt:
        assert len(calls) == call
    else:
        assert len(calls) < call
    assert_unchanged(before, state(model))
    assert trace(mlp([4, 8, 2])).gaps == ()


@pytest.mark.slow
def test_a_call_inside_a_forward_pass():
    """Tracing another model while this one runs; measuring there is refused by torch, and said so."""
    inner = seeded(lambda: mlp([4, 8, 2]))
    seen = []

    class Curious(nn.Module):
        def forward(self, x):
            seen.append(trace(inner))
            return x.relu()

    model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), Curious(), nn.Linear(8, 2)))
    assert trace(model).widths == (6, 8, 2)
    assert all(arch == trace(inner) for arch in seen)
    assert measure(model, draws=8).draws == 8

    model[1].forward = lambda x: (measure(inner, draws=4), x.relu())[1]
    assert trace(model).widths == (6, 8, 2)
    with pytest.raises(InitdiagError, match=r"[Nn]ested forward mode"):
        measure(model, draws=4)


def test_two_threads():
    models = [seeded(lambda: mlp([6, 16, 4]), seed) for seed in (0, 1)]
    alone = [
        measure(m, draws=64, method=method).log_norms
        for m in models
        for method in ("signs", "redraw")
    ]
    together = [np.empty(0)] * 4

    def work(index):
        for method in ("signs", "redraw"):
            together[2 * index + (method == "redraw")] = measure(
                models[index], draws=64, method=method
            ).log_norms

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
