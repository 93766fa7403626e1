"""What the user's own batch shows of a network before the first step: plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from initdiag._core.choices import Loss

__all__ = ["BatchProbe", "GateProbe"]


_BENT = frozenset(("tanh", "elu", "silu"))
"""Gates for which ``tests/evidence/causes/overshoot.txt`` finds that squared errors
diverge at lower rates than ReLU's, leaky ReLU's or GELU's do.
"""


@dataclass(frozen=True, slots=True)
class GateProbe:
    """One call of an activation, on the user's batch.

    Attributes
    ----------
    layer : str
        Path of the module that made the call.
    function : str
        ``"tanh"``, ``"relu"``, ``"sin"`` ...
    is_output : bool
        Whether no linear map comes after it.
    saturated : float or None
        Share of values at which the derivative is under 1 % of its largest; None for a
        gate that has no such ends.
    dead_units : float or None
        Share of units that are 0 on every row; None for a gate that does not close.
    """

    layer: str
    function: str
    is_output: bool
    saturated: float | None
    dead_units: float | None


@dataclass(frozen=True, slots=True)
class BatchProbe:
    """What is known of a network on the user's batch, before training.

    What could not be had is None, or left out of a mapping, and ``absent`` says why.

    Attributes
    ----------
    rows : int
        Rows that were run.
    input_mean, input_std : float
        Mean and standard deviation of all numbers of the inputs.
    gates : tuple of GateProbe
        The activations, in the order of their calls.
    collapse : float or None
        Mean cosine of the angle between two rows in the last hidden layer.
    torn : float or None
        How far a short way from a row to another leads in the last hidden layer: about
        0 if as far as in the input, 1 if all the way: neighbours are torn apart.
    output_rms : float or None
        Root mean square of the output; the loss of a constant guess at targets of
        variance 1 is 1, the network's first loss 1 plus its square.
    sharpness : dict
        Kind of loss -> largest eigenvalue of the Gauss-Newton matrix of the batch's
        mean loss. Gradient descent diverges where the learning rate is well above 2
        over it.
    contrast : dict
        Kind of loss -> the same of what tells rows apart: of outputs without their
        mean over the batch. In ``1/(learning rate x it)`` steps a network learns the
        pattern that it learns first.
    sign_step : float or None
        Root mean square by which outputs change per unit of learning rate, where every
        weight moves by one learning rate, as in Adam's first step.
    absent : tuple of str
        What could not be had, and why.
    sums, norms : int
        Calls that add two tensors of rows, as skip connections do, and calls of
        normalisations.
    """

    rows: int
    input_mean: float
    input_std: float
    gates: tuple[GateProbe, ...]
    collapse: float | None
    torn: float | None
    output_rms: float | None
    sharpness: dict[Loss, float]
    contrast: dict[Loss, float]
    sign_step: float | None
    absent: tuple[str, ...] = ()
    sums: int = 0
    norms: int = 0

    @property
    def input_rms(self) -> float:
        """Root mean square of the inputs."""
        return math.hypot(self.input_mean, self.input_std)

    @property
    def output_gate(self) -> GateProbe | None:
        """The activation behind the last linear map, if there is one."""
        return next((gate for gate in reversed(self.gates) if gate.is_output), None)

    @property
    def saturated(self) -> float | None:
        """The largest share of saturated values in a hidden layer."""
        shares = [gate.saturated for gate in self.gates if not gate.is_output]
        return max((share for share in shares if share is not None), default=None)

    @property
    def dead_units(self) -> float | None:
        """The largest share of dead units in a layer."""
        return max((g.dead_units for g in self.gates if g.dead_units is not None), default=None)

    @property
    def has_flat_ends(self) -> bool:
        """Whether hidden values go through a gate with two flat ends, such as tanh."""
        return self.saturated is not None

    @property
    def curves_up(self) -> bool:
        """Whether the curvature grows on the way out of a valley: with sums, and with
        gates that bend where nothing is normalised.
        """
        gates = {gate.function for gate in self.gates if not gate.is_output}
        return self.sums > 0 or (self.norms == 0 and not gates.isdisjoint(_BENT))

    @property
    def has_sines(self) -> bool:
        """Whether hidden values go through a sine or a cosine."""
        return any(gate.function in ("sin", "cos") for gate in self.gates)
