"""The zoo: ways to write a fully connected net, and nets that are none; each carries its own truth.

``coverage`` is what the theory must claim, ``verdict`` what the report must say (None where the zoo takes no stand),
``gaps`` the kinds of gap that must be named, ``measured`` the ensembles that must agree with the theory.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

BOTH = ("signs", "redraw")
R, L = "ReLU", "linear"


@dataclass(frozen=True)
class Specimen:
    name: str
    build: Callable[[], nn.Module]
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    gates: tuple[str, ...]
    coverage: str = "first-order"
    verdict: str | None = "HEALTHY"
    gaps: tuple[str, ...] = ()
    measured: tuple[str, ...] = BOTH
    input_size: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.name


class Written(nn.Module):
    """``widths`` in linear layers, with ``act`` between them, written in the forward pass."""

    def __init__(
        self, widths: list[int], act: Callable[[Tensor], Tensor], **linear_options: object
    ) -> None:
        super().__init__()
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList([nn.Linear(m, n, **linear_options) for m, n in pairs])
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)


def he(module: nn.Module) -> nn.Module:
    """He normal weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


def orthogonal(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.orthogonal_(part.weight, math.sqrt(2))
            nn.init.zeros_(part.bias)
    return module


def sequential(
    widths: list[int], act: Callable[[], nn.Module], wrap: Callable = lambda x: x
) -> nn.Sequential:
    parts: list[nn.Module] = []
    for m, n in itertools.pairwise(widths):
        parts += [wrap(nn.Linear(m, n)), act()]
    return nn.Sequential(*parts[:-1])


WIDTHS = [16, 32, 24, 8]
NAMES = ("layers.0.weight", "layers.1.weight", "layers.2.weight")
STEPS = ("0.weight", "2.weight", "4.weight")


def written(name: str, act: Callable[[Tensor], Tensor], gate: str = R, **truth: object) -> Specimen:
    """A specimen that differs by its activation alone."""
    return Specimen(
        name, lambda: Written(WIDTHS, act), NAMES, tuple(WIDTHS), (gate, gate, L), **truth
    )  # type: ignore[arg-type]


def stacked(name: str, act: Callable[[], nn.Module], gate: str = R, **truth: object) -> Specimen:
    return Specimen(
        name, lambda: sequential(WIDTHS, act), STEPS, tuple(WIDTHS), (gate, gate, L), **truth
    )  # type: ignore[arg-type]


def twisted(
    name: str, forward: Callable[[nn.Module, Tensor], Tensor], kind: str, **truth: object
) -> Specimen:
    """No chain: two square layers ``a`` and ``b`` with something else around them."""
    return Specimen(
        name, lambda: Twisted(forward), (), (), (), "none", None, (kind,), (), (4, 12), **truth
    )  # type: ignore[arg-type]


def unlike(name: str, wrap: Callable[[nn.Linear], nn.Module], kind: str) -> Specimen:
    """Linear layers and ReLUs whose weights do not follow from parameters of their own."""
    return Specimen(
        name,
        lambda: sequential(WIDTHS, nn.ReLU, wrap),
        (), (), (), "none", None, (kind,), (),
    )  # fmt: skip


class Twisted(nn.Module):
    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)
        self.slopes = nn.Parameter(torch.linspace(0.1, 0.4, 12))
        self.twist = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.twist(self, x)


class Raw(nn.Module):
    """Raw parameters and matrix products, in three spellings, without biases or with."""

    def __init__(self, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        sizes = itertools.pairwise(WIDTHS)
        self.w = nn.ParameterList(
            [nn.Parameter(torch.randn(m, n) * math.sqrt(2 / m)) for m, n in sizes]
        )
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(n)) for n in WIDTHS[1:]])
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        for w, b in zip(list(self.w)[:-1], list(self.b)[:-1], strict=True):
            x = F.relu(self.product(x, w, b))
        return self.product(x, self.w[-1], self.b[-1])


def raw(name: str, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Specimen:
    return Specimen(
        name, lambda: Raw(product), ("w.0", "w.1", "w.2"), tuple(WIDTHS), (R, R, L), "exact", measured=("signs",),
        input_size=(2, 16),
    )  # fmt: skip


class Noted(nn.Module):
    """Dead branches and monitoring on the side."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aux = nn.Linear(16, 32), nn.Linear(32, 8), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x))
        self.norm = float(h.detach().norm())
        _ = self.aux(h).sum()
        return self.head(h)


class InPlace(nn.Module):
    """Statements without assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        F.dropout(x, 0.25, self.training, inplace=True)
        F.relu_(x)
        return self.b(x)


def old_weight_norm(linear: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(linear)


def sparse(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.sparse_(part.weight, 0.5, std=2 / math.sqrt(part.in_features))
            nn.init.zeros_(part.bias)
    return module


def scaled(module: nn.Module, gain: float) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.data.mul_(gain)
    return module


CHAINS = (
    # ReLU in every spelling
    stacked("nn.ReLU", nn.ReLU),
    stacked("nn.ReLU in place", lambda: nn.ReLU(inplace=True)),
    stacked("nn.Threshold(0, 0)", lambda: nn.Threshold(0, 0)),
    written("F.relu", F.relu),
    written("torch.relu", torch.relu),
    written("x.relu", lambda x: x.relu()),
    written("x.relu_", lambda x: x.relu_()),
    written("clamp(min=0)", lambda x: x.clamp(min=0)),
    written("clamp_ positional", lambda x: torch.clamp_(x, 0.0)),
    written("clamp_min", lambda x: x.clamp_min(0)),
    written("clip", lambda x: torch.clip(x, min=0)),
    written("maximum with a zero", lambda x: torch.maximum(x, torch.tensor(0.0))),
    written("max with zeros_like, first", lambda x: torch.max(torch.zeros_like(x), x)),
    written("where(x > 0, x, 0)", lambda x: torch.where(x > 0, x, 0.0)),
    written("where(x <= 0, zeros, x)", lambda x: torch.where(x <= 0, torch.zeros_like(x), x)),
    written("x.where", lambda x: x.where(x > 0, x.new_zeros(()))),
    written("x * (x > 0)", lambda x: x * (x > 0)),
    written("(x >= 0).float() * x", lambda x: (x >= 0).float() * x),
    written("masked_fill(x < 0, 0)", lambda x: x.masked_fill(x < 0, 0.0)),
    written("masked_fill_(~(x > 0), 0)", lambda x: x.masked_fill_(~(x > 0), 0.0)),
    written("F.threshold", lambda x: F.threshold(x, 0.0, 0.0)),
    written("keywords", lambda x: F.dropout(input=F.relu(input=x), p=0.25, training=True), "ReLU, dropout 0.25"),
    written("mask by keywords", lambda x: torch.mul(input=x, other=torch.gt(input=x, other=0))),
    written("relu of relu", lambda x: F.relu(F.relu(x))),
    # other gates
    stacked("leaky ReLU", lambda: nn.LeakyReLU(0.2), "leaky ReLU 0.2"),
    written("F.leaky_relu", F.leaky_relu, "leaky ReLU 0.01"),
    stacked("PReLU", nn.PReLU, "leaky ReLU 0.25"),
    Specimen(
        "PReLU a channel, all alike",
        lambda: nn.Sequential(nn.Linear(16, 32), nn.PReLU(32), nn.Linear(32, 8)),
        ("0.weight", "2.weight"),
        (16, 32, 8),
        ("leaky ReLU 0.25", L),
    ),
    stacked("RReLU in eval mode", lambda: nn.RReLU(0.1, 0.3), "leaky ReLU 0.2", verdict=None),
    stacked("identity", nn.Identity, "linear"),
    # dropout
    stacked("dropout after", lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.2)), "ReLU, dropout 0.2"),
    stacked("dropout before", lambda: nn.Sequential(nn.Dropout(0.2), nn.ReLU()), "ReLU, dropout 0.2"),
    stacked("dropout twice", lambda: nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.5)), "ReLU, dropout 0.75"),
    stacked("dropout 0", lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.0))),
    stacked(
        "dropout and leaky ReLU",
        lambda: nn.Sequential(nn.LeakyReLU(0.5), nn.Dropout(0.5)),
        "leaky ReLU 0.5, dropout 0.5",
    ),
    Specimen("dropout in place", InPlace, ("a.weight", "b.weight"), (16, 32, 8), ("ReLU, dropout 0.25", L)),
    # initialisers
    Specimen("He", lambda: he(Written(WIDTHS, F.relu)), NAMES, tuple(WIDTHS), (R, R, L), "exact", measured=("signs",)),
    Specimen(
        "orthogonal", lambda: orthogonal(Written([24, 24, 24, 8], F.relu)), NAMES, (24, 24, 24, 8), (R, R, L), "exact",
        measured=("signs",),
    ),
    Specimen("sparse", lambda: sparse(Written([64, 64, 64, 8], F.relu)), NAMES, (64, 64, 64, 8), (R, R, L), measured=("signs",)),
    Specimen(
        "He times 1.5", lambda: scaled(he(Written(WIDTHS, F.relu)), 1.5), NAMES, tuple(WIDTHS), (R, R, L), "exact",
        measured=("signs",),
    ),
    Specimen("no biases", lambda: Written(WIDTHS, F.relu, bias=False), NAMES, tuple(WIDTHS), (R, R, L)),
    Specimen("deep default", lambda: Written([32] * 26, F.relu), tuple(f"layers.{i}.weight" for i in range(25)), (32,) * 26, (R,) * 24 + (L,), verdict="VANISHING"),
    Specimen(
        "deep, too large", lambda: scaled(he(Written([32] * 26, F.relu)), 2.0), tuple(f"layers.{i}.weight" for i in range(25)),
        (32,) * 26, (R,) * 24 + (L,), "first-order", "EXPLODING", measured=("signs",),
    ),
    Specimen("narrow", lambda: he(Written([8, 1, 1, 8], F.relu)), NAMES, (8, 1, 1, 8), (R, R, L), "exact", "DEAD", measured=("signs",)),
    # weights in every spelling
    raw("x @ w + b", lambda x, w, b: x @ w + b),
    raw("addmm", lambda x, w, b: torch.addmm(b, x, w)),
    raw("matmul", lambda x, w, b: torch.matmul(x, w)),
    raw("F.linear of w.T", lambda x, w, b: F.linear(x, w.T, b)),
    raw("mm of a transpose", lambda x, w, b: torch.mm(x, w.t().contiguous().transpose(0, 1))),
    Specimen(
        "weight_norm", lambda: sequential(WIDTHS, nn.ReLU, parametrizations.weight_norm), STEPS, tuple(WIDTHS), (R, R, L),
        measured=("signs",),
    ),
    Specimen("old weight_norm", lambda: sequential(WIDTHS, nn.ReLU, old_weight_norm), STEPS, tuple(WIDTHS), (R, R, L), measured=("signs",)),
    Specimen("orthogonal parametrisation", lambda: sequential([24, 24, 24, 8], nn.ReLU, parametrizations.orthogonal), STEPS, (24, 24, 24, 8), (R, R, L), "exact", measured=("signs",)),
    # types and wrappers
    Specimen("float64", lambda: Written(WIDTHS, F.relu).double(), NAMES, tuple(WIDTHS), (R, R, L)),
    Specimen("bfloat16", lambda: Written(WIDTHS, F.relu).bfloat16(), NAMES, tuple(WIDTHS), (R, R, L)),
    Specimen("float16", lambda: Written(WIDTHS, F.relu).half(), NAMES, tuple(WIDTHS), (R, R, L)),
    Specimen("DataParallel", lambda: nn.DataParallel(Written(WIDTHS, F.relu)), NAMES, tuple(WIDTHS), (R, R, L)),
    Specimen("DataParallel inside", lambda: nn.Sequential(nn.DataParallel(nn.Linear(16, 32)), nn.ReLU(), nn.Linear(32, 8)), ("0.module.weight", "2.weight"), (16, 32, 8), (R, L)),
    Specimen("lazy layers", lambda: nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(8)), ("0.weight", "2.weight"), (16, 32, 8), (R, L), input_size=(4, 16)),
    Specimen("dead branches", Noted, ("body.weight", "head.weight"), (16, 32, 8), (R, L)),
)  # fmt: skip

SMOOTH = (
    stacked("ReLU6", nn.ReLU6, "ReLU6", coverage="simulated"),
    stacked("Hardtanh", nn.Hardtanh, "hardtanh", coverage="simulated"),
    written("clamp(-1, 1)", lambda x: x.clamp(-1, 1), "hardtanh", coverage="simulated"),
    stacked("RReLU in train mode", nn.RReLU, "RReLU", coverage="none"),
    stacked("tanh", nn.Tanh, "tanh", coverage="simulated"),
    stacked("GELU", nn.GELU, "gelu", coverage="simulated"),
)
"""Chains without a discrete gate: no gap, and no coverage; signs and redraws must agree with each other."""

NO_CHAINS = (
    twisted("residual", lambda m, x: x + m.b(F.relu(m.a(x))), "add"),
    twisted("layer norm", lambda m, x: m.b(F.layer_norm(m.a(x), (12,))), "layer_norm"),
    twisted("shared block", lambda m, x: m.a(F.relu(m.a(x))), "reused"),
    twisted("tied transpose", lambda m, x: F.linear(F.relu(m.a(x)), m.a.weight.t()), "reused"),
    twisted("dropout first", lambda m, x: m.b(F.relu(m.a(F.dropout(x, 0.5)))), "dropout"),
    twisted("alpha dropout", lambda m, x: m.b(F.alpha_dropout(m.a(x), 0.5, True)), "alpha_dropout"),
    twisted("feature dropout", lambda m, x: m.b(F.dropout1d(m.a(x), 0.5)), "dropout1d"),
    twisted("PReLU with several slopes", lambda m, x: m.b(F.prelu(m.a(x), m.slopes)), "prelu"),
    twisted("gate of another value", lambda m, x: m.b(m.a(x) * (x > 0)), "mul"),
    twisted(
        "gated the wrong way", lambda m, x: m.b(torch.where(m.a(x) > 0, 0.0, 1.0) * m.a(x)), "where"
    ),
    twisted("threshold above 0", lambda m, x: m.b(F.threshold(m.a(x), 0.1, 0.0)), "threshold"),
    twisted("clamp above 0", lambda m, x: m.b(m.a(x).clamp(min=0.5)), "clamp"),
    twisted("maximum of two layers", lambda m, x: torch.maximum(m.a(x), m.b(x)), "maximum"),
    twisted("leaky by maximum", lambda m, x: m.b(torch.maximum(m.a(x), 0.1 * m.a(x))), "maximum"),
    twisted("abs", lambda m, x: m.b(m.a(x).abs()), "abs"),
    twisted("softmax", lambda m, x: F.softmax(m.b(F.relu(m.a(x))), -1), "softmax"),
    twisted("concatenation", lambda m, x: m.b(torch.cat([m.a(x)[:, :6], x[:, 6:]], 1)), "cat"),
    twisted("scaling", lambda m, x: m.b(0.5 * m.a(x)), "mul"),
    twisted(
        "backward fails: what ReLU needs is overwritten",
        lambda m, x: m.b(F.dropout(F.relu(m.a(x)), 0.25, inplace=True)),
        "gradients",
    ),
    unlike("spectral_norm", parametrizations.spectral_norm, "state"),
    unlike("old spectral_norm", nn.utils.spectral_norm, "computed"),
)
