"""Everything of a module and of the random generators that could change, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn


def state(model: nn.Module):
    """Everything of a module that could change, bit for bit."""
    return {
        "tensors": [
            (
                name,
                id(t),
                t._version,
                t.requires_grad,
                t.device,
                t.detach().clone(),
                None if t.grad is None else t.grad.clone(),
            )
            for name, t in [*model.named_parameters(), *model.named_buffers()]
        ],
        "modes": [(name, m.training) for name, m in model.named_modules()],
        "hooks": [
            (
                name,
                list(m._forward_hooks),
                list(m._forward_pre_hooks),
                list(m._backward_hooks),
                list(m._forward_hooks_always_called),
            )
            for name, m in model.named_modules()
        ],
        "attributes": [(name, sorted(vars(m))) for name, m in model.named_modules()],
    }


def random_states():
    return torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate()


def assert_same(before, after):
    for key in ("modes", "hooks", "attributes"):
        assert before[key] == after[key]
    for old, new in zip(before["tensors"], after["tensors"], strict=True):
        assert old[:5] == new[:5]
        assert torch.equal(old[5], new[5])
        assert (old[6] is None) == (new[6] is None)
        assert old[6] is None or torch.equal(old[6], new[6])
