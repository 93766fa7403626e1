"""Random programs: chains of linear layers, most of them with a twist that a reader may miss."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Twist = Callable[["Program", Tensor, int], Tensor]
"""Acts on the value that layer ``index`` of a program made; the program is at hand."""


def he_normal(w: Tensor) -> None:
    nn.init.kaiming_normal_(w)


def he_uniform(w: Tensor) -> None:
    nn.init.kaiming_uniform_(w)


def torch_default(w: Tensor) -> None:
    nn.init.kaiming_uniform_(w, a=math.sqrt(5))


def xavier_normal(w: Tensor) -> None:
    nn.init.xavier_normal_(w)


def orthogonal(w: Tensor) -> None:
    nn.init.orthogonal_(w, math.sqrt(2))


def lecun_uniform(w: Tensor) -> None:
    nn.init.uniform_(w, -math.sqrt(3 / w.shape[1]), math.sqrt(3 / w.shape[1]))


INITIALIZERS = (he_normal, he_uniform, torch_default, xavier_normal, orthogonal, lecun_uniform)


def default_bias(b: Tensor, fan_in: int) -> None:
    nn.init.uniform_(b, -(fan_in**-0.5), fan_in**-0.5)


def normal_bias(b: Tensor, fan_in: int) -> None:
    nn.init.normal_(b, std=0.1)


def zero_bias(b: Tensor, fan_in: int) -> None:
    nn.init.zeros_(b)


BIASES = (None, zero_bias, default_bias, normal_bias)

RELUS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.relu,
    F.relu,
    lambda x: x.relu(),
    lambda x: x.clamp(min=0),
    lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    lambda x: x * (x > 0),
    lambda x: torch.maximum(x, torch.zeros_like(x)),
    lambda x: F.leaky_relu(x, 0.0),
    lambda x: torch.relu_(x),
)
OTHERS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: F.leaky_relu(x, 0.5),
    lambda x: F.dropout(F.relu(x), 0.2),
)
MAPS: tuple[Callable[[nn.Linear, Tensor], Tensor], ...] = (
    lambda layer, x: layer(x),
    lambda layer, x: layer(x),
    lambda layer, x: F.linear(x, layer.weight, layer.bias),
    lambda layer, x: x @ layer.weight.T if layer.bias is None else x @ layer.weight.T + layer.bias,
    lambda layer, x: layer(x.unsqueeze(1)).squeeze(1),
    lambda layer, x: layer(x.reshape(len(x), -1).contiguous()),
)


# Twists


def residual(net, x, i):
    return x + 0.5 * net.extra(x, i)


def gated(net, x, i):
    return x * torch.sigmoid(net.extra(x, i))


def swapped_halves(net, x, i):
    half = x.shape[1] // 2
    return torch.cat([x[:, half:], x[:, :half]], 1)


def doubled_half(net, x, i):
    half = x.shape[1] // 2
    return torch.cat([2 * x[:, :half], x[:, half:]], 1)


def rolled(net, x, i):
    return x.roll(1, 1)


def rolled_rows(net, x, i):
    return x.roll(1, 0)


def scaled_by_einsum(net, x, i):
    return torch.einsum("bi,i->bi", x, torch.linspace(0.5, 2.0, x.shape[1], dtype=x.dtype))


def mask_scaled(net, x, i):
    mask = (x > 0).to(x.dtype)
    mask *= 0.4
    return x * mask


def mask_filled(net, x, i):
    mask = (x > 0).to(x.dtype)
    mask[mask == 0] = 0.8
    return x * mask


def mask_by_index_put(net, x, i):
    mask = torch.ones_like(x)
    mask[:, ::3] = 0.1
    return x * mask


def zeros_raised(net, x, i):
    zeros = torch.zeros_like(x)
    zeros.add_(0.7)
    return torch.maximum(x, zeros)


def zeros_filled(net, x, i):
    zeros = torch.zeros_like(x)
    zeros[:, 0] = 3.0
    return torch.where(x > 0, x, zeros)


def half_detached(net, x, i):
    return 0.5 * x + 0.5 * x.detach()


def entries_detached(net, x, i):
    return torch.where(torch.arange(x.shape[1]) % 2 == 0, x, x.detach())


def no_grad_part(net, x, i):
    with torch.no_grad():
        shift = x.mean(1, keepdim=True)
    return x - shift


def tensor_hook(net, x, i):
    if x.requires_grad:
        x.register_hook(lambda g: 0.4 * g)
    return x


def clipping_hook(net, x, i):
    if x.requires_grad:
        x.register_hook(lambda g: g.clamp(-0.05, 0.05))
    return x


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -0.6 * g


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sign(x)

    @staticmethod
    def backward(ctx, g):
        return g


def reversal(net, x, i):
    return Reversal.apply(x)


def straight_through(net, x, i):
    return StraightThrough.apply(x)


def data_abs(net, x, i):
    x.data.abs_()
    return x


def data_scaled(net, x, i):
    x.data.mul_(0.5)
    return x


def in_place_without_grad(net, x, i):
    with torch.no_grad():
        x.mul_(1.5)
    return x


def from_numpy(net, x, i):
    return x + torch.from_numpy(x.detach().numpy().copy())


def weight_clamped(net, x, i):
    net.layers[i].weight.data.clamp_(-0.1, 0.1)
    return net.layers[i](net.seen)


def weight_renormed(net, x, i):
    net.layers[i].weight.data = torch.renorm(net.layers[i].weight.data, 2, 0, 0.5)
    return net.layers[i](net.seen)


def weight_standardised(net, x, i):
    w = net.layers[i].weight
    w = (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-9) * w.shape[1] ** -0.5
    return F.linear(net.seen, w)


def weight_normalised(net, x, i):
    return F.linear(net.seen, F.normalize(net.layers[i].weight))


def weight_pruned(net, x, i):
    w = net.layers[i].weight
    return F.linear(net.seen, w * (w.abs() > w.abs().median()))


def weight_signed(net, x, i):
    w = net.layers[i].weight
    return F.linear(net.seen, torch.sign(w) * w.detach().abs().mean())


def weight_squared(net, x, i):
    return F.linear(net.seen, net.layers[i].weight ** 2)


def weight_low_rank(net, x, i):
    w = net.layers[i].weight
    return F.linear(net.seen, w[:, :1] @ w[:1, :])


def weight_centred(net, x, i):
    w = net.layers[i].weight
    return F.linear(net.seen, w - w.mean())


def weight_detached(net, x, i):
    return F.linear(net.seen, net.layers[i].weight.detach())


def same_layer_again(net, x, i):
    square = x.shape[1] == net.layers[i].in_features
    return net.layers[i](torch.relu(x)) if square else x


def through_the_transpose(net, x, i):
    w = net.layers[i].weight
    return F.linear(torch.relu(F.linear(x, w.T)), w)


def one_bias_for_all(net, x, i):
    return x + net.common[: x.shape[1]]


def bias_from_weights(net, x, i):
    return x + net.layers[i].weight.sum(1)


def branch_by_python(net, x, i):
    return x if random.random() < 0.5 else 2 * x


def branch_by_numpy(net, x, i):
    return x if np.random.rand() < 0.5 else torch.tanh(x)


def branch_by_torch(net, x, i):
    return x if torch.rand(1).item() < 0.5 else 0.3 * x


def skipped_at_random(net, x, i):
    return net.extra(x, i) if random.random() < 0.5 else x


def noise(net, x, i):
    return x * (1 + 0.5 * torch.randn(len(x), 1, dtype=x.dtype))


def gate_of_a_row(net, x, i):
    return x * (torch.rand(len(x), 1) < 0.7)


def branch_on_mean(net, x, i):
    return x if bool(x.mean() > 0) else 0.5 * x


def branch_on_size(net, x, i):
    return x if float(x.detach().norm(dim=1).max()) < 20 else x / 10


def branch_on_first_row(net, x, i):
    return torch.where((x[:, :1] > 0), x, 0.2 * x)


def branch_on_rows(net, x, i):
    return x if len(x) > 1 else 3 * x


def branch_on_grad(net, x, i):
    return x if x.requires_grad else 0.5 * x


def branch_on_weights(net, x, i):
    return torch.tanh(x) if float(net.layers[i].weight.sum().detach()) > 0 else x


def branch_on_one_weight(net, x, i):
    return x if float(net.layers[i].weight[0, 0].detach()) > 0 else 0.1 * x


def counted(net, x, i):
    net.count += 1
    return x if net.count % 2 else 0.5 * x


def growing(net, x, i):
    net.scale.mul_(1.1)
    return x * net.scale


def remembered(net, x, i):
    if net.memory is not None and net.memory.shape == x.shape:
        x = x + net.memory
    net.memory = x.detach().clone()
    return x


def centred_rows(net, x, i):
    return x - x.mean(0, keepdim=True)


def normalised_batch(net, x, i):
    return x / (x.std() + 1e-3)


def constant_factor(net, x, i):
    return 0.7 * x


def constant_shift(net, x, i):
    return x + 0.5


def absolute(net, x, i):
    return x.abs()


def squashed(net, x, i):
    return torch.tanh(x)


def clipped(net, x, i):
    return x.clamp(-0.3, 0.3)


def buffer_scale(net, x, i):
    return x * net.fixed[: x.shape[1]]


def learned_scale(net, x, i):
    return x * net.learnt[: x.shape[1]]


def cast(net, x, i):
    return x.float().to(x.dtype)


def checked(net, x, i):
    assert torch.isfinite(x).all()
    return x


def monitored(net, x, i):
    net.memory = (x.detach() > 0).double().mean()
    return x


def normed(net, x, i):
    return F.layer_norm(x, x.shape[1:])


def pooled(net, x, i):
    return x * x.mean(1, keepdim=True)


TWISTS: tuple[Twist, ...] = (
    residual, gated, swapped_halves, doubled_half, rolled, rolled_rows, scaled_by_einsum,
    mask_scaled, mask_filled, mask_by_index_put, zeros_raised, zeros_filled, half_detached,
    entries_detached, no_grad_part, tensor_hook, clipping_hook, reversal, straight_through,
    data_abs, data_scaled, in_place_without_grad, from_numpy, weight_clamped, weight_renormed,
    weight_standardised, weight_normalised, weight_pruned, weight_signed, weight_squared,
    weight_low_rank, weight_centred, weight_detached, same_layer_again, through_the_transpose,
    one_bias_for_all, bias_from_weights, branch_by_python, branch_by_numpy, branch_by_torch,
    skipped_at_random, noise, gate_of_a_row, branch_on_mean, branch_on_size, branch_on_first_row,
    branch_on_rows, branch_on_grad, branch_on_weights, branch_on_one_weight, counted, growing,
    remembered, centred_rows, normalised_batch, constant_factor, constant_shift, absolute,
    squashed, clipped, buffer_scale, learned_scale, cast, checked, monitored, normed, pooled,
)  # fmt: skip


def halving_hook(net: Program, i: int) -> None:
    net.layers[i].register_forward_hook(lambda m, a, out: out * 0.5)


def pre_hook(net: Program, i: int) -> None:
    net.layers[i].register_forward_pre_hook(lambda m, a: (a[0] * 2,))


def backward_hook(net: Program, i: int) -> None:
    net.layers[i].register_full_backward_hook(lambda m, gi, go: tuple(0.3 * g for g in gi))


class HalvedLinear(nn.Linear):
    def forward(self, x):
        return 0.5 * super().forward(x)


def subclassed(net: Program, i: int) -> None:
    net.layers[i].__class__ = HalvedLinear


def positive_weights(net: Program, i: int) -> None:
    net.layers[i].weight.data.abs_()


def positive_biases(net: Program, i: int) -> None:
    net.layers[i].bias = nn.Parameter(torch.rand(net.layers[i].out_features) * 2)


def equal_rows(net: Program, i: int) -> None:
    w = net.layers[i].weight.data
    w.copy_(w[:1].expand_as(w).clone())


def copied_weights(net: Program, i: int) -> None:
    j = (i + 1) % len(net.layers)
    if net.layers[i].weight.shape == net.layers[j].weight.shape and i != j:
        net.layers[j].weight.data.copy_(net.layers[i].weight.data)


ALTERATIONS = (
    halving_hook, pre_hook, backward_hook, subclassed, positive_weights, positive_biases,
    equal_rows, copied_weights,
)  # fmt: skip
"""What is done to a program after it is built."""


@dataclass(frozen=True)
class Plan:
    """What a seed stands for."""

    seed: int
    widths: tuple[int, ...]
    init: Callable[[Tensor], None]
    bias: Callable[[Tensor, int], None] | None
    maps: tuple[Callable[[nn.Linear, Tensor], Tensor], ...]
    gates: tuple[Callable[[Tensor], Tensor], ...]
    twists: tuple[tuple[int, Twist], ...]
    alterations: tuple[tuple[int, Callable[[Program, int], None]], ...]

    @property
    def is_plain(self) -> bool:
        return not self.twists and not self.alterations

    @property
    def names(self) -> str:
        return " ".join(f.__name__ for _, f in (*self.twists, *self.alterations)) or "plain"


def program(seed: int) -> Plan:
    """Return the plan of this seed."""
    rng = random.Random(seed)
    depth = rng.randint(2, 7)
    square = rng.random() < 0.5
    width = rng.randint(4, 24)
    hidden = [width if square else rng.randint(4, 24) for _ in range(depth - 1)]
    widths = (width if square else rng.randint(3, 24), *hidden, rng.randint(1, 4))
    gate = rng.choice(RELUS) if rng.random() < 0.7 else rng.choice(OTHERS)
    number = 0 if rng.random() < 0.2 else rng.choice((1, 1, 1, 2, 3))
    found = rng.sample((*TWISTS, *ALTERATIONS), number)
    places = [rng.randrange(depth - 1) for _ in found]
    placed = list(zip(places, found, strict=True))
    return Plan(
        seed,
        widths,
        rng.choice(INITIALIZERS),
        rng.choice(BIASES),
        tuple(rng.choice(MAPS) for _ in range(depth)),
        (gate,) * (depth - 1),
        tuple((i, f) for i, f in placed if f in TWISTS),
        tuple((i, f) for i, f in placed if f in ALTERATIONS),
    )


class Program(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.count, self.memory = plan, 0, None
        pairs = list(itertools.pairwise(plan.widths))
        self.layers = nn.ModuleList(nn.Linear(m, n, bias=plan.bias is not None) for m, n in pairs)
        kinds = {f.__name__ for _, f in plan.twists}
        if kinds & {"residual", "gated", "skipped_at_random"}:
            self.others = nn.ModuleList(nn.Linear(n, n, bias=False) for _, n in pairs)
        if "one_bias_for_all" in kinds:
            self.common = nn.Parameter(torch.randn(24))
        if "learned_scale" in kinds:
            self.learnt = nn.Parameter(torch.linspace(0.2, 2.0, 24))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("fixed", torch.linspace(0.2, 2.0, 24))
        for layer in (*self.layers, *getattr(self, "others", ())):
            plan.init(layer.weight.data)
            if layer.bias is not None and plan.bias is not None:
                plan.bias(layer.bias.data, layer.in_features)
        for i, alter in plan.alterations:
            alter(self, i)

    def extra(self, x: Tensor, i: int) -> Tensor:
        return torch.relu(self.others[i](x))

    def forward(self, x: Tensor) -> Tensor:
        shared = "one_bias_for_all" in {f.__name__ for _, f in self.plan.twists}
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            self.seen = x
            x = self.plan.maps[i](layer, x)
            for place, twist in self.plan.twists:
                everywhere = shared and twist is one_bias_for_all and i < last
                if place == i or everywhere:
                    x = twist(self, x, i)
            x = self.plan.gates[i](x) if i < last else x
        self.seen = None
        return x
