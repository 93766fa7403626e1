"""A trial in a report: losses beside the constant guess, what each layer met."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from initdiag._core.console import Group, Padding, RenderableType, Text
from initdiag.measuring.trial_record import Trial, TrialLayer
from initdiag.rendering import words
from initdiag.rendering.curves import Array
from initdiag.rendering.terminal import BARS, Grid

__all__ = [
    "HEADERS",
    "TERM_HEADERS",
    "is_wide",
    "layer_rows",
    "section",
    "sentences",
    "sparkline",
    "term_rows",
]

HEADERS = ("layer", "gradient", "predicted", "at the end", "update/weight", "no gradient")
"""The columns of `layer_rows`: norms at the first step, their band, at the last step;
how far the first step moves the weights, relative to them; units without a gradient at
the end."""

TERM_HEADERS = ("term", "at first", "at the end", "gradient")
"""The columns of `term_rows`."""

_MOST_BARS = 30
"""Bars of a sparkline: it stays on one line of 40 columns with its ends."""

_WIDE = 100.0
"""Ratio of losses from which on their logarithms are drawn."""

_MOST_LAYERS = 20


def sentences(trial: Trial) -> list[str]:
    """Return what the trial was, in a few sentences."""
    first = trial.sentence()
    lines = [f"{first[0].upper()}{first[1:]}."]
    if trial.draws > 1:
        share = f"{sum(trial.started)} of {trial.draws}"
        lines.append(f"Started: {share} draws (standard error {trial.share_se:.2f}).")
    lines.append(f"Batch of {trial.rows} rows, {trial.seconds:.1f} s{_ended(trial)}.")
    return lines


def _ended(trial: Trial) -> str:
    early = {
        "clear": ", ended early because it was clear",
        "not finite": ", ended by a number that is not finite",
        "time": ", ended because time was up",
        "interrupted": ", ended by the INTERRUPT",
    }
    return early.get(trial.stopped, "")


def sparkline(values: Array, most: int = _MOST_BARS) -> str:
    """Return a bar for each of at most ``most`` values; one that is not finite is
    drawn as ``!``.

    Their logarithms are drawn where they span more than a factor 100.
    """
    at = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    chosen = _scaled(values)[at]
    known = chosen[np.isfinite(chosen)]
    if not len(known):
        return "!" * len(chosen)
    low, span = known.min(), np.ptp(known) or 1.0
    levels = np.nan_to_num((chosen - low) / span * (len(BARS) - 2)) + 1
    return "".join(
        BARS[round(level)] if np.isfinite(value) else "!"
        for level, value in zip(levels.tolist(), chosen.tolist(), strict=True)
    )


def _scaled(values: Array) -> Array:
    return np.log(np.where(np.isfinite(values), values, np.nan)) if is_wide(values) else values


def is_wide(values: Array) -> bool:
    """Return whether losses are drawn on a scale of powers of ten."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() > 0 and known.max() > _WIDE * known.min())


def layer_rows(trial: Trial, most: int = _MOST_LAYERS) -> list[tuple[str, ...]]:
    """Return a row for each layer, its columns as `HEADERS` names them."""
    rows = [_row(layer) for layer in trial.layers]
    if len(rows) <= most:
        return rows
    left_out = (f"... {len(rows) - 2 * (most // 2)} left out", *[""] * (len(HEADERS) - 1))
    return [*rows[: most // 2], left_out, *rows[-(most // 2) :]]


def _row(layer: TrialLayer) -> tuple[str, ...]:
    is_known = math.isfinite(layer.low) and math.isfinite(layer.high)
    band = f"{_norm(layer.low)} to {_norm(layer.high)}" if is_known else ""
    first, last = float(layer.log_gradients[0]), float(layer.log_gradients[-1])
    update = float(layer.log_updates[0])
    return (
        words.short(layer.name, 40),
        f"{_norm(first)}{_outside(first, layer) if is_known else ''}",
        band,
        _norm(last),
        _norm(2 * update),
        words.percent(layer.dead_after),
    )


def _outside(value: float, layer: TrialLayer) -> str:
    if layer.low <= value <= layer.high:
        return ""
    return " (below)" if value < layer.low else " (above)"


def _norm(log_square: float) -> str:
    """Return the norm of a log of a square, e.g. ``1.2e-05``."""
    if math.isnan(log_square) or log_square == math.inf:
        return "not finite"
    return f"{math.exp(max(log_square / 2, -700.0)):.2g}" if log_square > -math.inf else "0"


def term_rows(trial: Trial) -> list[tuple[str, ...]]:
    """Return a row for each term of the loss, its columns as `TERM_HEADERS` names."""
    return [
        (words.short(t.name, 40), f"{t.first:.3g}", f"{t.last:.3g}", _norm(t.log_gradient))
        for t in trial.terms
    ]


def section(trial: Trial, *, is_whole: bool) -> RenderableType:
    """Return the trial for a terminal; the layers where it is to be whole."""
    losses = trial.typical
    ends = f"{losses[0]:.3g} {sparkline(losses)} {losses[-1]:.3g}"
    guess = "" if math.isnan(trial.constant_loss) else f"constant guess {trial.constant_loss:.3g}"
    parts: list[RenderableType] = [Text("Trial", style="bold"), *map(Text, sentences(trial))]
    parts.append(Padding(Text(f"loss {ends}"), (0, 0, 0, 2)))
    if guess:
        parts.append(Padding(Text(guess, style="dim"), (0, 0, 0, 2)))
    parts += _tables(trial) if is_whole else []
    return Group(*parts)


def _tables(trial: Trial) -> Iterator[RenderableType]:
    rows = layer_rows(trial)
    if rows:
        yield Grid(HEADERS, rows, "lrrrrr", flexible=0, is_cut=True, drops=(3, 5, 2))
    if trial.terms:
        yield Grid(TERM_HEADERS, term_rows(trial), "lrrr", flexible=0, is_cut=True)
