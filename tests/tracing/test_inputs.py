"""Inputs of every kind: tokens for a whole model whose head is judged, NumPy sizes, and what is said of the wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import InvalidInput, trace
from initdiag.tracing.replica import copied, replica


class Language(nn.Module):
    """An embedding, and a head on the mean of what it makes."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.head = mlp([16, 32, 4])

    def forward(self, tokens, scale=1.0):
        return self.head(scale * self.embedding(tokens).mean(1))


TOKENS = torch.arange(24).reshape(4, 6)


@pytest.mark.parametrize(
    "example",
    [TOKENS, (TOKENS, 1.0), {"tokens": TOKENS, "scale": 1.0}],
    ids=["tensor", "tuple", "dict"],
)
def test_a_part_behind_an_embedding(example):
    model = seeded(Language)
    arch = trace(model, example, module="head")
    assert arch.widths == (16, 32, 4)
    assert arch.gaps == ()
    handed = model.embedding(TOKENS).mean(1).detach()
    assert arch.input_rms == pytest.approx(float(handed.square().mean().sqrt()), rel=1e-6)
    report = initdiag.diagnose(model, example, module="head", draws=64)
    np.testing.assert_array_equal(
        report.measurement.log_norms, initdiag.measure(model.head, handed, draws=64).log_norms
    )


def test_integers_that_nothing_embeds_are_refused_and_the_advice_was_tried():
    with pytest.raises(InvalidInput, match=r"got torch.int64, .*Pass x.float\(\)"):
        trace(mlp([6, 2]), TOKENS)
    with pytest.raises(InvalidInput, match=r"got torch.int64, .*that the network takes"):
        trace(mlp([5, 2]), TOKENS)


def test_what_is_no_tensor():
    assert trace(mlp([4, 2]), np.ones((2, 4))).widths == (4, 2)
    with pytest.raises(InvalidInput, match=r"got 'list'. Make tensors .* torch.tensor\(x\)"):
        trace(mlp([4, 2]), [[1.0] * 4])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 2)

    def forward(self, x, y):
        return self.a(x + y)


def test_a_forward_of_two_arguments():
    with pytest.raises(InvalidInput, match=r"Pass the other arguments, too, .*example_args"):
        trace(Two(), torch.ones(2, 4))
    arch = trace(Two(), (torch.ones(2, 4),) * 2)
    assert arch.input_size == 8
    assert arch.ways == ("perturbed: x, y together",)


@pytest.mark.parametrize(
    "size",
    [np.array([2, 6]), [np.int64(2), np.int32(6)], torch.Size([2, 6]), torch.tensor([2, 6])],
    ids=str,
)
def test_sizes_of_any_integers(size):
    assert trace(mlp([6, 8, 2]), input_size=size).widths == (6, 8, 2)
    assert initdiag.diagnose(mlp([6, 8, 2]), input_size=size, draws=8).architecture.input_size == 6
    with pytest.raises(InvalidInput, match="input_size: a positive integer"):
        trace(mlp([6, 8, 2]), input_size=np.array([2.5, 6]))


def test_a_users_backward_hooks_take_no_coverage_away():
    model = seeded(lambda: mlp([6, 8, 8, 2], init="he_normal"))
    expected = trace(model)
    for part in model.modules():
        part.register_full_backward_hook(lambda module, into, out: None)
    arch = trace(model)
    assert arch.gaps == ()
    assert arch == expected


def test_hooks_after_a_gradient_has_been_accumulated_run_on_the_replica():
    """They change what training sees, and only `backward()` calls them."""
    net, seen = mlp([4, 8, 2]), []

    def halved(parameter):
        seen.append(parameter)
        parameter.grad *= 0.5

    plain, x = replica(net, copied), torch.randn(3, 4)
    net[0].weight.register_post_accumulate_grad_hook(halved)
    hooked = replica(net, copied)
    for one in (plain, hooked):
        one(x).sum().backward()
    assert torch.equal(hooked[0].weight.grad, 0.5 * plain[0].weight.grad)
    assert net[0].weight.grad is None
    assert not seen or seen[0] is not net[0].weight
