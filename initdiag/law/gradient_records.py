"""The records of norms' laws: of activations and gradients, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from initdiag._core.serialization import Record
from initdiag._core.summary import Summarised
from initdiag.law.prediction import Coverage, Prediction

__all__ = ["LayerGradients", "NormLaw", "ParameterGradients"]


@dataclass(frozen=True, slots=True, eq=False)
class NormLaw(Record):
    """The law of the log (natural) of one squared norm, given that no layer is dead.

    Attributes
    ----------
    chain : Prediction
        Prediction of the chain that has this law: its layers are the independent
        factors of the norm, or its samples the simulated draws.
    """

    chain: Prediction

    @property
    def coverage(self) -> Coverage:
        """``"exact"``, ``"first-order"`` (in the kurtosis of non-Gaussian weights), or
        ``"simulated"``.
        """
        return self.chain.coverage

    @property
    def log_mean(self) -> float:
        """Mean of the log."""
        return self.chain.known.log_mean

    @property
    def log_mean_se(self) -> float:
        """Standard error of ``log_mean``: 0 unless simulated."""
        return self.chain.known.log_mean_se

    @property
    def log_variance(self) -> float:
        """Variance of the log."""
        return self.chain.known.log_variance

    @property
    def log_variance_se(self) -> float:
        """Standard error of ``log_variance``: 0 unless simulated."""
        return self.chain.known.log_variance_se

    @property
    def dead_probability(self) -> float:
        """P(the norm is 0), ``ReLU'(0) = 0`` as in PyTorch."""
        return self.chain.known.dead_probability

    @property
    def law(self) -> Any:
        """The distribution of the log, as `Prediction.law`: a ``scipy.stats``
        distribution (a step where the norm is a constant).
        """
        return self.chain.law


@dataclass(frozen=True, slots=True, eq=False)
class LayerGradients(Record):
    """Laws of one layer's squared norms (natural log).

    Attributes
    ----------
    name : str
        The layer's.
    activation : NormLaw
        Law of ``||a_l||^2``, the layer's output after the activation.
    weight_gradient : NormLaw
        Law of ``||dLoss/dW_l||^2 = ||delta_l||^2 ||a_{l-1}||^2`` (Frobenius).
    bias_gradient : NormLaw
        Law of ``||dLoss/db_l||^2 = ||delta_l||^2``, whether the layer has a bias or
        not.
    """

    name: str
    activation: NormLaw
    weight_gradient: NormLaw
    bias_gradient: NormLaw


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ParameterGradients(Summarised, Record):
    """What `initdiag.parameter_gradients` returns: the laws of a chain's squared norms
    at initialisation (natural log).

    Attributes
    ----------
    input_gradient : NormLaw
        Law of ``||J^T v||^2`` for the cotangent ``v``.
    layers : tuple of LayerGradients
        In the order of execution.
    """

    input_gradient: NormLaw
    layers: tuple[LayerGradients, ...]

    def _summary(self) -> dict[str, str]:
        return {"layers": str(len(self.layers)), "coverage": self.input_gradient.coverage}
