"""Words and numbers that every renderer shares."""

from __future__ import annotations

import math
import unicodedata

from initdiag.architecture import Architecture
from initdiag.report import Report
from initdiag.verdict import Verdict

__all__ = ["chain_summary", "coverage", "factor", "headline", "number", "percent", "plain", "risks"]

_INITIALIZERS = {"torch_default": "PyTorch default", "lecun_normal": "LeCun normal", "lecun_uniform": "LeCun uniform"}
OPTIMIZER_NAMES = {"sgd": "SGD", "adam": "Adam"}


def plain(text: str) -> str:
    """Return ``text`` without control characters (a module's name may hold anything)."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for a table: ``-56.10``, ``0.083``; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value) or abs(value) >= 1e5:
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def percent(probability: float) -> str:
    """Return a probability in words that do not round to certainty: ``<1 %``, ``62 %``, ``>99 %``."""
    if 0 < probability < 0.005:
        return "<1 %"
    if 0.995 < probability < 1:
        return ">99 %"
    return f"{100 * probability:.0f} %"


def factor(log_square: float) -> str:
    """Return the factor ``exp(|x|/2)`` of a log of a square, e.g. ``1.6e12``; finite text for any depth."""
    exponent = abs(log_square) / 2 / math.log(10)
    if math.isinf(exponent):
        return "infinitely many"
    if exponent < 4:
        return f"{10**exponent:.2g}" if exponent < 2 else f"{10**exponent:.0f}"
    whole = math.floor(exponent)
    return f"{10 ** (exponent - whole):.1f}e{whole}"


def risks(report: Report) -> str:
    """Return ``risk 100 % (SGD), 99 % (Adam)``, the judged optimiser first."""
    judged = report.optimizer or "sgd"
    names = sorted(report.risk, key=lambda name: name != judged)
    return "risk " + ", ".join(f"{percent(report.risk[n])} ({OPTIMIZER_NAMES.get(n, n)})" for n in names)


def headline(report: Report) -> tuple[str, ...]:
    """Return the verdict's meaning, in a sentence or two."""
    if report.verdict is Verdict.NO_VERDICT:
        return ("Not judged: the theory does not cover this module, and it was not measured.",)
    starts = "Training is likely to start" if report.ok else "Training is not likely to start"
    first = f"{starts}: {risks(report)}."
    drift, variance = _judged_numbers(report)
    if report.verdict in (Verdict.VANISHING, Verdict.EXPLODING):
        size = "small" if drift < 0 else "large"
        return first, f"A typical gradient reaches the input {factor(drift)} times too {size}."
    if report.verdict is Verdict.UNSTABLE:
        times = factor(2 * math.sqrt(variance) * 2) if math.isfinite(variance) else "many"
        return first, f"The gradient's size is a matter of luck: two initialisations differ by factors of {times}."
    if report.verdict is Verdict.DEAD:
        return first, "In most initialisations, or in all, the gradient is exactly zero."
    return (first,)


def _judged_numbers(report: Report) -> tuple[float, float]:
    p, m = report.prediction, report.measurement
    if report.basis == "law" and p.hidden_drift is not None and p.hidden_log_variance is not None:
        return p.hidden_drift, p.hidden_log_variance
    assert m is not None, "a verdict rests on a law or on a measurement"
    return m.rms_gain_log_mean, m.log_variance


def chain_summary(architecture: Architecture) -> str:
    """Return e.g. ``31 linear layers, 64 -> 30 x 64 -> 10, ReLU, linear output; weights: torch_default``."""
    layers = architecture.layers
    weights = ", ".join(dict.fromkeys(_weights(layer.weight.initializer, layer.weight.gain) for layer in layers))
    if architecture.gaps:
        return f"{len(layers)} linear layers in {architecture.source}, not a plain chain; weights: {weights}"
    hidden = ", ".join(dict.fromkeys(layer.activation.label for layer in layers[:-1]))
    sizes = " -> ".join(_runs(list(architecture.widths)))
    gates = f"{hidden}, {layers[-1].activation.label} output" if hidden else f"{layers[-1].activation.label} output"
    return f"{len(layers)} linear layers, {sizes}, {gates}; weights: {weights}"


def _weights(initializer: str | None, gain: float) -> str:
    if initializer is None:
        return "not recognised"
    name = _INITIALIZERS.get(
        initializer, initializer.replace("_", " ").replace("he ", "He ").replace("xavier", "Xavier")
    )
    return name if abs(gain - 1) < 1e-3 else f"{name} times {gain:.3g}"


def _runs(widths: list[int]) -> list[str]:
    """Fold equal hidden widths: ``64, 30 x 64, 10``; of many runs, the first and last ones."""
    runs: list[list[int]] = []
    for n in widths[1:-1]:
        if runs and runs[-1][1] == n:
            runs[-1][0] += 1
        else:
            runs.append([1, n])
    words = [f"{count} x {n}" if count > 1 else str(n) for count, n in runs]
    if len(words) > 8:
        words = [*words[:4], "...", *words[-3:]]
    return [str(widths[0]), *words, str(widths[-1])]


def coverage(report: Report) -> str:
    """Return which layers the theory covers, and how well."""
    count = len(report.architecture.layers)
    if report.prediction.coverage == "none":
        return f"Covered by the theory: 0 of {count} layers"
    if report.prediction.coverage == "simulated":
        return f"Simulated, {count} linear layers: {'; '.join(report.prediction.reasons)}"
    how = "exact" if report.prediction.coverage == "exact" else "; ".join(report.prediction.reasons)
    return f"Covered by the theory: {count} of {count} layers ({how})"
