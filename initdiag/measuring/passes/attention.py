"""Attention by its formula: PyTorch's fused kernels have no forward-mode derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["attention_by_formula"]


@contextmanager
def attention_by_formula() -> Iterator[None]:
    """Run ``scaled_dot_product_attention`` and encoder layers as products and a
    softmax; what the user had chosen is put back.
    """
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
