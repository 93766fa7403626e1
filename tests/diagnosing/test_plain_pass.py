"""What a plain pass shows goes before every law: an output that is not made of numbers,
and weights whose gradient is missing or exactly 0.

The truth of each case is a plain backward pass of the module itself.
"""

from __future__ import annotations

import math

import pytest
import torch
from support.styles import mlp
from torch import Tensor, nn

from initdiag import Verdict, diagnose, trace

X = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """A chain, and what is made of its output and the input."""

    def __init__(self, end) -> None:
        super().__init__()
        self.net, self.end = mlp([12] * 4), end
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self, self.net(x), x)


def report_on(end, prepare=lambda net: None):
    torch.manual_seed(0)
    net = Around(end)
    prepare(net)
    return diagnose(net, X, draws=32, method="none"), net


BROKEN = {
    "log": lambda net, h, x: h.log(),
    "some rows": lambda net, h, x: torch.where(x[:, :1] > 0, h, h * math.nan),
    "one number": lambda net, h, x: torch.where(h == h.max(), math.inf, h),
    "added": lambda net, h, x: h + math.inf,
    "overflow": lambda net, h, x: h * 1e30 * 1e30,
    "infinite minus infinite": lambda net, h, x: h / 0.0 - h.abs() / 0.0,
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_output_that_is_not_made_of_numbers_is_at_risk(name):
    report, net = report_on(BROKEN[name])
    assert not torch.isfinite(net(X)).all()
    assert report.verdict.is_at_risk
    assert report.risk["sgd"] == 1
    assert "rows of the output hold NaN or infinity" in report.findings[0].message


def test_values_that_are_broken_in_other_draws_alone_are_at_risk():
    def prepare(net):
        net.limit = math.inf
        net.limit = float(net(X)[:, 0].max().detach())

    report, net = report_on(
        lambda net, h, x: torch.where(h[:, :1] > net.limit, math.nan, h), prepare
    )
    assert torch.isfinite(net(X)).all()
    assert report.verdict is Verdict.EXPLODING


def test_a_mask_of_minus_infinity_is_no_verdict():
    mask = torch.arange(12) % 3 == 0
    report, _ = report_on(lambda net, h, x: h.masked_fill(mask, -math.inf))
    assert report.verdict is Verdict.NO_VERDICT
    assert "minus infinity" in report.findings[0].message


def hook(factor):
    return lambda net: [p.register_hook(lambda g: g * factor) for p in net.net.parameters()]


def halving_zero(gradient):
    return gradient - gradient


CUT = {
    "times 0": (lambda net, h, x: x + 0 * h, lambda net: None),
    "minus itself": (lambda net, h, x: x + (h - h), lambda net: None),
    "hooks": (lambda net, h, x: h, hook(0)),
    "hooks that subtract": (
        lambda net, h, x: h,
        lambda net: [p.register_hook(halving_zero) for p in net.parameters()],
    ),
    "masked": (lambda net, h, x: torch.where(h > math.inf, h, x), lambda net: None),
    "clamped": (lambda net, h, x: x + h.clamp(1e9, 2e9), lambda net: None),
    "detached": (lambda net, h, x: x + h.detach(), lambda net: None),
}


@pytest.mark.parametrize("name", CUT)
def test_weights_whose_gradient_is_0_are_found_also_where_it_is_there(name):
    report, net = report_on(*CUT[name])
    net(X.clone().requires_grad_()).square().sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in net.net.parameters())
    assert report.verdict is Verdict.DEAD
    assert report.findings[0].code == "IND017"


STARTS = {
    "zero head": (
        lambda net, h, x: h,
        lambda net: nn.init.zeros_([m for m in net.net if isinstance(m, nn.Linear)][-1].weight),
    ),
    "gain of 0": (lambda net, h, x: x + net.gain * h, lambda net: None),
    "hooks that do nothing": (lambda net, h, x: h, hook(1)),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_gradient_that_is_0_at_the_start_alone_is_not_cut(name):
    report, _ = report_on(*STARTS[name])
    assert all(finding.code != "IND017" for finding in report.findings)


@pytest.mark.parametrize(("factor", "kinds"), [(1, []), (0.1, ["weight's gradient"])])
def test_a_hook_on_a_weight_is_no_part_of_a_chain(factor, kinds):
    torch.manual_seed(0)
    net = mlp([12] * 4)
    net[2].weight.register_hook(lambda g: g * factor)
    assert [gap.kind for gap in trace(net, X).gaps] == kinds
