"""Hanin and Nica's asymptotic law: ``ln||Ju||^2`` is nearly normal, with log-variance ``beta``.

Source: B. Hanin and M. Nica, "Products of Many Large Random Matrices and Gradients in Deep Neural Networks",
arXiv 1812.05994. With gates whose kurtosis is ``c = E d^4/(E d^2)^2`` (``1/p`` for Bernoulli(p)), ``mu4`` the kurtosis of an
entry and ``u`` the unit vector that is propagated,

    beta = sum_l (3 c_l - 1)/n_l + (mu4 - 3) ||u||_4^4 c_1/n_1.

All ReLU and Gaussian: ``5 sum_l 1/n_l`` over ``l = 1..L``: the input width is not in the sum. A linear output adds ``2/n_L``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from initdiag.architecture import Architecture, Layer
from initdiag.errors import InvalidInput, explain

__all__ = ["beta", "entry_kurtosis_term", "layer_beta"]


def layer_beta(layer: Layer) -> float:
    """Return one layer's share ``(3c - 1)/n`` of beta, less ``2/N`` for Haar weights (``N = max(fan_in, fan_out)``).

    The Haar term is the leading order of ``psi'(N/2)``, the log-variance of the radius that a Haar matrix does not have.
    """
    gate = layer.activation.gate
    assert gate is not None, "beta speaks of discrete gates only"
    share = (3 * gate.kurtosis - 1) / layer.fan_out
    if layer.weight.family == "haar":
        share -= 2 / max(layer.fan_in, layer.fan_out)
    return share


def entry_kurtosis_term(first: Layer, u_fourth: float | None = None) -> float:
    """Return ``(mu4 - 3) ||u||_4^4 c_1/n_1`` of the first layer.

    Parameters
    ----------
    first : Layer
        The first layer of the chain.
    u_fourth : float, optional
        ``||u||_4^4``; the mean over uniform unit vectors, ``3/(n_0 + 2)``, if not given.
    """
    gate = first.activation.gate
    assert gate is not None, "beta speaks of discrete gates only"
    if first.weight.family == "haar":
        return 0.0
    fourth = 3 / (first.fan_in + 2) if u_fourth is None else u_fourth
    return (first.weight.kurtosis - 3) * fourth * gate.kurtosis / first.fan_out


def beta(widths: Sequence[int], *, output: str = "relu") -> float:
    """Return the paper's ``beta`` of a fully connected Gaussian net: ``5 sum 1/n_i`` over every width but the first.

    Parameters
    ----------
    widths : sequence of int
        ``n_0, n_1, ..., n_L``.
    output : str
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
