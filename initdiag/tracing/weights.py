"""What the actual weights say: moments, hypotheses tests, and which initialiser they came from.

Everything is read off a few sums over the entries, in float64 and in slices, so that a large matrix costs one pass and no copy.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from initdiag.architecture import INITIALIZERS, KURTOSIS, BiasLaw, Hypothesis, WeightLaw
from initdiag.errors import InvalidInput, explain

__all__ = ["TEST_LEVEL", "EntrySums", "assumed_laws", "bias_law", "weight_laws"]

TEST_LEVEL = 1e-6
"""Level of each hypothesis test: a failed one refuses sign flips, so a deep healthy network must not meet one by chance."""

_SLICE = 1 << 22
"""Entries taken to float64 at a time: 32 MB."""

_VARIANCE_SDS = 4.0
"""Standard errors that a sample variance may lie from an initialiser's: two-sided level 6e-5."""


@dataclass(frozen=True, slots=True)
class EntrySums:
    """Power sums of the entries of a tensor, their signs and largest absolute value (float64)."""

    count: int
    s1: float
    s2: float
    s3: float
    s4: float
    s6: float
    sign: float
    nonzero: float
    largest: float

    @classmethod
    def of(cls, tensor: Tensor, name: str) -> EntrySums:
        """Return the sums of ``tensor``.

        Raises
        ------
        InvalidInput
            If an entry is NaN or infinite, or the dtype is complex or integer.
        """
        if not tensor.is_floating_point():
            raise InvalidInput(
                explain(
                    expected=f"real floating-point weights in {name!r}",
                    got=str(tensor.dtype),
                    do="Convert the module, e.g. model.float().",
                )
            )
        sums = torch.zeros(7, dtype=torch.float64)
        largest = 0.0
        for part in tensor.detach().reshape(-1).split(_SLICE):
            x = part.to(torch.float64)
            square = x * x
            powers = [x.sum(), square.sum(), x @ square, square @ square, square @ (square * square)]
            sums += torch.stack([*powers, x.sign().sum(), x.count_nonzero().double()]).cpu()
            largest = max(largest, float(x.abs().max()))
        if not bool(torch.isfinite(sums).all()) or not math.isfinite(largest):
            raise InvalidInput(
                explain(
                    expected=f"finite weights in {name!r}",
                    got="NaN or infinite entries",
                    do="Check how the parameter is initialised or loaded.",
                )
            )
        s1, s2, s3, s4, s6, sign, nonzero = sums.tolist()
        return cls(tensor.numel(), s1, s2, s3, s4, s6, sign, nonzero, largest)

    @property
    def variance(self) -> float:
        """Mean square of the entries (about 0, as an initialiser's variance is)."""
        return self.s2 / self.count

    @property
    def kurtosis(self) -> float:
        """Mean fourth power over squared mean square; 3 if Gaussian. 3 by convention where all entries are 0."""
        return self.count * self.s4 / self.s2**2 if self.s2 > 0 else 3.0


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _hypotheses(sums: EntrySums) -> tuple[Hypothesis, ...]:
    """Tests of zero mean and of symmetry: sums of odd functions over the roots of their expected squares.

    Symmetry is tested twice, by third powers (which see the tails) and by signs (which see the bulk); the smaller p-value,
    doubled, counts.
    """
    if sums.s2 == 0:
        return ()
    mean = _two_sided(sums.s1 / math.sqrt(sums.s2))
    tails = _two_sided(sums.s3 / math.sqrt(sums.s6))
    bulk = _two_sided(sums.sign / math.sqrt(sums.nonzero))
    tests = {"zero mean": mean, "symmetry": min(1.0, 2 * min(tails, bulk))}
    return tuple(Hypothesis(name, p, p >= TEST_LEVEL) for name, p in tests.items())


def _is_haar(matrix: Tensor) -> bool:
    """Whether the smaller side's vectors are orthogonal and of one length: ``W W^T v = g^2 v`` for a vector ``v``.

    A matrix of one row or column passes trivially, and is not called Haar.
    """
    w = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if w.shape[0] < 2 or w.shape[1] < 2:
        return False
    v = torch.cos(torch.arange(w.shape[0], dtype=torch.float64, device=w.device) ** 1.5)
    w = w.detach().to(torch.float64)
    image = w @ (w.T @ v)
    scale = (image @ v) / (v @ v)
    residual = torch.linalg.vector_norm(image - scale * v) / (scale * torch.linalg.vector_norm(v))
    return bool(residual < 10 * torch.finfo(matrix.dtype).eps * math.sqrt(w.shape[1]))


def _plausible(name: str, sums: EntrySums, shape: tuple[int, int], eps: float) -> bool:
    """Whether the entries could have come from initialiser ``name``, within sampling error."""
    family, nominal = INITIALIZERS[name]
    if family == "haar":
        return False
    variance = nominal(shape[1], shape[0])
    sd = math.sqrt((KURTOSIS[family] - 1) / sums.count)
    return abs(sums.variance / variance - 1) <= _VARIANCE_SDS * sd + eps and _is_family(family, sums, variance, eps)


def _is_family(family: str, sums: EntrySums, variance: float, eps: float) -> bool:
    """Whether the entries' spread fits a uniform or normal law of this variance."""
    bound = math.sqrt(3 * variance)
    if family == "uniform":  # the largest of N falls short of the bound by a factor exp(-12/N) with probability 6e-6
        return bound * math.exp(-12 / sums.count) <= sums.largest * (1 + eps) <= bound * (1 + 2 * eps)
    # A normal sample's kurtosis has standard error sqrt(24/N) and leans upwards; of over 60 entries one leaves the uniform's range.
    excess = (sums.kurtosis - 3) / math.sqrt(24 / sums.count)
    return -5 <= excess <= 8 and (sums.count <= 60 or sums.largest > bound)


def weight_laws(matrices: Sequence[tuple[str, Tensor]]) -> tuple[WeightLaw, ...]:
    """Return the law of each weight matrix of shape ``(fan_out, fan_in)``.

    Where an initialiser is recognised within sampling error, variance and kurtosis are its nominal ones, otherwise the
    sample's; the sample's are always kept beside. A small matrix fits several initialisers: then the one that fits most
    of the model's matrices is taken.

    Raises
    ------
    InvalidInput
        If a matrix has NaN, infinite or complex entries.
    """
    sums = [EntrySums.of(w, name) for name, w in matrices]
    shapes = [(w.shape[0], w.shape[1]) for _, w in matrices]
    candidates = [_candidates(s, shape, w) for s, shape, (_, w) in zip(sums, shapes, matrices, strict=True)]
    votes = Counter(name for names in candidates for name in names)
    return tuple(
        _law(s, shape, max(names, key=lambda n: votes[n], default=None))
        for s, shape, names in zip(sums, shapes, candidates, strict=True)
    )


def assumed_laws(matrices: Sequence[tuple[str, Tensor]]) -> tuple[WeightLaw, ...]:
    """Return PyTorch's default law for matrices on the meta device, which have no values: assumed, not tested (no sample moments)."""
    return tuple(WeightLaw.from_initializer("torch_default", w.shape[1], w.shape[0]) for _, w in matrices)


def _candidates(sums: EntrySums, shape: tuple[int, int], matrix: Tensor) -> list[str]:
    if sums.s2 > 0 and _is_haar(matrix):
        return ["orthogonal"]
    return [n for n in INITIALIZERS if _plausible(n, sums, shape, 2 * torch.finfo(matrix.dtype).eps)]


def _law(sums: EntrySums, shape: tuple[int, int], initializer: str | None) -> WeightLaw:
    if initializer == "orthogonal":
        gain = math.sqrt(sums.variance * max(shape) / 2)
        law = WeightLaw.from_initializer("orthogonal", shape[1], shape[0], gain)
    elif initializer is not None:
        law = WeightLaw.from_initializer(initializer, shape[1], shape[0])
    else:
        law = _unrecognised(sums)
    return dataclasses.replace(
        law, sample_variance=sums.variance, sample_kurtosis=sums.kurtosis, hypotheses=_hypotheses(sums)
    )


def _unrecognised(sums: EntrySums) -> WeightLaw:
    for family in ("normal", "uniform"):
        if sums.s2 > 0 and sums.count > 60 and _is_family(family, sums, sums.variance, 8 / sums.count):
            return WeightLaw(family, sums.variance, KURTOSIS[family])
    return WeightLaw("other", sums.variance, max(sums.kurtosis, 1.0))


def bias_law(name: str, bias: Tensor, fan_in: int) -> BiasLaw:
    """Return the law of a bias: symmetric if it is zero, or if its entries reject neither zero mean nor symmetry.

    A constant bias is not symmetric. One on the meta device is assumed to be PyTorch's default. A single entry tests nothing: it counts as symmetric within PyTorch's default range.

    Raises
    ------
    InvalidInput
        If the bias has NaN, infinite or complex entries.
    """
    if bias.is_meta:
        return BiasLaw(1 / (3 * fan_in))
    sums = EntrySums.of(bias, name)
    if sums.s2 == 0:
        return BiasLaw(0.0, symmetric=True)
    if sums.count == 1:
        return BiasLaw(sums.variance, symmetric=sums.largest <= 1 / math.sqrt(fan_in))
    is_constant = bool((bias.detach() == bias.detach().reshape(-1)[0]).all())
    return BiasLaw(sums.variance, symmetric=not is_constant and all(h.holds for h in _hypotheses(sums)))
