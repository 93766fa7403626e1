"""Beyond ReLU chains: residual sums, LayerNorm, GELU, SwiGLU. A simulation of the law beside true redraws.

A linear layer with Gaussian weights may be replaced by its law: given its input x and tangent t, (W x, W t) is a pair of Gaussian vectors.
`initdiag.measure(model, method="law")` does so inside the module's own forward, so that a draw costs the widths and not their products;
`initdiag.predict` does it for chains without torch. Beside both: networks whose matrices are really drawn, one after the other, and
differentiated (`method="redraw"`). Log-mean and log-variance of ||Ju||^2 agree within their standard errors.

Run it: python examples/beyond_relu.py (a few seconds), or with more draws: --redraws 4000 --law-draws 65536.
"""

from __future__ import annotations

import argparse
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

import initdiag


class PreNormGELU(nn.Module):
    """x + W2 gelu(W1 norm(x)), six times, between an embedding and a head."""

    def __init__(self, inputs=10, width=32, hidden=48, blocks=6, outputs=5):
        super().__init__()
        self.embed, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(width, hidden) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(hidden, width) for _ in range(blocks))

    def forward(self, x):
        x = self.embed(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.head(x)


class PostNormReLU(nn.Module):
    """norm(x + relu(W x)), six times."""

    def __init__(self, width=24, blocks=6):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(x + F.relu(layer(x)))
        return x


class SwiGLU(nn.Module):
    """x + W3 (silu(W1 x) * W2 x), three times."""

    def __init__(self, width=16, hidden=32, blocks=3):
        super().__init__()
        self.gate, self.up = (
            nn.ModuleList(nn.Linear(width, hidden) for _ in range(blocks)) for _ in range(2)
        )
        self.down = nn.ModuleList(nn.Linear(hidden, width) for _ in range(blocks))

    def forward(self, x):
        for gate, up, down in zip(self.gate, self.up, self.down, strict=True):
            x = x + down(F.silu(gate(x)) * up(x))
        return x


def chain(activation, widths=(16, 24, 24, 24, 24, 8), norm=False):
    layers = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [
            nn.Linear(fan_in, fan_out),
            *([nn.LayerNorm(fan_out)] if norm else []),
            activation(),
        ]
    return nn.Sequential(*layers[: -2 if norm else -1])


NETWORKS = {
    "tanh chain": (lambda: chain(nn.Tanh), 16, 1.0),
    "GELU chain": (lambda: chain(nn.GELU), 16, 2.0),
    "SiLU chain": (lambda: chain(nn.SiLU), 16, 2.0),
    "LayerNorm ReLU chain": (lambda: chain(nn.ReLU, norm=True), 16, 2.0),
    "pre-norm GELU, residual": (PreNormGELU, 10, 2.0),
    "post-norm ReLU, residual": (PostNormReLU, 24, 2.0),
    "SwiGLU, residual": (SwiGLU, 16, 1.0),
}
"""Name -> (factory, features of the input, fan_in times the variance of a weight)."""


def initialiser(name):
    """Normal weights, small normal biases, for `Module.apply`; norms keep their ones and zeros."""
    gain = NETWORKS[name][2]

    def init(module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(gain / module.in_features))
            nn.init.normal_(module.bias, std=0.1)

    return init


def subject(name):
    """Return a network and an input row of root mean square 1."""
    factory, width, _ = NETWORKS[name]
    torch.manual_seed(0)
    model = factory().apply(initialiser(name))
    x = torch.randn(1, width)
    return model, x * math.sqrt(width) / x.norm()


def simulated_chain(model, x, draws):
    """`initdiag.predict`, where the network is a chain; else None."""
    arch = initdiag.trace(model, x)
    return None if arch.gaps else initdiag.predict(arch, draws=draws)


def distance(a, b):
    """Differences of log-mean and log-variance in combined standard errors."""
    return tuple(
        (getattr(a, q) - getattr(b, q)) / math.hypot(getattr(a, f"{q}_se"), getattr(b, f"{q}_se"))
        for q in ("log_mean", "log_variance")
    )


def row(kind, found, reference=None):
    text = f"  {kind:8s}{found.log_mean:9.3f} +- {found.log_mean_se:.3f}{found.log_variance:9.3f} +- {found.log_variance_se:.3f}"
    return (
        text
        if reference is None
        else text + "".join(f"{z:+8.1f}" for z in distance(found, reference))
    )


def study(name, redraws, law_draws):
    """Print one network's rows, and assert that law and redraws agree."""
    model, x = subject(name)
    redraw = initdiag.measure(
        model, x, method="redraw", init=initialiser(name), draws=redraws, seed=1
    )
    law = initdiag.measure(model, x, method="law", draws=law_draws, seed=2)
    predicted = simulated_chain(model, x, law_draws)
    print(name)
    print(row("redraws", redraw))
    for kind, found in (("law", law), ("predict", predicted)):
        if found is not None:
            print(row(kind, found, redraw))
            assert max(map(abs, distance(found, redraw))) < 4, (
                f"{name}: {kind} and redraws disagree"
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redraws", type=int, default=300)
    parser.add_argument("--law-draws", type=int, default=2048)
    options = parser.parse_args()
    print(f"{'':10s}{'log-mean of ||Ju||^2':>18s}{'log-variance':>16s}{'z mean':>11s}{'z var':>8s}")
    for name in NETWORKS:
        study(name, options.redraws, options.law_draws)
    print("law and predict agree with redraws within 4 combined standard errors")


if __name__ == "__main__":
    main()
