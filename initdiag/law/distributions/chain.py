r"""The exact distribution of ``ln||Ju||^2`` of a chain, as a ``scipy.stats``
distribution.

Given that no layer is dead, ``Y = ln||Ju||^2`` is a sum of independent ``ln(v_l X_l)``
(`initdiag.law.layer`), whose moment generating functions are known
(`initdiag.law.distributions.transforms`); tails and density are inverted from their
product (`initdiag.law.distributions.line`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag.errors import UnsupportedArchitecture, explain
from initdiag.law.distributions.base import LogLaw
from initdiag.law.distributions.contour import OrthogonalInversion
from initdiag.law.distributions.lattice import LatticeInversion
from initdiag.law.distributions.line import Inversion
from initdiag.law.distributions.mixture import FULL
from initdiag.law.distributions.quantiles import quantiles
from initdiag.law.distributions.sampling import draw
from initdiag.law.distributions.transforms import Factor, Tilt, factors_of
from initdiag.law.kurtosis.corrections import log_fourth_norm
from initdiag.law.prediction import LayerPrediction, Prediction

__all__ = ["ChainLaw"]

Array = NDArray[np.float64]

_TAILS, _NODES = np.array([1e-12, 1e-6, 1e-3, 0.05, 0.3]), 40
"""Tails at which the entropy's integral is cut, on both sides, and the nodes of each
piece: 160 nodes change the entropy by less than 3e-14 (ReLU, leaky ReLU, orthogonal).
"""


_SMALLEST_TAIL = math.log(1e-13)
"""Log of a tail a little smaller than the smallest that the class promises."""


class ChainLaw(LogLaw):
    """The distribution of ``Y = ln||Ju||^2``, ``||u|| = 1`` (natural log), given that
    no layer is dead.

    A ``scipy.stats`` distribution without shape parameters: ``mean std var cdf sf
    logcdf logsf pdf logpdf ppf isf interval median rvs`` are its methods. Under
    coverage "exact" it is exact: absolute error of the distribution function below 1e-8
    (about 1e-13 in practice), relative error of both tails below 1e-3 down to 1e-12
    (about 1e-10, but 1e-5 where gates that are nearly all closed have a probability
    around 1e-12); from 1e-15 on an order of magnitude. Quantiles invert them to 1e-9 of
    the probability, plus 1e-17. Under coverage "first-order" (iid weights that are not
    Gaussian) it is the exact law of *Gaussian* weights, moved and scaled to the
    corrected log-mean and log-variance, which have errors of their own
    (`Prediction.log_mean_error`, `log_variance_error`); its shape is not corrected, and
    it has no ends: one or two layers of a few bounded entries have a largest
    ``||Ju||^2``, beyond which this law goes on (one single uniform weight: a tenth of
    it).

    Parameters
    ----------
    prediction : Prediction
        Prediction of a chain with coverage "exact" or "first-order".

    Raises
    ------
    UnsupportedArchitecture
        If a layer's weights are all zero (``ln 0`` has no law), or a gate has more than
        two different nonzero values.

    Notes
    -----
    A chain of isometries (orthogonal square linear layers) is a point mass: its
    distribution function is a step, its density infinite there.

    A chain of orthogonal layers alone, with leaky gates and narrow (up to about 64),
    has atoms and a density with jumps: what has all its gates open, or all closed, in
    every layer. It is laid out on a lattice (`initdiag.law.distributions.lattice`):
    atoms exact, absolute error of the distribution function about 1e-7, at most 1e-5
    (1e-3 within a step, 1e-5 of the support, of an edge), no promise for far tails.
    ``cdf`` and ``sf`` take the atoms in; ``pdf`` is the rest's, which integrates to
    less than 1.

    Examples
    --------
    >>> from initdiag import predict
    >>> law = predict([784, 256, 256, 10], init="he_normal").law
    >>> round(float(law.ppf(0.05)), 3), round(float(law.median()), 3)
    (-4.679, -3.761)
    """

    def __init__(self, prediction: Prediction, **constructor: Any) -> None:
        if any(layer.weight_variance == 0 for layer in prediction.layers) or not prediction.layers:
            raise UnsupportedArchitecture(
                explain(
                    expected="a chain with weights that are not all zero",
                    got=(
                        f"{sum(layer.weight_variance == 0 for layer in prediction.layers)} "
                        "layers of zeros"
                    ),
                    do="Initialise every layer: through a layer of zeros no gradient flows.",
                )
            )
        super().__init__(**{"name": "ln||Ju||^2", **constructor})
        self.prediction = prediction
        factors = factors_of(prediction.layers)
        location = math.fsum(factor.count * factor.location for factor in factors)
        random = [factor for factor in factors if not factor.is_constant]
        self._inversion = _inversion(random) if random else None
        center = self._inversion.center if self._inversion else Tilt(0.0, 0.0, 0.0)
        if prediction.coverage == "first-order":
            self._scale = math.sqrt(_positive(prediction.known.log_variance) / center.variance)
            self._location = prediction.known.log_mean - self._scale * center.mean
        else:
            self._scale, self._location = 1.0, location
        self._gaussian_mean = location + center.mean
        self._mean = self._location + self._scale * center.mean
        self._variance = self._scale**2 * center.variance
        edges = [factor.edges for factor in factors]
        self.a, self.b = (
            self._location + self._scale * math.fsum(side) for side in zip(*edges, strict=True)
        )
        if self._has_atoms:
            # at the support's lower end scipy.stats has P(Y > a) = 1
            self.a -= _rounding(self.a)

    @classmethod
    def of(cls, prediction: Prediction) -> ChainLaw:
        """Return the law of a prediction."""
        return cls(prediction)

    def log_moment(self, k: float) -> float:
        """Return ``ln E||Ju||^{2k}`` (natural log), *unconditional*: dead draws count
        0.

        For integer ``k`` and one gate value ``d`` it is ``sum_l ln(v^k d^{2k} E[K (K +
        2) ... (K + 2k - 2)])``, ``K`` the number of open gates. Under coverage
        "first-order" ``k`` = 0, 1 and 2 are exact all the same
        (`initdiag.law.kurtosis.corrections.log_fourth_norm`); other orders are those of
        the moved and scaled law, an approximation whose error `Prediction` does not
        state. Uniform weights, ReLU: at ``k`` = 0.5, 1.5 and 3 it was at most 0.04, 0.5
        and 1.6 for widths of 1 and 2, 0.005, 0.06 and 0.25 for 8, and not seen (0.02)
        for 32.

        Parameters
        ----------
        k : float
            At least 0; ``k = 0`` gives the log of the probability not to be dead.

        Raises
        ------
        InvalidInput
            If ``k`` is negative (dead draws make the moment infinite) or not finite.
        """
        k = self.checked_order(k)
        if self.prediction.coverage == "first-order" and k in (1, 2):
            layers, fourth = self.prediction.layers, self.prediction.u_fourth
            return self.prediction.log_second_moment if k == 1 else log_fourth_norm(layers, fourth)
        alive = math.fsum(math.log1p(-layer.dead_probability) for layer in self.prediction.layers)
        order = np.array([k * self._scale])
        factors = factors_of(self.prediction.layers, FULL)
        relative = math.fsum(float(factor.log_transform(order)[0]) for factor in factors)
        return alive + relative + k * self._location

    def _updated_ctor_param(self) -> dict[str, Any]:
        return {**super()._updated_ctor_param(), "prediction": self.prediction}

    @property
    def _has_atoms(self) -> bool:
        """Whether there may be one at the lower end of the support."""
        return self._inversion is None or (
            isinstance(self._inversion, LatticeInversion) and self._inversion.has_atoms
        )

    def _stats(self) -> tuple[float, float, None, None]:
        return self._mean, self._variance, None, None

    def _log_tail(self, x: Array, side: int) -> Array:
        """Return ``ln P(Y > x)`` (``side`` 1) or ``ln P(Y <= x)`` (-1) for a flat
        array.
        """
        if self._inversion is None:
            return np.where((x < self._mean - _rounding(self._mean)) == (side > 0), 0.0, -math.inf)
        inside = (x > self.a) & (x < self.b)
        result = np.where((x < self._mean) == (side > 0), 0.0, -math.inf)
        result[inside] = self._inversion.log_tail((x[inside] - self._location) / self._scale, side)
        return result

    def _log_density(self, x: Array) -> Array:
        if self._inversion is None:
            return np.where(x == self._mean, math.inf, -math.inf)
        return self._inversion.log_density((x - self._location) / self._scale) - math.log(
            self._scale
        )

    def _logcdf(self, x: Array) -> Array:
        return self._log_tail(x.ravel(), -1).reshape(x.shape)

    def _logsf(self, x: Array) -> Array:
        return self._log_tail(x.ravel(), 1).reshape(x.shape)

    def _cdf(self, x: Array) -> Array:
        return np.exp(self._logcdf(x))

    def _sf(self, x: Array) -> Array:
        return np.exp(self._logsf(x))

    def _logpdf(self, x: Array) -> Array:
        return self._log_density(x.ravel()).reshape(x.shape)

    def _pdf(self, x: Array) -> Array:
        return np.exp(self._logpdf(x))

    def _ppf(self, q: Array) -> Array:
        return self._quantile(q.ravel(), -1).reshape(q.shape)

    def _isf(self, q: Array) -> Array:
        return self._quantile(q.ravel(), 1).reshape(q.shape)

    def _quantile(self, q: Array, side: int) -> Array:
        """Return ``x`` where the tail of ``side`` is ``q``, from the smaller of the two
        tails.
        """
        if self._inversion is None:
            return np.full_like(q, self._mean)
        x = np.empty_like(q)
        deviation = math.sqrt(self._variance)
        for is_other in (False, True):
            here = (q > 0.5) == is_other
            log_probability = np.log1p(-q[here]) if is_other else np.log(q[here])
            tail = -side if is_other else side
            x[here] = quantiles(
                log_probability, tail, self._log_tail, self._log_density, self._mean, deviation
            )
        return self._inversion.on_atoms(x) if isinstance(self._inversion, LatticeInversion) else x

    def _entropy(self) -> float:
        """Return ``-E ln f`` by Gauss-Legendre quadrature between quantiles;
        ``scipy.stats`` would look for the peak on the whole line.
        """
        if self._has_atoms:
            return -math.inf
        edges = np.concatenate([self.ppf(_TAILS), self.isf(_TAILS[::-1])])
        node, weight = np.polynomial.legendre.leggauss(_NODES)
        half = np.diff(edges)[:, None] / 2
        log_density = self._log_density((edges[:-1, None] + half * (1 + node)).ravel()).reshape(
            len(half), -1
        )
        return -float(np.sum(half * weight * np.exp(log_density) * log_density))

    def _rvs(self, size: Any = None, random_state: Any = None) -> Array:
        shape = () if size is None else size
        if self._inversion is None:
            return np.full(shape, self._mean)
        draws = draw(self.prediction.layers, math.prod(np.atleast_1d(shape).tolist()), random_state)
        moved = self._mean + self._scale * (draws - self._gaussian_mean)
        return np.asarray(moved.reshape(shape))


def _rounding(place: float) -> float:
    """Return the rounding error of a sum of logarithms."""
    return 1e-13 * (1 + abs(place))


def _inversion(factors: Sequence[Factor]) -> Inversion | OrthogonalInversion | LatticeInversion:
    """Return what inverts the transform of these factors, by how it decays."""
    if not all(factor.half_radius for factor in factors):
        return Inversion(factors)
    if all(factor.offsets.shape[1] == 1 for factor in factors):
        return OrthogonalInversion(factors)
    return _of_leaky_haar_layers(tuple((factor.layer, factor.count) for factor in factors))


@functools.lru_cache(maxsize=4)
def _of_leaky_haar_layers(
    layers: tuple[tuple[LayerPrediction, int], ...],
) -> Inversion | LatticeInversion:
    """Return the same inversion for the same layers: a report asks for its law several
    times, and this costs up to a second.
    """
    factors = [Factor.of(layer, count) for layer, count in layers]
    inversion = Inversion(factors)
    return inversion if inversion.reaches(_SMALLEST_TAIL) else LatticeInversion(factors)


def _positive(variance: float) -> float:
    """Return the corrected log-variance, if there is a law with it."""
    if variance <= 0:
        raise UnsupportedArchitecture(
            explain(
                expected="a first-order log-variance above 0",
                got=f"{variance:g}: the weights are too far from Gaussian for layers so narrow",
                do="Measure the network instead: initdiag.measure(model).",
            )
        )
    return variance
