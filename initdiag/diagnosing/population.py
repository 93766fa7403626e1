"""Where the risk was learnt, and whether a network is of that kind."""

from __future__ import annotations

from collections.abc import Iterator

from initdiag.diagnosing.calibration import DEPTHS, PROVENANCE
from initdiag.diagnosing.causes import LEARNT
from initdiag.network.architecture import Architecture

__all__ = ["provenance"]

WIDTHS = (8, 128)
"""Units of the study's hidden layers (``tests/evidence/calibration``)."""


def provenance(architecture: Architecture, has_batch: bool) -> str:
    """Return where the risk comes from, and why it is extrapolated, where it is.

    Parameters
    ----------
    architecture : Architecture
        The network that is judged. Fewer layers than the study's are no reason: they
        count as its shallowest, which is on the safe side.
    has_batch : bool
        Whether a batch of the user's was looked at.
    """
    parts = [PROVENANCE, *([LEARNT] if has_batch else [])]
    if reasons := ", ".join(_outside(architecture)):
        parts.append(f"extrapolated, for that was learnt on chains of ReLU layers: {reasons}")
    return "; ".join(parts)


def _outside(architecture: Architecture) -> Iterator[str]:
    """Yield what sets a network apart from the study's."""
    chain = architecture.chain
    if chain is None:
        yield "this network is not a chain of linear layers"
        return
    gates = {layer.activation.name for layer in chain.layers[:-1]} - {"relu"}
    if gates:
        yield f"its gates are {' and '.join(sorted(gates))}"
    if len(chain.layers) > DEPTHS[1]:
        yield f"it has {len(chain.layers)} linear layers (learnt on {DEPTHS[0]} to {DEPTHS[1]})"
    widths = [layer.fan_out for layer in chain.layers[:-1]]
    learnt = f"(learnt on {WIDTHS[0]} to {WIDTHS[1]})"
    if widths and max(widths) > WIDTHS[1]:
        yield f"it has layers of {max(widths)} units {learnt}"
    elif widths and min(widths) < WIDTHS[0]:
        yield f"it has layers of {min(widths)} units {learnt}"
