"""Words and numbers that every renderer shares."""

from __future__ import annotations

import dataclasses
import math
import typing
import unicodedata
from typing import Any, TypeVar

from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.causes import OF_BATCH
from initdiag.diagnosing.findings import STEP_TOO_LARGE
from initdiag.diagnosing.mismatch import mismatch
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.measuring.judged import judged_moments
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture
from initdiag.rendering import trial_words
from initdiag.screening.depth_width import RiskMap

__all__ = [
    "OPTIMIZER_NAMES",
    "explanation",
    "factor",
    "headline",
    "measured_judged",
    "number",
    "percent",
    "percent_beside",
    "plain",
    "printable",
    "risks",
    "short",
    "training",
    "verdict_name",
    "where",
]

T = TypeVar("T")

_EVEN = 0.5
"""Risk below which training is more likely to start than not."""

_TOSS_UP = 0.05
"""A risk this close to it counts as an even chance."""

_MEDIAN_PAIR, _RARE_PAIR = 0.954, 2.772
"""Standard deviations by which two draws of a normal law differ.

Half of all pairs differ by the first and one in twenty by the second: sqrt(2) times the
law's upper quartile, 0.674, and times 1.96.
"""

OPTIMIZER_NAMES = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "adamw": "AdamW"}


def plain(text: str) -> str:
    """Return ``text`` without control characters, line breaks and lone surrogates.

    A module's name may hold any of them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def printable(record: T) -> T:
    """Return a record with `plain` texts throughout, as every renderer needs it."""
    return typing.cast("T", _printable(record))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, tuple):
        return tuple(_printable(item) for item in value)
    if isinstance(value, dict):
        return {_printable(key): item for key, item in value.items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = {
        name: new
        for name, old in fields.items()
        if (new := _printable(old)) is not old and not _same(new, old)
    }
    return dataclasses.replace(value, **changed) if changed else value


def _same(new: Any, old: Any) -> bool:
    """Return whether every part is the same object; values may be arrays."""
    if isinstance(new, tuple):
        return len(new) == len(old) and all(
            a is b or _same(a, b) for a, b in zip(new, old, strict=True)
        )
    return isinstance(new, str | dict) and new == old


def short(text: str, most: int) -> str:
    """Return ``text``, its middle left out beyond ``most`` characters."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (most - 1 - head) :]}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for a table: ``-56.10``, ``0.083``, a dash for none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value) or abs(value) >= 1e5:
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def percent(probability: float) -> str:
    """Return a probability that does not round to certainty: ``<1 %``, ``62 %``."""
    if not math.isfinite(probability):
        return "-"
    if 0 < probability < 0.005:
        return "<1 %"
    if 0.995 < probability < 1:
        return ">99 %"
    return f"{100 * probability:.0f} %"


def percent_beside(probability: float, limit: float) -> str:
    """Return `percent`, with as many decimals as keep it on its side of ``limit``."""
    text, decimals = percent(probability), 0
    while probability != limit and text == f"{100 * limit:.{decimals}f} %" and decimals < 3:
        decimals += 1
        text = f"{100 * probability:.{decimals}f} %"
    return text


def factor(log_square: float) -> str:
    """Return the factor ``exp(|x|/2)`` of a log of a square, e.g. ``1.6e12``."""
    exponent = abs(log_square) / 2 / math.log(10)
    if not math.isfinite(exponent):
        return "infinitely many" if math.isinf(exponent) else "unknown"
    if exponent < 4:
        return f"{10**exponent:.2g}" if exponent < 2 else f"{10**exponent:.0f}"
    whole = math.floor(exponent)
    return f"{10 ** (exponent - whole):.1f}e{whole}"


def risks(report: Report) -> str:
    """Return ``risk 100 % (SGD), 99 % (Adam)``, the judged optimiser first."""
    judged = report.optimizer or "sgd"
    names = sorted(report.risk, key=lambda name: name != judged)
    limit = report.thresholds.max_risk
    return "risk " + ", ".join(
        f"{percent_beside(report.risk[n], limit)} ({OPTIMIZER_NAMES.get(n, n)})" for n in names
    )


def training(found: Report | RiskMap) -> str:
    """Return for what training it was judged, e.g. ``SGD at learning rate 0.1``."""
    judged = found.optimizer or "sgd"
    rate = "" if found.lr is None else f" at learning rate {found.lr:g}"
    return f"{OPTIMIZER_NAMES.get(judged, judged)}{rate}{', ' + found.loss if found.loss else ''}"


def verdict_name(report: Report) -> str:
    """Return the verdict in capitals, e.g. ``NO VERDICT``."""
    return report.verdict.value.replace("_", " ")


def headline(report: Report) -> tuple[str, ...]:
    """Return the verdict's meaning, in a sentence or two."""
    if report.verdict is Verdict.NO_VERDICT:
        is_known = report.measurement is not None or report.prediction.coverage != "none"
        if is_known:
            why = "what is known of this module does not tell how it trains; see the findings"
            return (f"Not judged: {why}.",)
        return ("Not judged: the theory does not cover this module, and it was not measured.",)
    first = f"{_start(report)}: {risks(report)}."
    first = f"{_start(report)}: {risks(report)}."
    cause = "" if report.cause is None else f"Cause: {report.cause}."
    further = (cause, _size(report), _refutation(report), trial_words.headline(report))
    return tuple(sentence for sentence in (first, *further) if sentence)


def _refutation(report: Report) -> str:
    """Return that the measurement refutes the prediction, where it is judged by."""
    is_refuted = report.agreement is not None and not report.agreement.agrees
    if report.basis is Basis.MEASUREMENT and is_refuted:
        return "The measurement refutes the prediction, so the measurement is judged."
    return ""


def _start(report: Report) -> str:
    """Say whether training is likely to start; the limit need not be an even chance."""
    risk = report.risk.get(report.optimizer or "sgd", math.nan)
    is_likely = risk < _EVEN
    if abs(risk - _EVEN) < _TOSS_UP:
        return "Training may start or not"
    starts = f"raining is {'' if is_likely else 'not '}likely to start"
    if is_likely == report.ok:
        return f"T{starts}"
    side = "Below" if report.ok else "Not below"
    return f"{side} the limit set ({percent(report.thresholds.max_risk)}), though t{starts}"


def _size(report: Report) -> str:
    """Say what happens, with its number; nothing of a healthy or unknown network."""
    if report.cause in OF_BATCH:
        message = report.findings[0].message
        return f"{message[:1].upper()}{message[1:]}."
    drift, variance = _judged_numbers(report)
    if report.basis is Basis.TRIAL:
        return ""
    if report.verdict in (Verdict.VANISHING, Verdict.EXPLODING) and not math.isnan(drift):
        size = "small" if drift < 0 else "large"
        place = "input" if report.architecture.input_map is None else "first layer"
        why = mismatch(report.architecture, drift)
        size = f"{size}: {why}." if why else f"{size}."
        return f"A typical gradient reaches the {place} {factor(drift)} times too {size}"
    if any(finding.code == STEP_TOO_LARGE.code for finding in report.findings):
        return (
            "At this depth the learning rate takes too large a step, however the weights are drawn."
        )
    if report.verdict is Verdict.UNSTABLE and variance >= 0:
        return _luck(drift, variance)
    if report.verdict is Verdict.DEAD:
        return "In most initialisations, or in all, the gradient is exactly zero."
    return ""


def _luck(drift: float, variance: float) -> str:
    """Say how far apart two initialisations are, and where a typical one is."""
    if not math.isfinite(variance):
        return "The gradient's size is a matter of luck."
    half, rare = (factor(count * math.sqrt(variance)) for count in (_MEDIAN_PAIR, _RARE_PAIR))
    is_far = -math.inf < drift < -_NOTABLE
    typical = f" A typical one is {factor(drift)} times too small." if is_far else ""
    return (
        "The gradient's size is a matter of luck: half of all pairs of initialisations differ by "
        f"a factor {half} or more, one in twenty by {rare}.{typical}"
    )


_NOTABLE = 2 * math.log(3)
"""Drift from which on the typical gradient is worth a sentence: a factor 3."""


_GRADIENT = "The gradient, the signal that tells each weight how to change,"
_MEANINGS = {
    Verdict.HEALTHY: f"{_GRADIENT} comes through the layers at a usable size.",
    Verdict.VANISHING: f"{_GRADIENT} dies away on its way through the layers: the layers it "
    "should reach last hardly learn.",
    Verdict.EXPLODING: f"{_GRADIENT} grows on its way through the layers, so that the first "
    "steps of training overshoot.",
    Verdict.UNSTABLE: f"{_GRADIENT} has about the right size on average, but one random start "
    "has far more of it than the next.",
    Verdict.DEAD: f"{_GRADIENT} is cut off: some layer passes nothing, so that nothing is learnt.",
    Verdict.SYMMETRIC: "Units of a layer have equal weights: they compute the same, get the "
    "same gradient, and no training tells them apart.",
    Verdict.NO_VERDICT: "It is not known how this network will train. Not judged is not "
    "passed: the notes below say why.",
}


def where(report: Report) -> str:
    """Return the title of the layers' shares."""
    return "Where it grows" if report.verdict is Verdict.EXPLODING else "Where it is lost"


def explanation(report: Report) -> tuple[str, ...]:
    """Return the verdict for a reader without theory: its meaning, and how much."""
    if report.basis is Basis.TRIAL:
        return trial_words.explanation(report)
    size = _size(report)
    return (_MEANINGS[report.verdict], size) if size else (_MEANINGS[report.verdict],)


def _judged_numbers(report: Report) -> tuple[float, float]:
    """Return the drift and log-variance that the verdict rests on, or NaN."""
    p, m = report.prediction, report.measurement
    if report.basis == "law" and p.hidden_drift is not None and p.hidden_log_variance is not None:
        return p.hidden_drift, p.hidden_log_variance
    return (math.nan, math.nan) if m is None else measured_judged(m, report.architecture)


def measured_judged(measurement: Measurement, architecture: Architecture) -> tuple[float, float]:
    """Return the measured drift and log-variance of the part that is judged.

    NaN where that part begins behind a map of the input and no layer was measured.
    """
    if architecture.input_map is not None and not measurement.layers:
        return math.nan, math.nan
    drift, log_variance, _ = judged_moments(measurement, architecture)
    return drift, log_variance
