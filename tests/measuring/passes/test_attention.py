"""Self-attention, whose fused kernels have no forward-mode derivative, against functional AD of one network a draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import seeded
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from initdiag import UnsupportedArchitecture, measure, measure_spectrum, trace
from initdiag.measuring.ensembles import random_numbers
from initdiag.measuring.passes.attention import attention_by_formula


class Attention(nn.Module):
    """``scaled_dot_product_attention`` between linear layers."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        return self.out(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


def encoder():
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)


MODELS = {
    "attention": Attention,
    "encoder in eval mode": lambda: encoder().eval(),
    "encoder in train mode": encoder,
}


def init(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.4)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.4)


def drawn(build, draw):
    model = build()
    torch.manual_seed(random_numbers.draw_seed(3, draw))
    return model.apply(init).double()


@pytest.mark.parametrize("name", MODELS)
def test_redraws_against_jacobians_and_plain_autograd(name):
    model, x = (
        seeded(MODELS[name]),
        torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)),
    )
    found = measure(model, x, draws=4, method="redraw", init=init, seed=3)
    last = found.layers[-1]
    u = random_numbers.directions(3, range(4), 40).view(4, 1, 5, 8).double()
    v = random_numbers.directions(3, range(4), 40, "cotangent").view(4, 1, 5, 8).double()
    gradients = []
    for draw in range(4):
        network, row = drawn(lambda: seeded(MODELS[name]), draw), x[[draw % 2]].double()
        with sdpa_kernel(SDPBackend.MATH):
            jacobian = torch.func.jacrev(network)(row).reshape(40, 40)
        tangent = jacobian.detach() @ u[draw].flatten()
        assert found.log_norms[draw] == pytest.approx(
            math.log(float(tangent.square().sum())), abs=1e-9
        )
        (network(row) * v[draw]).sum().backward()
        gradients.append(math.log(float(network.get_parameter(last.name).grad.square().sum())))
    assert last.weight_gradient.log_mean == pytest.approx(np.mean(gradients), abs=1e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["signs", "law"])
def test_every_ensemble_measures_attention(name, method):
    found = measure(seeded(MODELS[name]), torch.randn(2, 5, 8), draws=16, method=method)
    assert np.isfinite(found.log_norms).all()
    assert not any("gradients were not measured" in note for note in found.notes)
    assert method == "law" or all(
        math.isfinite(layer.weight_gradient.log_mean) for layer in found.layers
    )


def test_a_spectrum_of_attention():
    assert measure_spectrum(seeded(Attention), torch.randn(2, 5, 8), draws=2).zero_mass == 0
    assert (
        measure_spectrum(
            seeded(Attention), torch.randn(2, 5, 8), draws=2, dense=False, steps=8
        ).weights
        is not None
    )


def chosen():
    cuda = torch.backends.cuda
    return (
        torch.backends.mha.get_fastpath_enabled(),
        cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled(),
    )  # fmt: skip


def raise_within():
    with attention_by_formula():
        assert chosen() == (False, False, False, True, False)
        raise KeyError


@pytest.mark.parametrize("was_fast", [True, False])
def test_what_the_user_chose_is_put_back(was_fast):
    initially = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(was_fast)
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            before = chosen()
            measure(seeded(Attention), torch.randn(2, 5, 8), draws=4)
            assert chosen() == before
            with pytest.raises(KeyError):
                raise_within()
            assert chosen() == before
    finally:
        torch.backends.mha.set_fastpath_enabled(initially)


def no_grad_forward():
    class Frozen(Attention):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    return Frozen()


class Detached(Attention):
    def forward(self, x):
        return super().forward(x).detach()


class Inference(Attention):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


@pytest.mark.parametrize("build", [no_grad_forward, Detached, Inference])
@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
def test_a_forward_through_which_no_gradient_flows_is_refused(build, method):
    model, x = seeded(Attention), torch.randn(2, 5, 8)
    arch = trace(model, x)
    with pytest.raises(
        UnsupportedArchitecture, match=r"the output does not require a gradient: .*torch\.no_grad"
    ):
        measure(seeded(build), x, draws=4, method=method, init=init, architecture=arch)


def test_frozen_parameters_are_measured():
    model, x = seeded(Attention), torch.randn(2, 5, 8)
    plain = measure(model, x, draws=8)
    assert np.array_equal(
        measure(model.requires_grad_(False), x, draws=8).log_norms, plain.log_norms
    )
