"""The conditions for training that the Jacobian's spectrum states, as findings.

They inform: the verdict does not rest on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from initdiag._core.serialization import Record
from initdiag.diagnosing import findings
from initdiag.diagnosing.findings import Finding, Severity
from initdiag.network.architecture import Architecture
from initdiag.spectrum.conditions import Conditions, conditions_of
from initdiag.spectrum.improvements import Improvement, improvements, rescaled
from initdiag.spectrum.predict import predict_spectrum
from initdiag.spectrum.record import SpectralLaw

__all__ = ["SpectralReport", "power", "spectral_report"]

_OFF_SCALE, _FAR_OFF_SCALE = math.log(10), math.log(100)
"""A mean square that is off by this is noted, and warned of: a factor 10 in it, and in
the singular values.
"""

_GATHERED = 0.9
"""Share of the singular values within a decade from which their spread is not worth a
word: a choice.
"""

_ISOMETRIC = 1.0
"""Relative variance ``v`` from which on at most half of the directions carry a
perturbation: the participation ratio of the eigenvalues is ``1/(1 + v)``.
"""

_RESOLVED = 0.95
"""Share of the directions from which on none is said to be lost: a choice."""

_COLLAPSED = 0.5
"""Share of the singular values that single precision must resolve, by choice: fewer is
a warning.
"""

_SHALLOW = 0.05
"""Depth over width from which the limit's second moment is 10 % low for ReLU layers:
``sum 1/n_l`` of the hidden ones.
"""

_NOTHING_HELPS = "fewer layers: nothing else that was tried helps"
_MEASURE = "measure the singular values: initdiag.measure_spectrum(model)"


@dataclass(frozen=True, slots=True, eq=False)
class SpectralReport(Record):
    """A chain's predicted spectrum and what it says of training.

    Attributes
    ----------
    target : str
        What was looked at.
    architecture : Architecture
        The chain.
    spectrum : SpectralLaw
        Its limiting spectrum.
    conditions : Conditions
        In a few numbers.
    improvements : tuple of Improvement
        Changes that would bring it nearer to isometry, with the conditions after them.
    findings : tuple of Finding
        IND020 scale, IND021 spread, IND022 rank, IND023 isometry, IND024 finite width.
    """

    target: str
    architecture: Architecture
    spectrum: SpectralLaw
    conditions: Conditions
    improvements: tuple[Improvement, ...]
    findings: tuple[Finding, ...]


def spectral_report(architecture: Architecture, target: str | None = None) -> SpectralReport:
    """Predict a chain's spectrum and say what it means for training. Loads no torch.

    Raises
    ------
    UnsupportedArchitecture
        See `predict_spectrum`.
    """
    spectrum = predict_spectrum(architecture)
    conditions = conditions_of(spectrum)
    is_poor = (
        conditions.share_within_decade < _GATHERED or conditions.isometry_distance >= _ISOMETRIC
    )
    changes = (
        improvements(architecture, conditions)
        if is_poor or conditions.rank_share < _RESOLVED
        else ()
    )
    found = [
        *_scale_findings(architecture, conditions),
        *_rank_findings(spectrum, conditions, changes),
        *_width_findings(spectrum),
        *_spread_findings(conditions, changes),
        *_isometry_findings(conditions, changes),
    ]
    found.sort(key=lambda finding: finding.severity.rank)
    return SpectralReport(
        target or architecture.source, architecture, spectrum, conditions, changes, tuple(found)
    )


def _scale_findings(architecture: Architecture, conditions: Conditions) -> Iterator[Finding]:
    """Yield what the condition ``(1/n) sum sigma^2 = 1`` finds."""
    log = conditions.log_mean_square
    if abs(log) < _OFF_SCALE:
        return
    factor, after = rescaled(architecture)
    remedy = f"multiply every weight by {factor:.3g}: {power(log)} -> {power(after)}"
    if abs(after) > abs(log) / 2:
        remedy = "fewer layers: no factor for the weights brings it to 1"
    message = (
        f"(1/n) sum sigma^2 of the Jacobian's singular values is {power(log)}, where 1 "
        "keeps the scale"
    )
    severity = Severity.WARNING if abs(log) >= _FAR_OFF_SCALE else Severity.NOTE
    yield findings.JACOBIAN_SCALE.at(None, message, remedy, severity)


def _spread_findings(conditions: Conditions, changes: tuple[Improvement, ...]) -> Iterator[Finding]:
    share = conditions.share_within_decade
    if share >= _GATHERED:
        return
    message = (
        f"{_percent(share)} of the singular values that are not 0 lie within a decade of "
        "one another"
    )
    better = [c for c in changes if c.after.share_within_decade > share + 0.01]
    remedy = _effects(better, lambda c: f"{_percent(share)} -> {_percent(c.share_within_decade)}")
    yield findings.JACOBIAN_SPREAD.at(None, message, remedy or _NOTHING_HELPS)


def _rank_findings(
    spectrum: SpectralLaw, conditions: Conditions, changes: tuple[Improvement, ...]
) -> Iterator[Finding]:
    """Yield exact zeros, which a narrow layer makes, and singular values that single
    precision does not tell from 0, which depth makes.
    """
    rank, resolved, total = conditions.rank_share, conditions.resolved_share, conditions.directions
    if rank >= _RESOLVED and resolved >= _RESOLVED:
        return
    name, message = (
        _narrowest(spectrum, conditions)
        if rank < _RESOLVED
        else (None, f"no direction of {total} is lost")
    )
    share = _rank_share
    if resolved < _RESOLVED * rank:
        share = _resolved_share
        message += f"; but single precision tells only {_count(resolved * total)} of them from 0"
    now = share(conditions)
    better = [c for c in changes if share(c.after) > now + 0.01]
    remedy = _effects(better, lambda c: f"{_count(now * total)} -> {_count(share(c) * total)}")
    severity = Severity.WARNING if resolved < _COLLAPSED * rank else Severity.NOTE
    yield findings.JACOBIAN_RANK.at(name, message, remedy or _NOTHING_HELPS, severity)


def _rank_share(conditions: Conditions) -> float:
    return conditions.rank_share


def _resolved_share(conditions: Conditions) -> float:
    return conditions.resolved_share


def _narrowest(spectrum: SpectralLaw, conditions: Conditions) -> tuple[str | None, str]:
    """Return the layer that loses the rank (None for several), and why, in words."""
    least = min(factor.open_count for factor in spectrum.factors)
    layers = [factor for factor in spectrum.factors if factor.open_count < 1.001 * least]
    whose = "its" if len(layers) == 1 else f"the {len(layers)} narrowest layers'"
    passing = (
        f"{_count(conditions.rank_share * conditions.directions)} of "
        f"{conditions.directions} directions pass"
    )
    message = f"{passing}: {_count(least)} of {whose} {layers[0].fan_out} gates are open"
    return layers[0].name if len(layers) == 1 else None, message


def _isometry_findings(
    conditions: Conditions, changes: tuple[Improvement, ...]
) -> Iterator[Finding]:
    distance = conditions.isometry_distance
    if distance < _ISOMETRIC:
        return
    message = (
        f"far from isometric: relative variance of the squared singular values {distance:.3g} (0 "
        "is isometric), as if "
        f"{_count(conditions.effective_directions)} of {conditions.directions} directions "
        "carried a perturbation"
    )
    remedy = _effects(changes, lambda c: f"{distance:.3g} -> {c.isometry_distance:.3g}")
    yield findings.JACOBIAN_ISOMETRY.at(None, message, remedy or _NOTHING_HELPS)


def _width_findings(spectrum: SpectralLaw) -> Iterator[Finding]:
    """Yield how far the widths at hand are from the limit."""
    caveat = spectrum.caveat
    if caveat is not None:
        yield findings.FINITE_WIDTH.at(None, caveat, _MEASURE)
        return
    depth_over_width = math.fsum(1 / factor.fan_out for factor in spectrum.factors[:-1])
    if spectrum.second_moment_ratio is None and depth_over_width >= _SHALLOW:
        message = (
            "the spectrum is the limit of large width, and the sum of 1/width is "
            f"{depth_over_width:.2g}: from 0.05 on "
            "the second moment of ReLU layers is more than 10 % off, and smooth activations have "
            "no exact one to compare"
        )
        yield findings.FINITE_WIDTH.at(None, message, _MEASURE)


def _effects(
    changes: tuple[Improvement, ...] | list[Improvement], effect: Callable[[Conditions], str]
) -> str:
    return "; or ".join(f"{change.action}: {effect(change.after)}" for change in changes)


def _count(number: float) -> str:
    """Return a number of directions: at least 1, since fewer cannot carry anything."""
    return f"{max(number, 1):.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def power(log: float) -> str:
    """Return ``exp(log)`` in words, to three digits, whatever its size:
    ``"1.51e-24"``.
    """
    if abs(log) < 300:
        return f"{math.exp(log):.3g}"
    exponent = math.floor(log / math.log(10))
    return f"{math.exp(log - exponent * math.log(10)):.2f}e{exponent}"
