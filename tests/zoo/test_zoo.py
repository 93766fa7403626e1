"""All of the zoo read right; and for each chain theory, random signs and redraws agree."""

from __future__ import annotations

import math

import pytest
import torch
from support.styles import seeded

import initdiag
from initdiag import measure, predict, trace
from initdiag.diagnosing.agreement import agreement
from zoo.models import CHAINS, NO_CHAINS, SMOOTH, Specimen

DRAWS = {"signs": 2048, "redraw": 256}

ONE_BY_ONE = {("orthogonal parametrisation", "signs"), ("mm of a transpose", "signs")}
"""Their signs go into the parameters, a pass a draw, which takes long."""


def built(specimen: Specimen) -> torch.nn.Module:
    model = seeded(specimen.build)
    return model.eval() if "eval mode" in specimen.name else model


@pytest.mark.parametrize("specimen", [*CHAINS, *SMOOTH], ids=str)
def test_chains_are_read_right(specimen):
    arch = trace(built(specimen), input_size=specimen.input_size)
    assert arch.gaps == ()
    assert tuple(layer.name for layer in arch.layers) == specimen.layers
    assert arch.widths == specimen.widths
    assert tuple(layer.activation.label for layer in arch.layers) == specimen.gates
    pred = predict(arch)
    assert pred.coverage == specimen.coverage, pred.reasons


@pytest.mark.parametrize("specimen", CHAINS, ids=str)
def test_verdicts_are_right(specimen):
    report = initdiag.diagnose(built(specimen), input_size=specimen.input_size, method="none")
    assert specimen.verdict in (None, report.verdict.name)


@pytest.mark.parametrize("specimen", NO_CHAINS, ids=str)
def test_what_is_no_chain_is_named(specimen):
    arch = trace(built(specimen), input_size=specimen.input_size)
    assert set(specimen.gaps) <= {gap.kind for gap in arch.gaps}
    assert predict(arch).coverage == "none"


@pytest.mark.parametrize(
    ("specimen", "method"),
    [
        pytest.param(s, m, marks=pytest.mark.slow if (s.name, m) in ONE_BY_ONE else ())
        for s in CHAINS
        for m in s.measured
    ],
    ids=str,
)
def test_theory_and_measurement_agree(specimen, method):
    model = built(specimen)
    found = measure(
        model, input_size=specimen.input_size, draws=DRAWS[method], method=method, seed=2
    )
    test = agreement(trace(model, input_size=specimen.input_size), found, level=0.002)
    assert test is not None
    assert test.agrees, test


@pytest.mark.parametrize("specimen", SMOOTH, ids=str)
@pytest.mark.slow
def test_signs_and_redraws_agree_without_a_theory(specimen):
    signs = measure(built(specimen), draws=2048, seed=2)
    redraw = measure(built(specimen), draws=256, method="redraw", seed=2)
    between_weights = 0.1
    assert (
        abs(signs.log_mean - redraw.log_mean)
        < 4 * math.hypot(signs.log_mean_se, redraw.log_mean_se) + between_weights
    )
    error = 4 * math.hypot(signs.log_variance_se, redraw.log_variance_se)
    assert abs(signs.log_variance - redraw.log_variance) < error + 0.1 * redraw.log_variance


def test_the_zoo_is_large_enough():
    assert len(CHAINS) >= 40
    assert len({s.name for s in (*CHAINS, *SMOOTH, *NO_CHAINS)}) == len(CHAINS) + len(SMOOTH) + len(
        NO_CHAINS
    )
