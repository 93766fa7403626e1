"""Modules that wrap another one: ``torch.compile``, ``DataParallel`` and its kin."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Unwrapped", "inner_of"]


def inner_of(module: nn.Module) -> str | None:
    """Return the name of the child that ``torch.compile``, ``DataParallel`` or
    ``DistributedDataParallel`` wraps; None for another module.
    """
    if "_orig_mod" in module._modules:
        return "_orig_mod"
    is_parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    return "module" if is_parallel else None


class Unwrapped(nn.Module):
    """Stands in a copy for a wrapper inside the model: runs what it wraps, under the
    same names.
    """

    inner_name: str

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run what is wrapped."""
        return self.get_submodule(self.inner_name)(*args, **kwargs)
