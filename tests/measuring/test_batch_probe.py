"""What one batch shows, against naive definitions."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math

import pytest
import torch
from torch import nn

from initdiag.measuring.batch_probe import probe_batch, standardised


@contextlib.contextmanager
def seeded(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def mlp(widths, gate=nn.ReLU):
    pairs = list(itertools.pairwise(widths))
    parts = [part for a, b in pairs for part in (nn.Linear(a, b), gate())]
    return nn.Sequential(*parts[:-1])


def exact_curvature(model, x, loss, centred):
    """Largest eigenvalue of J^T H J from the whole Jacobian, one output at a time."""
    model, x = copy.deepcopy(model).double(), x.double()
    out = model(x)
    rows = []
    for value in out.flatten():
        grads = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in grads]))
    jacobian = torch.stack(rows).reshape(*out.shape, -1).detach()
    if centred:
        jacobian = jacobian - jacobian.mean(0)
    if loss == "classification":
        classes = out.shape[1]
        hessian = (torch.eye(classes) - 1 / classes).double() / (len(x) * classes)
    else:
        hessian = 2 * torch.eye(out.shape[1]).double() / out.numel()
    product = torch.einsum("nip,ij,njq->pq", jacobian, hessian, jacobian)
    return float(torch.linalg.eigvalsh(product)[-1])


@pytest.mark.parametrize("loss", ["classification", "regression"])
@pytest.mark.parametrize("gate", [nn.ReLU, nn.Tanh])
def test_curvature_is_the_largest_eigenvalue_of_the_gauss_newton_matrix(gate, loss):
    with seeded(3):
        model, x = mlp([6, 12, 12, 3], gate), torch.randn(20, 6)
    probe = probe_batch(model, x, loss)
    assert list(probe.sharpness) == [loss]
    assert probe.sharpness[loss] == pytest.approx(exact_curvature(model, x, loss, False), rel=0.05)
    exact = exact_curvature(model, x, loss, True)
    assert 0.66 * exact < probe.contrast[loss] < 1.001 * exact


def test_curvature_of_a_linear_model_by_hand():
    """Mean squared error of w x with one input: 2 mean x^2; without the mean, 2 var x."""
    model, x = nn.Linear(1, 1, bias=False), torch.tensor([[1.0], [2.0], [3.0]])
    probe = probe_batch(model, x, "regression")
    assert probe.sharpness["regression"] == pytest.approx(2 * 14 / 3, rel=1e-5)
    assert probe.contrast["regression"] == pytest.approx(2 * 2 / 3, rel=1e-5)
    assert probe.sign_step == pytest.approx(math.sqrt(14 / 3), rel=1e-5)


def test_shares_and_angles_are_those_counted_by_hand():
    with seeded(5):
        model, x = mlp([4, 30, 30, 2], nn.ReLU), torch.randn(9, 4) + 2
        model[1] = nn.Tanh()
        model[0].weight.data *= 8
    probe = probe_batch(model, x)
    first = model[1](model[0](x))
    hidden = model[3](model[2](first))
    assert [gate.function for gate in probe.gates] == ["tanh", "relu"]
    assert probe.saturated == pytest.approx(float((1 - first**2 < 0.01).float().mean()), abs=0.01)
    assert probe.dead_units == pytest.approx(float((hidden == 0).all(0).float().mean()))
    pairs = [torch.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(hidden, 2)]
    assert probe.collapse == pytest.approx(float(torch.stack(pairs).mean().detach()), abs=1e-5)
    assert (probe.input_mean, probe.input_std) == pytest.approx(
        (float(x.mean()), float(x.std(correction=0))), rel=1e-5
    )
    assert probe.output_gate is None


class Functional(nn.Module):
    """Calls its gates as functions, behind a gate at the output."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x):
        return torch.sigmoid(self.last(torch.sin(40 * self.first(x))) * 100)


def test_gates_are_read_off_the_calls_not_the_modules():
    with seeded(0):
        probe = probe_batch(Functional(), torch.randn(32, 3))
    assert [gate.function for gate in probe.gates] == ["sin", "sigmoid"]
    assert probe.has_sines
    assert probe.output_gate.function == "sigmoid"
    assert probe.output_gate.saturated > 0.5
    assert probe.torn > 0.8


def test_what_keeps_neighbours_together_is_not_torn():
    with seeded(0):
        probe = probe_batch(mlp([3, 64, 64, 2], nn.ReLU), torch.randn(32, 3))
    assert abs(probe.torn) < 0.2


class Refuses(nn.Module):
    """Runs in single precision alone, and no second time on other rows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("single precision only")
        return self.layer(x)


class Waves(nn.Module):
    """Sines and cosines of products with these frequencies, one column each."""

    def __init__(self, frequencies):
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def forward(self, x):
        turns = x @ self.frequencies.to(x)
        return torch.cat([turns.sin(), turns.cos()], 1)


@pytest.mark.parametrize("inputs", [1, 2, 3])
@pytest.mark.parametrize("octaves", [6, 8, 10])
def test_an_encoding_of_many_octaves_has_features_that_keep_neighbours_together(inputs, octaves):
    with seeded(0):
        x = torch.rand(32, inputs) * 2 - 1
        scales = math.pi * 2.0 ** torch.arange(octaves)
        octave_wise = torch.cat([torch.eye(inputs) * scale for scale in scales], 1)
        high_alone = torch.eye(inputs).repeat(1, octaves) * scales[-1]
        nets = [
            nn.Sequential(Waves(waves), mlp([2 * inputs * octaves, 32, 32, 1]))
            for waves in (octave_wise, high_alone)
        ]
    encoded, torn = (probe_batch(net, x).torn for net in nets)
    assert encoded < 0.4
    assert torn > encoded
    assert torn > 0.6 or inputs == 1  # of one input a batch of 32 rows is dense


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


class Turned(nn.Module):
    def forward(self, x):
        return torch.sin(30 * x)


@pytest.mark.parametrize(
    ("front", "shape", "unit"),
    [
        (nn.Identity(), (64, 16), 1.0),
        (nn.Flatten(), (64, 1, 4, 4), 1.0),
        (Halved(), (64, 16), 2.0),
        (nn.LayerNorm(16), (64, 16), 1.0),
    ],
    ids=["nothing", "reshape", "scaling", "norm"],
)
def test_a_front_that_keeps_neighbours_together_does_not_excuse_sines_behind_it(front, shape, unit):
    with seeded(0):
        net = mlp([16, 64, 64, 64, 10], Turned)
        x = torch.randn(shape) * unit
    assert probe_batch(nn.Sequential(front, net), x).torn > 0.8


def test_what_cannot_be_had_is_absent_and_says_why():
    probe = probe_batch(Refuses(), torch.randn(8, 3))
    assert probe.sharpness == {}
    assert probe.torn is probe.collapse is probe.output_rms is None
    assert any("single precision only" in reason for reason in probe.absent)
    assert probe_batch(nn.Linear(3, 2), None) is None
    one_row = probe_batch(mlp([3, 8, 2], nn.ReLU), torch.randn(1, 3))
    assert one_row.torn is None
    assert any("three rows" in reason for reason in one_row.absent)


def test_the_module_and_the_generator_are_left_as_they_were():
    from initdiag.tracing.guard import untouched

    model, x = (
        nn.Sequential(mlp([5, 9, 9], nn.ReLU), nn.BatchNorm1d(9), nn.Dropout(0.5)),
        torch.randn(8, 5),
    )
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    with untouched(quiet=True):
        probe_batch(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_standardised_rows_have_mean_0_and_variance_1():
    x = standardised(torch.rand(50, 7) * 255)
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, rel=1e-5)
    assert not standardised(torch.full((4, 3), 7.0)).any()
