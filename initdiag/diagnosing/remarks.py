"""What there is to say of a network beside its verdict, as findings."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initdiag.diagnosing import findings
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.basis import Basis, Numbers, starts_at_zero
from initdiag.diagnosing.coverage import uncovered
from initdiag.diagnosing.findings import Finding, Severity
from initdiag.diagnosing.structural import all_zero, hidden_zeros
from initdiag.law.correlation import Separation
from initdiag.law.prediction import Coverage, Prediction
from initdiag.measuring.record import Measurement
from initdiag.network.architecture import Architecture, Layer
from initdiag.network.weights import DISTINCT_UNITS, INDEPENDENT_OF

__all__ = ["LEAST_LOG_SINE", "remarks", "shared_state"]

_CLEAR = 3.0
"""Standard errors from which on a part of a disagreement is named: a choice, by which
one part in 370 is named by chance.
"""

LEAST_LOG_SINE = 2 * math.log(1e-3)
"""``ln sin^2`` of the angle at which two inputs that were at right angles count as one.

It is 1e-3: half the bits of a single-precision float are gone.
"""


def remarks(
    architecture: Architecture,
    prediction: Prediction,
    measurement: Measurement | None,
    agreement: Agreement | None,
    separation: Separation | None,
    numbers: Numbers | None,
    basis: Basis,
    not_measured: str | None,
) -> tuple[Finding, ...]:
    """Return the findings that do not decide; why there is no verdict comes first.

    Arguments as in `judge`, with the numbers that are judged and their basis.
    """
    how = _treatment(prediction, basis)
    found = [
        *_refutation(agreement, basis),
        *_unfinished(architecture, measurement, numbers),
        *_gaps(architecture, prediction, how),
        *_layers(architecture, numbers),
        *_unread(architecture),
        *_separation(separation),
        *_ways(architecture),
    ]
    if not_measured is not None:
        remedy = "do what the reason says, or pass a function that builds the network"
        message = f"not measured: {not_measured.rstrip('.')}"
        reason = findings.NOT_MEASURED.at(None, message, remedy)
        found.insert(0 if numbers is None else len(found), reason)
    return tuple(found)


def shared_state(foreign: tuple[str, ...]) -> tuple[Finding, ...]:
    """Return the note that names what the forward passes that were run shared."""
    if not foreign:
        return ()
    names = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
    message = f"can be neither copied nor put back, so that the passes shared it: {names}"
    remedy = "set it aside while the module is looked at, if a forward pass changes it"
    return (findings.SHARED_STATE.at(None, message, remedy),)


_TREATMENTS: dict[Coverage, str] = {
    "simulated": "judged from a simulation through the module's own forward",
    "none": "not judged: measure it, or check the fully connected part of it with module=",
}
"""What becomes of a network with gaps that is not judged from its measurement."""


def _treatment(prediction: Prediction, basis: Basis) -> str:
    if basis is Basis.MEASUREMENT:
        return "judged from measurement"
    return _TREATMENTS.get(prediction.coverage, "")


def _unfinished(
    architecture: Architecture, measurement: Measurement | None, numbers: Numbers | None
) -> Iterator[Finding]:
    """Say why there are no numbers, where there is a measurement."""
    if numbers is not None or measurement is None:
        return
    if measurement.dead_fraction == 1.0:
        name, remedy = architecture.layers[-1].name, "judge the part before it: module="
        yield findings.ZERO_START.at(name, _ZERO_OUTPUT, remedy, Severity.WARNING)
    else:
        message = "too few draws have a gradient for a log-variance"
        yield findings.NOT_MEASURED.at(None, message, "ask for more draws, e.g. draws=1024")


_ZERO_OUTPUT = (
    "its weights start at zero: at the first step only it has a gradient, "
    "after that the others have one too"
)


def _ways(architecture: Architecture) -> Iterator[Finding]:
    """Say what is perturbed and what is judged, where that is a choice."""
    for way in architecture.ways:
        yield findings.CHOSEN.at(None, way, "choose otherwise by input=, output= or module=")


def _gaps(architecture: Architecture, prediction: Prediction, how: str) -> Iterator[Finding]:
    """Say what is not covered: each gap, or why the law of a chain is refused."""
    for part in uncovered(architecture.gaps):
        yield findings.NOT_COVERED.at(part.path, part.message, how)
    if prediction.coverage == "none" and not architecture.gaps:
        for reason in prediction.reasons:
            yield findings.NOT_COVERED.at(None, f"not covered by the theory: {reason}", how)


def _layers(architecture: Architecture, numbers: Numbers | None) -> Iterator[Finding]:
    symmetric = hidden_zeros(architecture)
    for layer in architecture.layers:
        if layer.weight.variance == 0 and layer not in symmetric:
            yield from _zero_weights(layer, architecture, numbers)
        failed = layer.weight.failed
        if failed and DISTINCT_UNITS not in failed:
            yield _failed_weights(layer)
        if layer.bias is not None and not layer.bias.symmetric:
            message = "its bias is constant or skewed, so that gates are not fair coins"
            remedy = "zero biases, for the theory to cover it"
            yield findings.SKEWED_BIAS.at(layer.name, message, remedy)


def _zero_weights(
    layer: Layer, architecture: Architecture, numbers: Numbers | None
) -> Iterator[Finding]:
    """Yield what to say of a layer whose weights are all zero. An output or a branch
    may start at zero; a layer that every path goes through may not.
    """
    if starts_at_zero(architecture) and layer is architecture.layers[-1]:
        if numbers is not None:
            remedy = "nothing: it is judged as if its gain were 1"
            yield findings.ZERO_START.at(layer.name, _ZERO_OUTPUT, remedy)
    elif numbers is not None and not numbers.is_dead:
        message = "its weights start at zero, and the gradient goes around it: a usual start"
        yield findings.ZERO_START.at(layer.name, message, "nothing: its branch counts as not there")
    else:
        yield all_zero(layer)


def _failed_weights(layer: Layer) -> Finding:
    failed = layer.weight.failed
    message = f"its weights fail: {', '.join(failed)}"
    remedy = "a trained checkpoint is not an initialisation; otherwise see how it is initialised"
    if any(name.startswith(INDEPENDENT_OF) for name in failed):
        remedy = "it is a copy (copy.deepcopy?): initialise each layer afresh"
    return findings.WEIGHTS_FAIL.at(layer.name, message, remedy)


def _unread(architecture: Architecture) -> Iterator[Finding]:
    """Say which weights were not read, or not reached."""
    if architecture.source != "widths" and any(
        layer.weight.sample_variance is None for layer in architecture.layers
    ):
        message = "some weights were assumed, not read (meta device, or a what-if)"
        yield findings.ASSUMED.at(None, message, "give the weights values, to have them tested")
    for name in architecture.unused:
        message = "the forward pass never reaches it"
        yield findings.UNUSED.at(name, message, "remove it, or use it")


def _separation(separation: Separation | None) -> list[Finding]:
    if separation is None:
        return []
    if separation.parallel > 0.5:
        message = (
            f"two inputs at right angles leave it parallel in {separation.parallel:.0%} "
            "of networks: they differ only in size"
        )
        remedy = "widen the narrowest layers"
        return [findings.INPUTS_COLLAPSE.at(separation.name, message, remedy)]
    if not separation.log_sine < LEAST_LOG_SINE:
        return []
    sine = math.exp(max(separation.log_sine / 2, -700.0))
    message = (
        f"two inputs at right angles leave it about {sine:.1g} radians apart: "
        "the network cannot tell its inputs from one another"
    )
    remedy = "weights of gain 1 with zero biases; fewer layers"
    return [findings.INPUTS_COLLAPSE.at(separation.name, message, remedy)]


def _refutation(agreement: Agreement | None, basis: Basis) -> list[Finding]:
    """Say that the measurement refutes the prediction, and what is judged by then."""
    if agreement is None or agreement.agrees:
        return []
    then = "not judged" if basis is Basis.NONE else "judged by the measurement"
    message = (
        f"prediction and measurement disagree (p = {agreement.p_value:.2g}), so that it is "
        f"{then}: {'; '.join(_differences(agreement))}"
    )
    remedy = f"likely causes: {'; '.join(_likely_causes(agreement))}"
    return [findings.REFUTED.at(None, message, remedy)]


def _is_small(p_value: float | None, agreement: Agreement) -> bool:
    return p_value is not None and p_value < agreement.level


def _differences(agreement: Agreement) -> Iterator[str]:
    """Say what differs, by how much."""
    if agreement.moments_p_value is not None:
        yield (
            f"mean {agreement.mean_z:+.1f}, variance {agreement.variance_z:+.1f} standard "
            "errors off"
        )
    if _is_small(agreement.scale_p_value, agreement):
        yield "the weights are not of the size that the prediction takes them for"
    if _is_small(agreement.dead_p_value, agreement):
        yield "another share of draws is dead"


def _likely_causes(agreement: Agreement) -> list[str]:
    """Say what is usually behind each part of a disagreement."""
    causes = {
        "a gain or an activation that is not what the trace took it for": abs(agreement.mean_z)
        >= _CLEAR,
        "weights that are not independent (trained, tied, low rank), or inputs that are "
        "exactly 0": abs(agreement.variance_z) >= _CLEAR,
        "an initialiser other than the one that was recognised": _is_small(
            agreement.scale_p_value, agreement
        ),
        "a few outsized or skewed weights, or a layer narrower than it looks (low rank, "
        "sparse)": _is_small(agreement.shape_p_value, agreement),
        "gates that are not open half of the time (skewed weights, a constant bias, inputs "
        "that are exactly 0)": _is_small(agreement.dead_p_value, agreement),
    }
    return [cause for cause, is_likely in causes.items() if is_likely] or [
        "weights that are not iid (trained, tied, sparse, low rank), or an operation that "
        "the trace took for another"
    ]
