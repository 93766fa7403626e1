"""Two reports side by side: what differs between them, layer by layer."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from initdiag._core.serialization import Record
from initdiag._core.summary import preformatted
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.report import Report
from initdiag.errors import InvalidInput, explain
from initdiag.network.architecture import Layer

__all__ = ["Comparison", "Difference", "LayerDifference", "compare"]

_ROUNDING = 1e-9
"""Relative difference below which two numbers of the law are the same: both are
computed in float64, by sums over at most 100,000 layers.
"""

_APART = 3.0
"""Standard errors from which on two estimates differ: one pair in 370 does by chance.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number or fact of two reports.

    Attributes
    ----------
    name : str
        What it is, e.g. ``"drift, measured"`` (natural log) or ``"verdict"``.
    first, second : float, str or None
        As it stands in either report; None where the report does not have it.
    standard_error : float or None
        Of the difference of two numbers; None where they are exact, or texts.
    """

    name: str
    first: float | str | None
    second: float | str | None
    standard_error: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the two differ by more than chance: three standard errors of
        estimates, rounding of exact numbers.
        """
        a, b = self.first, self.second
        if not isinstance(a, float) or not isinstance(b, float):
            return a != b
        if a == b or (math.isnan(a) and math.isnan(b)):
            return False
        if not (math.isfinite(a) and math.isfinite(b)):
            return True
        room = _ROUNDING * max(abs(a), abs(b), 1.0)
        return abs(b - a) > max(room, _APART * (self.standard_error or 0.0))


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """What differs in one layer.

    Attributes
    ----------
    first, second : int or None
        Its number in either report; None where the report has no such layer.
    name : str
        Its name, in the first report if it is there.
    differences : tuple of Difference
        Of the layer's sizes, gate, weights, gain, and its shares of drift and
        fluctuation (natural log); empty for a layer that one of the reports does not
        have.
    """

    first: int | None
    second: int | None
    name: str
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """What differs between two reports.

    Attributes
    ----------
    first, second : str
        The targets of the reports.
    numbers : tuple of Difference
        Verdict, risks, drift and fluctuation, predicted and measured, whether they
        differ or not.
    layers : tuple of LayerDifference
        The layers that differ, in the order of the networks.
    layer_count : int
        Layers that were compared, those of only one of the reports included.
    gone, new : tuple of Finding
        Findings of the first report alone, and of the second alone.
    """

    first: str
    second: str
    numbers: tuple[Difference, ...]
    layers: tuple[LayerDifference, ...]
    layer_count: int
    gone: tuple[Finding, ...]
    new: tuple[Finding, ...]

    @property
    def differs(self) -> bool:
        """Whether anything differs."""
        return bool(
            self.layers or self.gone or self.new or any(number.differs for number in self.numbers)
        )

    def to_markdown(self) -> str:
        """Return the comparison in Markdown."""
        from initdiag.rendering.comparison import to_markdown

        return to_markdown(self)

    def __str__(self) -> str:
        from initdiag.rendering.comparison import to_text

        return to_text(self, width=100)

    def __repr__(self) -> str:
        return f"<initdiag.Comparison {self.first}, {self.second}>"

    def _repr_html_(self) -> str:
        return preformatted(str(self))

    def __rich__(self) -> Any:
        from initdiag.rendering.comparison import renderable

        return renderable(self)


def compare(first: Report, second: Report) -> Comparison:
    """Return what differs between two reports, layer by layer.

    Layers belong together in the order of the networks, by their sizes: a layer that
    was put in or taken out does not move the others.

    Parameters
    ----------
    first, second : Report
        Reports of this version or an older one, e.g. of a model before and after a
        change.

    Returns
    -------
    Comparison
        ``differs``, the numbers of both beside one another, the layers that differ,
        and the findings that came or went. ``print`` shows it.

    Raises
    ------
    InvalidInput
        If one of them is not a report.

    Examples
    --------
    >>> import initdiag
    >>> from torch import nn
    >>> layers = [nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for _ in range(20)]
    >>> model = nn.Sequential(*layers, nn.Linear(32, 1))
    >>> before = initdiag.diagnose(model)
    >>> _ = initdiag.repair(model, "orthogonal")
    >>> found = initdiag.compare(before, initdiag.diagnose(model))
    >>> found.numbers[0].name, found.numbers[0].first, found.numbers[0].second
    ('verdict', 'VANISHING', 'HEALTHY')
    >>> len(found.layers)
    21
    """
    for given in (first, second):
        if not isinstance(given, Report):
            raise InvalidInput(
                explain(
                    expected="two reports, as initdiag.diagnose returns them",
                    got=type(given).__name__,
                    do="Load saved ones first: Report.from_dict(json.loads(text)).",
                )
            )
    pairs = list(_pairs(first.architecture.layers, second.architecture.layers))
    found = (_layer(first, second, a, b) for a, b in pairs)
    here, there = _findings(first), _findings(second)
    return Comparison(
        first.target,
        second.target,
        tuple(_numbers(first, second)),
        tuple(layer for layer in found if layer is not None),
        len(pairs),
        tuple(finding for key, finding in here.items() if key not in there),
        tuple(finding for key, finding in there.items() if key not in here),
    )


def _findings(report: Report) -> dict[tuple[str, str | None], Finding]:
    return {(finding.code, finding.layer): finding for finding in report.findings}


def _numbers(a: Report, b: Report) -> Iterator[Difference]:
    yield Difference("verdict", a.verdict.value, b.verdict.value)
    yield Difference("judged by", str(a.basis), str(b.basis))
    for name in dict.fromkeys((*a.risk, *b.risk)):
        yield Difference(f"risk, {name}", a.risk.get(name), b.risk.get(name))
    for source in ("prediction", "measurement"):
        word = {"prediction": "predicted", "measurement": "measured"}[source]
        yield _moment(a, b, source, "rms_gain_log_mean", "log_mean_se", f"drift, {word}")
        yield _moment(a, b, source, "log_variance", "log_variance_se", f"fluctuation, {word}")
    pair = (_get(one, "prediction", "dead_probability") for one in (a, b))
    yield Difference("dead networks, predicted", *pair)


def _moment(a: Report, b: Report, source: str, name: str, error: str, label: str) -> Difference:
    values = (_get(a, source, name), _get(b, source, name))
    errors = [_get(one, source, error) or 0.0 for one in (a, b)]
    return Difference(label, *values, math.hypot(*errors) or None)


def _get(report: Report, source: str, name: str) -> float | None:
    value = getattr(getattr(report, source), name, None)
    return None if value is None else float(value)


def _pairs(a: Sequence[Layer], b: Sequence[Layer]) -> Iterator[tuple[int | None, int | None]]:
    """Yield which layer of one network belongs to which of the other."""
    sizes = [[(layer.fan_in, layer.fan_out) for layer in layers] for layers in (a, b)]
    matcher = difflib.SequenceMatcher(None, sizes[0], sizes[1], autojunk=False)
    for _, start, end, other, last in matcher.get_opcodes():
        both = min(end - start, last - other)
        yield from zip(range(start, start + both), range(other, other + both), strict=True)
        yield from ((i, None) for i in range(start + both, end))
        yield from ((None, j) for j in range(other + both, last))


def _layer(a: Report, b: Report, i: int | None, j: int | None) -> LayerDifference | None:
    """Return what differs between two layers; None if nothing does."""
    if i is None or j is None:
        only = a.architecture.layers[i] if i is not None else b.architecture.layers[j or 0]
        return LayerDifference(i, j, only.name)
    is_simulated = any(one.prediction.log_mean_se for one in (a, b))
    first, second = _facts(a, i), _facts(b, j)
    found = [Difference(name, first[name], second[name]) for name in first]
    if not is_simulated or any(one.differs for one in found):
        first, second = _shares(a, i), _shares(b, j)
        found += [Difference(name, first.get(name), second.get(name)) for name in first]
    if not any(one.differs for one in found):
        return None
    name = a.architecture.layers[i].name
    return LayerDifference(i, j, name, tuple(one for one in found if one.differs))


def _facts(report: Report, index: int) -> dict[str, float | str | None]:
    """Return what a layer is."""
    layer = report.architecture.layers[index]
    return {
        "fan_in": float(layer.fan_in),
        "fan_out": float(layer.fan_out),
        "gate": layer.activation.label,
        "weights": layer.weight.initializer or "not recognised",
        "weights' standard deviation": math.sqrt(layer.weight.variance),
    }


def _shares(report: Report, index: int) -> dict[str, float | str | None]:
    """Return what a layer does to the gradient. Shares that are simulated have errors
    of their own, so that they are compared only where the layer itself differs.
    """
    if index >= len(report.prediction.layers):
        return {}
    predicted = report.prediction.layers[index]
    return {
        "gain^2": float(predicted.gain**2),
        "drift": float(predicted.rms_gain_log_mean),
        "fluctuation": float(predicted.log_variance),
    }
