"""Activations, weight and bias gradients, and the gradient at the input, layer by
layer: their laws at initialisation.

For Gaussian weights, without biases and with a linear output, the gradients of all
weights have one law up to a factor: ``docs/theory/gradients.md`` derives it, with the
letters used here, and states what it assumes. Wherever the closed form ends, the norm
is simulated (`initdiag.law.simulate.backward`), and its coverage says so.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from initdiag._core.validation import positive_integer, seed_integer
from initdiag.errors import InvalidInput, UnsupportedArchitecture, explain
from initdiag.law.gradient_records import LayerGradients, NormLaw, ParameterGradients
from initdiag.law.output import NO_DRAW
from initdiag.law.predict import predict
from initdiag.law.prediction import LayerPrediction, Prediction
from initdiag.law.simulate import backward
from initdiag.network.architecture import (
    Activation,
    Architecture,
    Layer,
    WeightLaw,
)

__all__ = ["parameter_gradients"]

Array = NDArray[np.float64]

RandomCotangent = Literal["sphere", "gaussian"]
"""A law of the gradient at the output: a uniform direction, or normal entries."""

_LINEAR = Activation("linear")


def parameter_gradients(
    architecture: Architecture | Sequence[int],
    *,
    cotangent: RandomCotangent | Sequence[float] | Array | Callable[[Array], Array] = "sphere",
    draws: int = 2048,
    seed: int = 0,
    **assumptions: Any,
) -> ParameterGradients:
    """Predict the squared norms of activations, weight and bias gradients of every
    layer, and of ``J^T v``.

    Parameters
    ----------
    architecture : Architecture or sequence of int
        A chain, or widths ``n_0, ..., n_L``. The input has the root mean square
        ``input_rms``: ``||x||^2 = n_0 input_rms^2``.
    cotangent : str, vector, or function
        ``v = dLoss/d(output)``. ``"sphere"``: uniform on the unit sphere;
        ``"gaussian"``: normal with ``E||v||^2 = 1``; a vector of ``n_L`` numbers:
        fixed; a function from outputs to gradients, arrays of shape (draws, n_L): a
        loss', e.g. ``lambda y: y`` for ``||y||^2/2``.
    draws, seed : int
        Draws and seed of the simulation, where one is needed.
    **assumptions
        With widths: as in `Architecture.from_widths`.

    Returns
    -------
    ParameterGradients
        Exact for Gaussian and Haar weights with discrete gates, of first order for
        other iid weights (which takes the direction of the input and of a fixed ``v``
        for uniform ones); simulated for smooth activations, a cotangent that is a
        function, a fixed one behind a gate, and for activations and weight gradients
        above a bias.

    Raises
    ------
    InvalidInput
        If the cotangent is none of these, or 0.
    UnsupportedArchitecture
        If `predict` does not cover the architecture, or a layer's weights or
        its input are all zero.

    Examples
    --------
    >>> found = parameter_gradients([784, 256, 256, 10], init="he_normal")
    >>> [round(layer.weight_gradient.log_variance, 4) for layer in found.layers]
    [0.0396, 0.0396, 0.0396]
    """
    if not isinstance(architecture, Architecture):
        architecture = Architecture.from_widths(architecture, **assumptions)
        assumptions = {}
    draws = positive_integer(draws, "draws")
    _require_cover(architecture, assumptions)
    return _Laws(
        architecture, _Cotangent.of(cotangent, architecture.output_size), draws, seed_integer(seed)
    ).all()


def _require_cover(architecture: Architecture, assumptions: dict[str, Any]) -> None:
    """Refuse what `predict` does not cover, and zeros."""
    _covered(predict(architecture, draws=1, **assumptions))
    zero = [layer.name for layer in architecture.layers if layer.weight.variance == 0]
    if zero or architecture.input_rms == 0:
        raise UnsupportedArchitecture(
            explain(
                expected="an input and weights that are not all zero",
                got=f"zeros in {', '.join(zero) or 'the input'}",
                do="Initialise every layer: ln 0 has no law.",
            )
        )


def _covered(prediction: Prediction) -> Prediction:
    """Return the prediction, or refuse one without a law: a chain may be covered
    forward and too far from Gaussian when transposed.
    """
    if prediction.coverage == "none":
        raise UnsupportedArchitecture(
            f"there is no law of the parameter gradients: {'; '.join(prediction.reasons)}."
        )
    return prediction


@dataclass(frozen=True, slots=True)
class _Cotangent:
    """``v`` as a last random factor (a square matrix of this law, applied to a unit
    vector), and as what the simulation calls.
    """

    weight: WeightLaw | None
    is_fixed: bool
    draw: backward.Cotangent

    @classmethod
    def of(cls, given: Any, size: int) -> _Cotangent:
        if callable(given):
            return cls(None, False, lambda outputs, rng: given(outputs))
        if isinstance(given, str) and given in get_args(RandomCotangent):
            weight = (
                WeightLaw("normal", 1 / size, 3.0) if given == "gaussian" else _isometry(1.0, size)
            )
            return cls(
                weight, False, functools.partial(_random_cotangent, is_unit=given == "sphere")
            )
        try:
            v = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            v = np.empty(0)
        if v.shape != (size,) or not np.isfinite(v).all() or not v.any():
            raise InvalidInput(
                explain(
                    expected=(
                        f'cotangent: "sphere", "gaussian", {size} finite numbers that are '
                        "not all 0, or a function"
                    ),
                    got=repr(given),
                    do="Give dLoss/d(output), one number an output.",
                )
            )
        return cls(
            _isometry(float(v @ v), size), True, lambda outputs, rng: np.tile(v, (len(outputs), 1))
        )


def _random_cotangent(outputs: Array, rng: np.random.Generator, *, is_unit: bool) -> Array:
    v = rng.standard_normal(outputs.shape)
    return v / (np.linalg.norm(v, axis=1, keepdims=True) if is_unit else math.sqrt(v.shape[1]))


def _isometry(square: float, size: int) -> WeightLaw:
    """Return the law of a Haar matrix that turns a unit vector into a uniform one of
    squared norm ``square``.
    """
    return WeightLaw("haar", square / size, 3 * size / (size + 2))


class _Laws:
    """The laws of one chain: in closed form where there is one, from one simulation
    where not. Layers are counted from 1.
    """

    def __init__(
        self, architecture: Architecture, cotangent: _Cotangent, draws: int, seed: int
    ) -> None:
        self.architecture, self.cotangent, self.draws, self.seed = (
            architecture,
            cotangent,
            draws,
            seed,
        )
        layers = architecture.layers
        self.has_gates = all(layer.activation.gate is not None for layer in layers)
        is_fixed_behind_a_gate = cotangent.is_fixed and layers[-1].activation != _LINEAR
        self.has_closed_deltas = (
            self.has_gates and cotangent.weight is not None and not is_fixed_behind_a_gate
        )
        self.until_bias = next(
            (i for i, x in enumerate(layers) if x.bias and x.bias.variance > 0), len(layers)
        )

    def all(self) -> ParameterGradients:
        """Return every norm's law."""
        layers = tuple(
            LayerGradients(layer.name, self.activation(i), self.weight_gradient(i), self.delta(i))
            for i, layer in enumerate(self.architecture.layers, start=1)
        )
        return ParameterGradients(self.delta(0), layers)

    def activation(self, index: int) -> NormLaw:
        """Return the law of ``||a_l||^2``; layer 0 is the input."""
        if self._has_closed_activation(index):
            factors = self._forward.layers[: index + 1]
            return self._closed(factors, self.architecture.layers[:index], factors)
        return self._simulated(self._passes.activations[index])

    def delta(self, index: int) -> NormLaw:
        """Return the law of ``||delta_l||^2``; for layer 0 that of ``||J^T v||^2``."""
        if self.has_closed_deltas:
            factors, layers = self._back_to(index), self.architecture.layers[index:]
            return self._closed(factors, layers, factors + self._dead_below(index))
        return self._simulated(self._passes.deltas[index])

    def weight_gradient(self, index: int) -> NormLaw:
        """Return the law of ``||delta_l||^2 ||a_{l-1}||^2``: independent factors."""
        if self.has_closed_deltas and self._has_closed_activation(index - 1):
            layers = self.architecture.layers
            factors = self._forward.layers[:index] + self._back_to(index)
            return self._closed(factors, layers[: index - 1] + layers[index:], factors)
        return self._simulated(self._passes.deltas[index] + self._passes.activations[index - 1])

    def _has_closed_activation(self, index: int) -> bool:
        return self.has_gates and index <= self.until_bias

    def _back_to(self, index: int) -> tuple[LayerPrediction, ...]:
        return self._backward.layers[: len(self._backward.layers) - index]

    def _dead_below(self, index: int) -> tuple[LayerPrediction, ...]:
        """Return the layers before ``l`` whose death makes ``delta_l`` 0: a ReLU above,
        with no bias between, sees pre-activations 0, where it is closed.
        """
        layers = self.architecture.layers
        relu = next(
            (
                i
                for i in range(max(index, 1), len(layers) + 1)
                if layers[i - 1].activation.name == "relu"
            ),
            None,
        )
        if relu is None:
            return ()
        biased = (
            i
            for i in range(relu, 0, -1)
            if (bias := layers[i - 1].bias) is not None and bias.variance > 0
        )
        return self._forward.layers[next(biased, 1) : index]

    @functools.cached_property
    def _forward(self) -> Prediction:
        """The chain with the input as an isometry before it: its first ``l + 1``
        factors make ``||a_l||^2``.
        """
        arch = self.architecture
        n = arch.input_size
        return _predicted(
            (Layer("input", n, n, _isometry(n * arch.input_rms**2, n), _LINEAR), *arch.layers)
        )

    @functools.cached_property
    def _backward(self) -> Prediction:
        """The chain transposed, ``W_l^T`` followed by the gate below it, ``v`` as a
        matrix before it.
        """
        layers = self.architecture.layers
        n = self.architecture.output_size
        assert self.cotangent.weight is not None
        below = [_LINEAR, *(layer.activation for layer in layers[:-1])]
        back = [
            Layer(layer.name, layer.fan_out, layer.fan_in, layer.weight, activation)
            for layer, activation in zip(layers, below, strict=True)
        ]
        return _predicted(
            (Layer("cotangent", n, n, self.cotangent.weight, layers[-1].activation), *back[::-1])
        )

    @functools.cached_property
    def _passes(self) -> backward.Backpropagation:
        return backward.simulate(self.architecture, self.cotangent.draw, self.draws, self.seed)

    def _closed(
        self,
        factors: tuple[LayerPrediction, ...],
        layers: tuple[Layer, ...],
        alive: tuple[LayerPrediction, ...],
    ) -> NormLaw:
        """Return the law of the product of ``factors``, which come from the weights of
        ``layers``; not 0 if all of ``alive`` are not.
        """
        is_exact = {layer.weight.family for layer in layers} <= {"normal", "haar"}
        log_mean = math.fsum(factor.log_mean for factor in factors)
        log_variance = math.fsum(factor.log_variance for factor in factors)
        rms_gain = log_mean + math.log(factors[0].fan_in / factors[-1].fan_out)
        dead = -math.expm1(math.fsum(math.log1p(-factor.dead_probability) for factor in alive))
        moments = dataclasses.replace(
            self._forward.known,
            log_mean=log_mean,
            log_variance=log_variance,
            rms_gain_log_mean=rms_gain,
            hidden_drift=rms_gain,
            hidden_log_variance=log_variance,
            dead_probability=0.0 + dead,
        )
        chain = dataclasses.replace(
            self._forward,
            coverage="exact" if is_exact else "first-order",
            reasons=() if is_exact else self._forward.reasons,
            moments=moments,
            beta=math.fsum(factor.beta for factor in factors if factor.beta is not None),
            layers=factors,
        )
        return NormLaw(chain)

    def _simulated(self, samples: Array) -> NormLaw:
        others = sorted(
            {layer.weight.family for layer in self.architecture.layers} - {"normal", "haar"}
        )
        reasons = [f"simulated over {self.draws} draws"]
        reasons += [
            f"{family} weights: taken for Gaussian ones of their variance" for family in others
        ]
        sizes = self.architecture.input_size, self.architecture.output_size
        depth = len(self.architecture.layers)
        return NormLaw(
            Prediction.simulated(samples, tuple(reasons), *sizes, output_draw=NO_DRAW, depth=depth)
        )


def _predicted(layers: tuple[Layer, ...]) -> Prediction:
    return _covered(predict(Architecture(layers, layers[0].fan_in, layers[-1].fan_out)))
