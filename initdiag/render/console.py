"""The report a person reads in a terminal: the verdict first, then the evidence, then what to do."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from initdiag.prediction import LayerPrediction
from initdiag.render import spectrum, words
from initdiag.report import Report
from initdiag.verdict import Verdict

__all__ = ["renderable", "to_text"]

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 32
_STYLES = {Verdict.HEALTHY: "bold green", Verdict.NO_VERDICT: "bold yellow"}
_MOST_FINDINGS = 8
_METHODS = {
    "signs": "random signs around the weights",
    "redraw": "parameters drawn afresh",
    "law": "layers replaced by their law",
}

_STOPPED = {
    "draws": "",
    "precision": ", enough for its error",
    "time": ", until time was up",
    "interrupted": " before the INTERRUPT",
}


def to_text(report: Report, width: int = 80) -> str:
    """Return the report as plain text of at most ``width`` columns."""
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False, legacy_windows=False)
    console.print(renderable(report))
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def renderable(report: Report) -> RenderableType:
    """Return the report as a rich renderable: short for a healthy network, whole otherwise."""
    parts: list[RenderableType] = [_header(report), Rule(style="dim"), _verdict(report), Text()]
    parts.append(Text(words.chain_summary(report.architecture)))
    parts.append(Text(words.coverage(report)))
    if report.basis != "none":
        parts += [Text(), _numbers(report)]
    if not report.ok:
        parts += [part for part in (_histogram(report), _layers(report)) if part is not None]
    if report.spectrum is not None:
        parts += [Text(), spectrum.section(report.spectrum)]
    parts += list(_findings(report))
    if report.ok:
        return Group(*parts, Rule(style="dim"), _footer(report))
    parts += list(_advice(report))
    return Group(*parts, Rule(style="dim"), _footer(report))


def _header(report: Report) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_row(Text(f"initdiag {report.initdiag_version}"), Text(words.plain(report.target)))
    return grid


def _verdict(report: Report) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    style = _STYLES.get(report.verdict, "bold red")
    name = report.verdict.value.replace("_", " ")
    for index, line in enumerate(words.headline(report)):
        grid.add_row(Text(name if index == 0 else "", style=style), Text(line))
    return grid


def _numbers(report: Report) -> RenderableType:
    """The two numbers, predicted beside measured, with standard errors, and the test of one against the other."""
    p, m = report.prediction, report.measurement
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_row("", "", "predicted" if p.coverage != "none" else "", "" if m is None else "measured")
    drift = "" if m is None else _with_error(m.rms_gain_log_mean, m.log_mean_se)
    table.add_row("drift", "mean of ln gain^2", _with_error(p.rms_gain_log_mean, p.log_mean_se), drift)
    variance = "" if m is None else _with_error(m.log_variance, m.log_variance_se)
    table.add_row("fluctuation", "log-variance, draw to draw", _with_error(p.log_variance, p.log_variance_se), variance)
    if p.hidden_log_variance is not None and p.log_variance and p.hidden_log_variance < 0.8 * p.log_variance:
        table.add_row("", "without the output's own draw", words.number(p.hidden_log_variance), "")
    if p.beta is not None:
        table.add_row("", "Hanin-Nica beta", words.number(p.beta), "")
    dead = "" if m is None else f"{round(m.dead_fraction * m.draws)} of {m.draws}"
    predicted_dead = "" if p.dead_probability is None else words.percent(p.dead_probability)
    table.add_row("dead networks", "gradient exactly 0", predicted_dead, dead)
    if m is not None and m.overflow_fraction:
        table.add_row("overflow", "gradient not finite", "", f"{round(m.overflow_fraction * m.draws)} of {m.draws}")
    lines: list[RenderableType] = [table]
    if m is not None:
        lines.append(
            Text(f"measured over {m.draws} draws{_STOPPED[m.stopped]} ({_METHODS[m.method]}), +- one standard error")
        )
    if report.agreement is not None:
        verb = "agree" if report.agreement.agrees else "DISAGREE"
        lines.append(Text(f"prediction and measurement {verb} (p = {_p_value(report.agreement.p_value)})"))
    lines += [Text(words.plain(f"note: {note}"), style="dim") for note in (m.notes if m is not None else ())]
    return Group(*lines)


def _p_value(p: float) -> str:
    return f"{p:.2f}" if p >= 0.01 else f"{p:.1g}"


def _with_error(value: float | None, error: float | None) -> str:
    """A number with its standard error, to two digits of the error; alone where it is exact or the error is not known."""
    if value is None or not error or math.isnan(error):
        return words.number(value)
    digits = max(0, min(6, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _histogram(report: Report) -> RenderableType | None:
    """Measured ln gain^2 in bars, and its quantiles beside the predicted law's."""
    m = report.measurement
    if m is None:
        return None
    shift = math.log(m.input_size / m.output_size)
    values = m.log_norms[np.isfinite(m.log_norms)] + shift
    if len(values) < 2 or values.min() == values.max():
        return None
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, bins=_BINS, range=(low, high))
    levels = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    bars = "".join(_BARS[i] for i in levels)
    rows = Table.grid(padding=(0, 2))
    rows.add_row(Text(f"{low:.1f} {bars} {high:.1f}"), Text("ln gain^2 over draws"))
    quantiles = Table.grid(padding=(0, 2))
    for _ in range(4):
        quantiles.add_column(justify="right")
    quantiles.add_row("", "5 %", "50 %", "95 %")
    quantiles.add_row("measured", *(f"{q:.2f}" for q in np.quantile(values, [0.05, 0.5, 0.95])))
    if report.prediction.coverage != "none" and report.prediction.log_variance:
        quantiles.add_row(
            "predicted", *(f"{q + shift:.2f}" for q in report.prediction.law.ppf(np.array([0.05, 0.5, 0.95])))
        )
    return Group(Text(), Padding(rows, (0, 0, 0, 2)), Padding(quantiles, (0, 0, 0, 2)))


def _layers(report: Report) -> RenderableType | None:
    """The table of layers, equal ones folded."""
    if not report.prediction.layers:
        return None
    table = Table.grid(padding=(0, 2))
    for justify in ("right", "left", "right", "right", "left", "right", "right", "right"):
        table.add_column(justify=justify, overflow="ellipsis", no_wrap=True)
    table.add_row("", "Where it is lost", "fan_in", "fan_out", "gate", "gain^2", "drift", "fluctuation", style="bold")
    labels = [layer.activation.label for layer in report.architecture.layers]
    for row in _folded(report.prediction.layers, labels):
        table.add_row(*row)
    return Group(Text(), table)


def _folded(layers: tuple[LayerPrediction, ...], labels: list[str]) -> Iterator[tuple[str, ...]]:
    rows = [_layer_row(layer, label) for layer, label in zip(layers, labels, strict=True)]
    start = 0
    while start < len(rows):
        end = start
        while end < len(rows) and rows[end][1:] == rows[start][1:]:
            end += 1
        yield (str(start), *rows[start])
        if end - start > 2:
            yield ("", f"... ({end - start - 1} layers alike)", *[""] * 6)
        elif end - start == 2:
            yield (str(start + 1), *rows[start + 1])
        start = end


def _layer_row(layer: LayerPrediction, label: str) -> tuple[str, ...]:
    return (
        words.plain(layer.name),
        str(layer.fan_in),
        str(layer.fan_out),
        label,
        words.number(layer.gain**2, 3),
        words.number(layer.rms_gain_log_mean),
        words.number(layer.log_variance, 3),
    )


def _findings(report: Report) -> Iterator[RenderableType]:
    shown = [f for f in report.findings if f.code not in ("IND001", "IND002", "IND003", "IND004")]
    if not shown:
        return
    yield Text()
    yield Text("Findings", style="bold")
    table = Table.grid(padding=(0, 2))
    for finding in shown[:_MOST_FINDINGS]:
        where = f"{words.plain(finding.layer)}: " if finding.layer else ""
        table.add_row(finding.code, finding.severity, Text(f"{where}{words.plain(finding.message)}; {finding.remedy}"))
    yield Padding(table, (0, 0, 0, 1))
    if len(shown) > _MOST_FINDINGS:
        yield Text(f" and {len(shown) - _MOST_FINDINGS} more")


def _advice(report: Report) -> Iterator[RenderableType]:
    if not report.advice:
        return
    judged = words.OPTIMIZER_NAMES.get(report.optimizer or "sgd", "")
    yield Text()
    table = Table.grid(padding=(0, 2))
    for justify in ("right", "left", "right", "right", "right"):
        table.add_column(justify=justify)
    table.add_row("", "What to do", "drift", "fluctuation", f"risk ({judged})", style="bold")
    first = report.advice[0]
    table.add_row("", "(as it is)", *_effect(first.drift_before, first.log_variance_before, first.risk_before))
    for index, advice in enumerate(report.advice, start=1):
        effect = _effect(advice.drift_after, advice.log_variance_after, advice.risk_after)
        table.add_row(str(index), Text(advice.action), *effect)
    yield table


def _effect(drift: float, log_variance: float, risk: float) -> tuple[str, ...]:
    return words.number(drift, 1), words.number(log_variance), words.percent(risk)


def _footer(report: Report) -> RenderableType:
    judged = words.OPTIMIZER_NAMES.get(report.optimizer or "sgd", "")
    limit = words.percent(report.thresholds.max_risk)
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    rule = (
        f"judged for {judged} (at risk from {limit}), by {report.basis}" if report.risk else "not judged is not passed"
    )
    grid.add_row(Text(rule, style="dim"), Text(f"{report.elapsed:.2f} s", style="dim"))
    if not report.risk:
        return grid
    return Group(grid, Text(f"risk: {report.risk_provenance}", style="dim"))
