"""How the entries of a weight matrix and of a bias are drawn, by name or as their
sample says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from initdiag._core.validation import choice, number_in
from initdiag.errors import InvalidInput, explain

__all__ = [
    "DISTINCT_UNITS",
    "EQUAL_NORMS",
    "INDEPENDENT_OF",
    "INITIALIZERS",
    "KURTOSIS",
    "LOW_RANK",
    "NOT_REARRANGED",
    "UNCONSTRAINED",
    "UNLIKE",
    "BiasLaw",
    "Hypothesis",
    "Initializer",
    "WeightFamily",
    "WeightLaw",
    "canonical_initializer",
]

WeightFamily = Literal["normal", "uniform", "truncated_normal", "haar", "sparse", "other"]
"""What the entries of a weight matrix are drawn from: see `WeightLaw`."""

Initializer = Literal[
    "torch_default",
    "he_normal", "he_uniform", "he_normal_fan_out", "he_uniform_fan_out",
    "xavier_normal", "xavier_uniform", "lecun_normal", "lecun_uniform",
    "he_truncated_normal", "xavier_truncated_normal", "lecun_truncated_normal",
    "orthogonal",
]  # fmt: skip
"""The name of an initialiser: a key of `INITIALIZERS`, which says what it draws."""

KURTOSIS: dict[WeightFamily, float] = {
    "normal": 3.0,
    "uniform": 9 / 5,
    "truncated_normal": 2.3655367,
}
"""E w^4 / (E w^2)^2 of an entry, by family (textbook values; the normal truncated at 2
standard deviations).
"""

_FAMILIES: tuple[WeightFamily, ...] = get_args(WeightFamily)


def _fan_in(numerator: float) -> Callable[[int, int], float]:
    return lambda fan_in, fan_out: numerator / fan_in


def _fan_out(numerator: float) -> Callable[[int, int], float]:
    return lambda fan_in, fan_out: numerator / fan_out


def _xavier(fan_in: int, fan_out: int) -> float:
    return 2.0 / (fan_in + fan_out)


def _orthogonal(fan_in: int, fan_out: int) -> float:
    return 2.0 / max(fan_in, fan_out)


INITIALIZERS: dict[Initializer, tuple[WeightFamily, Callable[[int, int], float]]] = {
    "torch_default": (
        "uniform",
        _fan_in(1 / 3),
    ),  # nn.Linear.reset_parameters: uniform on +-1/sqrt(fan_in)
    "he_normal": ("normal", _fan_in(2.0)),  # He et al. 2015, arXiv 1502.01852
    "he_uniform": ("uniform", _fan_in(2.0)),
    "he_normal_fan_out": ("normal", _fan_out(2.0)),
    "he_uniform_fan_out": ("uniform", _fan_out(2.0)),
    "xavier_normal": ("normal", _xavier),  # Glorot and Bengio 2010
    "xavier_uniform": ("uniform", _xavier),
    "lecun_normal": ("normal", _fan_in(1.0)),  # LeCun et al. 1998
    "lecun_uniform": ("uniform", _fan_in(1.0)),
    "he_truncated_normal": (
        "truncated_normal",
        _fan_in(2.0),
    ),  # Keras, JAX: truncated at 2 sd, then this variance
    "xavier_truncated_normal": ("truncated_normal", _xavier),
    "lecun_truncated_normal": ("truncated_normal", _fan_in(1.0)),
    "orthogonal": (
        "haar",
        _orthogonal,
    ),  # Saxe et al. 2014 with the factor sqrt 2 that ReLU asks for
}
"""Initialiser name -> (family, variance of an entry from fan_in and fan_out)."""


def canonical_initializer(name: Any) -> Initializer:
    """Return the name under which ``INITIALIZERS`` knows ``name`` (``kaiming_*`` is
    ``he_*``, ``glorot_*`` is ``xavier_*``).

    >>> canonical_initializer("kaiming_normal")
    'he_normal'
    """
    if isinstance(name, str):
        name = name.replace("kaiming_", "he_").replace("glorot_", "xavier_")
    return choice(name, "init", tuple(INITIALIZERS))


INDEPENDENT_OF = "independent of "
"""How the hypothesis is named that a layer's values are not another's, whose name
follows.
"""

UNLIKE = "unlike "
"""How the hypothesis is named that a layer's rows are not another's, rearranged,
turned, negated or mixed with others; that one's name follows.
"""

NOT_REARRANGED = " not rearranged"
"""How the hypothesis ends that no row (or column) of a layer's weights is another one,
rearranged, turned or negated.
"""

LOW_RANK = "no low-rank part"
"""How the hypothesis is named that a matrix holds no product of two thin ones."""

UNCONSTRAINED = "no linear constraint"
"""How the hypothesis is named that no fixed combination of a matrix' columns (or rows)
is 0: in centred weights, the sum is.
"""

EQUAL_NORMS = "norms of matrices at random"
"""How the hypothesis is named that the norms of whole weight matrices vary as those of
independent entries do: a matrix that was divided by its norm has one that does not.
"""

DISTINCT_UNITS = "distinct units"
"""How the hypothesis is named that no two rows (or columns) of a layer's weights are
equal.

Units with equal rows and biases compute the same value, and units with equal columns in
the next layer get the same gradient: training never tells them apart.
"""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One hypothesis of the theory, tested on a layer's actual weights.

    Attributes
    ----------
    name : str
        What was tested, e.g. ``"zero mean"``.
    p_value : float
        Under the hypothesis, uniform on [0, 1] (approximately).
    holds : bool
        Whether it was not rejected at the level the test states.
    """

    name: str
    p_value: float
    holds: bool


@dataclass(frozen=True, slots=True)
class WeightLaw:
    """The law of a weight matrix: iid symmetric entries, or Haar ("orthogonal").

    Attributes
    ----------
    family : str
        ``"normal"``, ``"uniform"``, ``"truncated_normal"``, ``"haar"``, ``"sparse"``
        (normal, with equally many zeros in every column) or ``"other"`` (iid with the
        stated moments).
    variance : float
        Variance of an entry: nominal where ``initializer`` is named, the sample's
        otherwise. 0 for an all-zero matrix.
    kurtosis : float
        E w^4 / (E w^2)^2 of an entry: 3 if Gaussian.
    initializer : str or None
        The recognised or assumed initialiser, a key of ``INITIALIZERS``.
    gain : float
        Factor on the initialiser's standard deviation.
    sample_variance, sample_kurtosis : float or None
        Moments of the actual entries, about zero; None for a law that was assumed and
        not read from a module.
    hypotheses : tuple of Hypothesis
        The tests made on the actual entries.
    scale_error : float
        Standard error of ``ln variance``: that of the sample's where no initialiser is
        recognised, the distance to another possible initialiser where one is. It
        separates these weights from a redraw. Random signs around these very weights
        keep their own scale, so that it does not separate a prediction from such a
        measurement.
    """

    family: WeightFamily
    variance: float
    kurtosis: float
    initializer: Initializer | None = None
    gain: float = 1.0
    sample_variance: float | None = None
    sample_kurtosis: float | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    scale_error: float = 0.0

    def __post_init__(self) -> None:
        number_in(self.scale_error, "scale error", 0.0)
        choice(self.family, "weight family", _FAMILIES)
        number_in(self.variance, "weight variance", 0.0)
        number_in(self.kurtosis, "weight kurtosis", 1.0 - 1e-9)
        number_in(self.gain, "gain", 0.0, low_open=True)

    @classmethod
    def from_initializer(cls, name: str, fan_in: int, fan_out: int, gain: float = 1.0) -> WeightLaw:
        """Return the nominal law of initialiser ``name`` for a ``fan_out x fan_in``
        matrix, its standard deviation times ``gain``.
        """
        name = canonical_initializer(name)
        family, variance = INITIALIZERS[name]
        larger = max(fan_in, fan_out)
        kurtosis = 3 * larger / (larger + 2) if family == "haar" else KURTOSIS[family]
        gain = number_in(gain, "gain", 0.0, low_open=True)
        return cls(family, variance(fan_in, fan_out) * (gain * gain), kurtosis, name, gain)

    @classmethod
    def student_t(cls, degrees: float, variance: float) -> WeightLaw:
        """Return the law of iid Student-t entries with ``degrees`` of freedom, scaled
        to ``variance``: kurtosis ``3 + 6/(degrees - 4)``.

        Raises
        ------
        InvalidInput
            With 4 degrees of freedom or fewer: such entries have no fourth moment, and
            the theory does not hold for them.
        """
        if not 4 < degrees < math.inf:
            raise InvalidInput(
                explain(
                    expected="Student-t entries with more than 4 degrees of freedom",
                    got=f"{degrees}: they have no finite fourth moment",
                    do=(
                        "The log-norm has no universal law there; measure the network instead: "
                        "initdiag.measure(model)."
                    ),
                )
            )
        return cls("other", variance, 3 + 6 / (degrees - 4))

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the hypotheses that the actual weights reject."""
        return tuple(h.name for h in self.hypotheses if not h.holds)


@dataclass(frozen=True, slots=True)
class BiasLaw:
    """The law of a bias vector: variance of an entry (about its mean), and whether it
    is symmetric about 0.

    Only a symmetric bias leaves the theory's gates fair coins, and only a symmetric one
    may be flipped in a measurement.
    """

    variance: float
    symmetric: bool = True

    def __post_init__(self) -> None:
        number_in(self.variance, "bias variance", 0.0)
