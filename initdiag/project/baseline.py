"""A baseline: what a project's models are like today, so that a check fails only on
what got worse.

The file is JSON, the same bits for the same reports: keys sorted, risks rounded to four
decimals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initdiag.diagnosing.report import Report
from initdiag.diagnosing.risk import Training, risk_of_moments
from initdiag.diagnosing.verdict import Verdict
from initdiag.errors import TargetError, explain
from initdiag.measuring.judged import judged_moments

__all__ = ["RISK_MARGIN", "Baseline", "Standing", "risk_margin"]

_VERSION = 1
"""Version of the file's form."""

RISK_MARGIN = 0.05
"""A risk is clearly higher when it is more than this above the baseline's, and more
than `_STANDARD_ERRORS` of the difference.
"""

_STANDARD_ERRORS = 3.0
"""One-sided false alarm of 0.1 % where the risk rests on a simulation or a measurement;
a law has no error.
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """One model in a baseline: its verdict, its risks, the codes of its findings of
    severity warning or error.
    """

    verdict: Verdict
    risk: dict[str, float]
    codes: tuple[str, ...]

    @classmethod
    def of(cls, report: Report) -> Standing:
        """Return how the model of ``report`` stands."""
        risk = {name: round(value, 4) for name, value in report.risk.items()}
        return cls(
            report.verdict,
            risk,
            tuple(
                sorted({finding.code for finding in report.findings if finding.severity != "note"})
            ),
        )

    def worse(self, report: Report) -> Iterator[str]:
        """Yield what is worse in ``report``: the verdict, a risk clearly higher, a new
        code of warning or error.
        """
        judged = report.optimizer or "sgd"
        before, now = self.risk.get(judged), report.risk.get(judged)
        if report.verdict is Verdict.NO_VERDICT and self.verdict is not Verdict.NO_VERDICT:
            yield f"no verdict any more, was {self.verdict.value}"
        if report.verdict.is_at_risk and not self.verdict.is_at_risk:
            yield f"{report.verdict.value}, was {self.verdict.value}"
        elif before is not None and now is not None and now > before + risk_margin(report):
            yield f"risk {now:.0%}, was {before:.0%} ({judged})"
        for finding in report.findings:
            if finding.severity != "note" and finding.code not in self.codes:
                place = f" at {finding.layer}" if finding.layer else ""
                yield (
                    f"new {finding.severity} {finding.code}{place}: {finding.message}; "
                    f"{finding.remedy}"
                )


@dataclass(frozen=True, slots=True)
class Baseline:
    """How each model stood when the baseline was written, by the model's name."""

    models: dict[str, Standing]

    @classmethod
    def of(cls, reports: Iterable[tuple[str, Report]]) -> Baseline:
        """Return the baseline of reports, each with its model's name."""
        return cls({name: Standing.of(report) for name, report in reports})

    def to_json(self) -> str:
        """Return the file's text."""
        models = {
            name: {"findings": list(one.codes), "risk": one.risk, "verdict": one.verdict.value}
            for name, one in self.models.items()
        }
        data = {"initdiag_baseline": _VERSION, "models": models}
        return (
            json.dumps(data, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
        )

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Return the baseline of a file.

        Raises
        ------
        TargetError
            If there is none, or it is no baseline of this version.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
            version = data["initdiag_baseline"]
            models = (
                {name: _standing(one) for name, one in data["models"].items()}
                if version == _VERSION
                else {}
            )
        except OSError as error:
            raise _no_baseline(path, error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _no_baseline(path, f"{type(error).__name__}: {error}") from error
        if version != _VERSION:
            raise _no_baseline(path, f"version {version!r}")
        return cls(models)


def risk_margin(report: Report) -> float:
    """Return by how much the judged risk of ``report`` has to exceed an earlier one, of
    as many draws, to be clearly higher.
    """
    law, measured = report.prediction, report.measurement
    if report.basis == "law":
        moments = law.hidden_drift, law.hidden_log_variance, law.hidden_dead_probability
        errors = law.log_mean_se, law.log_variance_se
    elif measured is not None:
        moments = judged_moments(measured, report.architecture)
        errors = measured.log_mean_se, measured.log_variance_se
    else:
        return RISK_MARGIN
    error = _risk_error(moments, errors, report.architecture.depth or None, report.training)
    return max(RISK_MARGIN, _STANDARD_ERRORS * math.sqrt(2) * error)


def _risk_error(
    moments: tuple[Any, ...], errors: tuple[Any, ...], depth: int | None, training: Training
) -> float:
    """Return the standard error of the risk by central differences. The errors of drift
    and fluctuation are taken as independent.
    """
    drift, variance, dead = moments
    by_drift, by_variance = ((error or 0.0) for error in errors)

    def risk(sign: int, d: float, v: float) -> float:
        return risk_of_moments(
            drift + sign * d, max(variance + sign * v, 0.0), dead, depth, training
        )

    slopes = (risk(1, d, v) - risk(-1, d, v) for d, v in ((by_drift, 0.0), (0.0, by_variance)))
    found = math.hypot(*slopes) / 2
    return found if math.isfinite(found) else 0.0


def _standing(one: dict[str, Any]) -> Standing:
    risk = {str(name): float(value) for name, value in one["risk"].items()}
    return Standing(Verdict(one["verdict"]), risk, tuple(map(str, one["findings"])))


def _no_baseline(path: Path, got: str) -> TargetError:
    return TargetError(
        explain(
            expected=f"a baseline of version {_VERSION} in {path}",
            got=got,
            do=f"Write it: initdiag check --write-baseline {path}",
        )
    )
