"""The law ensemble: each linear layer of the user's module is replaced by its law,
inside the module's own forward.

Given the vectors that enter a layer with Gaussian weights used once, their images are
Gaussian too, iid over the outputs, with ``v`` times the Gram matrix of the inputs for
covariance. So every row of a batch is an independent network at the cost of a layer's
width, and residual sums, norms, gates and concatenations run as the user wrote them. A
layer that is applied to several positions takes all of them, and their tangents, into
one Gram matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.interposer import LinearUse
from initdiag.measuring.passes.modes import Parts
from initdiag.network.architecture import Layer

__all__ = ["GaussianLayers"]


class GaussianLayers:
    """Layers drawn from their law for one chunk of draws.

    Parameters
    ----------
    seed, draws : int, range
        Draw ``i`` has the same numbers in every chunk.
    layers : mapping
        Weight name -> its layer, in the order of execution.
    """

    values: Mapping[str, Tensor] = {}

    def __init__(self, seed: int, draws: range, layers: Mapping[str, Layer]) -> None:
        self._seed, self._draws, self._layers = seed, draws, layers
        self._order = {name: index for index, name in enumerate(layers)}

    def apply(self, use: LinearUse, parts: Parts) -> Parts:
        """Return ``W_i x_i`` for a fresh Gaussian ``W_i`` a row, the same for all
        ``parts``.
        """
        name = use.name
        if use.is_computed:
            raise UnsupportedArchitecture(
                f"{name!r} is computed from parameters, so that no Gaussian law stands for it. "
                "Use method='signs' or 'redraw'."
            )
        if use.earlier:
            raise UnsupportedArchitecture(
                f"{name!r} is used twice, and its second use depends on the first: its law alone "
                "does not simulate it. Use method='signs' or 'redraw'."
            )
        layer = self._layers[name]
        x = parts[0]
        vectors = torch.cat([part.reshape(len(x), -1, x.shape[-1]) for part in parts], 1)
        images = _gram_root(vectors) @ self._normals(name, vectors, layer.fan_out)
        images = images * math.sqrt(layer.weight.variance)
        shape = (*x.shape[:-1], layer.fan_out)
        return tuple(image.reshape(shape) for image in images.chunk(len(parts), 1))

    def bias(self, use: LinearUse | None, bias_name: str, bias: Tensor) -> Tensor:
        """Return fresh Gaussian biases of the layer's bias variance.

        A bias whose law is not symmetric stays as it is.
        """
        name = "" if use is None else use.name
        law = self._layers[name].bias if name in self._layers else None
        if law is None or not law.symmetric:
            return bias
        stream = 2 * self._order[name] + 1
        values = random_numbers.normals(self._seed, self._draws, stream, bias.numel())
        return values.to(bias.device, bias.dtype) * math.sqrt(law.variance)

    def _normals(self, name: str, vectors: Tensor, fan_out: int) -> Tensor:
        count = vectors.shape[1]
        values = random_numbers.normals(
            self._seed, self._draws, 2 * self._order[name], count * fan_out
        )
        return values.view(len(vectors), count, fan_out).to(vectors.device, vectors.dtype)


def _gram_root(vectors: Tensor) -> Tensor:
    """Return a triangular root of each row's Gram matrix, by Gram-Schmidt: vectors
    ``(rows, k, n)`` -> ``(rows, k, k)``.

    Taken from a QR decomposition, which keeps its accuracy where vectors are nearly
    parallel and needs none where they are zero. Each vector is divided by its largest
    entry first, and its row of the root multiplied by it, so that squares stay in
    range.
    """
    peak = vectors.abs().amax(2, keepdim=True)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    vectors = vectors / safe
    if vectors.shape[1] == 2:
        return _root_of_two(*vectors.unbind(1)) * safe
    _, r = torch.linalg.qr(vectors.mT, mode="r")
    return _square(r, vectors.shape[1]).mT * safe


def _root_of_two(x: Tensor, t: Tensor) -> Tensor:
    """Return that root for a primal and its tangent, by hand: a batch of decompositions
    costs more than all else.
    """
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    unit = x / torch.where(length > 0, length, torch.ones_like(length))
    along = (unit * t).sum(1, keepdim=True)
    across = torch.linalg.vector_norm(t - along * unit, dim=1, keepdim=True)
    return torch.cat([length, torch.zeros_like(length), along, across], 1).view(-1, 2, 2)


def _square(r: Tensor, k: int) -> Tensor:
    """Add rows of zeros to ``r`` where there are more vectors than dimensions."""
    missing = k - r.shape[-2]
    return r if missing <= 0 else torch.nn.functional.pad(r, (0, 0, 0, missing))
