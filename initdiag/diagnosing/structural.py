"""Errors that stand in what was read of a network, whatever its numbers: units that are
alike, a gradient that is cut, an output that is not made of numbers.
"""

from __future__ import annotations

from initdiag.diagnosing import findings
from initdiag.diagnosing.findings import Finding
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.plain_pass import PlainPass
from initdiag.network.weights import DISTINCT_UNITS

__all__ = ["all_zero", "cut_off", "hidden_zeros", "masked", "not_numbers", "symmetry"]


def cut_off(shown: PlainPass | None) -> tuple[Finding, ...]:
    """Return the error that next to no weight gets a gradient, where that is so."""
    if shown is None or not shown.without_gradient:
        return ()
    weights = shown.without_gradient
    names = ", ".join(weights[:3]) + (", ..." if len(weights) > 3 else "")
    message = f"the weights {names} get no gradient: it is not there, or exactly 0"
    remedy = "look for a detach, a no_grad, a factor 0, or a result that is thrown away"
    return (findings.NO_GRADIENT.at(None, message, remedy),)


def not_numbers(shown: PlainPass | None) -> tuple[Finding, ...]:
    """Return the error that the output is not made of numbers, where that is so."""
    if shown is None or not shown.not_numbers or shown.is_masked:
        return ()
    rows = f"{shown.not_numbers} of {shown.rows} rows"
    message = f"{rows} of the output hold NaN or infinity: does it overflow?"
    remedy = "look for what leaves its range: a log, a division, too large a gain"
    return (findings.EXPLODING.at(None, message, remedy),)


def masked(shown: PlainPass | None) -> tuple[Finding, ...]:
    """Return why an output that holds minus infinity, as a mask does, is not judged."""
    if shown is None or not shown.not_numbers or not shown.is_masked:
        return ()
    message = f"{shown.not_numbers} of {shown.rows} rows of the output hold minus infinity"
    return (findings.NOT_JUDGED.at(None, message, "judge what comes before a mask: output="),)


def symmetry(architecture: Architecture) -> tuple[Finding, ...]:
    """Return an error for each layer whose units are equal; they stay so for ever."""
    message = "symmetry: some of its units have equal weights, so that they are and stay the same"
    remedy = "draw its weights at random, e.g. by He initialisation"
    equal = (
        findings.SYMMETRY.at(layer.name, message, remedy)
        for layer in architecture.layers
        if DISTINCT_UNITS in layer.weight.failed
    )
    return (*equal, *map(all_zero, hidden_zeros(architecture)))


def hidden_zeros(architecture: Architecture) -> tuple[Layer, ...]:
    """Return the hidden layers of zeros that every path goes through."""
    hidden = () if architecture.chain is None else architecture.layers[:-1]
    return tuple(layer for layer in hidden if layer.weight.variance == 0)


def all_zero(layer: Layer) -> Finding:
    """Return the error that a layer's weights are all zero."""
    message = "every weight is zero: no gradient passes, and by symmetry its units stay alike"
    remedy = "initialise it, or check the part before it alone"
    return findings.ZERO_WEIGHTS.at(layer.name, message, remedy)
