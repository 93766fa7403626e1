"""The law of a sample, as a ``scipy.stats`` distribution: what a simulation has for a
law.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from initdiag.errors import UnsupportedArchitecture
from initdiag.law.distributions.base import LogLaw

__all__ = ["EmpiricalLaw"]


class EmpiricalLaw(LogLaw):
    """The distribution of simulated draws of ``ln||Ju||^2`` that are not dead.

    ``cdf`` interpolates the sample's distribution function, ``ppf`` its quantiles;
    ``pdf`` is a kernel estimate (Scott's rule). Accurate to the sample's size: nothing
    is known beyond its extremes.
    """

    def __init__(self, log_norms: NDArray[np.float64], **constructor: Any) -> None:
        super().__init__(**{"name": "simulated ln||Ju||^2", **constructor})
        self._alive = np.sort(log_norms[np.isfinite(log_norms)])
        if len(self._alive) < 2:
            raise UnsupportedArchitecture(
                f"{len(self._alive)} of {len(log_norms)} simulated draws are not dead: too few "
                "for a law."
            )
        if np.isposinf(log_norms).any():
            raise UnsupportedArchitecture(
                "some of the simulated draws overflow, so that there is no law of a finite mean."
            )
        self._share_alive = len(self._alive) / len(log_norms)
        self._levels = (np.arange(len(self._alive)) + 0.5) / len(self._alive)
        self.a, self.b = float(self._alive[0]), float(self._alive[-1])

    def _cdf(self, x: Any) -> Any:
        return np.interp(x, self._alive, self._levels)

    def _ppf(self, q: Any) -> Any:
        return np.interp(q, self._levels, self._alive)

    def _pdf(self, x: Any) -> Any:
        x = np.asarray(x)
        return stats.gaussian_kde(self._alive)(x.ravel()).reshape(x.shape)

    def _stats(self) -> tuple[float, float, float, float]:
        sample = self._alive
        return (
            float(sample.mean()),
            float(sample.var(ddof=1)),
            float(stats.skew(sample)),
            float(stats.kurtosis(sample)),
        )

    def log_moment(self, k: float) -> float:
        """Return ``ln E||Ju||^{2k}`` over all draws, dead ones counting 0 (natural
        log).

        Raises
        ------
        InvalidInput
            If ``k`` is negative (dead draws make the moment infinite) or not finite.
        """
        k = self.checked_order(k)
        n = len(self._alive)
        return float(special.logsumexp(k * self._alive)) - math.log(n) + math.log(self._share_alive)
