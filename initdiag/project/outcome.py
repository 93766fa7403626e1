"""A project's models: each diagnosed as it is configured, and held against what is
allowed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from initdiag._core.choices import FAIL_ON, FailOn, FailOnOption
from initdiag.diagnosing.diagnose import diagnose, fails
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Verdict
from initdiag.errors import TargetError, explain, text_of
from initdiag.network.architecture import Architecture
from initdiag.project.baseline import Baseline
from initdiag.project.config import ModelConfig
from initdiag.project.targets import load, load_batch, load_pair
from initdiag.rendering.words import percent, plain, risks

__all__ = ["Outcome", "diagnose_model", "diagnosed_here", "outcome", "trace_model"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report held against a rule.

    Attributes
    ----------
    name : str
        The model's.
    report : Report
        Without the ignored findings.
    ignored : tuple of str
        Codes that were dropped.
    failures : tuple of str
        Why it fails; empty if it passes.
    remedy : str
        What to change; empty where nothing needs to be.
    """

    name: str
    report: Report
    ignored: tuple[str, ...]
    failures: tuple[str, ...]
    remedy: str

    @property
    def exit_code(self) -> int:
        """0 passes; 1 fails: at risk, or worse than the baseline; 3 fails without a
        verdict.
        """
        if not self.failures:
            return 0
        return 3 if self.report.verdict is Verdict.NO_VERDICT else 1

    @property
    def summary(self) -> str:
        """What failed and what to change, in a line or two; empty if it passes."""
        if not self.failures:
            return ""
        lines = [f"{self.name}: {'; '.join(self.failures)}", f"    to change: {self.remedy}"]
        return "\n".join(plain(line) for line in (lines if self.remedy else lines[:1]))

    @property
    def note(self) -> str:
        """What was ignored, and a verdict that is let pass or stays what it is; empty
        if there is nothing to say.
        """
        verdict = self.report.verdict
        parts = [f"ignored {', '.join(self.ignored)}"] if self.ignored else []
        if verdict is not Verdict.HEALTHY and not self.failures:
            parts.append(f"{verdict.value} is let pass (--fail-on, or no worse than the baseline)")
        elif verdict is not Verdict.HEALTHY and self.ignored:
            parts.append(f"the verdict stays {verdict.value}")
        return plain(f"{self.name}: {'; '.join(parts)}") if parts else ""


def diagnose_model(model: ModelConfig, *, progress: bool = False) -> Report:
    """Load a configured model and diagnose it.

    Raises
    ------
    TargetError, InvalidInput
        If it does not load, or as `initdiag.diagnose`.
    """
    with _as_a_guest():
        network = load(model.target, model.folder)
        example, targets = _example(model)
        report = diagnose(
            network,
            example,
            input_size=model.input_size,
            input=model.input,
            output=model.output,
            draws=model.draws,
            spectrum=model.spectrum,
            method=model.method,
            optimizer=model.optimizer,
            lr=model.lr,
            loss=model.loss,
            thresholds=model.thresholds,
            seed=model.seed,
            progress=progress,
            target=model.target if targets is None else targets,
            module=model.module,
            strict=model.strict,
            trial=model.trial,
        )
    return dataclasses.replace(report, target=model.target)


def _example(model: ModelConfig) -> tuple[Any, Any]:
    """Return the example, and its targets where it comes from ``data``."""
    if model.data is not None:
        return load_pair(model.data, model.folder)
    return load_batch(model.example_input, model.folder), None


def trace_model(model: ModelConfig, *, progress: bool = False) -> Architecture:
    """Load a configured model and read its architecture; it is too quick for progress.

    Raises
    ------
    TargetError, InvalidInput
        If it does not load, or as `initdiag.trace`.
    """
    from initdiag.tracing.trace import trace

    with _as_a_guest():
        return trace(
            load(model.target, model.folder),
            load_batch(model.example_input, model.folder),
            input_size=model.input_size,
            input=model.input,
            output=model.output,
            module=model.module,
        )


@contextlib.contextmanager
def _as_a_guest() -> Iterator[None]:
    """Run a target's code: what it prints goes to stderr, and its exit is its own
    error.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (SystemExit, GeneratorExit) as error:
        raise TargetError(
            explain(
                expected="a target that leaves the process alone",
                got=f"{type(error).__name__}({text_of(error)})",
                do="Take sys.exit out of what it runs when it is imported, built or called.",
            )
        ) from error


def diagnosed_here(models: Iterable[ModelConfig], *, progress: bool = False) -> Iterator[Any]:
    """Yield for each model its report, or the exception that it ended in, in this
    process.
    """
    for model in models:
        try:
            yield diagnose_model(model, progress=progress)
        except Exception as error:
            yield error


def outcome(
    name: str,
    report: Report,
    *,
    ignore: Collection[str] = (),
    fail_on: FailOnOption = "no-verdict",
    baseline: Baseline | None = None,
) -> Outcome:
    """Return ``report`` without the ignored findings, and why it fails under
    ``fail_on`` (``"never"`` for not at all).

    A model that the baseline knows fails only on what got worse.
    """
    kept = tuple(finding for finding in report.findings if finding.code not in ignore)
    ignored = tuple(
        sorted({finding.code for finding in report.findings} - {finding.code for finding in kept})
    )
    shown = dataclasses.replace(report, findings=kept)
    failures = _failures(name, shown, FAIL_ON[fail_on], baseline)
    return Outcome(name, shown, ignored, failures, _remedy(shown) if failures else "")


def _failures(
    name: str, report: Report, fail_on: FailOn | None, baseline: Baseline | None
) -> tuple[str, ...]:
    standing = baseline.models.get(name) if baseline else None
    if standing is None:
        return (_verdict(report),) if fails(report, fail_on) else ()
    is_no_verdict = report.verdict is Verdict.NO_VERDICT
    if fail_on is None or (is_no_verdict and fail_on != "no-verdict"):
        return ()
    return tuple(f"worse than the baseline: {reason}" for reason in standing.worse(report))


def _verdict(report: Report) -> str:
    if report.verdict is Verdict.NO_VERDICT:
        return "NO_VERDICT: it could be neither predicted nor measured, which is not a pass"
    return f"{report.verdict.value}, {risks(report)}"


def _remedy(report: Report) -> str:
    """Return the first advice with its effect, or else the first finding's remedy."""
    if report.advice:
        best = report.advice[0]
        by_layer = "  for each layer's weight w and bias b" if best.is_by_layer else ""
        what = f"{best.code}{by_layer}" if best.code else best.action
        return f"{what}  (risk {percent(best.risk_before)} -> {percent(best.risk_after)})"
    if not report.findings:
        return ""
    first = report.findings[0]
    return (
        f"{first.message}: {first.remedy}" if report.verdict is Verdict.NO_VERDICT else first.remedy
    )
