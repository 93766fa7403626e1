"""One layer with symmetric iid entries: moments of ``ln S``, ``S = sum_i d_i^2
h_i^2``, and how concentrated its output is.

Both are integrals of ``l^n`` and of ``l_k(t) = E d^{2k} h^{2k} e^{-t d^2 h^2}``, which
``docs/theory/other-weights.md`` derives. Everything is given not dead (``S > 0``), in
``y = ln t`` by the trapezium rule, exact to rounding.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from initdiag.law.kurtosis.entry_squares import GAUSSIAN, Squares, pearson, sparse
from initdiag.network.architecture import Gate

__all__ = ["Response", "beyond_gaussian", "respond"]

Array = NDArray[np.float64]

_STEP = 0.25
"""Step of the trapezium rule in ``ln t``; its error is about exp(-pi^2/step)."""

_LOWEST, _HIGHEST = -40.0, 75.0
"""Range of ``ln(t E S)``, to which the smallest gate's scale is added: beyond lies less
than rounding.
"""


@dataclass(frozen=True, slots=True)
class Response:
    """Moments of one layer, given that it is not dead.

    Attributes
    ----------
    log_mean, log_variance : float
        Moments of ``ln S`` (natural log).
    concentration, concentration_square : float
        Mean of ``k = ||y||_4^4/||y||_2^4`` and of its square.
    covariance : float
        Covariance of ``ln S`` and ``k``.
    dead_probability : float
        P(S = 0).
    """

    log_mean: float
    log_variance: float
    concentration: float
    concentration_square: float
    covariance: float
    dead_probability: float

    @property
    def concentration_variance(self) -> float:
        """Variance of ``k``."""
        return self.concentration_square - self.concentration**2


def beyond_gaussian(own: Response, gaussian: Response) -> tuple[float, ...]:
    """Return the five columns of which the law of a chain is made: log-mean beyond the
    Gaussian one, concentration, log-variance beyond the Gaussian one, variance of the
    concentration, its covariance with the log-norm.
    """
    return (
        own.log_mean - gaussian.log_mean,
        own.concentration,
        own.log_variance - gaussian.log_variance,
        own.concentration_variance,
        own.covariance,
    )


def respond(
    gate: Gate, width: int, excess: float, concentration: float, share: float | None = None
) -> Response:
    """Return a layer's response to an input of concentration ``||x||_4^4`` (1/n to 1),
    ``||x|| = 1``.

    Parameters
    ----------
    gate, width
        Gate and width of the layer, whose entries have variance 1.
    excess : float
        Excess kurtosis of an entry, at least -2.
    concentration : float
        ``||x||_4^4``.
    share : float, optional
        Share of the entries that are not 0, for sparse entries (Gaussian where not 0).
    """
    if abs(excess) * concentration < 1e-9:
        return _respond(gate, width, 0.0, 0.0, None)
    # Rounded, so that the layers of a long chain, whose inputs converge, share one
    # computation.
    return _respond(gate, width, float(f"{excess:.12g}"), float(f"{concentration:.13g}"), share)


@functools.lru_cache(maxsize=4096)
def _respond(
    gate: Gate, width: int, excess: float, concentration: float, share: float | None
) -> Response:
    scale = width * gate.second_moment
    sizes = [abs(d) for d in gate.values if d != 0.0]
    y = np.arange(_LOWEST, _HIGHEST + math.log(scale / min(sizes) ** 2), _STEP)
    t = np.exp(y) / scale
    squares = GAUSSIAN
    if share is not None and excess > 0:
        squares = sparse(share, concentration)
    elif excess:
        squares = pearson(
            excess * concentration,
            round(float(y[-1]) - math.log(scale) + 2 * math.log(max(sizes)), 3),
        )
    closed = gate.closed_probability
    closed += (1 - closed) * squares.zero_probability
    log_l, (l2, l4) = _gate_average(gate, squares, t)
    dead = closed**width if closed else 0.0
    log_mean, log_variance = _log_moments(y, (np.exp(width * log_l) - dead) / (1 - dead))
    once = width * np.exp((width - 1) * log_l) / (1 - dead)
    twice = width * (width - 1) * np.exp((width - 2) * log_l) / (1 - dead)
    mean, with_log = _inverse_moment(y, t, 2, once * l2)
    square, _ = _inverse_moment(y, t, 4, once * l4 + twice * l2**2)
    return Response(
        log_mean + math.log(scale), log_variance, mean, square, with_log - log_mean * mean, dead
    )


def _gate_average(gate: Gate, squares: Squares, t: Array) -> tuple[Array, list[Array]]:
    """Return ``ln l`` (accurate where ``l`` is near 1 and near 0) and ``l_2, l_4``,
    averages over the gate.
    """
    lost, direct = np.zeros_like(t), np.full_like(t, gate.closed_probability)
    moments = [np.zeros_like(t), np.zeros_like(t)]
    for d, p in zip(gate.values, gate.probabilities, strict=True):
        if d != 0.0 and p:
            minus_one, itself, *rest = squares.transforms(t * d * d, (2, 4))
            lost += p * minus_one
            direct += p * itself
            moments = [
                m + p * d ** (2 * k) * r for m, k, r in zip(moments, (2, 4), rest, strict=True)
            ]
    log_l = np.where(
        direct > 0.5, np.log1p(np.maximum(lost, -0.9)), np.log(np.maximum(direct, 1e-300))
    )
    return log_l, moments


def _log_moments(y: Array, transform: Array) -> tuple[float, float]:
    """Return mean and variance of ``ln(S/E S)`` by the integrals ``I0`` and ``I1``."""
    difference = transform - np.exp(-np.exp(y))
    i0, i1 = _STEP * float(difference.sum()), _STEP * float(y @ difference)
    return -i0, 2 * (i1 + np.euler_gamma * i0) - i0**2


def _inverse_moment(y: Array, t: Array, order: int, transform: Array) -> tuple[float, float]:
    """Return ``E[S^-a X]`` and ``E[S^-a X ln(S/E S)]`` from ``E[X e^{-tS}]`` for the
    order ``a``.
    """
    density = _STEP * transform * t**order / math.gamma(order)
    return float(density.sum()), -float((y - float(special.digamma(order))) @ density)
