"""The only composition: trace, predict, measure, compare, judge, advise, report."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from initdiag import __version__
from initdiag._core.choices import METHODS, DrawCount, FailOn, Family, Loss, Method
from initdiag._core.validation import choice, optional_choice
from initdiag.diagnosing import findings
from initdiag.diagnosing.advice import Advice, advise_case
from initdiag.diagnosing.agreement import agreement
from initdiag.diagnosing.basis import Basis, past_zero_start
from initdiag.diagnosing.case import Case, Look
from initdiag.diagnosing.causes import NO_BATCH, Batch
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.measured import measured, simulation
from initdiag.diagnosing.population import provenance
from initdiag.diagnosing.remarks import shared_state
from initdiag.diagnosing.report import SCHEMA_VERSION, Report
from initdiag.diagnosing.risk import Training
from initdiag.diagnosing.setting import kind_of_loss, training_of
from initdiag.diagnosing.spectral_report import spectral_report
from initdiag.diagnosing.verdict import Judgement, Thresholds, Verdict, judge
from initdiag.diagnosing.witness import heard
from initdiag.errors import AtRisk, InvalidInput, UnsupportedArchitecture, explain, shown
from initdiag.law.correlation import Separation, separation
from initdiag.law.predict import predict
from initdiag.law.prediction import Prediction
from initdiag.measuring.probe_record import BatchProbe
from initdiag.measuring.record import Measurement
from initdiag.measuring.trial_plan import TrialPlan
from initdiag.measuring.trial_record import Trial
from initdiag.network.architecture import Architecture
from initdiag.network.plain_pass import PlainPass
from initdiag.spectrum.record import SpectralLaw

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn
    from torch.optim import Optimizer

    from initdiag.tracing.adapter import Output
    from initdiag.tracing.inputs import Subject

__all__ = ["assert_trainable", "check", "diagnose", "diagnose_architecture"]

_FAIL_ON: tuple[FailOn, ...] = get_args(FailOn)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a network is judged: for which training, from which limits on, and with what
    beside.

    ``optimizer`` is that of the caller, or what it is most like, or None: the report
    keeps it.
    """

    optimizer: Family | None
    training: Training
    limits: Thresholds
    spectrum: bool

    @classmethod
    def of(
        cls,
        optimizer: Any,
        lr: float | None,
        loss: Any,
        thresholds: Thresholds | None,
        spectrum: bool,
    ) -> _Rule:
        """Return the rule that a caller's arguments state; raise for what is out of
        range.
        """
        training = training_of(optimizer, lr, loss)
        family = None if optimizer is None else training.optimizer
        return cls(family, training, _limits(thresholds), spectrum)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found out about a network before it is judged.

    ``simulation`` is a measurement by ``method="law"``: it predicts what the theory
    does not cover. ``not_measured`` says why there is no measurement, if one was
    wanted; ``shown`` is what a plain pass shows; ``foreign`` names what could be
    neither copied nor put back. ``trial`` is what some steps of training did, and
    ``not_tried`` why there is none, if one was wanted. ``look`` shows the batch to a
    chain that might be advised.
    """

    architecture: Architecture
    measurement: Measurement | None = None
    simulation: Measurement | None = None
    not_measured: str | None = None
    shown: PlainPass | None = None
    trial: Trial | None = None
    not_tried: str | None = None
    foreign: tuple[str, ...] = ()
    batch: Batch = NO_BATCH
    look: Look | None = None


def diagnose_architecture(
    architecture: Architecture,
    *,
    optimizer: Family | None = None,
    lr: float | None = None,
    loss: Loss | None = None,
    thresholds: Thresholds | None = None,
    target: str | None = None,
    spectrum: bool = False,
) -> Report:
    """Report on an architecture from theory alone. Loads no torch.

    Parameters
    ----------
    architecture : Architecture
        What is judged.
    optimizer, lr, loss, thresholds, target, spectrum
        See `diagnose`.

    Raises
    ------
    InvalidInput
        For an unknown optimiser or loss, or a learning rate that is not positive.
    """
    rule = _Rule.of(optimizer, lr, loss, thresholds, spectrum)
    return _report(_Seen(architecture), rule, target, time.perf_counter())


def _report(seen: _Seen, rule: _Rule, target: str | None, started: float) -> Report:
    """Predict, compare, judge and advise.

    An output layer that starts at zero is predicted as one of gain 1
    (`past_zero_start`); with its measurement, in which every draw is dead, there is
    nothing to compare then.
    """
    arch, limits, training = seen.architecture, rule.limits, rule.training
    usual = past_zero_start(arch)
    prediction = _predicted(usual, seen.simulation)
    test = (
        None
        if seen.measurement is None or usual is not arch
        else agreement(arch, seen.measurement, limits.agreement_level, prediction)
    )
    judgement = judge(
        arch, prediction, seen.measurement, test, training, limits, seen.not_measured,
        _separation(usual, prediction), seen.shown, seen.batch,
    )  # fmt: skip
    judgement = heard(judgement, seen.trial, training, limits, seen.not_tried)
    spectral = _spectral(arch) if rule.spectrum else _NO_SPECTRUM
    return Report(
        schema_version=SCHEMA_VERSION,
        initdiag_version=__version__,
        target=target or arch.source,
        verdict=judgement.verdict,
        basis=judgement.basis,
        risk=judgement.risk,
        risk_provenance=provenance(arch, seen.batch.probe is not None),
        optimizer=rule.optimizer,
        thresholds=limits,
        architecture=arch,
        prediction=prediction,
        measurement=seen.measurement,
        spectrum=spectral.law,
        agreement=test,
        findings=(*judgement.findings, *spectral.findings, *shared_state(seen.foreign)),
        advice=_advice(seen, usual, prediction, judgement, training, limits),
        elapsed=time.perf_counter() - started,
        lr=training.lr,
        loss=training.loss,
        trial=seen.trial,
        cause=judgement.cause,
        probe=seen.batch.probe,
    )


def _predicted(architecture: Architecture, simulation: Measurement | None) -> Prediction:
    """Return the law's prediction, or the simulation's where there is one."""
    if simulation is None:
        return predict(architecture)
    return Prediction.from_simulation(architecture, simulation)


def _limits(thresholds: Thresholds | None) -> Thresholds:
    if thresholds is None:
        return Thresholds()
    if not isinstance(thresholds, Thresholds):
        do = "Pass e.g. initdiag.Thresholds(max_risk=0.5)."
        raise InvalidInput(
            explain(expected="thresholds: an initdiag.Thresholds", got=shown(thresholds), do=do)
        )
    return thresholds


@dataclass(frozen=True, slots=True)
class _Spectral:
    """What the spectrum adds to a report."""

    law: SpectralLaw | None = None
    findings: tuple[Finding, ...] = ()


_NO_SPECTRUM = _Spectral()


def _spectral(architecture: Architecture) -> _Spectral:
    """Return the spectrum and what it says of training, or why it is not covered."""
    try:
        found = spectral_report(architecture)
    except UnsupportedArchitecture as error:
        reason = findings.NO_SPECTRUM.at(None, f"no spectrum: {error}", "see the reason")
        return _Spectral(None, (reason,))
    return _Spectral(found.spectrum, found.findings)


def _advice(
    seen: _Seen,
    architecture: Architecture,
    prediction: Prediction,
    judgement: Judgement,
    training: Training,
    limits: Thresholds,
) -> tuple[Advice, ...]:
    """Return what to do about a network at risk. Another chain is advised where the law
    was judged, also behind a fixed map of the input; the batch is shown to it where it
    is what the chain is given.
    """
    numbers = judgement.numbers
    if numbers is None or judgement.basis not in (Basis.LAW, Basis.MEASUREMENT):
        return ()
    is_of_law = judgement.basis is Basis.LAW or judgement.cause == "input scale"
    chain = architecture.chain if is_of_law else None
    if chain is None and seen.batch.probe is None:
        return ()
    look = seen.look if chain is architecture else None
    risk = judgement.risk[training.optimizer]
    case = Case(
        numbers, training, limits.max_risk, risk, judgement.cause, chain, seen.batch, look
    )  # fmt: skip
    if chain is None:
        return advise_case(case)
    return advise_case(case, prediction if chain is architecture else predict(chain))


def _separation(architecture: Architecture, prediction: Prediction) -> Separation | None:
    """Return how two inputs leave the last hidden layer. None where the law is not
    known, or nothing passes.
    """
    is_known = (
        prediction.coverage != "none" and not architecture.gaps and len(architecture.layers) > 1
    )
    passes = (
        all(layer.weight.variance > 0 for layer in architecture.layers)
        and architecture.input_rms > 0
    )
    return separation(architecture) if is_known and passes else None


def diagnose(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Any = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    input: int | str | None = None,
    output: Output = None,
    draws: DrawCount = None,
    method: Method = "auto",
    init: Callable[[nn.Module], Any] | None = None,
    optimizer: Family | Optimizer | None = None,
    lr: float | None = None,
    loss: Loss | nn.Module | None = None,
    thresholds: Thresholds | None = None,
    spectrum: bool = False,
    seed: int = 0,
    progress: bool = False,
    target: Any = None,
    module: str | None = None,
    strict: bool = False,
    trial: int | None = None,
    loss_fn: Callable[..., Any] | None = None,
) -> Report:
    """Predict, measure and judge a network before training.

    Pure: prints nothing, leaves the model as it came.

    Parameters
    ----------
    model : nn.Module or factory
        A factory ``() -> nn.Module`` can also be redrawn.
    example_input : optional
        A batch the network takes, first dimension the rows: a tensor, an array, a
        tuple, a dict, a batch ``(x, y)``, a ``DataLoader``. Integers are tokens.
    example_args, example_kwargs : sequence, mapping
        Further arguments of forward.
    input_size : sequence of int, or of shapes, optional
        Or its shape, batch included.
    input : int or str, optional
        Which argument is perturbed, as in `trace`.
    output : int, str or callable, optional
        Which part of the output is judged, as in `trace`.
    draws : int, "auto" or None
        Draws of the measurement; ``"auto"``: until its log-variance is known to 5 %, or
        for a minute; None: 1,024, or those of five seconds of processor time, 32 at
        least.
    method : str
        How to measure. ``"auto"``: signs where the weights allow it, else redraw
        where an initialiser is known. ``"signs"``, ``"redraw"``, ``"law"``; ``"none"``:
        theory alone. A module that is not a chain is predicted by simulation through
        its own forward where that can be done.
    init : callable, optional
        How to draw the parameters afresh, as ``model.apply`` takes it.
    optimizer : str or torch.optim.Optimizer, optional
        ``"sgd"``, ``"momentum"``, ``"adam"`` or ``"adamw"``; None judges for plain SGD,
        which sees the gradient as it is. Or the optimiser itself, its learning rate
        with it: it is judged as the one of these four that it is most like.
    lr : float, optional
        The learning rate it will be trained with: the risk is then that of this rate,
        and the advice may name a lower one. Left out: averaged over usual ones.
    loss : str or torch loss module, optional
        ``"classification"`` or ``"regression"``, as in `failure_risk`, or the loss.
    thresholds : Thresholds, optional
        Limits of the decision.
    spectrum : bool
        Whether to predict the spectrum of the Jacobian too, and say what it means for
        training (``report.spectrum``, findings IND020 to IND025). Milliseconds; for
        deep chains of smooth activations (tanh, GELU ...) up to about ten seconds.
    seed : int
        Fixes every draw.
    progress : bool
        Show a progress bar on a terminal.
    target : str, or tensor, optional
        A text is what the report calls the network. Anything else are the targets of
        the example, for a trial.
    module : str, optional
        Path of a part, e.g. ``"head"``: the chain inside a larger model, on what the
        model's forward pass hands it.
    strict : bool
        Refuse a module that leads to what can be neither copied nor put back (a lock, a
        socket), before anything runs; else a finding names it (IND018).
    trial : int, optional
        So many real steps of training are made on a replica, with the optimiser, the
        loss and the targets given (else made up, and said to be), on this one batch;
        with a factory on 8 networks (3 from a million parameters on). It ends early
        when it is clear, and after 30 seconds. ``report.trial``.
    loss_fn : callable, optional
        The trial's loss: ``loss_fn(output, target)``, or ``loss_fn(model, x)`` where
        there is no target or its first argument is called ``model``: a scalar tensor,
        or a dict of named terms, whose gradients are then compared.

    Returns
    -------
    Report
        With verdict ``NO_VERDICT`` where a module can be neither covered nor measured.

    Raises
    ------
    InvalidInput
        A usage fault: see `trace` and `measure`.
    """
    stated = kind_of_loss(loss_fn) if loss is None else loss
    rule = _Rule.of(optimizer, lr, stated, thresholds, spectrum)  # raises before the work
    plan = TrialPlan.of(trial, target, loss_fn, optimizer, lr, loss, rule.training.loss)
    name = target if isinstance(target, str) else None
    choice(method, "method", METHODS)
    started = time.perf_counter()
    from initdiag.measuring.measure import measure
    from initdiag.measuring.task import checked_init
    from initdiag.tracing.guard import foreign, untouched
    from initdiag.tracing.inputs import subject_of
    from initdiag.tracing.reach import plain_pass
    from initdiag.tracing.replica import own_modes
    from initdiag.tracing.trace import trace_subject

    init = checked_init(init)
    with untouched(strict=strict, quiet=True), own_modes():
        subject = subject_of(
            model, example_input, input_size, module, args=example_args, kwargs=example_kwargs,
            perturbed=input, output=output,
        )  # fmt: skip
        architecture = trace_subject(subject)
        run = functools.partial(
            measure, example_input=subject.example, input_size=subject.size, draws=draws, seed=seed,
            architecture=architecture, progress=progress,
        )  # fmt: skip
        measurement, reason = measured(run, subject, architecture, method, init)
        seen = _Seen(
            architecture, measurement, simulation(run, subject.module, architecture), reason,
            plain_pass(subject, architecture.unused),
            *_tried(plan, subject, architecture, seed, progress), foreign(),
            *_batch(subject, rule.training),
        )  # fmt: skip
        report = _report(seen, rule, name, started)
        if method == "auto" and _is_refuted(report) and (subject.factory or init):
            redrawn, _ = measured(run, subject, architecture, "redraw", init)
            if redrawn is not None:
                seen = dataclasses.replace(seen, measurement=redrawn)
                report = _report(seen, rule, name, started)
    return report


def _tried(
    plan: TrialPlan | None, subject: Subject, architecture: Architecture, seed: int, progress: bool
) -> tuple[Trial | None, str | None]:
    """Return the trial, or why there is none."""
    if plan is None:
        return None, None
    from initdiag.measuring.trial import tried

    try:
        return tried(plan, subject, architecture, seed, progress), None
    except UnsupportedArchitecture as error:
        return None, str(error)


def _batch(subject: Subject, training: Training) -> tuple[Batch, Look | None]:
    """Return what the user's batch shows, and standardised, where it is off that; and
    what shows it to another chain.
    """
    from initdiag.measuring.batch_probe import probe_batch, standardised
    from initdiag.measuring.built import probe_built

    example = subject.example
    probe = probe_batch(subject.module, example, training.loss)
    if probe is None:
        return NO_BATCH, None

    def look(chain: Architecture, skip: float | None) -> BatchProbe | None:
        return probe_built(chain, example, training.loss, skip)

    if abs(probe.input_mean) < 1 and 1 / 3 < probe.input_std < 3:
        return Batch(probe), look
    return Batch(probe, probe_batch(subject.module, standardised(example), training.loss)), look


def _is_refuted(report: Report) -> bool:
    """Return whether random signs refute the prediction.

    They keep the size of the weights; where these can be drawn afresh, that tells more.
    """
    measured_by_signs = report.measurement is not None and report.measurement.method == "signs"
    return measured_by_signs and report.agreement is not None and not report.agreement.agrees


def check(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Any = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    input: int | str | None = None,
    output: Output = None,
    draws: DrawCount = None,
    method: Method = "auto",
    init: Callable[[nn.Module], Any] | None = None,
    optimizer: Family | Optimizer | None = None,
    lr: float | None = None,
    loss: Loss | nn.Module | None = None,
    thresholds: Thresholds | None = None,
    spectrum: bool = False,
    seed: int = 0,
    progress: bool = False,
    target: Any = None,
    module: str | None = None,
    strict: bool = False,
    trial: int | None = None,
    loss_fn: Callable[..., Any] | None = None,
    fail_on: FailOn | None = None,
    console: Console | None = None,
) -> Report:
    """Diagnose a network, print the report, and return it: the one line before
    training.

    Parameters
    ----------
    model, example_input, example_args, example_kwargs, input_size, input, output
        See `diagnose`.
    draws, method, init, optimizer, lr, loss
        See `diagnose`.
    thresholds, spectrum, seed, progress, target, module, strict, trial, loss_fn
        See `diagnose`.
    fail_on : str, optional
        ``"risk"`` raises `AtRisk` if the network is at risk; ``"no-verdict"`` raises it
        also if the network could not be judged.
    console : rich.console.Console, optional
        Where to print.

    Raises
    ------
    AtRisk
        If the report fails by ``fail_on``; the exception's ``.report`` is the report.
    InvalidInput
        See `diagnose`.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 1))
    >>> report = initdiag.check(model)  # doctest: +SKIP
    """
    optional_choice(fail_on, "fail_on", _FAIL_ON)
    report = diagnose(
        model, example_input, example_args=example_args, example_kwargs=example_kwargs,
        input_size=input_size, input=input, output=output, draws=draws, method=method, init=init,
        optimizer=optimizer, lr=lr, loss=loss, thresholds=thresholds, spectrum=spectrum, seed=seed,
        progress=progress, target=target, module=module, strict=strict, trial=trial,
        loss_fn=loss_fn,
    )  # fmt: skip
    _print(report, console)
    if fails(report, fail_on):
        raise AtRisk(f"{report.target}: {report.verdict.value}", report)
    return report


def _print(report: Report, console: Console | None) -> None:
    from initdiag._core.console import Console as Terminal

    (console or Terminal()).print(report)


def assert_trainable(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Any = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    input: int | str | None = None,
    output: Output = None,
    draws: DrawCount = None,
    method: Method = "auto",
    init: Callable[[nn.Module], Any] | None = None,
    optimizer: Family | Optimizer | None = None,
    lr: float | None = None,
    loss: Loss | nn.Module | None = None,
    thresholds: Thresholds | None = None,
    spectrum: bool = False,
    seed: int = 0,
    progress: bool = False,
    target: Any = None,
    module: str | None = None,
    strict: bool = False,
    trial: int | None = None,
    loss_fn: Callable[..., Any] | None = None,
) -> None:
    """Raise `AtRisk` unless the network is judged healthy. Silent otherwise: for tests.

    Parameters
    ----------
    model, example_input, example_args, example_kwargs, input_size, input, output
        See `diagnose`.
    draws, method, init, optimizer, lr, loss
        See `diagnose`.
    thresholds, spectrum, seed, progress, target, module, strict, trial, loss_fn
        See `diagnose`.

    Raises
    ------
    AtRisk
        If the network is at risk, or could not be judged; its text is the report's.
    InvalidInput
        See `diagnose`.
    """
    report = diagnose(
        model, example_input, example_args=example_args, example_kwargs=example_kwargs,
        input_size=input_size, input=input, output=output, draws=draws, method=method, init=init,
        optimizer=optimizer, lr=lr, loss=loss, thresholds=thresholds, spectrum=spectrum, seed=seed,
        progress=progress, target=target, module=module, strict=strict, trial=trial,
        loss_fn=loss_fn,
    )  # fmt: skip
    if fails(report, "no-verdict"):
        raise AtRisk(f"\n{report}", report)


def fails(report: Report, fail_on: FailOn | None) -> bool:
    """Return whether ``report`` is a failure under ``fail_on`` (None: never)."""
    at_risk = report.verdict.is_at_risk
    return (fail_on is not None and at_risk) or (
        fail_on == "no-verdict" and report.verdict is Verdict.NO_VERDICT
    )
