"""Which ensemble a module is measured by, and whether it can be simulated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from initdiag._core.choices import Ensemble, Method
from initdiag.diagnosing.basis import past_zero_start
from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import UNREPEATABLE, Architecture

if TYPE_CHECKING:
    from torch import nn

    from initdiag.tracing.inputs import Subject

__all__ = ["measured", "simulation"]

_SAMPLE = 64
"""Builds of a factory that random signs around one of them are held against; fewer of
large networks.
"""

_BUILT = 10**8
"""Weights that may be drawn for that, about a second's work; but for 16 builds."""

_FAR = 3.0
"""Standard errors from which on two measurements differ. By chance they do in one of a
hundred, which then costs as many builds as there are draws, and nothing else.
"""


def measured(
    run: Callable[..., Measurement],
    subject: Subject,
    architecture: Architecture,
    method: Method,
    init: Any,
) -> tuple[Measurement | None, str | None]:
    """Return the measurement, or why there is none.

    Of several ensembles the first is taken that leaves nothing fixed, else the one that
    leaves least. Where the module branches on its weights, whose size random signs
    keep, redraws come first. Random signs around one build of a factory stand for its
    redraws only where a sample of these is like them.
    """
    if method == "none":
        return None, None
    reasons: dict[str, list[str]] = {}
    found: list[Measurement] = []
    for ensemble in _order(architecture) if method == "auto" else (method,):
        drawn = subject.factory if ensemble == "redraw" and init is None else None
        try:
            one = run(drawn or subject.module, method=ensemble, init=init)
        except UnsupportedArchitecture as error:
            reasons.setdefault(str(error), []).append(ensemble)
            continue
        found.append(one)
        if not one.fixed:
            break
    if not found:
        return None, " ".join(f"{', '.join(names)}: {text}" for text, names in reasons.items())
    best = min(found, key=lambda one: len(one.fixed))
    if method == "auto" and best.method == "signs" and subject.factory is not None and init is None:
        best = _unless_redraws_differ(best, run, subject.factory, subject.module)
    return best, None


def _order(architecture: Architecture) -> tuple[Ensemble, ...]:
    branches = any(gap.kind == "weights" for gap in architecture.gaps)
    return ("redraw", "signs") if branches else ("signs", "redraw")


def _unless_redraws_differ(
    signs: Measurement,
    run: Callable[..., Measurement],
    factory: Callable[[], nn.Module],
    module: nn.Module,
) -> Measurement:
    """Return the measurement by signs if a sample of the factory's builds is like it,
    else one by as many builds as there are draws. A factory that sets its own seed
    builds one network, which is no ensemble.
    """
    if _builds_one_network(factory):
        return signs
    weights = sum(p.numel() for p in module.parameters())
    builds = min(signs.draws, max(16, min(_SAMPLE, _BUILT // max(1, weights))))
    try:
        sample = run(factory, method="redraw", init=None, draws=builds, gradients=False)
        if _are_alike(signs, sample):
            return signs
        return run(factory, method="redraw", init=None)
    except UnsupportedArchitecture:
        return signs


def _builds_one_network(factory: Callable[[], nn.Module]) -> bool:
    first, second = (dict(factory().named_parameters()) for _ in range(2))
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


def _are_alike(first: Measurement, second: Measurement) -> bool:
    """Return whether two measurements have mean, variance and dead share in common."""
    dead = first.dead_fraction, second.dead_fraction
    share = (dead[0] * first.draws + dead[1] * second.draws) / (first.draws + second.draws)
    dead_se = math.sqrt(share * (1 - share) * (1 / first.draws + 1 / second.draws))
    if abs(dead[0] - dead[1]) > _FAR * dead_se:
        return False
    if first.overflow_fraction or second.overflow_fraction:
        return bool(first.overflow_fraction and second.overflow_fraction)
    if not (first.log_variance > 0 and second.log_variance > 0):
        return bool(np.isclose(first.log_variance, second.log_variance, equal_nan=True))
    mean_z = (first.log_mean - second.log_mean) / math.hypot(first.log_mean_se, second.log_mean_se)
    relative = [
        max(one.log_variance_se / one.log_variance, math.sqrt(2 / max(1, one.draws - 1)))
        for one in (first, second)
    ]
    variance_z = math.log(first.log_variance / second.log_variance) / math.hypot(*relative)
    return abs(mean_z) <= _FAR and abs(variance_z) <= _FAR


def simulation(
    run: Callable[..., Measurement], module: nn.Module, architecture: Architecture
) -> Measurement | None:
    """Predict a module that is not a chain: by its own forward pass, with weights drawn
    by the layers' laws.

    None where that cannot be done, or where it would not show what training meets.
    """
    if not architecture.gaps or any(gap.kind in UNREPEATABLE for gap in architecture.gaps):
        return None
    try:
        return run(module, method="law", architecture=past_zero_start(architecture))
    except UnsupportedArchitecture:
        return None
