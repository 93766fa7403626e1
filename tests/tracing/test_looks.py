"""A branch that few networks take is found by redrawing those that read their weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from initdiag import trace
from initdiag.tracing.looks import Reads

X = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))


def reads_weights(net: nn.Module) -> bool:
    with torch.no_grad(), Reads(net) as reads:
        net(X.clone())
    return reads.found


class Net(nn.Module):
    """A chain of four He layers, and what is done after each."""

    def __init__(self, after) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(4))
        self.after = after
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.after(layer, layer(x).relu())
        return x


def tail(share: float) -> float:
    return math.sqrt(2 / 12) * math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - 2 * share)))


BRANCHES = {
    "one entry": lambda layer, h: 9 * h if layer.weight[0, 0] > tail(0.03) else h,
    "a number": lambda layer, h: 9 * h if layer.weight[1, 2].item() > tail(0.05) else h,
    "a list": lambda layer, h: 9 * h if layer.weight.tolist()[0][0] < -tail(0.03) else h,
    "an array": lambda layer, h: 9 * h if layer.weight.detach().numpy()[3, 3] > tail(0.03) else h,
    "the largest": lambda layer, h: 9 * h if int(layer.weight.argmax()) < 6 else h,
    "a sum": lambda layer, h: 9 * h if float(layer.weight.detach().sum()) > 12 * tail(0.05) else h,
}
IDLE = {
    "nothing": (lambda layer, h: h, False),
    "a shape": (lambda layer, h: h.view(-1, layer.weight.shape[0]), False),
    "watched": (lambda layer, h: (layer.weight.norm().item(), h)[1], True),
    "checked": (lambda layer, h: (bool(layer.weight.isfinite().all()), h)[1], True),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_that_few_networks_take_is_a_gap(name):
    torch.manual_seed(1)
    net = Net(BRANCHES[name])
    assert reads_weights(net)
    assert trace(net, X).gaps


@pytest.mark.parametrize("name", IDLE)
def test_weights_that_are_read_for_nothing_leave_the_chain(name):
    torch.manual_seed(0)
    after, reads = IDLE[name]
    assert reads_weights(Net(after)) == reads
    assert trace(Net(after), X).gaps == ()
