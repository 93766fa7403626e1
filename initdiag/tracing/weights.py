"""What the actual weights and biases say: the law of each, and the hypotheses tested on
them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from scipy import special
from torch import Tensor

from initdiag.network.weights import INDEPENDENT_OF, BiasLaw, Hypothesis, WeightLaw
from initdiag.tracing.dependence import Failures, dependences
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.explained import BiasedLayer
from initdiag.tracing.hypotheses import (
    NETWORK_LEVEL,
    pooled,
    weight_hypotheses,
    weight_scores,
)
from initdiag.tracing.initializers import Sample, nominal_laws
from initdiag.tracing.sharing import are_multiples, copies
from initdiag.tracing.symmetry import Scores, sign_p_value, sign_scores

__all__ = ["assumed_laws", "bias_laws", "kernel_laws", "weight_laws"]

_PART = NETWORK_LEVEL / 3
"""Level of each part of a network's tests: its weights alone, together, and its biases.
"""

_SIGNS = 1e-4
"""Probability that an honest network is refused for the signs of its weights: half for
its layers, half for all together. The sign test is exact, and of a small layer it alone
tells: at this level 18 weights of one sign are found in one of five layers, at a
network's level they are 26 (a layer of 28 was once taken for symmetric,
`tests/evidence/programs`).
"""

_UNUSUAL = 1e-2
"""Probability that unusual biases are refused that are symmetric: nearly all honest
biases are zero or PyTorch's default, which this does not concern. At this level 10
entries of one sign are found, at a network's level they are 18.
"""

_ROUNDED = 1.01
"""Room for the rounding of half-precision types at the end of PyTorch's range."""

_TESTS = 10
"""Tests of one weight matrix, at most (`weight_hypotheses`)."""


def weight_laws(
    matrices: Sequence[tuple[str, Tensor]],
    kin: Mapping[str, Sequence[str]] | None = None,
    slopes: Iterable[float] = (),
    biased: Sequence[BiasedLayer] = (),
) -> tuple[WeightLaw, ...]:
    """Return the law of each weight matrix of shape ``(fan_out, fan_in)``.

    Where an initialiser is recognised within sampling error, variance and kurtosis are
    its nominal ones, otherwise the sample's; the sample's are always kept beside. A
    small matrix fits several initialisers: then the one that fits most of the model's
    matrices is taken, and of equals the likelier. A weight that is computed from an
    earlier one's parameters (``kin``), or has its values, fails a hypothesis.
    ``slopes`` of the network's leaky ReLUs tell which gains to expect. The biases of
    the ``biased`` layers may be computed from weights: then these fail a hypothesis.

    Raises
    ------
    InvalidInput
        If a matrix has NaN, infinite or complex entries.
    """
    samples = [Sample(w, EntrySums.of(w, name)) for name, w in matrices]
    names = [name for name, _ in matrices]
    earlier = {
        **copies(names, [s.matrix for s in samples], [s.sums for s in samples]),
        **{name: first for name, (first, _) in (kin or {}).items()},
    }
    laws = nominal_laws(samples, slopes)
    tested = _tested(
        samples, laws, {name: i for i, name in enumerate(names) if name not in earlier}
    )
    values = dict(matrices)
    same = {
        name: first
        for name, first in earlier.items()
        if values[name].shape == values[first].shape and are_multiples(values[first], values[name])
    }
    alone = [dataclasses.replace(law, hypotheses=h) for law, h in zip(laws, tested, strict=True)]
    depending = dependences(names, samples, alone, same, biased)
    return tuple(
        dataclasses.replace(
            law,
            sample_variance=s.sums.variance,
            sample_kurtosis=s.sums.kurtosis,
            hypotheses=(*hypotheses, *_dependence(earlier.get(name)), *_failing(others)),
        )
        for name, s, law, hypotheses, others in zip(
            names, samples, laws, tested, depending, strict=True
        )
    )


def kernel_laws(parameters: Mapping[str, Tensor]) -> dict[str, WeightLaw]:
    """Return the laws of parameters of two or more dimensions, as `weight_laws` does.

    What is more than a matrix is taken for a convolution's kernel, ``(channels out,
    channels in, *window)``: initialisers count its whole window for both fans.
    """
    samples = [
        Sample(p.flatten(1), EntrySums.of(p, name), math.prod(p.shape[2:]))
        for name, p in parameters.items()
    ]
    laws = nominal_laws(samples)
    tested = _tested(samples, laws, {name: i for i, name in enumerate(parameters)})
    return {
        name: dataclasses.replace(law, hypotheses=hypotheses)
        for name, law, hypotheses in zip(parameters, laws, tested, strict=True)
    }


def _tested(
    samples: Sequence[Sample], laws: Sequence[WeightLaw], distinct: Mapping[str, int]
) -> list[tuple[Hypothesis, ...]]:
    """Test each matrix for itself, then together those that pass.

    ``distinct`` are the indices of one matrix of each draw.
    """
    level = _PART / (_TESTS * max(1, len(samples)))
    tested = [
        weight_hypotheses(s.sums, s.matrix, law.family == "haar", level)
        for s, law in zip(samples, laws, strict=True)
    ]
    passing = [i for i in distinct.values() if all(h.holds for h in tested[i])]
    refused = _refused([weight_scores(samples[i].sums, samples[i].matrix) for i in passing], _PART)
    signs = [(s.sums, torch.finfo(s.matrix.dtype).eps) for s in samples]
    together = sign_p_value([signs[i] for i in passing])
    if together < _SIGNS / 2:
        refused.setdefault("symmetry", together)
    alone, least = [sign_p_value([one]) for one in signs], _SIGNS / (2 * max(1, len(signs)))
    return [
        _with_refused(hypotheses, {"symmetry": p, **refused} if p < least else refused)
        for hypotheses, p in zip(tested, alone, strict=True)
    ]


def _with_refused(
    hypotheses: Sequence[Hypothesis], refused: Mapping[str, float]
) -> tuple[Hypothesis, ...]:
    """Return the hypotheses, of which some do not hold although they passed."""
    return tuple(
        Hypothesis(h.name, refused[h.name], holds=False) if h.holds and h.name in refused else h
        for h in hypotheses
    )


def _refused(scores: Sequence[Scores], level: float) -> dict[str, float]:
    """Return the hypotheses that all layers together refuse, with their p-values."""
    p_values = pooled(scores)
    return {name: p for name, p in p_values.items() if p < level / len(p_values)}


def _dependence(earlier: str | None) -> tuple[Hypothesis, ...]:
    return () if earlier is None else (Hypothesis(f"{INDEPENDENT_OF}{earlier}", 0.0, holds=False),)


def _failing(failures: Failures) -> tuple[Hypothesis, ...]:
    return tuple(Hypothesis(name, p, holds=False) for name, p in failures.items())


def assumed_laws(matrices: Sequence[tuple[str, Tensor]]) -> tuple[WeightLaw, ...]:
    """Return PyTorch's default law for matrices on the meta device.

    They have no values: the law is assumed, not tested, and has no sample moments.
    """
    return tuple(
        WeightLaw.from_initializer("torch_default", w.shape[1], w.shape[0]) for _, w in matrices
    )


def bias_laws(biases: Mapping[str, tuple[Tensor, int]]) -> dict[str, BiasLaw]:
    """Return the law of each bias, which is symmetric or not.

    It is symmetric if it is zero, or if its entries reject neither zero mean nor
    symmetry, alone and together with the other biases. Biases beyond PyTorch's default
    range have to show it at a lower level. A constant bias is not symmetric. One on the
    meta device is assumed to be PyTorch's default. A single entry tests nothing alone:
    it has to lie within PyTorch's default range.

    Parameters
    ----------
    biases : mapping
        Name -> the bias and its layer's ``fan_in``.

    Raises
    ------
    InvalidInput
        If a bias has NaN, infinite or complex entries.
    """
    drawn = {name: b for name, (b, _) in biases.items() if not b.is_meta}
    sums = {name: EntrySums.of(b, name) for name, b in drawn.items()}
    scores = {name: sign_scores(sums[name], torch.finfo(b.dtype).eps) for name, b in drawn.items()}
    level = _PART / (4 * max(1, len(drawn)))
    passing = {
        name
        for name, b in drawn.items()
        if _may_be_symmetric(b, sums[name], biases[name][1])
        and all(p >= level for p in pooled([scores[name]]).values())
    }
    if _refused([scores[name] for name in passing if scores[name]], _PART / 2):
        passing.clear()
    ranges = {name: 1 / math.sqrt(fan_in) for name, (_, fan_in) in biases.items()}
    passing -= _leaning(
        {name: (sums[name], scores[name], ranges[name]) for name in passing if scores[name]}
    )
    laws = {name: BiasLaw(1 / (3 * fan_in)) for name, (_, fan_in) in biases.items()}
    for name, s in sums.items():
        laws[name] = BiasLaw(s.variance, symmetric=s.s2 == 0 or name in passing)
    return laws


def _leaning(biases: Mapping[str, tuple[EntrySums, Scores, float]]) -> set[str]:
    """Return the unusual biases that lean to one side, alone or together.

    A bias is unusual if it leaves PyTorch's range (the third item). A large one, of
    more than three times the default's variance, moves the gates most and has few ways
    to be drawn: entries of one sign alone are not taken for a chance, however few.
    """
    unusual = {
        name: scores
        for name, (sums, scores, room) in biases.items()
        if sums.count > 1 and sums.largest > _ROUNDED * room
    }
    if _refused(list(unusual.values()), _UNUSUAL / 2):
        return set(unusual)
    alone = _UNUSUAL / (2 * max(1, len(unusual)))
    leaning = {name for name in unusual if _student(biases[name][0]) < alone}
    large = {name: biases[name][0] for name in unusual if _is_large(*biases[name])}
    signs = {math.copysign(s.nonzero, s.sign) - s.sign for s in large.values()}
    is_one_sided = signs == {0.0} and len({s.sign > 0 for s in large.values()}) == 1
    return leaning | (set(large) if is_one_sided else set())


def _student(sums: EntrySums) -> float:
    """Return the p-value of Student's test that the mean is 0 (two-sided)."""
    spread = sums.count * sums.s2 - sums.s1 * sums.s1
    if spread <= 0:
        return 0.0
    t = abs(sums.s1) * math.sqrt((sums.count - 1) / spread)
    return 2 * float(special.stdtr(sums.count - 1, -t))


def _is_large(sums: EntrySums, _: Scores, room: float) -> bool:
    """Return whether a bias has more than three times the variance of PyTorch's
    default.
    """
    return sums.s2 > sums.count * room * room


def _may_be_symmetric(bias: Tensor, sums: EntrySums, fan_in: int) -> bool:
    """Return whether the bias is not constant; one entry: whether it is of a usual
    size.
    """
    if sums.count == 1:
        return sums.largest <= 1 / math.sqrt(fan_in)
    entries = bias.detach().reshape(-1)
    return sums.s2 == 0 or not bool((entries == entries[0]).all())
