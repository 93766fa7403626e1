"""Tracing finds what each style says of itself, and names what is no chain."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from support.styles import STYLES, mlp, seeded
from torch import nn

import initdiag
from initdiag import UnsupportedArchitecture, trace


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
def test_every_style_is_read_right(style):
    arch = trace(seeded(style.build), input_size=style.input_size)
    assert tuple(layer.name for layer in arch.layers) == style.layers
    assert arch.widths == style.widths
    assert tuple(layer.activation.label for layer in arch.layers) == style.gates
    assert arch.gaps == ()
    assert arch.unused == style.unused
    assert {layer.weight.initializer for layer in arch.layers} == {"torch_default"}


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
def test_every_style_from_an_example_batch(style):
    shape = style.input_size or (3, style.widths[0])
    arch = trace(
        seeded(style.build), torch.randn(5, *shape[1:], generator=torch.Generator().manual_seed(0))
    )
    assert arch.widths == style.widths
    assert arch.gaps == ()


class Odd(nn.Module):
    """A chain of two layers with a twist in between."""

    def __init__(self, twist):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.twist = twist

    def forward(self, x):
        return self.twist(self, x)


TWISTS = {
    "residual": (lambda m, x: m.b(F.relu(m.a(x))) + x, "add"),
    "concatenation": (lambda m, x: m.b(torch.cat([m.a(x)[:, :4], x[:, 4:]], 1)), "cat"),
    "norm": (lambda m, x: m.b(F.layer_norm(m.a(x), (8,))), "layer_norm"),
    "softmax": (lambda m, x: F.softmax(m.b(F.relu(m.a(x))), dim=-1), "softmax"),
    "reuse": (lambda m, x: m.a(F.relu(m.a(x))), "reused"),
    "sum of a value with itself": (lambda m, x: m.b(m.a(x).relu() + m.a(x).relu()), "add"),
    "scaling": (lambda m, x: m.b(m.a(x) * 0.5), "mul"),
    "activation first": (lambda m, x: m.b(m.a(F.relu(x))), "preprocessing"),
    "two activations": (lambda m, x: m.b(torch.tanh(F.relu(m.a(x)))), "tanh"),
    "positions": (lambda m, x: m.b(m.a(x[:, None, :].expand(-1, 3, -1))), "positions"),
    "batch mixed": (lambda m, x: m.b(m.a(x).reshape(1, -1, 8)), "reshape"),
    "detached": (lambda m, x: m.b(m.a(x).relu().detach()), "detach"),
}


@pytest.mark.parametrize(("twist", "kind"), TWISTS.values(), ids=TWISTS.keys())
def test_what_is_no_chain_is_a_named_gap(twist, kind):
    arch = trace(seeded(lambda: Odd(twist)), torch.ones(4, 8))
    assert kind in {gap.kind for gap in arch.gaps}
    assert initdiag.predict(arch).coverage == "none"
    assert all(gap.path and gap.reason for gap in arch.gaps)


def test_the_second_witness_catches_what_the_calls_do_not_show():
    """An operation hidden from the function mode: the autograd graph has one more step than the calls."""

    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, grad):
            return grad

    arch = trace(Odd(lambda m, x: m.b(F.relu(Hidden.apply(m.a(x))))), torch.ones(4, 8))
    assert arch.gaps


def test_witnesses_disagree(monkeypatch):
    """Sabotage: where nothing can run, a record that lost an activation is not believed."""
    from initdiag.tracing import flow

    monkeypatch.setattr(flow.Flow, "steps", lambda self: tuple(s for s in ("0.weight", "2.weight")))
    arch = trace(mlp([4, 8, 2]).to("meta"), input_size=(2, 4))
    assert [gap.kind for gap in arch.gaps] == ["dataflow"]


def test_dropout_is_part_of_the_gate_in_train_mode_only():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, 4))
    assert trace(model).layers[0].activation.dropout == 0.25
    assert trace(model.eval()).layers[0].activation.dropout == 0.0


def test_leaky_slope_and_smooth_activations_are_read():
    arch = trace(
        nn.Sequential(
            nn.Linear(4, 6),
            nn.LeakyReLU(0.3),
            nn.Linear(6, 6),
            nn.GELU(),
            nn.Linear(6, 2),
            nn.Tanh(),
        )
    )
    assert [layer.activation.label for layer in arch.layers] == ["leaky ReLU 0.3", "gelu", "tanh"]
    assert arch.gaps == ()


def test_raw_parameters():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.v = nn.Parameter(torch.randn(6, 9) / 3)
            self.w = nn.Parameter(torch.randn(5, 9) / 3)
            self.c = nn.Parameter(torch.zeros(9))

        def forward(self, x):
            return torch.relu(x @ self.v + self.c) @ self.w.t()

    arch = trace(Raw(), torch.ones(3, 6))
    assert arch.widths == (6, 9, 5)
    assert arch.gaps == ()
    assert arch.layers[0].bias is not None
    assert arch.layers[0].bias.symmetric


def test_without_input_the_executed_width_is_found():
    """The first defined layer is the last executed: its width does not run, the next one's does."""
    other_order = next(s for s in STYLES if s.name == "other order")
    assert trace(other_order.build()).input_size == 9


def test_control_flow_on_values():
    arch = trace(
        Odd(lambda m, x: m.b(m.a(x).relu()) if x.sum().item() > -1e9 else x), torch.ones(4, 8)
    )
    assert arch.gaps == ()


def test_wrapped_models_are_unwrapped():
    inner = mlp([4, 8, 2])
    assert trace(nn.DataParallel(inner)).layers[0].name == "0.weight"


@pytest.mark.slow
def test_time_grows_in_proportion_to_the_layers():
    """A thousand layers take some ten seconds on a busy core."""

    def seconds(depth: int) -> float:
        model = mlp([8] * (depth + 1))
        start = time.process_time()
        assert len(trace(model).layers) == depth
        return time.process_time() - start

    seconds(10)
    assert seconds(1000) < 25 * seconds(100)


def test_large_models_are_traced_without_a_copy(monkeypatch):
    """The path with fake tensors gives the same architecture."""
    from initdiag.tracing import forward_pass as module

    model = seeded(lambda: mlp([6, 12, 12, 3]))
    expected = trace(model)
    monkeypatch.setattr(module, "_LARGE", 0)
    monkeypatch.setattr(module, "_run_real", None)
    assert trace(model) == expected


def test_convolutions_alone_are_not_supported():
    with pytest.raises(UnsupportedArchitecture, match="no linear layer"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.ones(2, 3, 8, 8))
