"""What the theory needs to know of a network: a chain of layers, and the gaps where it
is not one.

A chain is ``D_L W_L ... D_1 W_1``: layer ``l`` has a weight law (variance ``v_l`` of an
entry), ``fan_in`` inputs, ``fan_out`` outputs, and a *gate* ``D_l``, the diagonal of
the activation's derivatives. Everything here is frozen and validated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initdiag._core.summary import Summarised
from initdiag._core.validation import number_in, positive_integer
from initdiag.errors import InvalidInput, explain
from initdiag.network.activation import ACTIVATIONS, Activation, ActivationName, Gate
from initdiag.network.weights import (
    INITIALIZERS,
    KURTOSIS,
    BiasLaw,
    Hypothesis,
    WeightLaw,
    canonical_initializer,
)

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "KURTOSIS",
    "UNREPEATABLE",
    "Activation",
    "ActivationName",
    "Architecture",
    "BiasLaw",
    "Gap",
    "Gate",
    "Hypothesis",
    "InputMap",
    "Layer",
    "WeightLaw",
    "canonical_initializer",
]


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear map and the activation after it: ``x -> activation(W x + b)``, ``W``
    of shape ``(fan_out, fan_in)``.
    """

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
        """RMS gain of a perturbation through the layer, ``sqrt(v fan_in E d^2)``; NaN
        where the gate is not discrete.
        """
        gate = self.activation.gate
        return (
            math.nan
            if gate is None
            else math.sqrt(self.weight.variance * self.fan_in * gate.second_moment)
        )

    @property
    def is_haar(self) -> bool:
        """Whether the weight matrix is orthogonal (Haar), not iid."""
        return self.weight.family == "haar"

    @property
    def is_linear_output(self) -> bool:
        """Whether the layer, as the last of a network, gives a linear output.

        It does if no activation follows it; a dropout may (`Gate.is_linear`). With
        ``v`` the gradient at the output, ``delta = D v`` then: ``D`` is the dropout's
        mask or 1, and the layer's own weights are in no weight's gradient but through
        the input's. The mask is in every one.
        """
        gate = self.activation.gate
        return gate is not None and gate.is_linear


@dataclass(frozen=True, slots=True)
class Gap:
    """What in a module is not part of a plain chain: where (``path``), what ``kind``,
    and why, in words.
    """

    path: str
    kind: str
    reason: str


_FIXED_MAP = "preprocessing"
"""The kind of `InputMap.gap`, as reports of schema 1 spell it."""


@dataclass(frozen=True, slots=True)
class InputMap:
    """A fixed map of the input in front of all layers, e.g. a positional encoding, a
    division by 255 or a layer norm: it has no parameter but a norm's scale and shift,
    and everything passes through it.

    It is not judged: what is judged begins at the first layer.

    Attributes
    ----------
    functions : tuple of str
        What is called in it, in the order of execution.
    """

    functions: tuple[str, ...]

    @property
    def gap(self) -> Gap:
        """The map's entry among the gaps of an architecture: it makes the whole network
        no plain chain.
        """
        what = ", ".join(self.functions)
        return Gap(
            "input",
            _FIXED_MAP,
            f"{what}: a fixed map of the input, in front of all layers; what follows it is judged",
        )

    @classmethod
    def among(cls, gaps: Sequence[Gap]) -> InputMap | None:
        """Return the map that one of these gaps is the entry of; None without one."""
        for gap in gaps:
            if gap.kind == _FIXED_MAP:
                return cls(tuple(gap.reason.partition(":")[0].split(", ")))
        return None


UNREPEATABLE = frozenset(("gradients", "parameters", "path", "random", "state", "weights"))
"""Kinds of gaps that a simulation through the module's own forward does not see.

The backward pass is another one than the forward pass tells, or the forward pass does
not do the same each time, or not with other weights.
"""


@dataclass(frozen=True, slots=True, repr=False)
class Architecture(Summarised):
    """A network as the theory sees it: the linear layers in the order of execution, and
    the gaps.

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
        Root mean square of an input's features: the scale of the input matters to every
        activation but ReLU's family.
    shortest : int or None
        Linear layers on the shortest way from input to output, where skip connections
        connections go around some; None: all of them.
    ways : tuple of str
        What is perturbed and what is judged, in words, of a module that takes or
        returns anything but one tensor.
    """

    layers: tuple[Layer, ...]
    input_size: int
    output_size: int
    gaps: tuple[Gap, ...] = ()
    unused: tuple[str, ...] = ()
    source: str = "widths"
    training: bool = True
    input_rms: float = 1.0
    shortest: int | None = None
    ways: tuple[str, ...] = ()

    def _summary(self) -> dict[str, str]:
        facts = {"source": self.source, "linear layers": str(len(self.layers))}
        if self.gaps:
            return facts | {"gaps": str(len(self.gaps))}
        widths = [str(width) for width in self.widths]
        if len(widths) > 8:
            widths[4:-2] = ["..."]
        return facts | {"widths": ", ".join(widths)}

    def __post_init__(self) -> None:
        positive_integer(self.input_size, "input_size")
        positive_integer(self.output_size, "output_size")
        number_in(self.input_rms, "input_rms", 0.0)
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
    def depth(self) -> int:
        """Linear layers that a gradient cannot go around: all of a chain's."""
        return len(self.layers) if self.shortest is None else self.shortest

    @property
    def input_map(self) -> InputMap | None:
        """What is done to the input before the first layer; None where nothing is."""
        return InputMap.among(self.gaps)

    @property
    def first_layer(self) -> Layer | None:
        """The layer that the `input_map` leads to; None where there is no such map."""
        return None if self.input_map is None else self.layers[0]

    @property
    def linear_output(self) -> Layer | None:
        """The last layer, if it gives the output and is linear
        (`Layer.is_linear_output`); else None.
        """
        last = self.layers[-1] if self.layers else None
        if last is None or last.fan_out != self.output_size or not last.is_linear_output:
            return None
        return last

    @property
    def chain(self) -> Architecture | None:
        """The architecture itself if it is a chain, or the chain behind the `input_map`
        if that is all its gaps; else None.
        """
        if not self.gaps:
            return self
        if self.input_map is None or len(self.gaps) > 1:
            return None
        size = self.layers[0].fan_in
        return dataclasses.replace(self, input_size=size, gaps=(), shortest=None)

    @property
    def widths(self) -> tuple[int, ...]:
        """``(n_0, n_1, ..., n_L)`` of the chain."""
        return (self.input_size, *(layer.fan_out for layer in self.layers))

    @classmethod
    def from_widths(
        cls,
        widths: Sequence[int],
        activation: ActivationName = "relu",
        output: ActivationName = "linear",
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
            Activations of the hidden layers and of the last: names from
            ``ACTIVATIONS``.
        init : str or one a layer
            A key of ``INITIALIZERS`` (``kaiming_*`` is understood), the output layer
            included.
        gain : float or one a layer
            Multiplies every weight's standard deviation.
        dropout : float or one a hidden layer
            Rate of dropout after hidden activations.
        negative_slope : float
            Slope of ``leaky_relu`` below zero.
        input_rms : float
            Root mean square of an input's features.

        Raises
        ------
        InvalidInput
            If a width is not a positive integer, there are fewer than two, or a name or
            number is out of range.

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
                weight=WeightLaw.from_initializer(
                    inits[index], sizes[index], sizes[index + 1], gains[index]
                ),
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
        activation: ActivationName | None = None,
        output: ActivationName | None = None,
        dropout: float | None = None,
        negative_slope: float | None = None,
    ) -> Architecture:
        """Return the same widths under other assumptions; what is not named stays as it
        is.

        ``gain`` alone multiplies the present weights' standard deviation; with ``init``
        it multiplies the initialiser's. ``negative_slope`` is that of every leaky ReLU,
        the present ones too; 0.01 for a new one if not given.

        Raises
        ------
        InvalidInput
            As `from_widths`, and for a ``negative_slope`` without a leaky ReLU.
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
                layer = dataclasses.replace(
                    layer, activation=_adjusted(layer.activation, rate, negative_slope)
                )
            layers.append(_reinitialised(layer, inits[index], gains[index]))
        if negative_slope is not None and all(
            layer.activation.name != "leaky_relu" for layer in layers
        ):
            raise InvalidInput(
                explain(
                    expected="negative_slope of leaky_relu alone",
                    got=f"{negative_slope!r} for a network without one",
                    do='Give activation="leaky_relu" with it.',
                )
            )
        return dataclasses.replace(self, layers=tuple(layers))


def _adjusted(activation: Activation, dropout: float, negative_slope: float | None) -> Activation:
    """Return the activation with this dropout and, for a leaky ReLU, this slope; the
    same object if nothing changes.
    """
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
    gain = number_in(gain, "gain", 0.0, low_open=True)
    weight = dataclasses.replace(
        layer.weight,
        variance=layer.weight.variance * (gain * gain),
        gain=layer.weight.gain * gain,
        sample_variance=None,
        sample_kurtosis=None,
    )
    return dataclasses.replace(layer, weight=weight)


def _nominal_bias(init: str, fan_in: int) -> BiasLaw | None:
    """Return the usual law of the bias: PyTorch's default draws it like the weights,
    every other initialiser leaves it at zero.
    """
    return BiasLaw(1 / (3 * fan_in)) if init == "torch_default" else None


def _activation(name: ActivationName, dropout: float, negative_slope: float) -> Activation:
    return Activation(
        name,
        negative_slope if name == "leaky_relu" else 0.0,
        number_in(dropout, "dropout", 0.0, 1.0),
    )


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
    """Return ``count`` values: ``value`` itself for each, or its own items if it is a
    sequence of that length.
    """
    if value is None or isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise InvalidInput(
            explain(
                expected=f"{what}: one value, or {count}",
                got=f"{len(value)} values",
                do="Give one a layer.",
            )
        )
    return list(value)
