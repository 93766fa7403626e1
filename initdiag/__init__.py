"""initdiag: what a PyTorch network's gradients will look like, before the first step of
training.

Predicted exactly, measured on the user's own module, and turned into a verdict. Every
export is loaded on first use, so that importing the package loads neither torch nor
scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initdiag.diagnosing.diagnose import assert_trainable, check, diagnose
    from initdiag.diagnosing.parallel import check_many
    from initdiag.diagnosing.report import Report
    from initdiag.diagnosing.risk import failure_risk
    from initdiag.diagnosing.verdict import Thresholds, Verdict
    from initdiag.errors import (
        AtRisk,
        InitdiagError,
        InvalidInput,
        TargetError,
        UnsupportedArchitecture,
        WorkersLost,
    )
    from initdiag.law.gradients import parameter_gradients
    from initdiag.law.hanin_nica import beta
    from initdiag.law.predict import predict
    from initdiag.law.prediction import Prediction
    from initdiag.measuring.measure import measure
    from initdiag.measuring.record import Measurement
    from initdiag.measuring.spectrum import measure_spectrum
    from initdiag.measuring.spectrum_record import SpectralMeasurement
    from initdiag.network.architecture import Architecture
    from initdiag.repairing.repair import Repair, repair
    from initdiag.screening.screen import (
        Screening,
        Sizing,
        accepts,
        screen,
        widths_for,
        widths_front,
    )
    from initdiag.spectrum import free
    from initdiag.spectrum.predict import predict_spectrum
    from initdiag.tracing.trace import trace

__version__ = "0.2.0"

_EXPORTS = {
    "Architecture": "initdiag.network.architecture",
    "AtRisk": "initdiag.errors",
    "InitdiagError": "initdiag.errors",
    "InvalidInput": "initdiag.errors",
    "Measurement": "initdiag.measuring.record",
    "Prediction": "initdiag.law.prediction",
    "Repair": "initdiag.repairing.repair",
    "Report": "initdiag.diagnosing.report",
    "Screening": "initdiag.screening.screen",
    "Sizing": "initdiag.screening.screen",
    "SpectralMeasurement": "initdiag.measuring.spectrum_record",
    "TargetError": "initdiag.errors",
    "Thresholds": "initdiag.diagnosing.verdict",
    "UnsupportedArchitecture": "initdiag.errors",
    "Verdict": "initdiag.diagnosing.verdict",
    "accepts": "initdiag.screening.screen",
    "WorkersLost": "initdiag.errors",
    "assert_trainable": "initdiag.diagnosing.diagnose",
    "beta": "initdiag.law.hanin_nica",
    "check": "initdiag.diagnosing.diagnose",
    "check_many": "initdiag.diagnosing.parallel",
    "diagnose": "initdiag.diagnosing.diagnose",
    "failure_risk": "initdiag.diagnosing.risk",
    "free": "initdiag.spectrum",
    "measure": "initdiag.measuring.measure",
    "measure_spectrum": "initdiag.measuring.spectrum",
    "parameter_gradients": "initdiag.law.gradients",
    "predict": "initdiag.law.predict",
    "predict_spectrum": "initdiag.spectrum.predict",
    "screen": "initdiag.screening.screen",
    "repair": "initdiag.repairing.repair",
    "trace": "initdiag.tracing.trace",
    "widths_for": "initdiag.screening.screen",
    "widths_front": "initdiag.screening.screen",
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
    "free",
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
