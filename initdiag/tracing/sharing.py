"""Weights that are not independent of one another: computed from one parameter, or
copies of each other's values.

A copy is as a shared parameter is: ``copy.deepcopy`` of an initialised layer
(``nn.TransformerEncoder`` makes its layers so) gives twelve layers one draw.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from initdiag.network.architecture import Gap
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.provenance import Origin

__all__ = ["are_multiples", "copies", "kin", "shared_gaps"]

_CORNER = 16
"""Rows and columns of the leading block whose weighted sum tells matrices apart at
once.
"""

_LEAST_ENTRIES = 8
"""Entries other than 0, of several sizes, that cannot agree by chance."""

_LEAST_SIGNS = 64
"""Entries needed if all are of one size, so that signs alone can differ (level
2^-63 a pair).
"""


def kin(
    names: Sequence[str], computed: Mapping[str, Origin], parameters: Mapping[str, Tensor]
) -> dict[str, list[str]]:
    """Return which weights are computed from a parameter of an earlier one: name ->
    ``[earlier, parameter]``.

    A parameter of one entry, such as a common gain, scales both alike and leaves them
    independent.

    Parameters
    ----------
    names : sequence of str
        Names of the weights, in the order of execution.
    computed : mapping
        Where the weights come from that are not parameters.
    parameters : mapping
        Name -> parameter of the module.
    """
    owners: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        origin = computed.get(name)
        for source in (name,) if origin is None else sorted(origin.sources):
            if parameters[source].numel() == 1:
                continue
            owner = owners.setdefault(source, name)
            if owner != name and not _are_parts(name, owner, source):
                found.setdefault(name, [owner, source])
    return found


def _are_parts(first: str, second: str, stack: str) -> bool:
    """Return whether both are matrices out of one stack, which share nothing."""
    return first.startswith(f"{stack}[") and second.startswith(f"{stack}[")


def shared_gaps(found: Mapping[str, Sequence[str]]) -> Iterator[Gap]:
    """Yield a gap for each weight that `kin` found."""
    for name, (earlier, parameter) in found.items():
        yield Gap(name, "shared", f"shares parameter {parameter} with layer {earlier}")


@dataclass(frozen=True, slots=True, order=True)
class _Print:
    """What a matrix, its multiples and their transposes have in common; its place among
    the layers.
    """

    value: float
    index: int


def copies(
    names: Sequence[str], matrices: Sequence[Tensor], sums: Sequence[EntrySums]
) -> dict[str, str]:
    """Return which matrices have the values of an earlier one: name -> earlier name.

    Up to a factor and a transposition, within rounding. Matrices of too few entries to
    tell are left out.
    """
    groups: dict[tuple[int, ...], list[_Print]] = {}
    for i, (matrix, s) in enumerate(zip(matrices, sums, strict=True)):
        if s.nonzero >= (_LEAST_ENTRIES if s.kurtosis > 1.01 else _LEAST_SIGNS):
            groups.setdefault(tuple(sorted(matrix.shape)), []).append(
                _Print(_fingerprint(matrix, s), i)
            )
    found: dict[str, str] = {}
    for group in groups.values():
        for first, *others in _alike(sorted(group), matrices):
            found.update({names[i]: names[first] for i in others if names[i] != names[first]})
    return found


def _fingerprint(matrix: Tensor, sums: EntrySums) -> float:
    """Return a weighted sum over the corner, in standard deviations and symmetric under
    transposition, and the kurtosis, for corners of zeros.
    """
    corner = matrix[:_CORNER, :_CORNER].detach().double().cpu().numpy()
    i, j = np.indices(corner.shape)
    total = float(np.sum(corner * np.cos((i + j + i * j) ** 1.5)))
    return abs(total) / math.sqrt(sums.variance) + sums.kurtosis


def _alike(prints: Sequence[_Print], matrices: Sequence[Tensor]) -> Iterator[list[int]]:
    """Yield sets of matrices with the same values. Only those whose fingerprints are as
    near as rounding leaves copies are compared.
    """
    taken: set[int] = set()
    values = [one.value for one in prints]
    room = _CORNER * max(_eps(matrices[one.index]) for one in prints)
    for k, one in enumerate(prints):
        if one.index in taken:
            continue
        near = (other.index for other in prints[k + 1 : bisect_right(values, one.value + room)])
        same = [i for i in near if i not in taken and _are_alike(matrices[one.index], matrices[i])]
        taken.update(same)
        yield sorted((one.index, *same))


def _eps(matrix: Tensor) -> float:
    return torch.finfo(matrix.dtype).eps


def _are_alike(a: Tensor, b: Tensor) -> bool:
    turned = (b, b.T) if b.shape[0] == b.shape[1] else (b,) if a.shape == b.shape else (b.T,)
    return any(are_multiples(a, c) for c in turned)


def are_multiples(a: Tensor, b: Tensor) -> bool:
    """Return whether ``b`` is a multiple of ``a``, within four roundings; their corners
    are compared first.
    """
    tolerance = 4 * max(_eps(a), _eps(b))
    corners = a[:_CORNER, :_CORNER], b[:_CORNER, :_CORNER]
    return _sine(*corners) <= tolerance * _CORNER and _sine(a, b) <= tolerance


def _sine(a: Tensor, b: Tensor) -> float:
    """Return the sine of the angle between two matrices; 0 where one is zero."""
    x, y = a.detach().double().reshape(-1), b.detach().double().to(a.device).reshape(-1)
    square = float(x @ x)
    size = float(torch.linalg.vector_norm(y))
    return (
        float(torch.linalg.vector_norm(y - x * (float(x @ y) / square))) / size
        if square and size
        else 0.0
    )
