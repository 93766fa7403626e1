"""A small seeded part of the recognition study (`tests/evidence/recognition/PLAN.md`)."""

from __future__ import annotations

import math

import pytest
import torch
from evidence.recognition.study import DRAWS, POPULATIONS, judged
from torch import nn

from initdiag.tracing.weights import weight_laws


@pytest.mark.parametrize("population", POPULATIONS)
def test_names_are_right(population):
    """Wrong names are rare, and none is further off than its stated error."""
    found = list(judged(population, range(20)))
    layers = sum(f.layers for f in found)
    assert sum(f.wrong for f in found) <= 0.03 * layers
    assert max((f.z for f in found if f.wrong), default=0.0) <= 3


@pytest.mark.parametrize("population", DRAWS)
def test_plain_networks_are_named(population):
    """There is no refuge in refusing."""
    found = list(judged(population, range(100, 120)))
    assert sum(f.unnamed for f in found) <= 0.05 * sum(f.layers for f in found)


def test_the_square_layers_go_with_the_one_that_tells():
    """Square layers fit Xavier and LeCun alike, and spoke for both against the head."""
    torch.manual_seed(7)
    shapes = [(17, 40), *[(17, 17)] * 6, (18, 17)]
    drawn = [nn.init.xavier_normal_(torch.empty(shape)) for shape in shapes]
    laws = weight_laws([(str(i), w) for i, w in enumerate(drawn)])
    assert {law.initializer for law in laws} == {"xavier_normal"}


def test_where_every_layer_has_its_own_a_small_one_does_not_follow():
    """The others say little of a small layer where no two of them are alike."""
    torch.manual_seed(0)
    kinds = ["xavier_normal", "torch_default", "he_normal", "he_uniform", "lecun_normal"]
    drawn = [DRAWS[kind](torch.empty(60, 40)) for kind in kinds]
    small = nn.init.normal_(torch.empty(5, 6), std=math.sqrt(2 / 6) / 1.25)
    laws = weight_laws([(str(i), w) for i, w in enumerate([*drawn, small])])
    assert [law.initializer for law in laws[:-1]] == kinds
    assert laws[-1].initializer is None
    body = [DRAWS["he_normal"](torch.empty(60, 40)) for _ in range(4)]
    together = weight_laws([(str(i), w) for i, w in enumerate([*body, small])])
    assert together[-1].initializer == "he_normal"
