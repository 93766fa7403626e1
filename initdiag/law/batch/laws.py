"""The law of millions of chains at once: what `predict` says of each, from tables by
width and sums over layers.

A layer's share of the law is a function of its width, but for its weights' variance (a
function of fan_in and fan_out) and for orthogonal weights' radius (of the larger of
both). So the sums over hidden layers are one product of a sparse matrix, a row for each
architecture and a one for each of its layers, with the table
(`initdiag.law.batch.tables`): `scipy.sparse` gathers and sums in one pass. First and
last layers are put right afterwards.

Weights that are neither Gaussian nor orthogonal add corrections that depend on the
whole chain before them: `initdiag.law.batch.kurtosis`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law import columns
from initdiag.law.batch.kurtosis import corrections
from initdiag.law.batch.ragged import Ragged
from initdiag.law.batch.tables import WIDEST, width_table
from initdiag.law.predict import LARGEST_ERROR
from initdiag.network.architecture import INITIALIZERS, Architecture, Gate, Layer

__all__ = ["Laws", "laws"]

Array = NDArray[np.float64]

_CHUNK = 1 << 18
"""Widths that are worked on together: their tables and sums stay in the processor's
cache.
"""

_BLOCK = 512
"""Layers that are summed one after another."""


@dataclass(frozen=True, slots=True, eq=False)
class Laws:
    """What `Prediction` holds under these names, for each architecture: float64 arrays
    of one length (natural log).

    All but beta are NaN where `predict` refuses the formula as too coarse (non-Gaussian
    entries in very narrow layers).
    """

    beta: Array
    log_mean: Array
    rms_gain_log_mean: Array
    log_variance: Array
    dead_probability: Array
    hidden_drift: Array
    hidden_log_variance: Array


def laws(architectures: Ragged, **assumptions: Any) -> Laws:
    """Return the laws of architectures under the same assumptions.

    Parameters
    ----------
    architectures : Ragged
        Without faults.
    **assumptions
        See `Architecture.from_widths`; one value for all layers each. Activations
        with a discrete gate only (linear, relu, leaky_relu).

    Raises
    ------
    InvalidInput
        For assumptions that are out of range or differ by layer.
    UnsupportedArchitecture
        For activations without a discrete gate: their laws are simulated, one by one
        (`predict`).
    """
    chain = _Chain.of(assumptions)
    found = {field.name: np.empty(len(architectures)) for field in fields(Laws)}
    for start, stop in architectures.chunks(_CHUNK):
        first = architectures.offsets[start]
        flat = architectures.flat[first : architectures.offsets[stop]].astype(np.int32)
        part = _laws_of_chunk(chain, flat, architectures.offsets[start : stop + 1] - first)
        for name, values in part.items():
            found[name][start:stop] = values
    return Laws(**found)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The assumptions: a hidden and an output layer of fan_in and fan_out 1 stand for
    all.
    """

    hidden: Layer
    output: Layer

    @classmethod
    def of(cls, assumptions: dict[str, Any]) -> _Chain:
        for name, value in assumptions.items():
            if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
                raise InvalidInput(
                    explain(
                        expected=f"{name}: one value for all layers of all architectures",
                        got=repr(value),
                        do="Use initdiag.predict for one value a layer.",
                    )
                )
        hidden, output = Architecture.from_widths([1, 1, 1], **assumptions).layers
        for layer in (hidden, output):
            if layer.activation.gate is None:
                raise UnsupportedArchitecture(
                    explain(
                        expected="activations with a discrete gate: linear, relu, leaky_relu",
                        got=layer.activation.label,
                        do=(
                            "Others are simulated one by one: initdiag.predict(widths, "
                            "activation=...)."
                        ),
                    )
                )
        return cls(hidden, output)

    @property
    def gates(self) -> tuple[Gate, Gate]:
        gates = self.hidden.activation.gate, self.output.activation.gate
        assert gates[0] is not None
        assert gates[1] is not None
        return gates[0], gates[1]

    @property
    def excess(self) -> float:
        """Excess kurtosis of an entry; 0 for Haar weights, which have no part in the
        corrections.
        """
        weight = self.hidden.weight
        return 0.0 if weight.family in ("normal", "haar") else weight.kurtosis - 3

    @property
    def log_gain(self) -> float:
        """``ln(v n_0)`` at fan_in and fan_out 1."""
        return math.log(self.hidden.weight.variance)

    @property
    def scaled_by(self) -> str:
        """What an entry's variance is inversely proportional to: fan_in, fan_out, their
        "sum" or (Haar) the "larger".
        """
        weight = self.hidden.weight
        if weight.family == "haar":
            return "larger"
        assert weight.initializer is not None
        variance = INITIALIZERS[weight.initializer][1]
        if variance(1, 2) == variance(1, 1):
            return "fan_in"
        return "fan_out" if variance(2, 1) == variance(1, 1) else "sum"


@dataclass(slots=True, eq=False)
class _Shares:
    """What the hidden layers together, or the output layer, add to each column."""

    rms_gain: Array
    variance: Array
    beta: Array
    log_alive: Array


def _sums(
    indices: NDArray[np.int32], starts: NDArray[np.int64], stops: NDArray[np.int64], table: Array
) -> Array:
    """Return ``sum(table[indices[starts[i]:stops[i]]])`` for each ``i``. A stop must
    not lie beyond the next start.

    Long sums in blocks, whose sums are summed: that keeps rounding below 1e-13.
    """
    lengths = stops - starts
    if len(lengths) and lengths.max() > _BLOCK:
        blocks = np.maximum(-(-lengths // _BLOCK), 1)
        firsts = np.cumsum(blocks) - blocks
        begins = np.repeat(starts, blocks) + _BLOCK * (
            np.arange(blocks.sum()) - np.repeat(firsts, blocks)
        )
        parts = _sums(indices, begins, np.minimum(begins + _BLOCK, np.repeat(stops, blocks)), table)
        return np.asarray(np.add.reduceat(parts, firsts, axis=0))
    pointers = np.stack([starts, stops], axis=1).reshape(-1)
    base = int(pointers[0])
    indices = indices[base : int(pointers[-1])]
    pointers = (pointers - base).astype(np.int32)
    matrix = sparse.csr_array(
        (_ones(len(indices)), indices, pointers), shape=(len(pointers) - 1, len(table))
    )
    return np.asarray((matrix @ table)[::2])


def _ones(count: int) -> Array:
    return np.broadcast_to(1.0, max(count, 1))[:count] if count > 2 * _CHUNK else _ONES[:count]


_ONES = np.ones(2 * _CHUNK)
"""The entries of the matrices that sum: made once, and cut to length."""


@functools.lru_cache(maxsize=4)
def _by_width(gate: Gate, size: int, is_scaled: bool) -> Array:
    """Return a layer's columns by its width: log-mean (less ``ln n``, if scaled),
    log-variance, beta, ``ln P(not dead)``.
    """
    table = width_table(gate, size - 1)
    n = _widths(size)
    mean = table.log_mean[:size] - np.log(n) if is_scaled else table.log_mean[:size]
    beta: Array = columns.gate_beta(np.full_like(n, gate.kurtosis), n)
    found: Array = np.stack([mean, table.log_variance[:size], beta, table.log_alive[:size]], axis=1)
    found[0] = 0.0
    return found


@functools.lru_cache(maxsize=4)
def _output_by_width(gate: Gate, size: int) -> Array:
    """Return `_by_width`, and mean and variance without the draw of the layer's own
    weights.
    """
    table, radii = _by_width(gate, size, True), _radii(size)
    kept = columns.without_radius(table[:, 0], table[:, 1], (radii[:, 0], radii[:, 1]))
    return np.concatenate([table, np.stack(kept, axis=1)], axis=1)


def _widths(size: int) -> Array:
    """Return 0, 1, ..., with 1 in the place of 0, which no layer has."""
    return np.maximum(np.arange(size, dtype=np.float64), 1.0)


@functools.lru_cache(maxsize=4)
def _radii(size: int) -> Array:
    """Return by ``n`` mean and variance of the log of a radius (`columns.log_radius`),
    its share of beta, and ``ln n``.
    """
    n = _widths(size)
    return np.stack([*columns.log_radius(n), columns.radius_beta(n), np.log(n)], axis=1)


@functools.lru_cache(maxsize=4)
def _logs(size: int) -> Array:
    return np.log(_widths(size))[:, None]


def _size(widest: int) -> int:
    """Round the size of a table up, so that few sizes occur."""
    return min(max(1 << widest.bit_length(), 1024), WIDEST + 1)


def _gaussian_shares(
    chain: _Chain, flat: NDArray[np.int32], offsets: NDArray[np.int64]
) -> tuple[_Shares, _Shares, tuple[Array, Array]]:
    """Return the shares of the hidden layers and of the output layer, exact for
    Gaussian and for Haar weights; and mean and variance that the output's keeps without
    the draw of its own weights (`layer.without_own_draw`).
    """
    starts, stops = offsets[:-1], offsets[1:]
    size, scaled_by = _size(int(flat.max())), chain.scaled_by
    is_scaled = scaled_by in ("fan_in", "fan_out")
    hidden = _Shares(
        *_sums(flat, starts + 1, stops - 1, _by_width(chain.gates[0], size, is_scaled)).T
    )
    hidden.rms_gain = hidden.rms_gain + chain.log_gain * (np.diff(offsets) - 2.0)
    if scaled_by != "fan_in":
        hidden.rms_gain += np.log(flat[starts] / flat[stops - 2])
    before, last = flat[stops - 2], flat[stops - 1]
    output, kept = _output_shares(chain, before, last)
    if scaled_by == "sum":
        logs = _sums(flat[:-1] + flat[1:], starts, stops - 2, _logs(2 * size))[:, 0]
        hidden.rms_gain -= logs - math.log(2) * (np.diff(offsets) - 2.0)
    elif scaled_by == "larger":
        radii = _sums(np.maximum(flat[:-1], flat[1:]), starts, stops - 2, _radii(size))
        hidden.rms_gain -= radii[:, 3]
        _take_radii(hidden, radii)
        _take_radii(output, _radii(size)[np.maximum(before, last)])
    return hidden, output, kept


def _divisor(chain: _Chain, fan_in: NDArray[np.int32], fan_out: NDArray[np.int32]) -> NDArray[Any]:
    """Return what an entry's variance is inversely proportional to; 1 for fans of 1."""
    if chain.scaled_by == "fan_in":
        return fan_in
    if chain.scaled_by == "fan_out":
        return fan_out
    return np.maximum(fan_in, fan_out) if chain.scaled_by == "larger" else (fan_in + fan_out) / 2


def _output_shares(
    chain: _Chain, before: NDArray[np.int32], last: NDArray[np.int32]
) -> tuple[_Shares, tuple[Array, Array]]:
    table = _output_by_width(chain.gates[1], _size(int(last.max())))
    *shares, kept_mean, kept_variance = table.take(last, axis=0).T
    output = _Shares(*shares)
    log_scale: Array | float = chain.log_gain
    if chain.scaled_by != "fan_in":
        log_scale = chain.log_gain + np.log(before / _divisor(chain, before, last))
    output.rms_gain = output.rms_gain + log_scale
    return output, (kept_mean + log_scale, kept_variance)


def _take_radii(shares: _Shares, radii: Array) -> None:
    """Take the radius, which an orthogonal matrix does not have, from the
    Gaussian law.
    """
    shares.rms_gain, shares.variance = columns.without_radius(
        shares.rms_gain, shares.variance, (radii[:, 0], radii[:, 1])
    )
    shares.beta = shares.beta - radii[:, 2]


def _corrected(
    chain: _Chain,
    flat: NDArray[np.int32],
    offsets: NDArray[np.int64],
    hidden: _Shares,
    output: _Shares,
) -> Array:
    """Add what entries that are not Gaussian do; return the error of the
    log-variance.
    """
    added = corrections(*chain.gates, chain.excess, flat, offsets)
    hidden.rms_gain = hidden.rms_gain + added.hidden_mean
    hidden.variance = hidden.variance + added.hidden_variance
    output.rms_gain = output.rms_gain + added.output_mean
    output.variance = output.variance + added.output_variance
    return added.variance_error


def _entry_kurtosis_term(
    chain: _Chain, flat: NDArray[np.int32], offsets: NDArray[np.int64]
) -> Array | float:
    """Return the term of beta that a uniform unit vector at the input makes."""
    if not chain.excess:
        return 0.0
    starts = offsets[:-1]
    kurtosis = np.where(np.diff(offsets) == 2, chain.gates[1].kurtosis, chain.gates[0].kurtosis)
    fourth, _ = columns.uniform_concentration(flat[starts].astype(np.float64))
    return columns.entry_kurtosis_share(
        np.full_like(fourth, chain.excess), fourth, kurtosis, flat[starts + 1].astype(np.float64)
    )


def _dead_probability(log_alive: Array) -> Array:
    """Return `columns.any_dead`, computed only where it is not ``-log_alive`` to
    rounding.
    """
    dead = 0.0 - log_alive
    likely = np.flatnonzero(dead > 1e-8)
    dead[likely] = columns.any_dead(log_alive[likely])
    return dead


def _laws_of_chunk(
    chain: _Chain, flat: NDArray[np.int32], offsets: NDArray[np.int64]
) -> dict[str, Array]:
    hidden, output, kept = _gaussian_shares(chain, flat, offsets)
    if chain.excess:
        error = _corrected(chain, flat, offsets, hidden, output)
    first, last = flat[offsets[:-1]], flat[offsets[1:] - 1]
    rms = hidden.rms_gain + output.rms_gain
    log_variance = hidden.variance + output.variance
    is_linear = chain.output.is_linear_output
    found = {
        "beta": hidden.beta + output.beta + _entry_kurtosis_term(chain, flat, offsets),
        "log_mean": rms - np.log(first / last),
        "rms_gain_log_mean": rms,
        "log_variance": log_variance,
        "dead_probability": _dead_probability(hidden.log_alive + output.log_alive),
        "hidden_drift": hidden.rms_gain + kept[0] if is_linear else rms.copy(),
        "hidden_log_variance": hidden.variance + kept[1] if is_linear else log_variance.copy(),
    }
    if chain.excess:
        is_refused = error > LARGEST_ERROR * log_variance
        for name in set(found) - {"beta"}:
            found[name][is_refused] = np.nan
    return found
