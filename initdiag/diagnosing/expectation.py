"""What the theory expects a measurement to show: the prediction, as this very ensemble
would show it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from initdiag._core.choices import Ensemble
from initdiag.law.predict import scale_error
from initdiag.law.prediction import Prediction
from initdiag.measuring.between_weights import interface_variances, norm_variance
from initdiag.network.architecture import Architecture, Layer

__all__ = ["Expectation", "expectation"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What theory expects a measurement to show (natural log), with what the theory
    itself leaves open (one sd).

    Attributes
    ----------
    log_mean, log_variance : float
        Expected mean and variance of ``ln||Ju||^2`` over the draws of this ensemble.
    log_mean_sd, log_variance_sd : float
        Errors of the formulas: the offset between weights (signs), and the prediction's
        own (non-Gaussian weights).
    dead_probability : float
        Predicted probability that a network is dead.
    """

    log_mean: float
    log_variance: float
    log_mean_sd: float
    log_variance_sd: float
    dead_probability: float


def expectation(
    architecture: Architecture, prediction: Prediction, method: Ensemble
) -> Expectation | None:
    """Return what ``method`` should measure on this very network, given its prediction;
    None where the theory does not cover it.

    Random signs keep ``|W|``. Given the sample mean squares ``s_l^2`` of the ``N_l``
    entries, ``ln s_l^2`` is no longer random: the mean moves by ``ln(s_l^2/v_l)`` less
    its expectation ``-(mu4-1)/(2 N_l)``, and the variance loses ``(mu4-1)/N_l`` a layer
    (delta method).
    """
    if prediction.coverage == "simulated":
        return _simulated(architecture, prediction, method)
    moments = prediction.moments
    if moments is None:
        return None
    mean_error, variance_error = moments.log_mean_error, moments.log_variance_error
    if method != "signs":
        return Expectation(
            moments.log_mean,
            moments.log_variance,
            mean_error,
            variance_error,
            moments.dead_probability,
        )
    mean_error = math.sqrt(max(mean_error**2 - scale_error(architecture.layers) ** 2, 0.0))
    lost = math.fsum(map(norm_variance, architecture.layers))
    of_mean, of_variance = interface_variances(architecture.layers)
    return Expectation(
        log_mean=moments.log_mean + math.fsum(map(_moved_by_norm, architecture.layers)),
        log_variance=moments.log_variance - lost,
        log_mean_sd=math.hypot(mean_error, math.sqrt(of_mean)),
        log_variance_sd=math.hypot(variance_error, math.sqrt(of_variance)),
        dead_probability=moments.dead_probability,
    )


def _simulated(architecture: Architecture, prediction: Prediction, method: Ensemble) -> Expectation:
    """Return what a simulation expects, with the standard errors of its own.

    Under random signs the weights' norms matter in more ways than one: they are an
    error.

    Weights that are not Gaussian were simulated as if they were: an error of the size
    of their first-order correction.
    """
    moments = prediction.known
    shared = math.fsum(map(norm_variance, architecture.layers)) if method == "signs" else 0.0
    is_redrawn = method != "signs"
    mean_error = moments.log_mean_error * is_redrawn
    variance_error = moments.log_variance_error * is_redrawn
    kurtosis = math.fsum(
        3 * abs(layer.weight.kurtosis - 3) / (layer.fan_in * layer.fan_out)
        for layer in architecture.layers
    )
    return Expectation(
        moments.log_mean,
        moments.log_variance,
        math.sqrt(moments.log_mean_se**2 + 4 * shared + kurtosis**2 + mean_error**2),
        math.sqrt(
            moments.log_variance_se**2
            + variance_error**2
            + (shared + 2 * kurtosis) ** 2
            + 4 * shared * moments.log_variance**2
        ),
        moments.dead_probability,
    )


def _moved_by_norm(layer: Layer) -> float:
    """Return how far the sample's norm moves the log-mean: not at all where it gave the
    scale.
    """
    weight = layer.weight
    if not weight.sample_variance or not weight.variance:
        return norm_variance(layer) / 2
    if weight.initializer is None and weight.scale_error > 0:
        return 0.0
    return math.log(weight.sample_variance / weight.variance) + norm_variance(layer) / 2
