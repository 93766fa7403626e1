"""What the theory needs to know of a network: a chain of layers, and the gaps where it is not one.

A chain is ``D_L W_L ... D_1 W_1``: layer ``l`` has a weight law (variance ``v_l`` of an entry), ``fan_in`` inputs, ``fan_out``
outputs, and a *gate* ``D_l``, the diagonal of the activation's derivatives. Everything here is frozen and validated.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from initdiag.errors import InvalidInput, explain

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "Activation",
    "Architecture",
    "BiasLaw",
    "Gap",
    "Gate",
    "Hypothesis",
    "Layer",
    "WeightLaw",
    "canonical_initializer",
    "positive_integer",
]

KURTOSIS = {"normal": 3.0, "uniform": 9 / 5, "truncated_normal": 2.3655367}
"""E w^4 / (E w^2)^2 of an entry, by family (textbook values; the normal truncated at 2 standard deviations)."""

ACTIVATIONS = (
    "linear", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "elu", "selu", "softplus", "hardtanh", "relu6", "rrelu",
)  # fmt: skip
"""The activations that an ``Activation`` may name; the first three have a discrete gate, which the laws are exact for.

``rrelu`` is the one in train mode, whose slope is drawn from a range: in eval mode it is ``leaky_relu`` with the mean slope.
"""


_FAMILIES = (*KURTOSIS, "haar", "sparse", "other")


def _fan_in(numerator: float) -> Callable[[int, int], float]:
    return lambda fan_in, fan_out: numerator / fan_in


def _fan_out(numerator: float) -> Callable[[int, int], float]:
    return lambda fan_in, fan_out: numerator / fan_out


def _xavier(fan_in: int, fan_out: int) -> float:
    return 2.0 / (fan_in + fan_out)


def _orthogonal(fan_in: int, fan_out: int) -> float:
    return 2.0 / max(fan_in, fan_out)


INITIALIZERS: dict[str, tuple[str, Callable[[int, int], float]]] = {
    "torch_default": ("uniform", _fan_in(1 / 3)),  # nn.Linear.reset_parameters: uniform on +-1/sqrt(fan_in)
    "he_normal": ("normal", _fan_in(2.0)),  # He et al. 2015, arXiv 1502.01852
    "he_uniform": ("uniform", _fan_in(2.0)),
    "he_normal_fan_out": ("normal", _fan_out(2.0)),
    "he_uniform_fan_out": ("uniform", _fan_out(2.0)),
    "xavier_normal": ("normal", _xavier),  # Glorot and Bengio 2010
    "xavier_uniform": ("uniform", _xavier),
    "lecun_normal": ("normal", _fan_in(1.0)),  # LeCun et al. 1998
    "lecun_uniform": ("uniform", _fan_in(1.0)),
    "he_truncated_normal": ("truncated_normal", _fan_in(2.0)),  # Keras, JAX: truncated at 2 sd, then this variance
    "xavier_truncated_normal": ("truncated_normal", _xavier),
    "lecun_truncated_normal": ("truncated_normal", _fan_in(1.0)),
    "orthogonal": ("haar", _orthogonal),  # Saxe et al. 2014 with the factor sqrt 2 that ReLU asks for
}
"""Initialiser name -> (family, variance of an entry from fan_in and fan_out)."""


def positive_integer(value: Any, what: str) -> int:
    """Return ``value`` as an int of at least 1.

    Raises
    ------
    InvalidInput
        If it is not an integer, or below 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise InvalidInput(
            explain(expected=f"{what}: a positive integer", got=repr(value), do="Give whole numbers >= 1.")
        )
    return number


def _number(value: Any, what: str, low: float, high: float = math.inf, *, low_open: bool = False) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (low <= number < high) or (low_open and number == low) or isinstance(value, bool | str):
        bounds = f"{'>' if low_open else '>='} {low:g}" + (f" and < {high:g}" if math.isfinite(high) else "")
        raise InvalidInput(explain(expected=f"{what}: a finite number {bounds}", got=repr(value), do=f"Change {what}."))
    return number


def _choice(value: Any, what: str, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise InvalidInput(
            explain(expected=f"{what}: one of {', '.join(choices)}", got=repr(value), do="Choose one of these.")
        )
    return value


def canonical_initializer(name: Any) -> str:
    """Return the name under which ``INITIALIZERS`` knows ``name`` (``kaiming_*`` is ``he_*``, ``glorot_*`` is ``xavier_*``).

    >>> canonical_initializer("kaiming_normal")
    'he_normal'
    """
    if isinstance(name, str):
        name = name.replace("kaiming_", "he_").replace("glorot_", "xavier_")
    return _choice(name, "init", tuple(INITIALIZERS))


@dataclass(frozen=True, slots=True)
class Gate:
    """The finite discrete law of an activation's derivative ``d``: ``values`` with ``probabilities``.

    ReLU is ``Gate((0, 1), (1/2, 1/2))`` (Hanin and Nica 2018, Proposition 2: for symmetric weights the gates may be
    replaced by independent fair coins).
    """

    values: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        total = math.fsum(self.probabilities)
        if len(self.values) != len(self.probabilities) or not self.values or abs(total - 1) > 1e-12:
            raise InvalidInput(
                explain(
                    expected="as many gate values as probabilities, which sum to 1",
                    got=f"{self.values} with {self.probabilities}",
                    do="Give every value its probability.",
                )
            )
        for p in self.probabilities:
            _number(p, "a gate probability", 0.0, math.nextafter(1.0, 2.0))
        if not all(math.isfinite(d) for d in self.values) or self.second_moment == 0.0:
            raise InvalidInput(
                explain(
                    expected="finite gate values that are not all 0",
                    got=str(self.values),
                    do="A gate that is never open makes a network without gradient.",
                )
            )

    def moment(self, order: int) -> float:
        """Return E d^order."""
        return _moment(self, order)

    @property
    def second_moment(self) -> float:
        """E d^2."""
        return self.moment(2)

    @property
    def kurtosis(self) -> float:
        """``c = E d^4 / (E d^2)^2``; ``1/p`` for a gate that is open with probability ``p``."""
        return self.moment(4) / self.moment(2) ** 2

    @property
    def closed_probability(self) -> float:
        """P(d = 0)."""
        return math.fsum(p for d, p in zip(self.values, self.probabilities, strict=True) if d == 0.0)


@functools.lru_cache(maxsize=1024)
def _moment(gate: Gate, order: int) -> float:
    return math.fsum(p * d**order for d, p in zip(gate.values, gate.probabilities, strict=True))


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation, with the inverted dropout that follows it (or precedes the next layer).

    Attributes
    ----------
    name : str
        One of ``ACTIVATIONS``.
    negative_slope : float
        Slope on the negative side; used by ``leaky_relu`` alone, 0 elsewhere.
    dropout : float
        Rate of an active dropout, in [0, 1); 0 in eval mode.
    """

    name: str
    negative_slope: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _choice(self.name, "activation", ACTIVATIONS)
        _number(self.dropout, "dropout", 0.0, 1.0)
        if not math.isfinite(self.negative_slope) or (self.negative_slope and self.name != "leaky_relu"):
            raise InvalidInput(
                explain(
                    expected="a finite negative_slope, of leaky_relu alone",
                    got=f"{self.negative_slope} for {self.name}",
                    do="Leave negative_slope out.",
                )
            )

    @property
    def gate(self) -> Gate | None:
        """The discrete law of the derivative, dropout included; None where it is not discrete (tanh, GELU ...)."""
        return _gate(self)

    @property
    def label(self) -> str:
        """The name in words for a report, e.g. ``leaky ReLU 0.01, dropout 0.1``."""
        words = {
            "relu": "ReLU",
            "leaky_relu": f"leaky ReLU {self.negative_slope:g}",
            "relu6": "ReLU6",
            "rrelu": "RReLU",
        }
        text = words.get(self.name, self.name)
        return f"{text}, dropout {self.dropout:g}" if self.dropout else text


@functools.lru_cache(maxsize=1024)
def _gate(activation: Activation) -> Gate | None:
    """`Activation.gate`; a network has few activations and asks for their gates often."""
    branches = {"linear": (1.0,), "relu": (0.0, 1.0), "leaky_relu": (activation.negative_slope, 1.0)}.get(
        activation.name
    )
    if branches is None:
        return None
    keep, share = 1.0 - activation.dropout, 1.0 / len(branches)
    law: dict[float, float] = {}
    for value in branches:
        law[value / keep] = law.get(value / keep, 0.0) + share * keep
        if activation.dropout:
            law[0.0] = law.get(0.0, 0.0) + share * activation.dropout
    return Gate(tuple(law), tuple(law.values()))


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
        ``"normal"``, ``"uniform"``, ``"truncated_normal"``, ``"haar"``, ``"sparse"`` (normal, with equally many zeros in every column)
        or ``"other"`` (iid with the stated moments).
    variance : float
        Of an entry (nominal where ``initializer`` is named, the sample's otherwise). 0 for an all-zero matrix.
    kurtosis : float
        E w^4 / (E w^2)^2 of an entry: 3 if Gaussian.
    initializer : str or None
        The recognised or assumed initialiser, a key of ``INITIALIZERS``.
    gain : float
        What the initialiser's standard deviation is multiplied by.
    sample_variance, sample_kurtosis : float or None
        Of the actual entries, about zero; None for a law that was assumed, not read from a module.
    hypotheses : tuple of Hypothesis
        The tests made on the actual entries.
    """

    family: str
    variance: float
    kurtosis: float
    initializer: str | None = None
    gain: float = 1.0
    sample_variance: float | None = None
    sample_kurtosis: float | None = None
    hypotheses: tuple[Hypothesis, ...] = ()

    def __post_init__(self) -> None:
        _choice(self.family, "weight family", _FAMILIES)
        _number(self.variance, "weight variance", 0.0)
        _number(self.kurtosis, "weight kurtosis", 1.0 - 1e-9)
        _number(self.gain, "gain", 0.0, low_open=True)

    @classmethod
    def from_initializer(cls, name: str, fan_in: int, fan_out: int, gain: float = 1.0) -> WeightLaw:
        """Return the nominal law of initialiser ``name`` for a ``fan_out x fan_in`` matrix, its standard deviation times ``gain``."""
        name = canonical_initializer(name)
        family, variance = INITIALIZERS[name]
        larger = max(fan_in, fan_out)
        kurtosis = 3 * larger / (larger + 2) if family == "haar" else KURTOSIS[family]
        gain = _number(gain, "gain", 0.0, low_open=True)
        return cls(family, variance(fan_in, fan_out) * (gain * gain), kurtosis, name, gain)

    @classmethod
    def student_t(cls, degrees: float, variance: float) -> WeightLaw:
        """Return the law of iid Student-t entries with ``degrees`` of freedom, scaled to ``variance``: kurtosis ``3 + 6/(degrees - 4)``.

        Raises
        ------
        InvalidInput
            With 4 degrees of freedom or fewer: such entries have no fourth moment, and the theory does not hold for them.
        """
        if not 4 < degrees < math.inf:
            raise InvalidInput(
                explain(
                    expected="Student-t entries with more than 4 degrees of freedom",
                    got=f"{degrees}: they have no finite fourth moment",
                    do="The log-norm has no universal law there; measure the network instead: initdiag.measure(model).",
                )
            )
        return cls("other", variance, 3 + 6 / (degrees - 4))

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the hypotheses that the actual weights reject."""
        return tuple(h.name for h in self.hypotheses if not h.holds)


@dataclass(frozen=True, slots=True)
class BiasLaw:
    """The law of a bias vector: variance of an entry (about its mean), and whether it is symmetric about 0.

    Only a symmetric bias leaves the theory's gates fair coins, and only a symmetric one may be flipped in a measurement.
    """

    variance: float
    symmetric: bool = True

    def __post_init__(self) -> None:
        _number(self.variance, "bias variance", 0.0)


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear map and the activation after it: ``x -> activation(W x + b)``, ``W`` of shape ``(fan_out, fan_in)``."""

    name: str
    fan_in: int
    fan_out: int
    weight: WeightLaw
    activation: Activation
    bias: BiasLaw | None = None

    def __post_init__(self) -> None:
        positive_integer(self.fan_in, f"fan_in of layer {self.name!r}")
        positive_integer(self.fan_out, f"fan_out of layer {self.name!r}")

    @property
    def gain(self) -> float:
        """RMS gain of a perturbation through the layer, ``sqrt(v fan_in E d^2)``; NaN where the gate is not discrete."""
        gate = self.activation.gate
        return math.nan if gate is None else math.sqrt(self.weight.variance * self.fan_in * gate.second_moment)


@dataclass(frozen=True, slots=True)
class Gap:
    """What in a module is not part of a plain chain: where (``path``), what ``kind``, and why, in words."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as the theory sees it: the linear layers in the order of execution, and the gaps.

    Attributes
    ----------
    layers : tuple of Layer
        Without gaps they form a chain: each ``fan_in`` is the ``fan_out`` before it.
    input_size, output_size : int
        Features a row of input and output has (``n_0`` and ``n_L`` of a chain).
    gaps : tuple of Gap
        Empty for a plain chain: then, and only then, `predict` covers it.
    unused : tuple of str
        Weights that the forward pass never reaches.
    source : str
        What was read: a class name, or ``"widths"``.
    training : bool
        The mode the module was read in (it decides whether dropout is active).
    input_rms : float
        Root mean square of an input's features: the scale of the input matters to every activation but ReLU's family.
    """

    layers: tuple[Layer, ...]
    input_size: int
    output_size: int
    gaps: tuple[Gap, ...] = ()
    unused: tuple[str, ...] = ()
    source: str = "widths"
    training: bool = True
    input_rms: float = 1.0

    def __post_init__(self) -> None:
        positive_integer(self.input_size, "input_size")
        positive_integer(self.output_size, "output_size")
        _number(self.input_rms, "input_rms", 0.0)
        if self.gaps:
            return
        sizes = [self.input_size, *(layer.fan_out for layer in self.layers)]
        fan_ins = [layer.fan_in for layer in self.layers]
        if not self.layers or sizes[:-1] != fan_ins or sizes[-1] != self.output_size:
            raise InvalidInput(
                explain(
                    expected="a chain: every fan_in equal to the fan_out before it",
                    got=f"fan_in {fan_ins}, widths {sizes}, output {self.output_size}",
                    do="Name what lies between as a Gap.",
                )
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """``(n_0, n_1, ..., n_L)`` of the chain."""
        return (self.input_size, *(layer.fan_out for layer in self.layers))

    @classmethod
    def from_widths(
        cls,
        widths: Sequence[int],
        activation: str = "relu",
        output: str = "linear",
        init: str | Sequence[str] = "torch_default",
        gain: float | Sequence[float] = 1.0,
        dropout: float | Sequence[float] = 0.0,
        negative_slope: float = 0.01,
        input_rms: float = 1.0,
    ) -> Architecture:
        """Build the chain ``widths[0] -> ... -> widths[-1]`` under stated assumptions.

        Parameters
        ----------
        widths : sequence of int
            ``n_0, n_1, ..., n_L``, at least two.
        activation, output : str
            Of the hidden layers and of the last: names from ``ACTIVATIONS``.
        init : str or one a layer
            A key of ``INITIALIZERS`` (``kaiming_*`` is understood), the output layer included.
        gain : float or one a layer
            Multiplies every weight's standard deviation.
        dropout : float or one a hidden layer
            Rate of dropout after hidden activations.
        negative_slope : float
            Of ``leaky_relu``.
        input_rms : float
            Root mean square of an input's features.

        Raises
        ------
        InvalidInput
            If a width is not a positive integer, there are fewer than two, or a name or number is out of range.

        Examples
        --------
        >>> Architecture.from_widths([784, 256, 10], init="he_normal").widths
        (784, 256, 10)
        """
        sizes = _validated_widths(widths)
        depth = len(sizes) - 1
        inits, gains = _per_layer(init, depth, "init"), _per_layer(gain, depth, "gain")
        dropouts = [*_per_layer(dropout, depth - 1, "dropout"), 0.0]
        names = [activation] * (depth - 1) + [output]
        layers = tuple(
            Layer(
                name=str(index),
                fan_in=sizes[index],
                fan_out=sizes[index + 1],
                weight=WeightLaw.from_initializer(inits[index], sizes[index], sizes[index + 1], gains[index]),
                activation=_activation(names[index], dropouts[index], negative_slope),
                bias=_nominal_bias(inits[index], sizes[index]),
            )
            for index in range(depth)
        )
        return cls(layers, sizes[0], sizes[-1], input_rms=input_rms)

    def replace(
        self,
        *,
        init: str | Sequence[str] | None = None,
        gain: float | Sequence[float] | None = None,
        activation: str | None = None,
        output: str | None = None,
        dropout: float | None = None,
        negative_slope: float | None = None,
    ) -> Architecture:
        """Return the same widths under other assumptions; what is not named stays as it is.

        ``gain`` alone multiplies the present weights' standard deviation; with ``init`` it multiplies the initialiser's. ``negative_slope`` is that of
        every leaky ReLU, the present ones too; 0.01 for a new one if not given.

        Raises
        ------
        InvalidInput
            As `from_widths`; a ``negative_slope`` without a leaky ReLU.
        """
        depth = len(self.layers)
        inits = _per_layer(init, depth, "init")
        gains = _per_layer(1.0 if gain is None else gain, depth, "gain")
        layers = []
        for index, layer in enumerate(self.layers):
            last = index == depth - 1
            name = output if last else activation
            rate = layer.activation.dropout if last or dropout is None else dropout
            if name is not None:
                slope = 0.01 if negative_slope is None else negative_slope
                layer = dataclasses.replace(layer, activation=_activation(name, rate, slope))
            else:
                layer = dataclasses.replace(layer, activation=_adjusted(layer.activation, rate, negative_slope))
            layers.append(_reinitialised(layer, inits[index], gains[index]))
        if negative_slope is not None and all(layer.activation.name != "leaky_relu" for layer in layers):
            raise InvalidInput(
                explain(
                    expected="negative_slope of leaky_relu alone",
                    got=f"{negative_slope!r} for a network without one",
                    do='Give activation="leaky_relu" with it.',
                )
            )
        return dataclasses.replace(self, layers=tuple(layers))


def _adjusted(activation: Activation, dropout: float, negative_slope: float | None) -> Activation:
    """The same activation with this dropout and, of a leaky ReLU, this slope; itself where nothing changes."""
    given = negative_slope if activation.name == "leaky_relu" else None
    slope = activation.negative_slope if given is None else given
    if (dropout, slope) == (activation.dropout, activation.negative_slope):
        return activation
    return dataclasses.replace(activation, dropout=dropout, negative_slope=slope)


def _reinitialised(layer: Layer, init: str | None, gain: float) -> Layer:
    if init is not None:
        weight = WeightLaw.from_initializer(init, layer.fan_in, layer.fan_out, gain)
        return dataclasses.replace(layer, weight=weight, bias=_nominal_bias(init, layer.fan_in))
    if gain == 1.0:
        return layer
    gain = _number(gain, "gain", 0.0, low_open=True)
    weight = dataclasses.replace(
        layer.weight,
        variance=layer.weight.variance * (gain * gain),
        gain=layer.weight.gain * gain,
        sample_variance=None,
        sample_kurtosis=None,
    )
    return dataclasses.replace(layer, weight=weight)


def _nominal_bias(init: str, fan_in: int) -> BiasLaw | None:
    """PyTorch's default draws the bias like the weights; every other initialiser here leaves it at zero."""
    return BiasLaw(1 / (3 * fan_in)) if init == "torch_default" else None


def _activation(name: str, dropout: float, negative_slope: float) -> Activation:
    return Activation(name, negative_slope if name == "leaky_relu" else 0.0, _number(dropout, "dropout", 0.0, 1.0))


def _validated_widths(widths: Any) -> list[int]:
    try:
        sizes = [positive_integer(n, f"width {i}") for i, n in enumerate(widths)]
    except TypeError:
        sizes = []
    if len(sizes) < 2 or isinstance(widths, str):
        raise InvalidInput(
            explain(
                expected="a sequence of at least two widths, n_0, n_1, ..., n_L",
                got=repr(widths),
                do="Give the input's width, each layer's, and the output's, e.g. [784, 256, 10].",
            )
        )
    return sizes


def _per_layer(value: Any, count: int, what: str) -> list[Any]:
    """Return ``count`` values: ``value`` itself for each, or its own items if it is a sequence of that length."""
    if value is None or isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise InvalidInput(
            explain(expected=f"{what}: one value, or {count}", got=f"{len(value)} values", do="Give one a layer.")
        )
    return list(value)
