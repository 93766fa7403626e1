"""Hanin and Nica's asymptotic law: ``ln||Ju||^2`` is nearly normal, with log-variance
``beta = sum_l (3 c_l - 1)/n_l + (mu4 - 3) ||u||_4^4 c_1/n_1``.

``c`` is a gate's kurtosis and ``mu4`` an entry's. Source: B. Hanin and M. Nica,
"Products of Many Large Random Matrices and Gradients in Deep Neural Networks", arXiv
1812.05994; ``docs/theory/one-direction.md`` states the theorem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law import columns
from initdiag.law.prediction import Prediction
from initdiag.network.architecture import Architecture, Layer

__all__ = [
    "beta",
    "entry_kurtosis_term",
    "kolmogorov_rate",
    "ks_distance",
    "layer_beta",
    "log_moment",
    "relative_kolmogorov_rate",
]


def layer_beta(layer: Layer) -> float:
    """Return one layer's share ``(3c - 1)/n`` of beta, less ``2/N`` for Haar weights
    (``N = max(fan_in, fan_out)``).

    The Haar term is the leading order of ``psi'(N/2)``, the log-variance of the radius
    that a Haar matrix does not have.
    """
    gate = layer.activation.gate
    assert gate is not None, "beta is defined for discrete gates only"
    share = columns.gate_beta(gate.kurtosis, layer.fan_out)
    if layer.is_haar:
        share -= columns.radius_beta(max(layer.fan_in, layer.fan_out))
    return share


def entry_kurtosis_term(first: Layer, u_fourth: float | None = None) -> float:
    """Return ``(mu4 - 3) ||u||_4^4 c_1/n_1`` of the first layer.

    Parameters
    ----------
    first : Layer
        The first layer of the chain.
    u_fourth : float, optional
        ``||u||_4^4``, from ``1/n_0`` (all coordinates alike) to 1 (one-hot); the mean
        over uniform unit vectors, ``3/(n_0 + 2)``, if not given.

    Raises
    ------
    InvalidInput
        If ``u_fourth`` is not in ``[1/n_0, 1]``, where it is for every unit vector.
    """
    gate = first.activation.gate
    assert gate is not None, "beta is defined for discrete gates only"
    if u_fourth is not None and not (1 - 1e-9) / first.fan_in <= u_fourth <= 1 + 1e-9:
        raise InvalidInput(
            explain(
                expected=(
                    f"||u||_4^4 of a unit vector in R^{first.fan_in}, from "
                    f"{1 / first.fan_in:g} to 1"
                ),
                got=repr(u_fourth),
                do="Give (u**4).sum() / (u**2).sum()**2.",
            )
        )
    if first.is_haar:
        return 0.0
    fourth = columns.uniform_concentration(first.fan_in)[0] if u_fourth is None else u_fourth
    return columns.entry_kurtosis_share(
        first.weight.kurtosis - 3, fourth, gate.kurtosis, first.fan_out
    )


def log_moment(prediction: Prediction, k: float) -> float:
    """Return the asymptotic ``ln E||Ju||^{2k}``: ``k ln E||Ju||^2 + k (k - 1) beta/2``
    (natural log, dead draws counting 0).

    The error is of order ``sum_l 1/n_l^2`` with a constant that grows fast with ``k``;
    for ReLU it is ``-12.5 sum 1/n^2`` at ``k = 2`` and ``-68.5 sum 1/n^2`` at ``k =
    3``, so that the formula is too high. ``prediction.law.log_moment(k)`` is exact.
    Source: Hanin and Nica 2018, Theorem 1.
    """
    return k * prediction.log_second_moment + k * (k - 1) / 2 * prediction.known_beta


def kolmogorov_rate(prediction: Prediction) -> float:
    """Return ``(sum_l n_l^{-2})^{1/5}``, the rate of the paper's bound on the
    Kolmogorov distance; its constant is not known.

    Source: Hanin and Nica 2018, the theorem on log-normality. Shown beside
    `ks_distance`, never as a bound.
    """
    return float(math.fsum(n**-2 for n in _output_widths(prediction)) ** 0.2)


def relative_kolmogorov_rate(prediction: Prediction) -> float:
    """Return ``(sum_l n_l^{-2}/(sum_l n_l^{-1})^2)^{1/5}``, the rate that the authors'
    poster prints: small for *deep* networks.

    At ``L`` equal widths it is ``L^{-1/5}`` whatever the width: the central limit
    theorem's share of the log-normality.
    """
    widths = _output_widths(prediction)
    return float((math.fsum(n**-2 for n in widths) / math.fsum(1 / n for n in widths) ** 2) ** 0.2)


def _output_widths(prediction: Prediction) -> list[int]:
    return [layer.fan_out for layer in prediction.layers]


def ks_distance(prediction: Prediction) -> float:
    """Return the Kolmogorov distance ``sup_x |F(x) - G(x)|`` of the exact law ``F`` and
    the asymptotic one ``G``.

    How wrong the log-normal is for this very network. Both laws are evaluated on a grid
    of 2,001 points over ten standard deviations of either, then the three largest
    differences are refined; the result is good to about 1e-9 (given the error of the
    law itself).

    Raises
    ------
    UnsupportedArchitecture
        Without coverage, or if ``beta`` is not positive while the exact law is not a
        point mass.

    Examples
    --------
    >>> from initdiag import predict
    >>> round(ks_distance(predict([64, 64, 64, 10], init="he_normal")), 3)
    0.016
    """
    law = prediction.law
    if prediction.beta is None or prediction.beta <= 0:
        if law.var() == 0:
            return 0.0
        raise UnsupportedArchitecture(
            explain(
                expected="a positive beta",
                got=str(prediction.beta),
                do="Use prediction.law: there is no log-normal to compare it with.",
            )
        )
    from initdiag.law.distributions.distance import kolmogorov_distance

    return kolmogorov_distance(law, prediction.asymptotic_law)


def beta(widths: Sequence[int], *, output: Literal["relu", "linear"] = "relu") -> float:
    """Return the paper's ``beta`` of a fully connected Gaussian net: ``5 sum 1/n_i``
    over every width but the first.

    Parameters
    ----------
    widths : sequence of int
        ``n_0, n_1, ..., n_L``.
    output : "relu" or "linear"
        ``"relu"`` as in the paper; ``"linear"`` makes the last term ``2/n_L``.

    Returns
    -------
    float
        Log-variance of ``||Ju||^2`` (natural log).

    Raises
    ------
    InvalidInput
        If a width is not a positive integer or ``output`` is unknown.

    Examples
    --------
    >>> beta([784, 256, 256, 10]) == 5 * (1 / 256 + 1 / 256 + 1 / 10)
    True
    """
    numerators = {"relu": 5, "linear": 2}
    if output not in numerators:
        raise InvalidInput(
            explain(
                expected='output "relu" or "linear"',
                got=repr(output),
                do="Use predict for other activations.",
            )
        )
    sizes = Architecture.from_widths(widths).widths[1:]
    return 5 * math.fsum(1 / n for n in sizes[:-1]) + numerators[output] / sizes[-1]
