"""Kinds of networks of which something false is easily said, six or more of each kind.

The first of each kind was found by hand; the others reach the same effect by another
mechanism. ``KINDS`` maps a kind to its cases: name -> (factory, rows of input).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Case = tuple[Callable[[], nn.Module], Tensor]


def rows(features: int, *more: int) -> Tensor:
    generator = torch.Generator().manual_seed(features)
    return torch.randn(32, features, *more, generator=generator)


def he(layer):
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Chain(nn.Module):
    """He-normal layers without biases; ``gate`` and ``linear`` are what a case changes."""

    def __init__(self, gate=torch.relu, linear=None, n=12, depth=8, out=2):
        super().__init__()
        widths = [n] * depth + [out]
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(he(nn.Linear(m, k, bias=False)) for m, k in pairs)
        self.gate, self.linear = gate, linear or (lambda layer, x: layer(x))
        self.register_buffer("slopes", torch.linspace(0.1, 0.6, n))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.gate(self.linear(layer, x))
        return self.layers[-1](x)


def gates(**functions) -> dict[str, Case]:
    return {name: (partial(Chain, gate), rows(12)) for name, gate in functions.items()}


def maps(**functions) -> dict[str, Case]:
    return {name: (partial(Chain, linear=f), rows(12)) for name, f in functions.items()}


def mask(x):
    return (x > 0).to(x.dtype)


def scaled(x):
    m = mask(x)
    m *= 0.3
    return x * m


def filled(x):
    m = mask(x)
    m[m == 0] = 0.9
    return x * m


def filled_by_mask(x):
    return x * mask(x).masked_fill_(x < 0, 0.5)


def put(x):
    m = mask(x)
    m.index_put_((torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)), m.new_tensor(3.0))
    return x * m


def clamped(x):
    return x * mask(x).clamp_(0.4, 0.8)


def added(x):
    return x * mask(x).add_(0.5)


def copied(x):
    m = mask(x)
    m[:, ::2].copy_(torch.full_like(m[:, ::2], 0.2))
    return x * m


def raised(x):
    z = torch.zeros_like(x)
    z += 1.5
    return torch.maximum(x, z)


def lowered(x):
    z = torch.zeros_like(x)
    z.sub_(0.7)
    return torch.maximum(x, z)


def filled_zeros(x):
    return torch.where(x > 0, x, torch.zeros_like(x).fill_(1.1))


def threshold_out(x):
    z = torch.zeros_like(x)
    torch.add(z, 0.8, out=z)
    return torch.where(x > 0, x, z)


def thresholds_by_column(x):
    z = x.new_zeros(x.shape)
    z[:, ::2] = 1.0
    return torch.maximum(x, z)


def doubled_ones(x):
    ones = torch.ones_like(x)
    ones.mul_(1.7)
    return torch.relu(x) * ones


def data_abs(x):
    x.data.abs_()
    return torch.relu(x)


def detached_scaled(x):
    x.detach().mul_(0.6)
    return torch.relu(x)


def no_grad_sign(x):
    with torch.no_grad():
        x.neg_()
    return torch.relu(x)


def by_numpy(x):
    x.detach().numpy()[:, ::2] *= 2
    return torch.relu(x)


def data_replaced(x):
    x.data = x.data + 0.8
    return torch.relu(x)


def data_sorted(x):
    x.data.copy_(x.data.sort(1).values)
    return torch.relu(x)


def renormed(layer, x):
    layer.weight.data = torch.renorm(layer.weight.data, 2, 0, 0.5)
    return layer(x)


def weight_clamped(layer, x):
    layer.weight.data.clamp_(-0.3, 0.3)
    return layer(x)


def weight_decayed(layer, x):
    with torch.no_grad():
        layer.weight.mul_(1.1)
    return layer(x)


def unit_rows(layer, x):
    layer.weight.data.div_(layer.weight.data.norm(dim=1, keepdim=True))
    return layer(x)


def centred_in_place(layer, x):
    layer.weight.data.sub_(layer.weight.data.mean(1, keepdim=True))
    return layer(x)


def weight_rounded(layer, x):
    layer.weight.data.copy_((layer.weight.data * 4).round() / 4)
    return layer(x)


def grown(layer, x):
    layer.weight.data.mul_(1.2)
    return layer(x)


def copied_over(layer, x):
    with torch.no_grad():
        layer.weight.copy_(1.3 * layer.weight)
    return layer(x)


def replaced(layer, x):
    layer.weight.data = 0.8 * layer.weight.data
    return layer(x)


def made_noisy(layer, x):
    with torch.no_grad():
        layer.weight.add_(0.3 * torch.randn_like(layer.weight))
    return layer(x)


def squared_in_place(layer, x):
    layer.weight.data.mul_(layer.weight.data.abs())
    return layer(x)


class Remembering(Chain):
    """What a pass does leaves a trace, which the next one finds."""

    def __init__(self, step):
        super().__init__()
        self.step, self.seen, self.history, self.notes = step, 0, [], {}
        self.memory = torch.ones(12)
        self.register_buffer("scale", torch.ones(12))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.step(self, torch.relu(layer(x)))
        return self.layers[-1](x)


def remembering(**steps) -> dict[str, Case]:
    return {name: (partial(Remembering, step), rows(12)) for name, step in steps.items()}


def counted(net, x):
    net.seen += 1
    return x * 0.9**net.seen


def written_down(net, x):
    net.history.append(len(x))
    return x * (1 + 0.2 * len(net.history))


def noted(net, x):
    net.notes["steps"] = net.notes.get("steps", 0) + 1
    return x / net.notes["steps"]


def remembered(net, x):
    net.memory.mul_(0.8)
    return x * net.memory.to(x)


def scale_written(net, x):
    net.scale.data.mul_(1.1)
    return x * net.scale


def scale_replaced(net, x):
    net.scale = net.scale * 0.7
    return x * net.scale


def hooked(x):
    if x.requires_grad:
        x.register_hook(lambda g: g * 0.3)
    return torch.relu(x)


def clipped_gradient(x):
    if x.requires_grad:
        x.register_hook(lambda g: g.clamp(-0.2, 0.2))
    return torch.relu(x)


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 2.0 * g


class Leaking(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, g, 0.5 * g)


def straight_through(x):
    y = torch.relu(x)
    return y.detach() + 0.7 * (x - x.detach())


class Hooked(Chain):
    """A module's backward hook scales its layers' gradients."""

    def __init__(self):
        super().__init__(nn.ReLU())
        for layer in self.layers:
            layer.register_full_backward_hook(lambda m, gi, go: tuple(0.5 * g for g in gi))


def half_detached(x):
    return torch.relu(0.5 * x + 0.5 * x.detach())


def standardised(layer, x):
    w = layer.weight
    w = (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True)
    return F.linear(x, w * (2 / w.shape[1]) ** 0.5)


def normalised(layer, x):
    return F.linear(x, F.normalize(layer.weight))


def binarised(layer, x):
    w = layer.weight
    return F.linear(x, torch.sign(w) * w.abs().mean())


def squashed(layer, x):
    return F.linear(x, torch.tanh(2 * layer.weight))


def pruned(layer, x):
    w = layer.weight
    return F.linear(x, w * (w.abs() > w.abs().median()))


def squared(layer, x):
    return F.linear(x, layer.weight * layer.weight.abs())


def cubed(layer, x):
    return F.linear(x, 3 * layer.weight**3)


def stretched(layer, x):
    return F.linear(x, torch.sinh(3 * layer.weight) / 5)


def shrunk(layer, x):
    return F.linear(x, 2 * F.softshrink(layer.weight, 0.4))


def over_largest(layer, x):
    return F.linear(x, layer.weight / layer.weight.abs().amax(1, keepdim=True))


def times_next(layer, x):
    return F.linear(x, 2 * layer.weight * layer.weight.roll(1, 0))


def low_rank(layer, x):
    w = layer.weight
    return F.linear(x, w[:, :3] @ w[:3, :])


class Path(Chain):
    """What happens at a layer is decided by chance, or by its weights."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        for i, layer in enumerate(self.layers[:-1]):
            x = self.step(layer, x, i)
        return self.layers[-1](x)


def paths(**steps) -> dict[str, Case]:
    return {name: (partial(Path, step), rows(12)) for name, step in steps.items()}


def layer_drop(layer, x, i):
    return torch.relu(layer(x)) if random.random() < 0.5 else x


def drop_by_torch(layer, x, i):
    return torch.relu(layer(x)) if torch.rand(()) < 0.7 else x


def drop_by_numpy(layer, x, i):
    return torch.relu(layer(x)) if np.random.rand() < 0.7 else 0.3 * x


def gate_by_chance(layer, x, i):
    return torch.relu(layer(x)) if random.random() < 0.5 else torch.tanh(layer(x))


def scale_by_chance(layer, x, i):
    return random.choice((0.5, 1.0, 2.0)) * torch.relu(layer(x))


def order_by_chance(layer, x, i):
    y = layer(x)
    return torch.relu(y[:, torch.randperm(y.shape[1])]) * (1 + torch.rand(()))


def by_sum(layer, x, i):
    y = layer(x)
    return torch.relu(y) if layer.weight.sum() > 0 else F.leaky_relu(y, 0.5)


def by_entry(layer, x, i):
    return torch.relu(layer(x)) * (1.0 if float(layer.weight.detach()[0, 0]) > 0 else 0.2)


def by_norm(layer, x, i):
    return torch.relu(layer(x)) if layer.weight.detach().norm() > 4.9 else layer(x)


def by_largest(layer, x, i):
    return torch.relu(layer(x)) if int(layer.weight.abs().argmax()) % 2 else 0.5 * layer(x).abs()


def by_determinant(layer, x, i):
    w = layer.weight.detach()
    return torch.relu(layer(x)) if torch.linalg.slogdet(w)[0] > 0 else torch.tanh(layer(x))


def by_trace(layer, x, i):
    return torch.relu(layer(x) if float(layer.weight.detach().trace()) > 0 else 2 * layer(x))


class Tied(Chain):
    """One bias, or parts of one parameter, or weights, are what several layers add."""

    def __init__(self, term, size=24):
        super().__init__()
        self.bias, self.term = nn.Parameter(torch.randn(size) * 2), term

    def forward(self, x):
        for i, layer in enumerate(self.layers[:-1]):
            x = torch.relu(layer(x) + self.term(self, layer, i))
        return self.layers[-1](x)


def ties(**terms) -> dict[str, Case]:
    return {name: (partial(Tied, term), rows(12)) for name, term in terms.items()}


def biased(draw, n=12, only=None) -> Case:
    def build():
        net = Chain(n=n)
        for i, layer in enumerate(net.layers):
            if only is None or i == only:
                layer.bias = nn.Parameter(draw(layer.out_features))
        return net

    return build, rows(n)


def following(gate=torch.tanh, **functions) -> dict[str, Case]:
    """Chains whose biases are what a function makes of their layer's weights."""

    def build(function):
        net = Chain(gate)
        for layer in net.layers:
            layer.bias = nn.Parameter(function(layer.weight.detach()).clone())
        return net

    return {name: (partial(build, f), rows(12)) for name, f in functions.items()}


def divided(**functions) -> dict[str, Case]:
    """Narrow chains whose matrices are divided by something of their size."""

    def build(function):
        net = Chain(n=8, depth=6)
        for layer in net.layers:
            w = layer.weight.data
            layer.weight.data = w / function(w)
        return net

    return {name: (partial(build, f), rows(8)) for name, f in functions.items()}


def centred(x):
    return x - x.mean()


def sizes(widths, scales=None, dropout=0.0, biases=False) -> nn.Module:
    """He-normal layers times ``scales``, a dropout behind the last of them."""
    parts: list[nn.Module] = []
    for i, (m, k) in enumerate(itertools.pairwise(widths)):
        layer = he(nn.Linear(m, k, bias=biases))
        layer.weight.data.mul_(1.0 if scales is None else scales[i])
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1], *([nn.Dropout(dropout)] if dropout else []))


def chains(**settings) -> dict[str, Case]:
    return {
        name: (partial(sizes, **options), rows(options["widths"][0]))
        for name, options in settings.items()
    }


class Rows(nn.Module):
    """Each row as a whole is gated by chance."""

    def __init__(self, gate):
        super().__init__()
        self.a, self.b, self.gate = he(nn.Linear(8, 32)), he(nn.Linear(32, 4)), gate

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h * self.gate(h))


def of_rows(**found) -> dict[str, Case]:
    return {name: (partial(Rows, gate), rows(8)) for name, gate in found.items()}


class Useless(nn.Module):
    """The layers are called, but no gradient reaches their weights."""

    def __init__(self, way):
        super().__init__()
        self.body, self.way = sizes([8, 8, 8]), way

    def forward(self, x):
        return self.way(self.body, x)


def without_grad(body, x):
    with torch.no_grad():
        h = body(x)
    return x + h


def useless(**ways) -> dict[str, Case]:
    return {name: (partial(Useless, way), rows(8)) for name, way in ways.items()}


def altered(change) -> Case:
    def build():
        net = sizes([16, 24, 24, 4])
        with torch.no_grad():
            change(net)
        return net

    return build, rows(16)


def all_constant(net):
    for p in net.parameters():
        p.fill_(0.05)


def equal_rows(net):
    net[2].weight.copy_(net[2].weight[:1].expand_as(net[2].weight).clone())


def equal_columns(net):
    net[2].weight.copy_(net[2].weight[:, :1].expand_as(net[2].weight).clone())


def two_halves(net):
    net[0].weight[12:] = net[0].weight[:12].clone()
    net[2].weight[:, 12:] = net[2].weight[:, :12].clone()


def hidden_zeros(net):
    net[2].weight.zero_()


def constant_first(net):
    net[0].weight.fill_(0.1)


class Summed(nn.Module):
    """A residual network, one layer of which starts at zero."""

    def __init__(self, zero, scale=0.0, join=torch.add):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.d, self.join = nn.Linear(32, 4), join
        with torch.no_grad():
            getattr(self, zero).weight.mul_(scale)
            getattr(self, zero).bias.zero_()

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.d(self.join(h, self.c(torch.relu(self.b(h)))))


def summed(**settings) -> dict[str, Case]:
    return {name: (partial(Summed, **options), rows(16)) for name, options in settings.items()}


KINDS: dict[str, dict[str, Case]] = {
    "a mask changed in place": gates(
        scaled=scaled, filled=filled, filled_by_mask=filled_by_mask, put=put, clamped=clamped,
        added=added, copied=copied,
    ),
    "a constant changed in place": gates(
        raised=raised, lowered=lowered, filled_zeros=filled_zeros, threshold_out=threshold_out,
        thresholds_by_column=thresholds_by_column, doubled_ones=doubled_ones,
    ),
    "values changed behind autograd": gates(
        data_abs=data_abs, detached_scaled=detached_scaled, no_grad_sign=no_grad_sign,
        by_numpy=by_numpy, data_replaced=data_replaced, data_sorted=data_sorted,
    ),
    "weights changed in the forward pass": maps(
        renormed=renormed, weight_clamped=weight_clamped, weight_decayed=weight_decayed,
        unit_rows=unit_rows, centred_in_place=centred_in_place, weight_rounded=weight_rounded,
        grown=grown, copied_over=copied_over, replaced=replaced, made_noisy=made_noisy,
        squared_in_place=squared_in_place,
    ),
    "a state that a pass changes": remembering(
        counted=counted, written_down=written_down, noted=noted, remembered=remembered,
        scale_written=scale_written, scale_replaced=scale_replaced,
    ),
    "a backward pass of its own": {
        **gates(
            hooked=hooked, clipped_gradient=clipped_gradient, half_detached=half_detached,
            custom=lambda x: torch.relu(Scaled.apply(x)), leaking=Leaking.apply,
            straight_through=straight_through,
        ),
        "module_hooks": (Hooked, rows(12)),
    },
    "computed weights": maps(
        standardised=standardised, normalised=normalised, binarised=binarised, squashed=squashed,
        pruned=pruned, squared=squared, low_rank=low_rank, cubed=cubed, stretched=stretched,
        shrunk=shrunk, over_largest=over_largest, times_next=times_next,
    ),
    "a random path": paths(
        layer_drop=layer_drop, drop_by_torch=drop_by_torch, drop_by_numpy=drop_by_numpy,
        gate_by_chance=gate_by_chance, scale_by_chance=scale_by_chance,
        order_by_chance=order_by_chance,
    ),
    "a branch on the weights": paths(
        by_sum=by_sum, by_entry=by_entry, by_norm=by_norm, by_largest=by_largest,
        by_determinant=by_determinant, by_trace=by_trace,
    ),
    "a shared bias": ties(
        one_for_all=lambda net, layer, i: net.bias[:12],
        in_pairs=lambda net, layer, i: net.bias[:12] if i % 4 < 2 else net.bias[12:],
        overlapping=lambda net, layer, i: net.bias[i : i + 12],
        scaled=lambda net, layer, i: net.bias[:12] * 0.5,
        sum_of_weights=lambda net, layer, i: layer.weight.sum(1),
        a_column_of_weights=lambda net, layer, i: 2 * layer.weight[:, 0],
    ),
    "biases computed from weights": {
        **following(
            minus_the_sum=lambda w: -w.sum(1),
            half_a_column=lambda w: 2 * w[:, 5],
            a_mean_input=lambda w: -w @ torch.linspace(0, 2, w.shape[1]),
        ),
        **following(
            torch.relu,
            norms=lambda w: 3 * centred(w.norm(dim=1)),
            ranges=lambda w: centred(w.amax(1) - w.amin(1)),
            sizes_of_a_column=lambda w: 4 * centred(w[:, 2].abs()),
        ),
    },
    "norms that do not vary": divided(
        frobenius=lambda w: w.norm() / (2 * w.shape[0]) ** 0.5,
        half_of_it=lambda w: 2 * w.norm() / w.shape[0] ** 0.5,
        spectral=lambda w: torch.linalg.matrix_norm(w, 2) / 1.6,
        largest=lambda w: w.abs().max() / 1.1,
        absolute=lambda w: w.abs().mean() / 0.4,
        nearly=lambda w: w.double().norm().float() * 0.3,
    ),
    "biases of one sign": {
        "uniform": biased(lambda n: 2 * torch.rand(n)),
        "half_normal": biased(lambda n: torch.randn(n).abs()),
        "exponential": biased(lambda n: torch.empty(n).exponential_()),
        "negative": biased(lambda n: -torch.rand(n)),
        "narrow": biased(lambda n: 2 * torch.rand(n), n=8, only=3),
        "one_layer": biased(lambda n: 0.5 + 2 * torch.rand(n), only=2),
    },
    "scales of few weights": chains(
        small_layer={"widths": [64, 5, 5, 64, 8], "scales": [1, 1e-6, 1, 1]},
        small_head={"widths": [17, 16, 16, 3], "scales": [0.7, 0.7, 0.007]},
        large_middle={"widths": [16, 12, 12, 4], "scales": [1, 30, 1]},
        odd_gains={"widths": [16, 12, 12, 12, 4], "scales": [0.8, 1.3, 0.6, 1.9]},
        tiny={"widths": [4, 4, 4, 2], "scales": [1.3, 1.3, 1.3]},
        narrowing={"widths": [20, 14, 14, 14], "scales": [1, 1, 1]},
    ),
    "dropout behind the output": chains(
        one_output={"widths": [64] * 9 + [1], "dropout": 0.1},
        half={"widths": [16, 16, 16, 1], "dropout": 0.5},
        four_outputs={"widths": [16, 16, 16, 4], "dropout": 0.5},
        ten_outputs={"widths": [16, 16, 10], "dropout": 0.2},
        with_biases={"widths": [12, 12, 12, 2], "dropout": 0.3, "biases": True},
        shallow={"widths": [12, 3], "dropout": 0.4},
    ),
    "one gate for a whole row": of_rows(
        compared=lambda h: torch.rand(len(h), 1) < 0.7,
        bernoulli=lambda h: torch.bernoulli(torch.full_like(h[:, :1], 0.8)),
        dropped=lambda h: F.dropout(torch.ones_like(h[:, :1]), 0.4, training=True),
        normal=lambda h: torch.randn(len(h), 1, dtype=h.dtype),
        whole_numbers=lambda h: torch.randint(0, 3, (len(h), 1)).to(h.dtype),
        thrown_once=lambda h: (torch.rand(()) < 0.7).to(h.dtype),
    ),
    "no gradient for the weights": useless(
        identity=lambda body, x: (body(x), x)[1],
        detached=lambda body, x: x + body(x).detach(),
        without_grad=without_grad,
        by_data=lambda body, x: x * (1 + body(x).data),
        by_number=lambda body, x: x * float(body(x).detach().sum()),
        by_sign=lambda body, x: x * (body(x) > 0),
    ),
    "units that are equal": {
        f.__name__: altered(f)
        for f in (
            all_constant, equal_rows, equal_columns, two_halves, hidden_zeros, constant_first,
        )
    },
    "a start at zero": summed(
        branch={"zero": "c"}, first_of_branch={"zero": "b", "scale": 1e-3},
        small_branch={"zero": "c", "scale": 0.01}, head={"zero": "d"},
        subtracted={"zero": "c", "join": torch.sub},
        averaged={"zero": "c", "join": lambda h, r: torch.lerp(h, r, 0.3)},
    ),
}  # fmt: skip
