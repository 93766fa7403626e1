"""initdiag: what a PyTorch network's gradients will look like, before the first step of training.

Predicted exactly, measured on the user's own module, and turned into a verdict. Every export is loaded on first use, so
that importing the package loads neither torch nor scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initdiag.architecture import Architecture
    from initdiag.law.chain import predict
    from initdiag.law.hanin_nica import beta
    from initdiag.spectrum.jacobian import predict_spectrum

__version__ = "0.1.0"

_EXPORTS = {
    "Architecture": "initdiag.architecture",
    "beta": "initdiag.law.hanin_nica",
    "predict": "initdiag.law.chain",
    "predict_spectrum": "initdiag.spectrum.jacobian",
}

__all__ = ["Architecture", "beta", "predict", "predict_spectrum"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'initdiag' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
