"""The record of what plain passes of a module show (`initdiag.tracing.reach`)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PlainPass"]


@dataclass(frozen=True, slots=True)
class PlainPass:
    """What was seen.

    Attributes
    ----------
    without_gradient : tuple of str
        The weights without a gradient, if they are all, or all but one; else empty.
        Weights are trainable parameters of two dimensions or more. A single weight that
        learns in front of others that do not is a head on a body that is detached.
    not_numbers, rows : int
        Rows of the output that hold NaN or infinity, and all rows.
    is_masked : bool
        Whether these are minus infinity alone, as a mask of logits is.
    """

    without_gradient: tuple[str, ...] = ()
    not_numbers: int = 0
    rows: int = 0
    is_masked: bool = False
