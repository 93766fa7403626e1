"""The public names, and where each is defined: the one list of them.

Type checkers read it, and `__init__.py` loads by it when a name is first used.
"""

from .diagnosing.comparison import Comparison as Comparison, compare as compare
from .diagnosing.diagnose import (
    assert_trainable as assert_trainable,
    check as check,
    diagnose as diagnose,
)
from .diagnosing.parallel import check_many as check_many
from .diagnosing.report import Report as Report
from .diagnosing.risk import failure_risk as failure_risk
from .diagnosing.verdict import Thresholds as Thresholds, Verdict as Verdict
from .errors import (
    AtRisk as AtRisk,
    InitdiagError as InitdiagError,
    InvalidInput as InvalidInput,
    TargetError as TargetError,
    UnsupportedArchitecture as UnsupportedArchitecture,
    WorkersLost as WorkersLost,
)
from .law.gradients import parameter_gradients as parameter_gradients
from .law.hanin_nica import beta as beta
from .law.predict import predict as predict
from .law.prediction import Prediction as Prediction
from .measuring.measure import measure as measure
from .measuring.record import Measurement as Measurement
from .measuring.spectrum import measure_spectrum as measure_spectrum
from .measuring.spectrum_record import SpectralMeasurement as SpectralMeasurement
from .measuring.trial_record import Trial as Trial
from .network.architecture import Architecture as Architecture
from .repairing.repair import Repair as Repair, repair as repair
from .screening.depth_width import RiskMap as RiskMap, risk_map as risk_map
from .screening.screen import (
    Screening as Screening,
    Sizing as Sizing,
    accepts as accepts,
    screen as screen,
    widths_for as widths_for,
    widths_front as widths_front,
)
from .spectrum import free as free
from .spectrum.predict import predict_spectrum as predict_spectrum
from .tracing.trace import trace as trace

__version__: str
