"""The proof by running: what is written to mislead is no chain, and plain chains stay chains."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from evidence.programs.generator import (
    ALTERATIONS,
    BIASES,
    INITIALIZERS,
    MAPS,
    OTHERS,
    RELUS,
    TWISTS,
    Plan,
    Program,
    cast,
    checked,
    copied_weights,
    equal_rows,
    he_normal,
    mask_filled,
    monitored,
    positive_biases,
    positive_weights,
    zero_bias,
)
from support.styles import mlp, seeded
from torch import nn

from initdiag import trace

WIDTHS = (12, 12, 12, 12, 3)
HARMLESS = (checked, monitored, cast, mask_filled)
"""The last one fills in what the ReLU after it removes."""
OF_WEIGHTS = (positive_weights, positive_biases, equal_rows, copied_weights)
"""These are seen by the tests of hypotheses, not by the proof."""


def plan(**changes: object) -> Plan:
    depth = len(WIDTHS) - 1
    gates = (torch.relu,) * (depth - 1)
    values = {"seed": 0, "widths": WIDTHS, "init": he_normal, "bias": zero_bias}
    values |= {"maps": MAPS[:1] * depth, "gates": gates, "twists": (), "alterations": ()}
    return Plan(**{**values, **changes})


def gaps_of(made: Plan):
    model = seeded(lambda: Program(made))
    return trace(model, torch.randn(8, made.widths[0])).gaps


@pytest.mark.parametrize(
    "twist", [t for t in TWISTS if t not in HARMLESS], ids=lambda t: t.__name__
)
def test_a_twist_is_seen(twist):
    assert gaps_of(plan(twists=((1, twist),)))


@pytest.mark.parametrize("twist", HARMLESS, ids=lambda t: t.__name__)
def test_what_changes_nothing_is_let_through(twist):
    assert gaps_of(plan(twists=((1, twist),))) == ()


@pytest.mark.parametrize(
    "alter", [a for a in ALTERATIONS if a not in OF_WEIGHTS], ids=lambda a: a.__name__
)
def test_hooks_and_subclasses_are_seen(alter):
    assert gaps_of(plan(alterations=((1, alter),)))


@pytest.mark.parametrize("gate", [*RELUS, *OTHERS])
@pytest.mark.parametrize("apply", MAPS)
def test_every_way_to_write_a_chain_is_one(gate, apply):
    depth = len(WIDTHS) - 1
    assert gaps_of(plan(gates=(gate,) * (depth - 1), maps=(apply,) * depth)) == ()


@pytest.mark.parametrize("init", INITIALIZERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("bias", BIASES)
def test_every_initialiser_may_be_drawn_afresh(init, bias):
    assert gaps_of(plan(init=init, bias=bias)) == ()


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.ReLU6, nn.Softplus),
        *(nn.Hardtanh, nn.RReLU, nn.PReLU, lambda: nn.LeakyReLU(0.3), lambda: nn.GELU("tanh")),
    ],
)
def test_every_known_activation_passes(activation):
    layers = [nn.Linear(9, 9), activation(), nn.Dropout(0.3), nn.Linear(9, 9), activation()]
    net = seeded(lambda: nn.Sequential(*layers, nn.Linear(9, 2)))
    if isinstance(net[1], nn.RReLU | nn.PReLU):
        net[2].p = 0.0
    assert trace(net, torch.randn(5, 9)).gaps == ()


@pytest.mark.slow
def test_a_chaotic_chain_of_two_hundred_layers_is_one():
    """Rounding errors grow by a factor a layer here; step by step they do not."""
    layers = []
    for _ in range(200):
        layer = nn.Linear(32, 32)
        nn.init.normal_(layer.weight, std=3 / 32**0.5)
        layers += [layer, nn.Tanh()]
    assert trace(nn.Sequential(*layers), torch.randn(4, 32)).gaps == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_pass(dtype):
    assert trace(mlp([8, 32, 32, 4]).to(dtype), torch.randn(4, 8, dtype=dtype)).gaps == ()


def test_a_module_that_runs_in_no_precision_but_its_own_is_run_in_it():
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.b(self.a(x.float()).relu())

    assert trace(Casts(), torch.randn(4, 8)).gaps == ()


def test_parameters_of_whole_numbers_and_frozen_ones_are_no_obstacle():
    net = mlp([8, 16, 2])
    net.register_parameter("steps", nn.Parameter(torch.zeros(3, dtype=torch.long), False))
    net[0].weight.requires_grad_(False)
    assert trace(net, torch.randn(4, 8)).gaps == ()


def test_rows_that_a_module_refuses_tell_nothing():
    class Fussy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp([8, 16, 2])

        def forward(self, x):
            if (x < 0).any():
                raise ValueError("expected numbers from 0 on")
            return self.body(x)

    assert trace(Fussy(), torch.rand(4, 8)).gaps == ()


def test_the_gap_says_what_differs_how_much_and_where():
    (gap,) = gaps_of(plan(twists=((2, next(t for t in TWISTS if t.__name__ == "data_scaled")),)))
    assert (gap.path, gap.kind) == ("layers.2.weight", "values")
    assert 0.2 < float(gap.reason.partition("off by ")[2].split()[0]) < 0.6
    assert "the example's rows" in gap.reason


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("branch_by_python", "random"),
        ("counted", "state"),
        ("tensor_hook", "gradients"),
        ("weight_clamped", "parameters"),
    ],
)
def test_the_kind_is_named(name, kind):
    def act(net, x, i):
        return next(t for t in TWISTS if t.__name__ == name)(net, x, i)

    found = gaps_of(plan(twists=((1, act),)))
    assert kind in {gap.kind for gap in found} or found[0].kind == "mul"


def test_a_branch_on_the_weights_is_seen_when_they_are_drawn_afresh():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            h = self.a(x)
            return self.b(h.relu() if self.a.weight.detach().sum() > 0 else h)

    (gap,) = trace(seeded(Branch), torch.randn(4, 8)).gaps
    assert gap.kind == "weights"
    assert "weights drawn afresh" in gap.reason


def test_the_users_random_state_is_kept():
    model = mlp([8, 16, 2])
    random.seed(3)
    torch.manual_seed(3)
    expected = random.random(), torch.rand(1)
    random.seed(3)
    torch.manual_seed(3)
    trace(model, torch.ones(4, 8))
    assert (random.random(), torch.rand(1)) == expected


@pytest.mark.parametrize("depth", [1, 8])
def test_a_plain_chain_is_proven_in_a_few_forwards(depth, monkeypatch):
    """Seven today. Only what reads its own weights is redrawn many times."""
    calls, plain = [], torch.nn.Linear.forward
    monkeypatch.setattr(
        torch.nn.Linear, "forward", lambda layer, x: calls.append(1) or plain(layer, x)
    )
    assert trace(mlp([16] * (depth + 1) + [4])).gaps == ()
    assert len(calls) <= 10 * (depth + 1)


def test_the_proof_can_fail(monkeypatch):
    """A proof that lets everything through would let a hook through."""
    monkeypatch.setattr("initdiag.tracing.trace.disproof", lambda *a: None)
    hook = next(t for t in TWISTS if t.__name__ == "tensor_hook")
    assert gaps_of(plan(twists=((1, hook),))) == ()


@pytest.mark.slow
def test_a_trace_does_not_load_torchs_compiler():
    """Its import takes seconds, and forward mode loads it for some sums."""
    code = (
        "import sys, initdiag; from torch import nn; "
        "initdiag.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
