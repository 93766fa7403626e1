"""Redraws by the initialisers that drew a module's parameters, as far as they are
known.

A parameter that looks like the draws of the module's own ``reset_parameters`` is drawn
by it; another is drawn from its initialiser, where that is recognised
(`initdiag.tracing.initializers`), and keeps its present values where not. A doubt about
the initialiser is a doubt about the scale, which the mean log-norm inherits.

The weights of a layer whose entries look independent and of one skewed law without a
name, around which random signs make other weights, are shuffled: all orders of such
entries are equally likely. Their mean square is then the sample's, with its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor, nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.measuring.ensembles.redraw import Source, reset_parameters, values_of
from initdiag.network.architecture import Layer
from initdiag.network.weights import (
    INDEPENDENT_OF,
    NOT_REARRANGED,
    UNCONSTRAINED,
    UNLIKE,
    WeightLaw,
)
from initdiag.tracing.entries import EntrySums
from initdiag.tracing.provenance import goes_into
from initdiag.tracing.weights import kernel_laws, weight_laws

__all__ = ["is_law_of", "own_source"]

_LEVEL = 1e-6
"""p-value below which a parameter was not drawn by ``reset_parameters``."""

_DRAWS = 4
"""Fresh draws that the present values are held against."""

_ENTRIES = 1 << 16
"""Entries of a parameter that are looked at."""

_CUT = 2.0
"""Where a truncated normal law is cut, in standard deviations of the normal."""

_CUT_SD = 0.8796256610342398
"""Standard deviation of the standard normal law cut there."""

_ROUNDING = 1e-6
"""Least relative variance of squared entries, which signs of one size do not have."""

_BY_SIGNS = frozenset(("zero mean", "symmetry"))
"""Hypotheses without which random signs do not stand for redraws."""

Fill = Callable[[Tensor], object]
"""Draws a parameter's entries in place."""


def own_source(module: nn.Module, layers: Sequence[Layer]) -> tuple[Source, float, tuple[str, ...]]:
    """Return the draws by ``reset_parameters`` and recognised initialisers, what the
    mean log-norm may be off by, and the names of the weights that are shuffled.

    Raises
    ------
    UnsupportedArchitecture
        If it is not known how one of the layers' weights was drawn.
    """
    weights = {layer.name for layer in layers}
    own = {n: p for n, p in values_of(module).items() if n in dict(module.named_parameters())}
    resetting = Source(module, (), None, reset_parameters)
    alike = _alike(own, resetting)
    is_default = {layer.name: layer.weight.initializer == "torch_default" for layer in layers}
    reset = {n for n in alike if is_default.get(n, True)}
    others = {n: p for n, p in own.items() if _stands_for_itself(n, weights)}
    laws = _recognised(_not_refused(others, layers)) | _of_layers(others, layers)
    drawn = {n: law for n, law in laws.items() if n not in reset}
    nameless = {n: own[n] for n in own if n in weights and n not in reset | drawn.keys()}
    leaning = {layer.name for layer in layers if not _BY_SIGNS.isdisjoint(layer.weight.failed)}
    shuffled = _exchangeable({n: p for n, p in nameless.items() if n in leaning})
    depending = [layer.name for layer in layers if any(map(_is_about_others, layer.weight.failed))]
    if depending:
        raise UnsupportedArchitecture(
            f"the weights of {depending[0]!r} are not independent (rows that are others rearranged, "
            "or mixed with those of another layer), so that it is not known how to draw them "
            "afresh. Pass init=, as model.apply takes it, or a factory in place of the model."
        )
    unknown = next((n for n in nameless if n not in shuffled), None)
    if unknown is not None:
        raise UnsupportedArchitecture(
            f"the weights of {unknown!r} were not drawn by reset_parameters, nor by an initialiser "
            "that is recognised, so that it is not known how to draw them afresh. "
            "Pass init=, as model.apply takes it, or a factory in place of the model."
        )
    known = {*reset, *drawn, *shuffled, *resetting.left}
    fills = {n: _fill(law) for n, law in drawn.items()}
    fills |= {n: _shuffle(own[n]) for n in shuffled}
    errors = [*(law.scale_error for law in drawn.values()), *shuffled.values()]
    kept = [n for n in own if n not in known]
    source = Source(module, weights, None, reset_parameters, fills, kept)
    return source, math.hypot(*errors), tuple(shuffled)


def _is_about_others(hypothesis: str) -> bool:
    return hypothesis.startswith((UNLIKE, INDEPENDENT_OF, UNCONSTRAINED)) or hypothesis.endswith(
        NOT_REARRANGED
    )


def _exchangeable(parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """Return those matrices whose entries are independent and of one law, as far as the
    tests about their mean tell, with the error of the log of their mean square.
    """
    matrices = {n: p for n, p in parameters.items() if p.dim() == 2 and bool(p.any())}
    laws = weight_laws([(n, p - p.mean()) for n, p in matrices.items()])
    sums = {n: EntrySums.of(p, n) for n, p in matrices.items()}
    return {
        n: math.sqrt(max(sums[n].kurtosis - 1, 0.0) / sums[n].count)
        for n, law in zip(matrices, laws, strict=True)
        if set(law.failed) <= {"symmetry", "finite fourth moment"}
    }


def _shuffle(own: Tensor) -> Fill:
    """Return what puts a matrix' own entries in a random order, in place."""
    entries = own.reshape(-1).clone()

    def fill(p: Tensor) -> None:
        p.copy_(entries[torch.randperm(len(entries)).to(entries.device)].reshape(p.shape))

    return fill


def _stands_for_itself(name: str, weights: set[str]) -> bool:
    """Return whether a parameter is not part of a parametrised weight.

    Those come with others (a norm, singular vectors), which are drawn together or not
    at all.
    """
    return name in weights or not any(goes_into(name, weight) for weight in weights)


def _alike(own: Mapping[str, Tensor], source: Source) -> set[str]:
    """Return the parameters that may be another of the source's draws."""
    fresh = [source.draw(seed) for seed in range(_DRAWS)]
    return {
        name
        for name, value in own.items()
        if name not in source.left and _look_alike(value, [draw[name] for draw in fresh])
    }


def _look_alike(own: Tensor, fresh: list[Tensor]) -> bool:
    """Return whether the values may be another draw: scale and distribution."""
    x, y = _entries(own), np.concatenate([_entries(draw) for draw in fresh])
    if np.ptp(y) == 0 or (np.ptp(x) == 0 and len(x) > 1) or not x.any():
        return bool((x == y[0]).all() and np.ptp(y) == 0)
    spread = max(np.mean(y**4) / np.mean(y**2) ** 2 - 1, _ROUNDING)
    error = math.sqrt(spread * (1 / len(x) + 1 / len(y)))
    z = math.log(np.mean(x**2) / np.mean(y**2)) / error
    is_one_scale = len(x) < 2 or 2 * special.ndtr(-abs(z)) >= _LEVEL
    return bool(is_one_scale and stats.ks_2samp(x, y).pvalue >= _LEVEL)


def _entries(parameter: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = parameter.detach().reshape(-1)[:_ENTRIES].double().cpu().numpy()
    return values


def _recognised(parameters: Mapping[str, Tensor]) -> dict[str, WeightLaw]:
    """Return the laws of those whose initialiser is recognised."""
    drawn = {n: p for n, p in parameters.items() if p.dim() > 1 and bool(p.any())}
    laws = kernel_laws(drawn)
    return {name: law for name, law in laws.items() if law.initializer and not law.failed}


def _not_refused(parameters: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Return the parameters without the matrices that the trace refused a law."""
    refused = {layer.name: layer.weight for layer in layers if layer.weight.failed}
    return {n: p for n, p in parameters.items() if n not in refused or not is_law_of(refused[n], p)}


def is_law_of(law: WeightLaw, parameter: Tensor) -> bool:
    """Return whether the law is the parameter's own, not that of what is made of it."""
    return law.sample_variance == EntrySums.of(parameter, "parameter").variance


def _of_layers(parameters: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, WeightLaw]:
    """Return the laws that the trace recognised: it knows which way a matrix is used.

    The law of a weight that is computed is not that of its parameter.
    """
    laws = {layer.name: layer.weight for layer in layers if layer.name in parameters}
    return {
        name: law
        for name, law in laws.items()
        if law.initializer and not law.failed and is_law_of(law, parameters[name])
    }


def _fill(law: WeightLaw) -> Fill:
    """Return what draws a parameter's entries from the law, in place."""
    sd = math.sqrt(law.variance)
    if law.family == "haar":
        return lambda p: _fill_haar(p, sd)
    if law.family == "uniform":
        return lambda p: p.uniform_(-math.sqrt(3) * sd, math.sqrt(3) * sd)
    if law.family == "normal":
        return lambda p: p.normal_(0, sd)
    scale = sd / _CUT_SD
    return lambda p: nn.init.trunc_normal_(p, std=scale, a=-_CUT * scale, b=_CUT * scale)


def _fill_haar(p: Tensor, sd: float) -> None:
    """Fill a Haar matrix whose entries have this standard deviation."""
    larger = max(len(p), p[0].numel())
    nn.init.orthogonal_(p, gain=sd * math.sqrt(larger))
