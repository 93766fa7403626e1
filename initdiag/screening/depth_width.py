"""The map of risk over depth and width, with one network in it: how deep is safe at
this width, and how wide must it be at this depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initdiag._core.choices import Family, Loss
from initdiag._core.serialization import Record
from initdiag._core.summary import preformatted
from initdiag._core.validation import probability
from initdiag.errors import InvalidInput, explain
from initdiag.screening.screen import screen

__all__ = ["RiskMap", "risk_map"]

_WIDTHS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_DEPTHS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200)
"""Hidden widths and counts of hidden layers that a map shows, beside the network's own:
about equal steps of their logarithms, because the log-variance grows with the quotient.
"""

_DEEPEST = 512
"""Hidden layers up to which the deepest safe network is looked for: the calibration's
networks have up to 60 layers, and none in practice has more than a few hundred.
"""


@dataclass(frozen=True, slots=True, eq=False)
class RiskMap(Record):
    """Risk over depth and width.

    Attributes
    ----------
    fan_in, fan_out : int
        Widths of input and output, the network's own.
    depth, width : int
        Where the network is: its hidden layers, and their width. Of unequal ones it is
        the harmonic mean, whose sum of inverse widths is the network's own.
    own_risk : float
        The network's risk, at its own widths.
    depths, widths : tuple of int
        The rows and columns: hidden layers, and the width of all of them.
    risk : float64 array, one row a depth, one column a width
        Calibrated probability that training does not start.
    deepest : tuple of int
        For each width the most hidden layers such that this network and all shallower
        ones are below the limit: 0 for none, ``deepest_tried`` where that is not the
        end.
    deepest_tried : int
        Hidden layers up to which it was looked for.
    max_risk : float
        The limit.
    optimizer, lr, loss
        The training that the risk is for.
    """

    fan_in: int
    fan_out: int
    depth: int
    width: int
    own_risk: float
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    risk: NDArray[np.float64]
    deepest: tuple[int, ...]
    deepest_tried: int
    max_risk: float
    optimizer: Family | None = None
    lr: float | None = None
    loss: Loss | None = None

    def figure(self) -> Any:
        """Return the map as a `matplotlib.figure.Figure` (needs ``pip install
        'initdiag[plot]'``).

        Raises
        ------
        InitdiagError
            Without matplotlib.
        """
        from initdiag.rendering.risk_map import figure

        return figure(self)

    def __str__(self) -> str:
        from initdiag.rendering.risk_map import to_text

        return to_text(self, width=100)

    def __repr__(self) -> str:
        return f"<initdiag.RiskMap {self.depth} x {self.width}: risk {self.own_risk:.2g}>"

    def _repr_html_(self) -> str:
        return preformatted(str(self))

    def __rich__(self) -> Any:
        from initdiag.rendering.risk_map import renderable

        return renderable(self)


def risk_map(
    widths: Sequence[int],
    *,
    optimizer: Family | None = None,
    max_risk: float = 0.5,
    lr: float | None = None,
    loss: Loss | None = None,
    **assumptions: Any,
) -> RiskMap:
    """Return the risk over depth and width, with one network in it.

    Parameters
    ----------
    widths : sequence of int
        ``n_0, ..., n_L`` of the network: at least one hidden layer. Input and output
        keep their widths throughout the map.
    optimizer, lr, loss
        See `failure_risk`; plain SGD if ``optimizer`` is None.
    max_risk : float
        Risk from which on a network is at risk, 0 to 1.
    **assumptions
        See `Architecture.from_widths`; one value for all layers each, and of the
        activations relu, leaky_relu and linear.

    Returns
    -------
    RiskMap
        ``print`` shows it.

    Raises
    ------
    InvalidInput
        If the widths have no hidden layer, or a value is out of range.
    UnsupportedArchitecture
        For activations whose law is simulated.

    Examples
    --------
    >>> found = risk_map([784, *[16] * 60, 10], init="he_normal")
    >>> found.own_risk >= found.max_risk
    True
    >>> found.deepest[found.widths.index(16)] < 60
    True
    """
    max_risk = probability(max_risk, "max_risk")
    hidden = _hidden(widths)
    fan_in, fan_out = int(widths[0]), int(widths[-1])
    depth, width = len(hidden), max(1, round(len(hidden) / sum(1 / n for n in hidden)))
    depths, columns = _with(_DEPTHS, depth), _with(_WIDTHS, width)
    training: dict[str, Any] = {"optimizer": optimizer or "sgd", "lr": lr, "loss": loss}

    def risks(candidates: list[list[int]]) -> NDArray[np.float64]:
        return screen(candidates, **training, **assumptions).risk

    def network(d: int, n: int) -> list[int]:
        return [fan_in, *[n] * d, fan_out]

    grid = risks([network(d, n) for d in depths for n in columns])
    tried = range(1, _DEEPEST + 1)
    safe = [risks([network(d, n) for d in tried]) < max_risk for n in columns]
    return RiskMap(
        fan_in,
        fan_out,
        depth,
        width,
        float(risks([[fan_in, *hidden, fan_out]])[0]),
        depths,
        columns,
        grid.reshape(len(depths), len(columns)),
        tuple(int(np.argmin(one)) if not one.all() else _DEEPEST for one in safe),
        _DEEPEST,
        max_risk,
        optimizer,
        lr,
        loss,
    )


def _hidden(widths: Sequence[int]) -> list[int]:
    hidden = [int(n) for n in widths[1:-1]]
    if not hidden or min(hidden) < 1:
        raise InvalidInput(
            explain(
                expected="widths of an input, one hidden layer or more, and an output",
                got=f"{list(widths)!r:.80}",
                do="For example [784, 256, 256, 10].",
            )
        )
    return hidden


def _with(usual: Sequence[int], own: int) -> tuple[int, ...]:
    return tuple(sorted({*usual, own}))
