"""initdiag: what a PyTorch network's gradients will look like, before the first step of training.

Predicted exactly, measured on the user's own module, and turned into a verdict. Every export is loaded on first use, so
that importing the package loads neither torch nor scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initdiag.architecture import Architecture
    from initdiag.diagnosis import assert_trainable, check, diagnose
    from initdiag.errors import AtRisk, InitdiagError, InvalidInput, TargetError, UnsupportedArchitecture, WorkersLost
    from initdiag.fleet import check_many
    from initdiag.law.chain import predict
    from initdiag.law.hanin_nica import beta
    from initdiag.law.parameters import parameter_gradients
    from initdiag.measurement import Measurement
    from initdiag.measuring.runner import measure
    from initdiag.measuring.spectrum import measure_spectrum
    from initdiag.mending import Repair, repair
    from initdiag.prediction import Prediction
    from initdiag.report import Report
    from initdiag.risk import failure_risk
    from initdiag.search import Screening, Sizing, accepts, screen, widths_for, widths_front
    from initdiag.spectral_measurement import SpectralMeasurement
    from initdiag.spectrum.jacobian import predict_spectrum
    from initdiag.tracing.trace import trace
    from initdiag.verdict import Thresholds, Verdict

__version__ = "0.1.0"

_EXPORTS = {
    "Architecture": "initdiag.architecture",
    "AtRisk": "initdiag.errors",
    "InitdiagError": "initdiag.errors",
    "InvalidInput": "initdiag.errors",
    "Measurement": "initdiag.measurement",
    "Prediction": "initdiag.prediction",
    "Repair": "initdiag.mending",
    "Report": "initdiag.report",
    "Screening": "initdiag.search",
    "Sizing": "initdiag.search",
    "SpectralMeasurement": "initdiag.spectral_measurement",
    "TargetError": "initdiag.errors",
    "Thresholds": "initdiag.verdict",
    "UnsupportedArchitecture": "initdiag.errors",
    "Verdict": "initdiag.verdict",
    "accepts": "initdiag.search",
    "WorkersLost": "initdiag.errors",
    "assert_trainable": "initdiag.diagnosis",
    "beta": "initdiag.law.hanin_nica",
    "check": "initdiag.diagnosis",
    "check_many": "initdiag.fleet",
    "diagnose": "initdiag.diagnosis",
    "failure_risk": "initdiag.risk",
    "measure": "initdiag.measuring.runner",
    "measure_spectrum": "initdiag.measuring.spectrum",
    "parameter_gradients": "initdiag.law.parameters",
    "predict": "initdiag.law.chain",
    "predict_spectrum": "initdiag.spectrum.jacobian",
    "screen": "initdiag.search",
    "repair": "initdiag.mending",
    "trace": "initdiag.tracing.trace",
    "widths_for": "initdiag.search",
    "widths_front": "initdiag.search",
}

__all__ = [
    "Architecture",
    "AtRisk",
    "InitdiagError",
    "InvalidInput",
    "Measurement",
    "Prediction",
    "Repair",
    "Report",
    "Screening",
    "Sizing",
    "SpectralMeasurement",
    "TargetError",
    "Thresholds",
    "UnsupportedArchitecture",
    "Verdict",
    "WorkersLost",
    "accepts",
    "assert_trainable",
    "beta",
    "check",
    "check_many",
    "diagnose",
    "failure_risk",
    "measure",
    "measure_spectrum",
    "parameter_gradients",
    "predict",
    "predict_spectrum",
    "repair",
    "screen",
    "trace",
    "widths_for",
    "widths_front",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'initdiag' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
