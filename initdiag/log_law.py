"""The common base of the laws of a logarithm: what all of them do otherwise than ``scipy.stats``."""

from __future__ import annotations

from typing import Any

from scipy import stats

__all__ = ["LogLaw"]


class LogLaw(stats.rv_continuous):  # type: ignore[misc]
    """A ``scipy.stats`` distribution without shape parameters, whose draws are asked for by their number first."""

    def rvs(self, size: Any = None, random_state: Any = None, *, loc: float = 0.0, scale: float = 1.0) -> Any:
        """Return random draws.

        Parameters
        ----------
        size : int or tuple of int, optional
            Shape of the result; a single number if not given. (The first positional argument of ``scipy.stats`` would be ``loc``.)
        random_state : int, numpy Generator or RandomState, optional
            As in ``scipy.stats``.
        loc, scale : float
            As in ``scipy.stats``: the draws are multiplied by ``scale`` and shifted by ``loc``.
        """
        return super().rvs(loc=loc, scale=scale, size=size, random_state=random_state)
