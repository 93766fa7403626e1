"""A network in a line of words: its shape, and what of it the theory covers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from initdiag.diagnosing.coverage import uncovered
from initdiag.diagnosing.report import Report
from initdiag.network.architecture import Architecture

__all__ = ["coverage", "summary"]

_MOST_REASONS = 3
"""Reasons that a line on coverage names, which keeps it to a line or two of 80 columns.

The findings name the others.
"""

_MOST_KINDS = 6
"""Kinds of parts that the line on coverage counts; the findings count all of them."""

_MOST_RUNS, _FIRST_RUNS, _LAST_RUNS = 8, 4, 3
"""Runs of equal widths that a line shows, and those it keeps where there are more."""

_SAME_GAIN = 1e-3
"""A factor this close to 1 is not told: it is rounded away in a law's three digits."""

_INITIALIZERS = {
    "torch_default": "PyTorch default",
    "lecun_normal": "LeCun normal",
    "lecun_uniform": "LeCun uniform",
}


def summary(architecture: Architecture) -> str:
    """Return the layers' count, widths, activations and weights in one line.

    For example ``31 linear layers, 64 -> 30 x 64 -> 10, ReLU, linear output; weights:
    PyTorch default``.
    """
    layers = architecture.layers
    if not layers:
        return f"no linear layer in {architecture.source}"
    weights = ", ".join(
        dict.fromkeys(_weights(layer.weight.initializer, layer.weight.gain) for layer in layers)
    )
    if architecture.gaps:
        counted = _counted(len(layers), "linear layer")
        return f"{counted} in {architecture.source}, not a plain chain; weights: {weights}"
    hidden = ", ".join(dict.fromkeys(layer.activation.label for layer in layers[:-1]))
    sizes = " -> ".join(_runs(list(architecture.widths)))
    gates = (
        f"{hidden}, {layers[-1].activation.label} output"
        if hidden
        else f"{layers[-1].activation.label} output"
    )
    return f"{_counted(len(layers), 'linear layer')}, {sizes}, {gates}; weights: {weights}"


def _weights(initializer: str | None, gain: float) -> str:
    if initializer is None:
        return "not recognised"
    name = _INITIALIZERS.get(
        initializer, initializer.replace("_", " ").replace("he ", "He ").replace("xavier", "Xavier")
    )
    if abs(gain - 1) < _SAME_GAIN:
        return name
    return (
        f"{name}, factor {gain * math.sqrt(2):.3g}"
        if initializer == "orthogonal"
        else f"{name} times {gain:.3g}"
    )


def _runs(widths: list[int]) -> list[str]:
    """Fold equal hidden widths: ``64, 30 x 64, 10``; only the ends of many runs."""
    runs: list[list[int]] = []
    for n in widths[1:-1]:
        if runs and runs[-1][1] == n:
            runs[-1][0] += 1
        else:
            runs.append([1, n])
    words = [f"{count} x {n}" if count > 1 else str(n) for count, n in runs]
    if len(words) > _MOST_RUNS:
        words = [*words[:_FIRST_RUNS], "...", *words[-_LAST_RUNS:]]
    return [str(widths[0]), *words, str(widths[-1])]


def coverage(report: Report) -> str:
    """Return what of the network is exact, simulated or measured, with counts."""
    architecture, prediction = report.architecture, report.prediction
    layers = _counted(len(architecture.layers), "linear layer")
    counted = [part.counted for part in uncovered(architecture.gaps)]
    left = len(counted) - _MOST_KINDS
    parts = ", ".join(
        [layers, *counted[:_MOST_KINDS], *([_counted(left, "more kind")] * (left > 0))]
    )
    if architecture.gaps and prediction.coverage == "simulated":
        notes = [reason for reason in prediction.reasons if not reason.startswith("simulated ")]
        return f"Simulated: {parts}{_told(notes)}"
    if architecture.gaps and prediction.coverage == "none":
        how = "Measured" if report.basis == "measurement" else "Not covered by the theory"
        return f"{how}: {parts}"
    if prediction.coverage == "simulated":
        return f"Simulated: {layers}{_told(prediction.reasons)}"
    count = 0 if prediction.coverage == "none" else len(architecture.layers)
    told = _told(prediction.reasons) or (" (exact)" if prediction.coverage == "exact" else "")
    return f"Covered by the theory: {count} of {layers}{told}"


def _told(reasons: Iterable[str]) -> str:
    """Return the first few reasons in brackets, and how many more there are."""
    distinct = [*dict.fromkeys(reasons)]
    if not distinct:
        return ""
    left = len(distinct) - _MOST_REASONS
    more = f"; and {left} more" if left > 0 else ""
    return f" ({'; '.join(distinct[:_MOST_REASONS])}{more})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
