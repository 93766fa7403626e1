"""A chain built as a module, so that a remedy can be looked at on the user's own batch
before it is advised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from initdiag._core.choices import Loss
from initdiag.measuring.batch_probe import probe_batch
from initdiag.measuring.probe_record import BatchProbe
from initdiag.network.architecture import Activation, Architecture, Layer

__all__ = ["Chain", "probe_built"]

_GATES: dict[str, type[nn.Module]] = {
    "linear": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU,
    "silu": nn.SiLU, "elu": nn.ELU, "selu": nn.SELU, "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6, "rrelu": nn.RReLU,
}  # fmt: skip


class Chain(nn.Module):
    """The layers of an architecture with weights drawn by their laws and zero biases.

    With a ``skip``, every hidden layer but the first is ``x + skip * layer(gate(x))``.
    """

    def __init__(
        self, architecture: Architecture, skip: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.skip = skip
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(_linear(layer, generator) for layer in architecture.layers)
        self.gates = nn.ModuleList(_gate(layer.activation) for layer in architecture.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for a batch of rows."""
        *hidden, output = zip(self.layers, self.gates, strict=True)
        first, gate = hidden[0] if hidden else (nn.Identity(), nn.Identity())
        x = first(x.flatten(1))
        for layer, following in hidden[1:]:
            branch = layer(gate(x))
            x = branch if self.skip is None else x + self.skip * branch
            gate = following
        out: Tensor = output[1](output[0](gate(x)))
        return out


def _linear(layer: Layer, generator: torch.Generator) -> nn.Linear:
    linear = skip_init(nn.Linear, layer.fan_in, layer.fan_out, dtype=torch.float64)
    assert isinstance(linear, nn.Linear)
    std = math.sqrt(layer.weight.variance)
    with torch.no_grad():
        nn.init.zeros_(linear.bias)
        if layer.weight.family == "haar":
            larger = max(layer.fan_in, layer.fan_out)
            nn.init.orthogonal_(linear.weight, std * math.sqrt(larger), generator=generator)
        else:
            linear.weight.normal_(0.0, std, generator=generator)
    return linear


def _gate(activation: Activation) -> nn.Module:
    if activation.name == "leaky_relu":
        return nn.LeakyReLU(activation.negative_slope)
    return _GATES[activation.name]()


def probe_built(
    architecture: Architecture,
    example: Tensor,
    loss: Loss | None = None,
    skip: float | None = None,
    seed: int = 0,
) -> BatchProbe | None:
    """Return what a batch shows of a chain, as it would be built; None where the batch
    is not one of its inputs.

    Parameters
    ----------
    architecture : Architecture
        A chain. Its weights are drawn normal, or Haar where they are orthogonal.
    example : Tensor
        The batch.
    loss : str, optional
        As in `probe_batch`.
    skip : float, optional
        The factor of skip connections around its hidden layers, if it is to have any.
    seed : int
        Fixes the draw of the weights.
    """
    rows = example.detach().flatten(1).cpu()
    if rows.shape[1] != architecture.input_size:
        return None
    return probe_batch(Chain(architecture, skip, seed), rows, loss)
