"""What the actual weights say: their law, nominal where an initialiser is recognised, and the hypotheses tested on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from initdiag.network.architecture import BiasLaw, Hypothesis, WeightLaw
from initdiag.network.weights import INDEPENDENT_OF
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.hypotheses import sign_symmetry, weight_hypotheses
from initdiag.tracing.initializers import Sample, nominal_laws
from initdiag.tracing.sharing import copies

__all__ = ["assumed_laws", "bias_law", "weight_laws"]


def weight_laws(
    matrices: Sequence[tuple[str, Tensor]],
    kin: Mapping[str, Sequence[str]] | None = None,
    slopes: Iterable[float] = (),
) -> tuple[WeightLaw, ...]:
    """Return the law of each weight matrix of shape ``(fan_out, fan_in)``.

    Where an initialiser is recognised within sampling error, variance and kurtosis are its nominal ones, otherwise the
    sample's; the sample's are always kept beside. A small matrix fits several initialisers: then the one that fits most
    of the model's matrices is taken, and of equals the likelier. A weight that is computed from an earlier one's parameters
    (``kin``), or has its values, fails a hypothesis. ``slopes`` of the network's leaky ReLUs tell which gains to expect.

    Raises
    ------
    InvalidInput
        If a matrix has NaN, infinite or complex entries.
    """
    samples = [Sample(w, EntrySums.of(w, name)) for name, w in matrices]
    earlier = {
        **copies(
            [name for name, _ in matrices], [s.matrix for s in samples], [s.sums for s in samples]
        ),
        **{name: first for name, (first, _) in (kin or {}).items()},
    }
    return tuple(
        dataclasses.replace(
            law,
            sample_variance=s.sums.variance,
            sample_kurtosis=s.sums.kurtosis,
            hypotheses=(
                *weight_hypotheses(s.sums, s.matrix, law.family == "haar"),
                *_dependence(earlier.get(name)),
            ),
        )
        for (name, _), s, law in zip(matrices, samples, nominal_laws(samples, slopes), strict=True)
    )


def _dependence(earlier: str | None) -> tuple[Hypothesis, ...]:
    return () if earlier is None else (Hypothesis(f"{INDEPENDENT_OF}{earlier}", 0.0, holds=False),)


def assumed_laws(matrices: Sequence[tuple[str, Tensor]]) -> tuple[WeightLaw, ...]:
    """Return PyTorch's default law for matrices on the meta device, which have no values: assumed, not tested (no sample moments)."""
    return tuple(
        WeightLaw.from_initializer("torch_default", w.shape[1], w.shape[0]) for _, w in matrices
    )


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
    return BiasLaw(
        sums.variance,
        symmetric=not is_constant
        and all(h.holds for h in sign_symmetry(sums, torch.finfo(bias.dtype).eps)),
    )
