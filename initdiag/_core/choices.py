"""The closed sets of names that the doors take: a ``Literal`` each, and its members."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "ENSEMBLES",
    "FAIL_ON",
    "FAMILIES",
    "LOSSES",
    "METHODS",
    "PRECISIONS",
    "WEIGHT_ENSEMBLES",
    "DrawCount",
    "Ensemble",
    "FailOn",
    "FailOnOption",
    "Family",
    "Loss",
    "Method",
    "Precision",
    "Stopped",
    "WeightEnsemble",
]

Family = Literal["sgd", "momentum", "adam", "adamw"]
"""An optimiser that a risk is known for: plain SGD, momentum 0.9, Adam, AdamW."""

Loss = Literal["classification", "regression"]
"""A kind of loss: cross entropy, or squared error."""

Ensemble = Literal["signs", "redraw", "law"]
"""What is drawn in a measurement: see `initdiag.measure`."""

WeightEnsemble = Literal["signs", "redraw"]
"""An ensemble whose networks have weights, and so singular values."""

Method = Literal["auto", "signs", "redraw", "law", "none"]
"""How a diagnosis measures: an ensemble, the first that the module has, or none."""

Precision = Literal["auto", "native"]
"""A measurement's arithmetic: one that keeps norms in range, or the model's own."""

Stopped = Literal["draws", "precision", "time", "interrupted"]
"""Why a measurement ended."""

FailOn = Literal["risk", "no-verdict"]
"""What is a failure: a network at risk, or also one that could not be judged."""

FailOnOption = Literal["risk", "no-verdict", "never"]
"""A command's option or a project's setting, which spells None as ``"never"``."""

DrawCount = int | Literal["auto"] | None
"""How many draws; ``"auto"``: until they are precise, or for a minute; None: 1,024, and
fewer where a draw is slow.
"""

FAMILIES: tuple[Family, ...] = get_args(Family)
LOSSES: tuple[Loss, ...] = get_args(Loss)
ENSEMBLES: tuple[Ensemble, ...] = get_args(Ensemble)
WEIGHT_ENSEMBLES: tuple[WeightEnsemble, ...] = get_args(WeightEnsemble)
METHODS: tuple[Method, ...] = get_args(Method)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

FAIL_ON: dict[FailOnOption, FailOn | None] = {
    "risk": "risk",
    "no-verdict": "no-verdict",
    "never": None,
}
"""What ``--fail-on`` says, and the ``fail_on`` of `initdiag.check` that it means."""
