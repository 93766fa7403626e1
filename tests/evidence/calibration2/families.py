"""The families of networks, written as people write them: each takes rows of numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tasks import Task


class Sine(nn.Module):
    """``sin(w x)``."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.w * x)


class Fourier(nn.Module):
    """Fixed sines and cosines of random directions, of a bandwidth."""

    def __init__(self, inputs: int, outputs: int, bandwidth: float) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(inputs, outputs // 2) * bandwidth)

    def forward(self, x: Tensor) -> Tensor:
        phase = 2 * math.pi * (x @ self.directions)
        return torch.cat([phase.sin(), phase.cos()], -1)


GATES = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
}


@dataclass(frozen=True)
class Spec:
    """An architecture: ``depth`` hidden layers (blocks, convolutions, recurrent layers),
    ``width`` units, ``extra``: the bandwidth of a Fourier front, the factor w of sines.
    """

    family: str
    depth: int
    width: int
    extra: float = 0.0


def chain(task: Task, spec: Spec) -> nn.Module:
    widths = [task.x.shape[1], *[spec.width] * spec.depth]
    layers: list[nn.Module] = []
    if spec.family == "fourier":
        widths[0] = 2 * max(4, spec.width // 2)
        layers.append(Fourier(task.x.shape[1], widths[0], spec.extra))
    norm = {"layernorm": nn.LayerNorm, "batchnorm": nn.BatchNorm1d}.get(spec.family)
    for a, b in itertools.pairwise(widths):
        layers.append(nn.Linear(a, b))
        layers += [norm(b)] if norm else []
        layers.append(Sine(spec.extra) if spec.family == "siren" else _gate(spec.family))
    return nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(task.output)), *_shaped(task))


def _gate(family: str) -> nn.Module:
    return GATES.get(family, nn.ReLU)()


def _shaped(task: Task) -> list[nn.Module]:
    return [nn.Unflatten(-1, task.output)] if len(task.output) > 1 else []


class Block(nn.Module):
    """A residual block of two layers: normalised before ("pre"), after ("post"), or not."""

    def __init__(self, width: int, place: str) -> None:
        super().__init__()
        self.place = place
        self.norm = nn.Identity() if place == "none" else nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def branch(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.place == "post":
            return self.norm(x + self.branch(x))
        return x + self.branch(self.norm(x))


class SwiGLU(nn.Module):
    """A residual block ``x + W3 (silu(W1 n(x)) * W2 n(x))``, n an RMS norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.gate, self.up, self.down = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


def residual(task: Task, spec: Spec) -> nn.Module:
    places = {"res_plain": "none", "res_pre": "pre", "res_post": "post"}
    n = spec.width
    blocks = [
        SwiGLU(n) if spec.family == "swiglu" else Block(n, places[spec.family])
        for _ in range(spec.depth)
    ]
    last = [nn.LayerNorm(n)] if spec.family in ("res_pre", "swiglu") else []
    head = nn.Linear(n, math.prod(task.output))
    return nn.Sequential(nn.Linear(task.x.shape[1], n), *blocks, *last, head, *_shaped(task))


class ConvBlock(nn.Module):
    """Convolution, batch norm if asked for, ReLU; with a skip connection if asked for."""

    def __init__(self, channels: int, norm: bool, skip: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x)))
        return x + h if self.skip else h


def convolutional(task: Task, spec: Spec) -> nn.Module:
    assert task.image is not None
    rows, columns = task.image
    n, norm, skip = spec.width, spec.family != "cnn_plain", spec.family == "cnn_res"
    stem = nn.Conv2d(1, n, 3, stride=2 if rows == 8 else 1, padding=1)
    positions = 16 if rows == 8 else rows * columns
    return nn.Sequential(
        nn.Unflatten(-1, (1, rows, columns)),
        stem,
        nn.ReLU(),
        *(ConvBlock(n, norm, skip) for _ in range(spec.depth - 1)),
        nn.Flatten(),
        nn.Linear(n * positions, math.prod(task.output)),
        *_shaped(task),
    )


class Attention(nn.Module):
    """A transformer's block, two heads, norms before or after."""

    def __init__(self, width: int, post: bool) -> None:
        super().__init__()
        self.post, self.heads = post, 2
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for part in self.qkv(x).chunk(3, -1)
        )
        shares = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.out((shares @ v).transpose(-3, -2).flatten(-2))

    def feed(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attend(x))
            return self.norm2(x + self.feed(x))
        x = x + self.attend(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Transformer(nn.Module):
    """Tokens with learnt positions; a head on every token, or on their mean."""

    def __init__(self, task: Task, spec: Spec) -> None:
        super().__init__()
        assert task.steps is not None
        self.steps, n, post = task.steps, spec.width, spec.family == "transformer_post"
        self.embed = nn.Linear(self.steps[1], n)
        self.positions = nn.Parameter(torch.randn(self.steps[0], n) * 0.02)
        self.blocks = nn.Sequential(*(Attention(n, post) for _ in range(spec.depth)))
        self.norm = nn.Identity() if post else nn.LayerNorm(n)
        self.by_token = len(task.output) > 1
        self.head = nn.Linear(n, task.output[-1])

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.blocks(self.embed(x.unflatten(-1, self.steps)) + self.positions))
        return self.head(h if self.by_token else h.mean(-2))


class Cell(nn.Module):
    """A layer of a recurrent network, step by step: tanh, or an LSTM."""

    def __init__(self, inputs: int, width: int, lstm: bool) -> None:
        super().__init__()
        self.lstm, self.width = lstm, width
        n = 4 * width if lstm else width
        self.of_input, self.of_state = nn.Linear(inputs, n), nn.Linear(width, n)

    def forward(self, x: Tensor) -> Tensor:
        drive = self.of_input(x).unbind(-2)
        state, memory, states = torch.zeros_like(drive[0][..., : self.width]), 0.0, []
        for step in drive:
            z = step + self.of_state(state)
            if self.lstm:
                i, f, g, o = z.chunk(4, -1)
                memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
                state = o.sigmoid() * memory.tanh()
            else:
                state = z.tanh()
            states.append(state)
        return torch.stack(states, -2)


class Recurrent(nn.Module):
    """Recurrent layers; a sequence is said after it has been heard, a class at the end."""

    def __init__(self, task: Task, spec: Spec) -> None:
        super().__init__()
        assert task.steps is not None
        self.steps = task.steps
        widths = [self.steps[1], *[spec.width] * spec.depth]
        cells = (Cell(a, b, spec.family == "lstm") for a, b in itertools.pairwise(widths))
        self.cells = nn.Sequential(*cells)
        self.says = task.output[0] if len(task.output) > 1 else 0
        self.head = nn.Linear(spec.width, task.output[-1])

    def forward(self, x: Tensor) -> Tensor:
        heard = functional.pad(x.unflatten(-1, self.steps), (0, 0, 0, self.says))
        states = self.cells(heard)
        return self.head(states[..., -self.says :, :] if self.says else states[..., -1, :])


BUILDERS = (
    dict.fromkeys((*GATES, "siren", "fourier", "layernorm", "batchnorm"), chain)
    | dict.fromkeys(("res_plain", "res_pre", "res_post", "swiglu"), residual)
    | dict.fromkeys(("cnn_plain", "cnn_norm", "cnn_res"), convolutional)
    | dict.fromkeys(("transformer_pre", "transformer_post"), Transformer)
    | dict.fromkeys(("rnn", "lstm"), Recurrent)
)
FAMILIES = tuple(BUILDERS)


def build(task: Task, spec: Spec) -> nn.Module:
    """The network, as PyTorch initialises it (of torch's generator)."""
    return BUILDERS[spec.family](task, spec)
