"""The report's tables as rows of words: what the terminal, Markdown and HTML share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from initdiag.diagnosing.agreement import signs_hide_variance
from initdiag.diagnosing.findings import (
    DEAD,
    EXPLODING,
    STEP_TOO_LARGE,
    UNSTABLE,
    VANISHING,
    Finding,
)
from initdiag.diagnosing.report import Report
from initdiag.law.prediction import LayerPrediction
from initdiag.rendering import curves, words

__all__ = [
    "LAYER_HEADERS",
    "NumberRow",
    "advice_headers",
    "advice_rows",
    "footer",
    "layer_rows",
    "number_rows",
    "other_findings",
    "provenance",
    "quantile_rows",
    "remarks",
]

_APART = 3.0
"""Standard errors from which on the two columns need a word beside "agree".

One comparison in 370 is that far apart by chance.
"""

_MOSTLY = 0.8
"""Share of the fluctuation below which the judged part gets a row of its own.

Chosen by eye: a wide output's draw is a small part of any deep network's fluctuation.
"""

LAYER_HEADERS = ("", "layer", "fan_in", "fan_out", "gate", "gain^2", "drift", "fluctuation")
_METHODS = {
    "signs": "random signs around the weights",
    "redraw": "parameters drawn afresh",
    "law": "layers replaced by their law",
}
_STOPPED = {
    "precision": ", enough for its error",
    "time": ", until time was up",
    "interrupted": " before the INTERRUPT",
}
_MODES = {kind.code for kind in (VANISHING, EXPLODING, UNSTABLE, DEAD, STEP_TOO_LARGE)}
"""Findings that the verdict itself says."""
_LONGEST_NAME = 48


@dataclass(frozen=True, slots=True)
class NumberRow:
    """One number, predicted beside measured: empty where there is none."""

    label: str
    meaning: str
    predicted: str
    measured: str


def number_rows(report: Report) -> list[NumberRow]:
    """Return drift, fluctuation, Hanin-Nica's beta and the share of dead networks."""
    p, m = report.prediction, report.measurement
    predicted = _predicted(p.rms_gain_log_mean, p.log_mean_se)
    measured = "" if m is None else _with_error(m.rms_gain_log_mean, m.log_mean_se)
    rows = [NumberRow("drift", "mean of ln gain^2", predicted, measured)]
    rows += _judged_drift(report)
    predicted = _predicted(p.log_variance, p.log_variance_se)
    measured = "" if m is None else _with_error(m.log_variance, m.log_variance_se)
    rows.append(NumberRow("fluctuation", "log-variance, draw to draw", predicted, measured))
    rows += _judged_fluctuation(report)
    if p.beta is not None:
        rows.append(NumberRow("", "Hanin-Nica beta", words.number(p.beta), ""))
    predicted = "" if p.dead_probability is None else words.percent(p.dead_probability)
    measured = "" if m is None else _share(m.dead_fraction, m.draws)
    rows.append(NumberRow("dead networks", "gradient exactly 0", predicted, measured))
    if m is not None and m.overflow_fraction:
        overflows = _share(m.overflow_fraction, m.draws)
        rows.append(NumberRow("overflow", "gradient not finite", "", overflows))
    return rows


def _judged_drift(report: Report) -> Iterator[NumberRow]:
    """Yield the judged drift if a map of the input comes before the layers."""
    p, m, architecture = report.prediction, report.measurement, report.architecture
    if architecture.input_map is None or (p.hidden_drift is None and m is None):
        return
    predicted = "" if p.hidden_drift is None else words.number(p.hidden_drift)
    measured = "" if m is None else words.number(words.measured_judged(m, architecture)[0])
    yield NumberRow("", "from the first layer on", predicted, measured)


def _judged_fluctuation(report: Report) -> Iterator[NumberRow]:
    """Yield the judged fluctuation if the output's draw is much of the whole."""
    p, m, hidden = report.prediction, report.measurement, report.prediction.hidden_log_variance
    if hidden is None or not p.log_variance or hidden >= _MOSTLY * p.log_variance:
        return
    measured = "" if m is None else words.number(words.measured_judged(m, report.architecture)[1])
    yield NumberRow("", "without the output's own draw", words.number(hidden), measured)


def _share(fraction: float, draws: int) -> str:
    """Return a share of the draws as ``3 of 1024``, or nothing if it is not known."""
    return "" if math.isnan(fraction) else f"{round(fraction * draws)} of {draws}"


def remarks(report: Report) -> list[str]:
    """Return how it was measured, and whether prediction and measurement agree."""
    lines = []
    m = report.measurement
    if m is not None:
        method = _METHODS.get(m.method, m.method)
        stopped = _STOPPED.get(m.stopped, "")
        lines.append(f"measured over {m.draws} draws{stopped} ({method}), +- one standard error")
    if m is not None and m.method == "signs" and signs_hide_variance(report.architecture):
        lines.append(
            "random signs around a single layer, or around very few weights, do not show how "
            "they vary: not compared"
        )
    if report.agreement is not None:
        verb = "agree" if report.agreement.agrees else "DISAGREE"
        p = report.agreement.p_value
        chance = f"{p:.2f}" if p >= 0.01 else f"{p:.1g}"
        lines.append(f"prediction and measurement {verb} (p = {chance}){_compared(report)}")
    return lines


def _compared(report: Report) -> str:
    """Return what the measurement was compared with, if that is not the prediction
    shown.

    Random signs keep the norms of the weights as they were drawn.
    """
    a, p, m = report.agreement, report.prediction, report.measurement
    if (
        a is None
        or m is None
        or p.log_mean is None
        or not abs(a.expected_log_mean - p.log_mean) > _APART * m.log_mean_se
    ):
        return ""
    shift = m.rms_gain_log_mean - m.log_mean
    mean, variance = (
        words.number(a.expected_log_mean + shift),
        words.number(a.expected_log_variance),
    )
    kept = "these very weights, whose norms random signs keep,"
    return f": {kept} are expected to show {mean} and {variance}"


def _predicted(value: float | None, error: float | None) -> str:
    """Return nothing if there is no prediction: its column then has no heading."""
    return "" if value is None else _with_error(value, error)


def _with_error(value: float | None, error: float | None) -> str:
    """Return a number with its standard error, to two digits of the error.

    It stands alone where it is exact, or its error is not known.
    """
    if value is None or not error or not 0 < error < math.inf or abs(value) >= 1e5:
        return words.number(value)
    digits = max(0, min(6, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def quantile_rows(report: Report) -> list[tuple[str, ...]]:
    """Return the 5, 50 and 95 % quantiles of ``ln gain^2``, measured and predicted."""
    levels = np.array([0.05, 0.5, 0.95])
    values = curves.log_gains(report)
    rows = [("measured", np.quantile(values, levels))] if len(values) > 1 else []
    law = curves.law_of(report.prediction)
    if law is not None:
        rows.append(("predicted", law.ppf(levels) + curves.shift(report)))
    return [
        (name, *(f"{q:.2f}" if abs(q) < 1e5 else f"{q:.3g}" for q in quantiles))
        for name, quantiles in rows
    ]


def layer_rows(report: Report, most: int) -> list[tuple[str, ...]]:
    """Return a row for each layer, its columns as `LAYER_HEADERS` names them.

    Equal layers are folded, and beyond ``most`` rows the middle is left out.
    """
    labels = [layer.activation.label for layer in report.architecture.layers]
    labels += [""] * (len(report.prediction.layers) - len(labels))
    rows = list(_folded(report.prediction.layers, labels))
    if len(rows) <= most:
        return rows
    head, tail = rows[: most // 2], rows[len(rows) - most // 2 :]
    return [
        *head,
        ("", f"... {len(rows) - len(head) - len(tail)} left out", *[""] * 6),
        *tail,
    ]


def _folded(layers: tuple[LayerPrediction, ...], labels: list[str]) -> Iterator[tuple[str, ...]]:
    rows = [_layer_row(layer, label) for layer, label in zip(layers, labels, strict=False)]
    start = 0
    while start < len(rows):
        end = start
        while end < len(rows) and rows[end][1:] == rows[start][1:]:
            end += 1
        yield (str(start), *rows[start])
        if end - start > 2:
            yield ("", f"... {end - start - 1} alike", *[""] * 6)
        elif end - start == 2:
            yield (str(start + 1), *rows[start + 1])
        start = end


def _layer_row(layer: LayerPrediction, label: str) -> tuple[str, ...]:
    return (
        words.short(layer.name, _LONGEST_NAME),
        str(layer.fan_in),
        str(layer.fan_out),
        label,
        words.number(layer.gain * layer.gain, 3),
        words.number(layer.rms_gain_log_mean),
        words.number(layer.log_variance, 3),
    )


def other_findings(report: Report) -> list[Finding]:
    """Return the findings that the verdict does not already say."""
    return [finding for finding in report.findings if finding.code not in _MODES]


def advice_headers(report: Report) -> tuple[str, ...]:
    """Return the header of `advice_rows`."""
    return (
        "",
        "What to do",
        "drift",
        "fluctuation",
        f"risk ({words.OPTIMIZER_NAMES.get(report.optimizer or 'sgd', '')})",
    )


def advice_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row for the network as it is, and one for each remedy.

    Number, action, drift, fluctuation and risk; empty without advice.
    """
    if not report.advice:
        return []
    first = report.advice[0]
    rows: list[tuple[str, ...]] = [
        (
            "",
            "(as it is)",
            *_effect(first.drift_before, first.log_variance_before, first.risk_before),
        )
    ]
    for index, advice in enumerate(report.advice, start=1):
        effect = _effect(advice.drift_after, advice.log_variance_after, advice.risk_after)
        rows.append((str(index), advice.action, *effect))
    return rows


def _effect(drift: float, log_variance: float, risk: float) -> tuple[str, str, str]:
    return words.number(drift, 1), words.number(log_variance), words.percent(risk)


def footer(report: Report) -> str:
    """Return for what the network was judged, and by what."""
    if not report.risk:
        return "not judged is not passed"
    limit = words.percent(report.thresholds.max_risk)
    return f"judged for {words.training(report)} (at risk from {limit}), by {report.basis}"


def provenance(report: Report) -> str:
    """Return where the risk comes from; empty without a risk."""
    return f"risk: {report.risk_provenance}" if report.risk else ""
