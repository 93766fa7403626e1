"""Candidates that workers can import, and the tests' engines."""

from __future__ import annotations

import os
import signal
from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import nn


def build(width: int, depth: int) -> nn.Sequential:
    sizes = [8, *[width] * depth, 4]
    layers = [part for n, m in pairwise(sizes) for part in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def raises() -> nn.Module:
    raise ValueError("no such layer")


def leaves() -> nn.Module:
    raise SystemExit(3)


def killed_once(mark: str, width: int, depth: int) -> nn.Sequential:
    """Kill the worker at the first call ever, build at the next."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return build(width, depth)


def kills() -> nn.Module:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


WIDTHS = [[16, 16, 4], [64] * 40, [8, 0, 3]]
FACTORIES = [
    partial(build, width, depth) for width, depth in ((8, 2), (16, 3), (12, 12), (8, 2), (24, 1))
]
CANDIDATES = [*FACTORIES, *WIDTHS, raises, leaves]
"""Ten: five modules (the first and fourth alike but for their seeds), widths of which one is wrong, and two that raise."""

OPTIONS = {"draws": 64, "seed": 5}
