"""`predict_spectrum`: the limiting spectrum of a chain's input-output Jacobian.

Sources: J. Pennington, S. Schoenholz and S. Ganguli, "Resurrecting the sigmoid in deep
learning through dynamical isometry", arXiv 1711.04735, and "The emergence of spectral
universality in deep networks", arXiv 1802.09979; L. Pastur, arXiv 2001.06188 (the gates
of a random network are free of its weights), and L. Pastur and V. Slavin, arXiv
2011.11439 (any iid entries with a finite fourth moment).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.network.architecture import Architecture, Layer
from initdiag.spectrum.edges import atoms, log_lower_edge, log_upper_edge
from initdiag.spectrum.equation import chain_equation
from initdiag.spectrum.mean_field import squared_gates
from initdiag.spectrum.record import SpectralFactor, SpectralLaw

__all__ = ["predict_spectrum"]


def predict_spectrum(
    architecture: Architecture | Sequence[int],
    *,
    input_second_moment: float | None = None,
    **assumptions: Any,
) -> SpectralLaw:
    """Predict the eigenvalues of ``J^T J`` (``n_0 x n_0``) at initialisation, in the
    limit of large width at fixed depth.

    Parameters
    ----------
    architecture : Architecture or sequence of int
        What `trace` returned, or widths ``n_0, ..., n_L``.
    input_second_moment : float, optional
        Mean square of an input entry, ``|x|^2/n_0``: matters for smooth activations
        only. The architecture's ``input_rms`` squared if None.
    **assumptions
        With widths: as in `Architecture.from_widths`.

    Returns
    -------
    SpectralLaw
        Its ``law``, ``density``, ``moments`` and edges; and how far finite width is
        from the limit.

    Raises
    ------
    InvalidInput
        If widths or assumptions are out of range.
    UnsupportedArchitecture
        If the network is not a plain chain, or its weights fail a hypothesis.

    Examples
    --------
    >>> spectrum = predict_spectrum([400, 400, 400], init="he_normal", output="relu")
    >>> round(spectrum.upper_edge, 3), round(spectrum.mean, 3), spectrum.zero_mass
    (11.09, 1.0, 0.5)
    """
    if not isinstance(architecture, Architecture):
        architecture = Architecture.from_widths(architecture, **assumptions)
    elif assumptions:
        raise InvalidInput(
            explain(
                expected="assumptions with widths only",
                got=f"an Architecture and {sorted(assumptions)}",
                do="Use architecture.replace(...) for a what-if.",
            )
        )
    _require_covered(architecture)
    return _compose(
        architecture,
        architecture.input_rms**2 if input_second_moment is None else input_second_moment,
    )


def _require_covered(architecture: Architecture) -> None:
    """Refuse what the theory does not cover."""
    obstacles = [f"{gap.path}: {gap.reason}" for gap in architecture.gaps]
    for layer in architecture.layers:
        if (
            layer.bias is not None
            and not layer.bias.symmetric
            and layer.activation.name != "linear"
        ):
            obstacles.append(
                f"{layer.name}: its bias is not symmetric about 0, so that its gates are not "
                "fair coins"
            )
        obstacles.extend(
            f"{layer.name}: weights fail the hypothesis {name!r}" for name in layer.weight.failed
        )
        if layer.weight.variance == 0:
            obstacles.append(
                f"{layer.name}: all its weights are zero, so that the Jacobian is zero"
            )
    if obstacles:
        raise UnsupportedArchitecture(
            "only the spectrum of a plain chain can be predicted, and here: "
            f"{'; '.join(obstacles)}. "
            "Measure it instead: initdiag.measure_spectrum(model)."
        )


def _compose(architecture: Architecture, input_second_moment: float) -> SpectralLaw:
    gates = squared_gates(architecture, input_second_moment)
    factors = tuple(map(_factor, architecture.layers, gates))
    n0 = architecture.input_size
    equation = chain_equation(n0, factors)
    found = atoms(n0, factors)
    return SpectralLaw(
        input_size=n0,
        factors=factors,
        zero_mass=1 - min(n0, *(factor.open_count for factor in factors)) / n0,
        log_lower_edge=log_lower_edge(equation, found),
        log_upper_edge=log_upper_edge(equation, found),
        log_mean_eigenvalue=math.fsum(map(_log_mean_factor, factors))
        + math.log(architecture.output_size / n0),
        atoms=found,
    )


def _factor(
    layer: Layer, gate: tuple[tuple[float, ...], tuple[float, ...], bool]
) -> SpectralFactor:
    squares, probabilities, discrete = gate
    return SpectralFactor(
        name=layer.name,
        fan_in=layer.fan_in,
        fan_out=layer.fan_out,
        haar=layer.weight.family == "haar",
        variance=layer.weight.variance,
        kurtosis=layer.weight.kurtosis,
        squared_gates=squares,
        probabilities=probabilities,
        discrete=discrete,
    )


def _log_mean_factor(factor: SpectralFactor) -> float:
    """Return ``ln(v fan_in E d^2)``: the sum of these, with ``ln(n_L/n_0)``, is
    ``ln(prod v_l n_l E d_l^2)``.
    """
    return math.log(factor.variance * factor.fan_in * factor.gate_moment(1))
