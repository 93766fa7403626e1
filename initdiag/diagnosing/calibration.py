"""The calibration of the risk: what is known of a training, and the curves fitted to
the study's runs.

The coefficients are data (``risk_coefficients.json``), written by
``tests/evidence/calibration``. What the curves mean is said in
`initdiag.diagnosing.risk`.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from initdiag._core.choices import LOSSES, Family, Loss
from initdiag._core.validation import choice, optional_choice, positive_number

__all__ = [
    "DEPTHS",
    "FAMILIES",
    "MIDDLE_DEPTH",
    "PROVENANCE",
    "Calibration",
    "Curve",
    "Mixture",
    "Training",
    "calibration",
    "mixture_of",
    "row_of",
]

FAMILIES: dict[Family, tuple[str, float]] = {
    "sgd": ("sgd", 1.0),
    "momentum": ("sgd", 10.0),
    "adam": ("adam", 1.0),
    "adamw": ("adam", 1.0),
}
"""Whose curve, and the factor on the learning rate: in the long run a step under
momentum 0.9 is ten times as large.
"""

DEPTHS = (4, 46)
"""Linear layers of the study's networks; fewer or more count as the nearest."""

MIDDLE_DEPTH = 12
"""About the middle depth of the study, which counts where a network's own is not
known.
"""


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is going to be trained, as far as it is known; what is not known is
    averaged over.

    Attributes
    ----------
    optimizer : str
        ``"sgd"`` (plain), ``"momentum"`` (0.9), ``"adam"`` or ``"adamw"``.
    lr : float or None
        Learning rate; outside the study's range it counts as the nearest in it.
    loss : str or None
        ``"classification"`` (cross entropy) or ``"regression"`` (squared error).

    Raises
    ------
    InvalidInput
        For an unknown optimiser or loss, or a learning rate that is not positive.
    """

    optimizer: Family = "sgd"
    lr: float | None = None
    loss: Loss | None = None

    def __post_init__(self) -> None:
        choice(self.optimizer, "optimizer", FAMILIES, "Choose the one that is most like yours.")
        optional_choice(self.loss, "loss", LOSSES)
        if self.lr is not None:
            positive_number(self.lr, "lr", "Or leave it out.")

    @classmethod
    def of(
        cls, optimizer: Family | None = None, lr: float | None = None, loss: Loss | None = None
    ) -> Training:
        """Return the training that a caller's arguments name: no optimiser is plain
        SGD.

        Raises
        ------
        InvalidInput
            If the record's own checks fail.
        """
        return cls("sgd" if optimizer is None else optimizer, lr, loss)


@dataclass(frozen=True, slots=True)
class Curve:
    """One pair of logistic curves; learning rates outside ``[lowest, highest]`` count
    as the nearest of the two.
    """

    intercept: float
    fluctuation: float
    upward: float
    upward_linear: float
    downward: float
    downward_linear: float
    rate: float
    rate_square: float
    rate_upward: float
    rate_downward: float
    step: float
    step_rate: float
    step_depth: float
    centre: float
    lowest: float
    highest: float

    def at(self, lr: float) -> tuple[float, ...]:
        """Return, at a learning rate, the coefficients of 1, ln(log-variance), U, drift
        up, D, drift down in signal, then of 1, ln(depth/12) in step.
        """
        x = math.log(min(max(lr, self.lowest), self.highest)) - self.centre
        up, down = self.upward + self.rate_upward * x, self.downward + self.rate_downward * x
        return (
            *(self.intercept + (self.rate + self.rate_square * x) * x, self.fluctuation),
            *(max(up, 0.0), self.upward_linear / 10),
            *(max(down, 0.0), self.downward_linear / 10),
            *(self.step + self.step_rate * x, self.step_depth),
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """The data file: curves by family and loss, learning rates of the study with their
    shares by optimiser and loss.
    """

    provenance: str
    curves: dict[tuple[str, str], Curve]
    rates: dict[tuple[str, str], tuple[tuple[float, float], ...]]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Calibration:
        """Return what the JSON document says."""
        curves = {
            (family, loss): Curve(**c)
            for family, by in data["curves"].items()
            for loss, c in by.items()
        }
        rates = {
            (o, loss): tuple(map(tuple, r))
            for o, by in data["rates"].items()
            for loss, r in by.items()
        }
        return cls(data["provenance"]["summary"], curves, rates)


@functools.cache
def calibration() -> Calibration:
    """Return the shipped calibration."""
    text = (
        importlib.resources.files("initdiag.diagnosing")
        .joinpath("risk_coefficients.json")
        .read_text(encoding="utf-8")
    )
    return Calibration.of(json.loads(text))


PROVENANCE = calibration().provenance


@dataclass(frozen=True, slots=True)
class Mixture:
    """The curves over which a risk is averaged: a row for each learning rate and loss.

    ``shares`` add up to 1; ``signal`` holds the coefficients of the signal (six
    columns), ``step`` the arguments of the step's curve by depth, up to the largest.
    """

    shares: NDArray[np.float64]
    signal: NDArray[np.float64]
    step: NDArray[np.float64]
    fitting_steps: NDArray[np.float64]
    """Share times the probability that the step is not too large, by depth."""


@functools.lru_cache(maxsize=256)
def mixture_of(training: Training) -> Mixture:
    """Return the curves of a training, averaged over what is not known of it."""
    known = calibration()
    family, factor = FAMILIES[training.optimizer]
    shares, rows = [], []
    for kind in LOSSES if training.loss is None else (training.loss,):
        told = (
            ((training.lr, 1.0),)
            if training.lr is not None
            else known.rates[training.optimizer, kind]
        )
        for rate, share in told:
            shares.append(share)
            rows.append(known.curves[family, kind].at(rate * factor))
    weights, curves = np.array(shares) / sum(shares), np.array(rows)
    step = curves[:, 6:7] + curves[:, 7:8] * _log_depth(np.arange(DEPTHS[1] + 1))
    return Mixture(weights, curves[:, :6], step, weights[:, None] * special.expit(-step))


def _log_depth(layers: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.minimum(np.maximum(layers, DEPTHS[0]), DEPTHS[1]) / MIDDLE_DEPTH))


def row_of(depth: ArrayLike) -> NDArray[np.intp]:
    """Return where a number of layers stands in the columns of a mixture's steps."""
    return np.minimum(depth, DEPTHS[1]).astype(np.intp)
