"""The report: every record of one diagnosis, plain data with a schema version."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from initdiag._core.choices import Family, Loss
from initdiag._core.serialization import Record
from initdiag.diagnosing.advice import Advice
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.causes import Cause
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.risk import Training
from initdiag.diagnosing.verdict import Thresholds, Verdict
from initdiag.errors import InvalidInput, explain
from initdiag.law.prediction import Prediction
from initdiag.measuring.probe_record import BatchProbe
from initdiag.measuring.record import Measurement
from initdiag.measuring.trial_record import Trial
from initdiag.network.architecture import Architecture
from initdiag.spectrum.record import SpectralLaw

__all__ = ["SCHEMA_VERSION", "Report"]

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes away; a report of this version loads
for ever.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Report(Record):
    """What was found about one network.

    Attributes
    ----------
    schema_version : int
        Version of `to_dict`'s form.
    initdiag_version : str
        Version of initdiag that made it.
    target : str
        What was looked at: a command-line target, or a class name.
    verdict : Verdict
        See `initdiag.diagnosing.verdict`.
    basis : Basis
        ``"law"``, ``"measurement"``, ``"trial"``, ``"structure"`` or ``"none"``: what
        the verdict rests on.
    risk : dict
        Optimiser -> probability that training does not start; empty without a verdict.
    risk_provenance : str
        Where the risk's coefficients come from.
    optimizer : str or None
        That the verdict is for; plain SGD if None.
    thresholds : Thresholds
        The decision rule's.
    architecture : Architecture
        What was read.
    prediction : Prediction
        What theory says; coverage "none" where it says nothing.
    measurement : Measurement or None
        What was measured.
    spectrum : SpectralLaw or None
        The predicted spectrum of the input-output Jacobian, if it was asked for and the
        theory covers it.
    agreement : Agreement or None
        The test of one against the other.
    findings : tuple of Finding
        The worst first.
    advice : tuple of Advice
        What to do.
    elapsed : float
        Seconds that the diagnosis took.
    lr, loss : float or None, str or None
        The learning rate and the kind of loss that the judged optimiser's risk is for;
        averaged over if None.
    trial : Trial or None
        What some real steps of training did, if that was asked for.
    cause : str or None
        Why training is not likely to start, for a network at risk.
    probe : BatchProbe or None
        What the user's batch showed; None where none was given.
    """

    schema_version: int
    initdiag_version: str
    target: str
    verdict: Verdict
    basis: Basis
    risk: dict[str, float]
    risk_provenance: str
    optimizer: Family | None
    thresholds: Thresholds
    architecture: Architecture
    prediction: Prediction
    measurement: Measurement | None
    spectrum: SpectralLaw | None
    agreement: Agreement | None
    findings: tuple[Finding, ...]
    advice: tuple[Advice, ...]
    elapsed: float
    lr: float | None = None
    loss: Loss | None = None
    trial: Trial | None = None
    cause: Cause | None = None
    probe: BatchProbe | None = None

    @property
    def training(self) -> Training:
        """How the network was judged to be trained."""
        return Training.of(self.optimizer, self.lr, self.loss)

    @property
    def ok(self) -> bool:
        """Whether the network was judged, and called healthy."""
        return self.verdict is Verdict.HEALTHY

    @property
    def code(self) -> str:
        """The remedy as Python that runs as it stands: the network is ``model``, the
        batch as ``x``; empty where there is none to run.
        """
        from initdiag.rendering.remedy import code_of

        return code_of(self)

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as strict JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Return the report that `to_dict` wrote, of this schema version.

        Raises
        ------
        InvalidInput
            If it is not a report, or of another schema version.
        """
        if not isinstance(data, dict):
            raise InvalidInput(
                explain(
                    expected="a report as a dict, as to_dict returns it",
                    got=type(data).__name__,
                    do="Load JSON text first: Report.from_dict(json.loads(text)).",
                )
            )
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InvalidInput(
                explain(
                    expected=f"a report of schema version {SCHEMA_VERSION}",
                    got=f"schema version {version!r}",
                    do="Read it with the version of initdiag that wrote it.",
                )
            )
        report = Record.from_dict.__func__(cls, data)  # type: ignore[attr-defined]
        assert isinstance(report, Report)
        return report

    def to_metrics(self) -> dict[str, float]:
        """Return the report's numbers by name, finite ones only, for an experiment
        tracker.
        """
        found: dict[str, float | None] = {
            f"initdiag/risk_{name}": value for name, value in self.risk.items()
        }
        for source, record in (("predicted", self.prediction), ("measured", self.measurement)):
            for name in (
                "log_mean",
                "log_variance",
                "rms_gain_log_mean",
                "beta",
                "dead_probability",
                "dead_fraction",
            ):
                found[f"initdiag/{source}_{name}"] = getattr(record, name, None)
        for name in ("zero_mass", "log_mean_eigenvalue", "log_upper_edge"):
            found[f"initdiag/spectrum_{name}"] = getattr(self.spectrum, name, None)
        for name in ("share", "share_se", "constant_loss", "seconds"):
            found[f"initdiag/trial_{name}"] = getattr(self.trial, name, None)
        found["initdiag/ok"] = float(self.ok)
        return {name: float(v) for name, v in found.items() if v is not None and math.isfinite(v)}

    def to_markdown(self) -> str:
        """Return the report in Markdown."""
        from initdiag.rendering.markdown import to_markdown

        return to_markdown(self)

    def to_html(self) -> str:
        """Return the report as one self-contained HTML page."""
        from initdiag.rendering.html import to_html

        return to_html(self)

    def figure(self) -> Any:
        """Return the report's panels as a `matplotlib.figure.Figure` (needs ``pip
        install 'initdiag[plot]'``).

        Raises
        ------
        InitdiagError
            Without matplotlib.
        """
        from initdiag.rendering.figure import figure

        return figure(self)

    def log_to(self, logger: Any, step: int = 0) -> None:
        """Write the report to an experiment tracker: its numbers, its page, its figure.

        Parameters
        ----------
        logger : SummaryWriter, mlflow, wandb run, Aim run or Lightning logger
            As the training uses it; the module ``mlflow`` itself within a run.
        step : int
            The step that the numbers belong to.

        Raises
        ------
        InvalidInput
            For a logger of another kind.
        """
        from initdiag.integrations.loggers import log_report

        log_report(self, logger, step)

    def _repr_html_(self) -> str:
        from initdiag.rendering.html import to_fragment

        return to_fragment(self)

    def __str__(self) -> str:
        from initdiag.rendering.console import to_text

        return to_text(self, width=100)

    def __repr__(self) -> str:
        return f"<initdiag.Report {self.target}: {self.verdict.value}, basis {self.basis}>"

    def __rich__(self) -> Any:
        from initdiag.rendering.console import renderable

        return renderable(self)
