"""The common base of the laws of a logarithm: what all of them do otherwise than
``scipy.stats``.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from scipy import stats

from initdiag.errors import InvalidInput, explain

__all__ = ["LogLaw"]


class LogLaw(stats.rv_continuous):  # type: ignore[misc]
    """A ``scipy.stats`` distribution without shape parameters, whose draws are asked
    for by their number first.
    """

    @staticmethod
    def checked_order(k: Any) -> float:
        """Return the order of a moment, a finite number of at least 0.

        Raises
        ------
        InvalidInput
            If it is negative (dead draws make the moment infinite), not finite, or no
            number.
        """
        if isinstance(k, bool) or not isinstance(k, Real) or not 0 <= float(k) < math.inf:
            raise InvalidInput(
                explain(
                    expected="an order k >= 0",
                    got=repr(k),
                    do="Give a finite order, 1 for the mean.",
                )
            )
        return float(k)

    def rvs(
        self, size: Any = None, random_state: Any = None, *, loc: float = 0.0, scale: float = 1.0
    ) -> Any:
        """Return random draws.

        Parameters
        ----------
        size : int or tuple of int, optional
            Shape of the result; a single number if not given. (The first positional
            argument of ``scipy.stats`` would be ``loc``.)
        random_state : int, numpy Generator or RandomState, optional
            See ``scipy.stats``.
        loc, scale : float
            As in ``scipy.stats``: the draws are multiplied by ``scale`` and shifted by
            ``loc``.
        """
        return super().rvs(loc=loc, scale=scale, size=size, random_state=random_state)
