"""Moment generating functions of ``ln||Ju||^2``, on the real axis and on vertical
lines.

A layer's is a sum of ratios of gamma functions over its mixture of chi-squares
(`initdiag.law.distributions.mixture`; ``docs/theory/distribution-functions.md``).
Everything is kept relative to a location, so that wide and deep networks lose no
digits: ``ln Gamma(a + s) - ln Gamma(a) - s ln a`` is small where ``s^2`` is small
against ``a``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.law.distributions.mixture import FLOOR, ChiSquareMixture, gated_chi_square
from initdiag.law.prediction import LayerPrediction

__all__ = ["Factor", "Tilt", "TiltedFactor", "factors_of", "kinds", "log_rising", "stirling_rest"]

Array = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
Numbers = NDArray[Any]

_STIRLING_FROM = 100.0
"""From this ``a`` on, differences of ``ln Gamma`` are taken in Stirling's series, whose
terms beyond the fourth are below rounding.
"""

_NEGLIGIBLE = 1e-18
"""Terms of a tilted mixture below this probability do not reach the sixteenth digit of
a sum of fewer than a hundred.
"""


def log_rising(a: Array, s: Numbers) -> Numbers:
    """Return ``ln Gamma(a + s) - ln Gamma(a) - s ln a`` for every pair, an array of
    shape ``a.shape + s.shape``.

    ``s`` is real, or complex on one vertical line, with ``a + Re s > 0``.
    """
    shape = a.shape + s.shape
    column, row = a.reshape(-1, 1), s.reshape(1, -1)
    wide = (a.ravel() >= _STIRLING_FROM) & (a.ravel() + row.real.min() >= 20)
    result = np.empty((column.size, row.size), dtype=s.dtype)
    if wide.any():
        result[wide] = _stirling_difference(column[wide], row)
    if not wide.all():
        small = column[~wide]
        result[~wide] = special.loggamma(small + row) - special.gammaln(small) - row * np.log(small)
    return result.reshape(shape)


def _stirling_difference(a: Array, s: Numbers) -> Numbers:
    z = a + s
    return np.asarray((z - 0.5) * special.log1p(s / a) - s + stirling_rest(z) - stirling_rest(a))


def stirling_rest(z: Numbers) -> Numbers:
    """Return ``1/12z - 1/360z^3 + 1/1260z^5 - 1/1680z^7`` (Abramowitz and Stegun
    6.1.41).
    """
    inverse = 1 / z
    square = inverse * inverse
    return np.asarray(inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))))


@dataclass(frozen=True, slots=True)
class Tilt:
    """A law ``P`` tilted: ``e^{c y} P(dy)/E e^{cY}``, its log normaliser, mean and
    variance (natural log).
    """

    log_normalizer: float
    mean: float
    variance: float


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """``count`` equal layers: ``location + ln(X/2 a_0)`` each, less ``ln(chi2_N/N)``
    where ``half_radius = N/2`` is not 0.

    Attributes
    ----------
    count : int
        How many layers are equal; the transform of their sum is a power.
    location : float
        Shift of one layer's law, natural log.
    half_dofs, offsets, log_weights : array (m,), (m, r), (m, r)
        ``K/2``, ``ln(S K/2 / a_0)``, and the logs of the weights of the mixture.
    half_radius : float
        ``N/2`` for Haar weights, else 0.
    layer : LayerPrediction
        One of them.
    """

    count: int
    location: float
    half_dofs: Array
    offsets: Array
    log_weights: Array
    half_radius: float
    layer: LayerPrediction

    @classmethod
    def of(cls, layer: LayerPrediction, count: int, floor: float = FLOOR) -> Factor:
        """Return the factor of ``count`` layers like ``layer``."""
        mixture = gated_chi_square(layer.gate, layer.fan_out, floor)
        reference = _reference(mixture)
        with np.errstate(divide="ignore"):
            log_weights = np.log(mixture.weights)
        return cls(
            count=count,
            location=math.log(2 * layer.weight_variance) + reference,
            half_dofs=mixture.half_dofs,
            offsets=np.log(mixture.half_dofs)[:, None] + mixture.log_scales - reference,
            log_weights=log_weights,
            half_radius=max(layer.fan_in, layer.fan_out) / 2 if layer.haar else 0.0,
            layer=layer,
        )

    @property
    def pole(self) -> float:
        """The rightmost pole of the transform, ``-min K/2``."""
        return -float(self.half_dofs[0])

    @property
    def is_constant(self) -> bool:
        """Whether the layer is an isometry up to scale (Haar, all gates open, not fewer
        than the radius has).
        """
        return (
            self.half_dofs.size == self.offsets.size == 1 and self.half_dofs[0] == self.half_radius
        )

    @property
    def edges(self) -> tuple[float, float]:
        """The least and the largest value of the sum of the layers, relative to the
        locations; infinite for iid weights.
        """
        if not self.half_radius:
            return -math.inf, math.inf
        log_scales = self.offsets[0] - math.log(self.half_dofs[0])
        low, high = (
            self.count * (float(at) + math.log(self.half_radius))
            for at in (log_scales.min(), log_scales.max())
        )
        return (low if self.half_dofs[0] == self.half_radius else -math.inf), high

    def log_transform(self, s: Array) -> Array:
        """Return ``ln E e^{sY}`` at real ``s`` (an array), ``Y`` the sum of the layers
        less their locations.
        """
        total = np.logaddexp.reduce(self._log_terms(s), axis=(0, 1))
        return np.asarray(self.count * (total - self._log_radius(s)))

    def _log_terms(self, s: Array) -> Array:
        """Return the logs of the mixture's terms at real ``s``: shape ``(m, r) +
        s.shape``.
        """
        rising = log_rising(self.half_dofs, s)
        return np.asarray(
            self.log_weights[..., None] + rising[:, None] + self.offsets[..., None] * s
        )

    def _log_radius(self, s: Array) -> Array | float:
        return np.asarray(log_rising(np.array(self.half_radius), s)) if self.half_radius else 0.0

    def tilted(self, c: float) -> TiltedFactor:
        """Return the factor's law tilted by ``c``, ``c`` right of the pole."""
        at = np.array([c])
        terms = self._log_terms(at)[..., 0]
        log_normalizer = float(np.logaddexp.reduce(terms, axis=None))
        probability = np.exp(terms - log_normalizer)
        a = self.half_dofs
        means = (special.digamma(a + c) - np.log(a))[:, None] + self.offsets
        mean = float((probability * means).sum())
        spread = probability.sum(axis=1) @ special.polygamma(1, a + c)
        variance = float(spread + (probability * (means - mean) ** 2).sum())
        if self.half_radius:
            n = self.half_radius
            log_normalizer -= float(log_rising(np.array(n), at)[0])
            mean -= float(special.digamma(n + c)) - math.log(n)
            variance = max(variance - float(special.polygamma(1, n + c)), 0.0)
        return TiltedFactor(self, c, Tilt(log_normalizer, mean, variance), probability)


@dataclass(frozen=True, slots=True, eq=False)
class TiltedFactor:
    """A factor on the line ``Re s = c``: the tilted law of ``one`` of its layers, and
    the tilted ``probability`` of the mixture's terms.
    """

    factor: Factor
    c: float
    one: Tilt
    probability: Array

    @property
    def whole(self) -> Tilt:
        """The tilted law of the sum of all equal layers."""
        n = self.factor.count
        return Tilt(n * self.one.log_normalizer, n * self.one.mean, n * self.one.variance)

    def log_characteristic(self, frequency: Array) -> ComplexArray:
        """Return the log of the characteristic function of the sum about its mean; -inf
        where it vanishes.
        """
        keep = self.probability.sum(axis=1) > _NEGLIGIBLE
        a, offsets = self.factor.half_dofs[keep], self.factor.offsets[keep]
        shift = 1j * (offsets[:, :1] - self.one.mean)
        exponent = self._log_ratio(a, frequency) + shift * frequency
        if self.factor.half_radius:
            exponent -= self._log_ratio(np.array([self.factor.half_radius]), frequency)
        directions = self._directions(self.probability[keep], offsets[0], frequency)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(
                self.factor.count * np.log((np.exp(exponent) * directions).sum(axis=0))
            )

    def _log_ratio(self, a: Array, frequency: Array) -> ComplexArray:
        """Return ``ln Gamma(a + c + i t) - ln Gamma(a + c) - i t ln a`` in the shape
        ``a.shape + t.shape``.
        """
        return np.asarray(
            log_rising(a, self.c + 1j * frequency) - log_rising(a, np.array([self.c]))
        )

    @staticmethod
    def _directions(probability: Array, offsets: Array, frequency: Array) -> Numbers:
        """Return ``sum_j probability[i, j] S_j^{i frequency}`` relative to the first
        scale.
        """
        if offsets.size == 1:
            return probability
        keep = probability.max(axis=0) > _NEGLIGIBLE
        log_scales = (offsets - offsets[0])[keep]
        return np.asarray(probability[:, keep] @ np.exp(1j * np.outer(log_scales, frequency)))


def _reference(mixture: ChiSquareMixture) -> float:
    """Return the log of ``a_0``: about where ``X/2`` is, so that what is left of the
    law sits near 0.
    """
    logs = np.log(mixture.half_dofs)[:, None] + mixture.log_scales
    return float((mixture.weights * logs).sum())


def kinds(layers: Sequence[LayerPrediction]) -> list[tuple[LayerPrediction, int]]:
    """Return one layer of every kind that the law distinguishes, and how many there are
    of it.
    """
    counts: Counter[tuple[object, ...]] = Counter()
    first: dict[tuple[object, ...], LayerPrediction] = {}
    for layer in layers:
        radius = max(layer.fan_in, layer.fan_out) if layer.haar else 0
        key = (layer.gate, layer.fan_out, layer.weight_variance, radius)
        counts[key] += 1
        first.setdefault(key, layer)
    return [(first[key], count) for key, count in counts.items()]


def factors_of(layers: Sequence[LayerPrediction], floor: float = FLOOR) -> tuple[Factor, ...]:
    """Return one factor for every kind of layer: equal layers are merged."""
    return tuple(Factor.of(layer, count, floor) for layer, count in kinds(layers))
