"""The spectrum in a terminal: a small density, quantiles, and the conditions for training one to a line."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np

from initdiag._core.console import Console, Group, Padding, RenderableType, Table, Text
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.spectral_report import SpectralReport, power
from initdiag.rendering import architecture, words
from initdiag.spectrum.conditions import Conditions, conditions_of
from initdiag.spectrum.record import SpectralLaw

__all__ = ["renderable", "section", "to_text"]

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 32
_LEAST = 0.001
"""Quantile at which the density's picture begins: the lower tail is long."""


def section(law: SpectralLaw, conditions: Conditions | None = None) -> RenderableType:
    """Return the spectrum's part of a report."""
    found = conditions_of(law) if conditions is None else conditions
    parts: list[RenderableType] = [
        Text("Spectrum of the Jacobian, in the limit of large width", style="bold")
    ]
    parts += [part for part in (_density(law), _quantiles(law, found)) if part is not None]
    parts.append(Padding(_conditions(law, found), (0, 0, 0, 2)))
    return Group(*parts)


def renderable(report: SpectralReport) -> RenderableType:
    """Return a spectral report by itself: the chain, its spectrum, what would change it, findings."""
    parts: list[RenderableType] = [
        Text(words.plain(report.target)),
        Text(architecture.summary(report.architecture)),
        Text(),
    ]
    parts.append(section(report.spectrum, report.conditions))
    if report.improvements:
        parts += [Text(), _improvements(report)]
    parts += list(_findings(report.findings))
    return Group(*parts)


def to_text(report: SpectralReport, width: int = 80) -> str:
    """Return a spectral report as plain text of at most ``width`` columns."""
    file = io.StringIO()
    Console(file=file, width=width, no_color=True, highlight=False, legacy_windows=False).print(
        renderable(report)
    )
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _density(law: SpectralLaw) -> RenderableType | None:
    """Shares of the singular values in equal steps of their logarithm."""
    low, high = float(law.law.ppf(_LEAST)), law.log_upper_edge
    if not high - low > 1e-6:
        return None
    edges = np.linspace(low, high, _BINS + 1)
    edges[-1] = math.nextafter(high, math.inf)
    shares = np.diff(law.law.cdf(edges))
    levels = np.ceil(shares / shares.max() * (len(_BARS) - 1)).astype(int)
    bars = "".join(_BARS[max(level, 0)] for level in levels)
    return Padding(
        Text(f"{power(low / 2)} {bars} {power(high / 2)}  sigma, log scale"), (0, 0, 0, 2)
    )


def _quantiles(law: SpectralLaw, conditions: Conditions) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for _ in range(6):
        table.add_column(justify="right")
    smallest = "0" if math.isinf(law.log_lower_edge) else power(law.log_lower_edge / 2)
    table.add_row("", "smallest", "5 %", "50 %", "95 %", "largest")
    table.add_row(
        "sigma > 0", smallest, *map(power, conditions.log_quantiles), power(law.log_upper_edge / 2)
    )
    return Padding(table, (0, 0, 0, 2))


def _conditions(law: SpectralLaw, conditions: Conditions) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify)
    total, distance = conditions.directions, conditions.isometry_distance
    table.add_row("scale", "(1/n) sum sigma^2", power(conditions.log_mean_square), "1 keeps it")
    table.add_row(
        "spread", "within a decade", words.percent(conditions.share_within_decade), "of sigma > 0"
    )
    table.add_row("rank", "sigma > 0", f"{conditions.rank_share * total:.0f}", f"of {total}")
    table.add_row(
        "isometry", "relative variance of sigma^2", words.number(distance), "0 is isometric"
    )
    for row in _finite_width(law):
        table.add_row(*row)
    return table


def _finite_width(law: SpectralLaw) -> Iterator[tuple[str, str, str, str]]:
    """``(1/n) sum sigma^4`` of the limit beside the exact one at these widths, where that is known; the sums of ``sigma^2`` are equal."""
    ratio = law.second_moment_ratio
    if ratio is None:
        return
    limit = float(law.log_moments(2)[1]) + math.log(law.input_size / law.factors[-1].fan_out)
    exact = power(limit + math.log(ratio)) if ratio < math.inf else "far larger"
    yield "finite width", "(1/n) sum sigma^4", power(limit), f"exact: {exact}"


def _improvements(report: SpectralReport) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right"):
        table.add_column(justify=justify)
    table.add_row(
        "What would change it", "relative variance", "within a decade", "rank", style="bold"
    )
    table.add_row("(as it is)", *_effect(report.conditions))
    for change in report.improvements:
        table.add_row(Text(change.action), *_effect(change.after))
    return table


def _effect(conditions: Conditions) -> tuple[str, str, str]:
    share, rank = (
        words.percent(conditions.share_within_decade),
        conditions.rank_share * conditions.directions,
    )
    return words.number(conditions.isometry_distance), share, f"{rank:.0f}"


def _findings(findings: tuple[Finding, ...]) -> Iterator[RenderableType]:
    if not findings:
        return
    yield Text()
    yield Text("Findings", style="bold")
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        where = f"{words.plain(finding.layer)}: " if finding.layer else ""
        table.add_row(
            finding.code,
            finding.severity,
            Text(f"{where}{words.plain(finding.message)}; {finding.remedy}"),
        )
    yield Padding(table, (0, 0, 0, 1))
