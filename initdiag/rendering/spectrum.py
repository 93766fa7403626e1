"""The spectrum in a terminal: a density, its quantiles, the conditions for training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from initdiag._core.console import Group, Padding, RenderableType, Text
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.spectral_report import SpectralReport, power
from initdiag.rendering import architecture, words
from initdiag.rendering.terminal import Encodable, Grid, Histogram, plain_text
from initdiag.spectrum.conditions import Conditions, conditions_of
from initdiag.spectrum.record import SpectralLaw

__all__ = ["findings_grid", "renderable", "section", "to_text"]

_BINS = 32
"""Bars of the density, as many as the report's histogram has."""

_LEAST = 0.001
"""Quantile at which the density's picture begins: the lower tail is long."""

_NARROWEST = 1e-6
"""A support whose logs are closer than this is one point, which has no picture."""

_INDENT = (0, 0, 0, 2)


def section(law: SpectralLaw, conditions: Conditions | None = None) -> RenderableType:
    """Return the spectrum's part of a report."""
    found = conditions_of(law) if conditions is None else conditions
    title = Text("Spectrum of the Jacobian, in the limit of large width", style="bold")
    parts = [part for part in (_density(law), _quantiles(law, found)) if part is not None]
    return Group(title, *(Padding(part, _INDENT) for part in (*parts, _conditions(law, found))))


def renderable(report: SpectralReport) -> RenderableType:
    """Return the chain, its spectrum, what would change it, and the findings."""
    parts: list[RenderableType] = [
        Text(words.plain(report.target)),
        Text(architecture.summary(report.architecture)),
        Text(),
        section(report.spectrum, report.conditions),
    ]
    if report.improvements:
        parts += [Text(), _improvements(report)]
    return Encodable(Group(*parts, *_findings(report.findings)))


def to_text(report: SpectralReport, width: int = 80) -> str:
    """Return the report as plain text of at most ``width`` columns, from 40 on."""
    return plain_text(renderable(report), width)


def _density(law: SpectralLaw) -> RenderableType | None:
    """Return the shares of the singular values in equal steps of their logarithm."""
    low, high = float(law.law.ppf(_LEAST)), law.log_upper_edge
    if not high - low > _NARROWEST:
        return None
    edges = np.linspace(low, high, _BINS + 1)
    edges[-1] = math.nextafter(high, math.inf)
    shares = np.diff(law.law.cdf(edges))
    return Histogram(shares, (power(low / 2), power(high / 2)), "sigma, log scale")


def _quantiles(law: SpectralLaw, conditions: Conditions) -> RenderableType:
    smallest = "0" if math.isinf(law.log_lower_edge) else power(law.log_lower_edge / 2)
    largest = power(law.log_upper_edge / 2)
    row = ("sigma > 0", smallest, *map(power, conditions.log_quantiles), largest)
    return Grid(("", "smallest", "5 %", "50 %", "95 %", "largest"), [row], "rrrrrr")


def _conditions(law: SpectralLaw, conditions: Conditions) -> RenderableType:
    total, distance = conditions.directions, words.number(conditions.isometry_distance)
    share = words.percent(conditions.share_within_decade)
    rank = f"{conditions.rank_share * total:.0f}"
    rows = [
        ("scale", "(1/n) sum sigma^2", power(conditions.log_mean_square), "1 keeps it"),
        ("spread", "within a decade", share, "of sigma > 0"),
        ("rank", "sigma > 0", rank, f"of {total}"),
        ("isometry", "relative variance of sigma^2", distance, "0 is isometric"),
        *_finite_width(law),
    ]
    return Grid((), rows, "llrl")


def _finite_width(law: SpectralLaw) -> Iterator[tuple[str, str, str, str]]:
    """Return ``(1/n) sum sigma^4`` in the limit beside the exact value at these widths.

    Nothing where it is not known; the sums of ``sigma^2`` are equal.
    """
    ratio = law.second_moment_ratio
    if ratio is None:
        return
    limit = float(law.log_moments(2)[1]) + math.log(law.input_size / law.factors[-1].fan_out)
    exact = power(limit + math.log(ratio)) if ratio < math.inf else "far larger"
    yield "finite width", "(1/n) sum sigma^4", power(limit), f"exact: {exact}"


def _improvements(report: SpectralReport) -> RenderableType:
    headers = ("What would change it", "relative variance", "within a decade", "rank")
    rows = [("(as it is)", *_effect(report.conditions))]
    rows += [(change.action, *_effect(change.after)) for change in report.improvements]
    return Grid(headers, rows, "lrrr", flexible=0, least=20, style="bold")


def _effect(conditions: Conditions) -> tuple[str, str, str]:
    share = words.percent(conditions.share_within_decade)
    rank = conditions.rank_share * conditions.directions
    return words.number(conditions.isometry_distance), share, f"{rank:.0f}"


def _findings(findings: tuple[Finding, ...]) -> Iterator[RenderableType]:
    if findings:
        yield Text()
        yield Text("Findings", style="bold")
        yield Padding(findings_grid(findings), (0, 0, 0, 1))


def findings_grid(findings: Iterable[Finding]) -> Grid:
    """Return findings as rows: code, severity, and what is found with its remedy."""
    rows = []
    for finding in findings:
        where = f"{words.plain(finding.layer)}: " if finding.layer else ""
        text = f"{where}{words.plain(finding.message)}; {finding.remedy}"
        rows.append((finding.code, str(finding.severity), text))
    return Grid((), rows, "lll", titles=2, flexible=2, least=36)
