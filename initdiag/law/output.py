"""The draw of a linear output layer's own weights, which is in no weight's gradient."""

from __future__ import annotations

from initdiag.law.kurtosis.corrections import corrections
from initdiag.law.layer import LayerMoments, own_draw
from initdiag.network.architecture import Architecture

__all__ = ["NO_DRAW", "output_draw"]

NO_DRAW = LayerMoments(0.0, 0.0)
"""What is taken off where the output is not linear: nothing."""


def output_draw(architecture: Architecture, *, as_gaussian: bool = False) -> LayerMoments:
    """Return the log-moments of ``||W u||^2`` over its mean for a linear output ``W``.

    `Prediction.hidden_drift` and ``hidden_log_variance`` leave it out.

    Parameters
    ----------
    architecture : Architecture
        The network.
    as_gaussian : bool
        Whether iid weights count as Gaussian ones, as a simulation takes them. If not,
        the kurtosis of their entries is counted in as `predict` does, on a chain with
        discrete gates. Elsewhere it is not known how concentrated the input of the
        output layer is.

    Returns
    -------
    LayerMoments
        Natural log; zeros (`NO_DRAW`) where the output is not linear or its weights are
        all zero.
    """
    output = architecture.linear_output
    if output is None or output.weight.variance == 0:
        return NO_DRAW
    draw, chain = own_draw(output), architecture.chain
    if as_gaussian or chain is None or any(x.activation.gate is None for x in chain.layers):
        return draw
    added = corrections(chain.layers)[-1]
    return LayerMoments(draw.mean + added.log_mean, draw.variance + added.log_variance)
