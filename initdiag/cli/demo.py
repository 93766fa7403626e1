"""``initdiag demo``: a sick network and a healthy one, without a file of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from initdiag.cli.group import examples
from initdiag.cli.output import terminal

if TYPE_CHECKING:
    from torch import nn

__all__ = ["demo_command"]

_DEPTH, _WIDTH, _OUTPUTS = 30, 64, 10
"""The README's first network: at PyTorch's default its gradients vanish."""


@click.command(
    "demo",
    short_help="Show a sick network, its cure, and a healthy one; needs no file.",
    epilog=examples("initdiag demo"),
)
def demo_command() -> int:
    """Diagnose 30 layers of 64 units with PyTorch's default weights, repair them, and
    diagnose them again.
    """
    import torch

    import initdiag

    console = terminal()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _network()
        console.print(f"A network of {_DEPTH} layers of {_WIDTH} units, as PyTorch draws it:\n")
        console.print(initdiag.diagnose(model))
        console.print('\nAfter initdiag.repair(model, "he_normal"):\n')
        initdiag.repair(model, "he_normal")
        console.print(initdiag.diagnose(model))
    console.print("\nYour own: initdiag check net.py:build, or initdiag.check(model) in Python.")
    return 0


def _network() -> nn.Module:
    from torch import nn

    blocks = [nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU()) for _ in range(_DEPTH)]
    return nn.Sequential(*blocks, nn.Linear(_WIDTH, _OUTPUTS))
