"""The command line: a thin adapter over `project` and `diagnosis`.

Exit codes: 0 clean, 1 at risk or worse than the baseline, 2 usage, configuration or the
user's own error, 3 no verdict, 130 interrupted, 141 the reader of stdout has gone.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from initdiag import __version__
from initdiag._core.choices import FAIL_ON, METHODS, FailOnOption, Family, Loss
from initdiag.cli.compare import compare_command
from initdiag.cli.demo import demo_command
from initdiag.cli.explain import explain_command
from initdiag.cli.group import Commands, examples
from initdiag.cli.options import FILE, assumption_options, output_options, training_options
from initdiag.cli.output import ReaderGone, complain, emit, exit_code, saved, write, write_spectrum
from initdiag.cli.risk_map import map_command
from initdiag.cli.screen import screen_command
from initdiag.errors import UnsupportedArchitecture, said

if TYPE_CHECKING:
    from initdiag.network.architecture import Architecture
    from initdiag.project.baseline import Baseline
    from initdiag.project.config import ModelConfig
    from initdiag.project.outcome import Outcome
    from initdiag.rendering.formats import OutputFormat

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its code.

    Errors are one line on stderr and exit code 2, whatever they are: 1 says that a
    model is at risk.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a name of the user's in any locale
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _code(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at exit)
        code = _BROKEN_PIPE
    sys.exit(code)


_BROKEN_PIPE = 128 + 13
"""Exit code of a command whose reader has gone: 128 + SIGPIPE, as a shell says it."""

_INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C: 128 + SIGINT."""


def _code(arguments: Sequence[str] | None) -> int:
    """Run the command line; return its exit code."""
    given = None if arguments is None else list(arguments)
    try:
        code = _group.main(args=given, prog_name="initdiag", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except ReaderGone:
        raise
    except Exception as error:
        complain(said(error))
        return 2
    return code if isinstance(code, int) else 0


@click.group(
    cls=Commands,
    help="What a PyTorch network's gradients will look like, before the first training step.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "initdiag demo                       a sick network and a healthy one",
        "initdiag check net.py:build         your own: a module, or a function that returns one",
        "initdiag predict 784,256x8,10       from widths alone",
    ),
)
@click.version_option(__version__, prog_name="initdiag")
def _group() -> None:
    pass


_group.add_command(screen_command)
_group.add_command(explain_command)
_group.add_command(compare_command)
_group.add_command(demo_command)
_group.add_command(map_command)


def _draws(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    if value is None:
        return None
    convert: Callable[..., int] = click.IntRange(min=1).convert
    return "auto" if value == "auto" else convert(value, param, ctx)


def _key(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdecimal() else value


@_group.command(
    "check",
    short_help="Check models before they are trained; exit code 1 if one is at risk.",
    epilog=examples(
        "initdiag check net.py:build",
        "initdiag check net.py:build --optimizer adam --lr 0.001",
        "initdiag check package.models:make --input-size 32,3,64,64 --output-format html "
        "--output-file report.html",
        "initdiag check --baseline baseline.json    what [tool.initdiag] lists",
    ),
)
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--input-size", help="Shape of a batch, e.g. 2,784, if the model does not tell it.")
@click.option(
    "--input", "input_target", help="A batch tensor, or a function that makes one: file.py:name."
)
@click.option(
    "--trial", type=click.IntRange(min=1), metavar="N", help="Also make N real steps on a replica."
)
@click.option(
    "--data",
    metavar="TARGET",
    help="Batches (x, y) for the trial: file.py:name; the first is taken, also as the input.",
)
@click.option(
    "--module", help="Path of a part of the model, e.g. head: the chain inside a larger model."
)
@click.option(
    "--input-name", "input", callback=_key, help="Which argument is perturbed, of several."
)
@click.option(
    "--output", callback=_key, help="Which part of the output is judged: an index or a key."
)
@click.option(
    "--draws", metavar="N|auto", callback=_draws,
    help="Draws of the measurement (default: 1024, fewer where a draw is slow); auto: until it "
    "is precise.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
)
@click.option(
    "--fail-on", type=click.Choice(list(FAIL_ON)), default="no-verdict", show_default=True
)
@click.option("--spectrum", is_flag=True, help="Also predict the spectrum of the Jacobian.")
@click.option(
    "--baseline", type=FILE, help="Fail only on what got worse since this file was written."
)
@click.option(
    "--write-baseline",
    type=FILE,
    help="Write to this file how the checked models stand today, and exit with 0.",
)
@click.option("--strict", is_flag=True, help="Refuse what can be neither copied nor put back.")
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="Give a target up after so many seconds."
)
@click.option(
    "--isolate/--no-isolate",
    default=True,
    show_default=True,
    help="Run targets in a process of their own; not for a debugger.",
)
@training_options
@output_options
def _check(
    targets: tuple[str, ...],
    isolate: bool,
    baseline: Path | None,
    write_baseline: Path | None,
    output_format: OutputFormat,
    output_file: Path | None,
    **options: Any,
) -> int:
    """Check models: TARGET is file.py:name or package.module:name, a torch.nn.Module or
    a function that returns one.

    Without a TARGET, check the models of [tool.initdiag] in pyproject.toml. Options
    given here override that table.
    """
    from initdiag.project.config import find_config

    if baseline and write_baseline:
        raise click.UsageError("--baseline and --write-baseline: give one of them.")
    config = find_config(Path.cwd())
    models = _with_options(config.select(targets, Path.cwd()), options)
    fail_on = options["fail_on"] if _is_given("fail_on") else config.fail_on
    known = None if write_baseline else _known(baseline, config.baseline)
    progress = output_format == "console" and sys.stderr.isatty()
    outcomes, is_interrupted = _outcomes(models, fail_on, known, isolate, progress)
    if outcomes or not is_interrupted:
        write([one.report for one in outcomes], output_format, output_file)
    if is_interrupted:
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    is_complete = len(outcomes) == len(models)
    if write_baseline:
        return _write_baseline(outcomes, write_baseline) if is_complete else 2
    for line in (line for one in outcomes for line in (one.note, one.summary) if line):
        click.echo(line, err=True)
    codes = {one.exit_code for one in outcomes}
    return 2 if not is_complete else next((code for code in (1, 3) if code in codes), 0)


def _known(given: Path | None, configured: Path | None) -> Baseline | None:
    """Return the baseline; None if it is configured but not written yet."""
    from initdiag.project.baseline import Baseline

    if given is None and configured is not None and not configured.exists():
        do = f"initdiag check --write-baseline {configured}"
        click.echo(f"no baseline yet: {configured}; write it with {do}", err=True)
        return None
    path = given or configured
    return Baseline.read(path) if path else None


def _is_given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not click.core.ParameterSource.DEFAULT


def _with_options(models: Sequence[ModelConfig], options: dict[str, Any]) -> list[ModelConfig]:
    """Return the models; the command line's options replace their own settings."""
    from initdiag.project.targets import anchored, parse_size

    given = {
        name: value for name, value in options.items() if name != "fail_on" and _is_given(name)
    }
    if "input_size" in given:
        given["input_size"] = parse_size(given["input_size"])
    if "input_target" in given:
        given["example_input"] = anchored(given.pop("input_target"), Path.cwd())
    if "data" in given:
        given["data"] = anchored(given["data"], Path.cwd())
    limit = {"max_risk": given.pop("max_risk")} if "max_risk" in given else {}
    return [
        replace(model, thresholds=replace(model.thresholds, **limit), **given) for model in models
    ]


def _outcomes(
    models: list[ModelConfig],
    fail_on: FailOnOption,
    known: Baseline | None,
    isolate: bool,
    progress: bool,
) -> tuple[list[Outcome], bool]:
    """Return the outcome of every model that can be diagnosed, and whether Ctrl-C came.
    The errors of the others are printed.
    """
    from initdiag.project.isolation import isolated
    from initdiag.project.outcome import diagnosed_here, outcome

    found: list[Outcome] = []
    results = (isolated if isolate else diagnosed_here)(models, progress=progress)
    try:
        for model, result in zip(models, results, strict=True):
            if isinstance(result, Exception):
                complain(f"{model.name}: {said(result)}")
                continue
            held = outcome(model.name, result, ignore=model.ignore, fail_on=fail_on, baseline=known)
            found.append(held)
            if result.measurement is not None and result.measurement.stopped == "interrupted":
                return found, True
    except KeyboardInterrupt:
        return found, True
    return found, False


def _write_baseline(outcomes: list[Outcome], path: Path) -> int:
    from initdiag.project.baseline import Baseline

    emit(Baseline.of((one.name, one.report) for one in outcomes).to_json(), path)
    at_risk = sum(one.report.verdict.is_at_risk for one in outcomes)
    click.echo(f"baseline of {len(outcomes)} models written to {path}, {at_risk} at risk", err=True)
    return 0


@_group.command(
    "predict",
    short_help="Predict gradients and risk from widths alone, without PyTorch.",
    epilog=examples(
        "initdiag predict 784,256x8,10",
        "initdiag predict 784,256x8,10 --init he_normal --optimizer adam",
        "initdiag predict 2,64x4,1 --activation tanh --init xavier_normal",
    ),
)
@click.argument("widths")
@assumption_options
@click.option("--fail-on", type=click.Choice(list(FAIL_ON)), default="never", show_default=True)
@training_options
@output_options
def _predict(
    widths: str,
    fail_on: FailOnOption,
    optimizer: Family | None,
    lr: float | None,
    loss: Loss | None,
    max_risk: float,
    output_format: OutputFormat,
    output_file: Path | None,
    **assumptions: Any,
) -> int:
    """Predict from widths alone, e.g. 784,256x8,10: the input's width, each layer's,
    the output's.
    """
    from initdiag.diagnosing.diagnose import diagnose_architecture
    from initdiag.diagnosing.verdict import Thresholds
    from initdiag.network.architecture import Architecture
    from initdiag.project.targets import parse_widths

    architecture = Architecture.from_widths(parse_widths(widths), **assumptions)
    thresholds = Thresholds(max_risk=max_risk)
    report = diagnose_architecture(
        architecture, optimizer=optimizer, lr=lr, loss=loss, thresholds=thresholds, target=widths
    )
    write([report], output_format, output_file)
    return exit_code([report], FAIL_ON[fail_on])


@_group.command(
    "spectrum",
    short_help="Predict the singular values of the Jacobian.",
    epilog=examples(
        "initdiag spectrum 784,256x8,10 --init orthogonal",
        "initdiag spectrum net.py:build --activation tanh",
    ),
)
@click.argument("target", metavar="TARGET|WIDTHS")
@click.option("--init", help="Initialiser of every layer.")
@click.option("--activation", help="Of the hidden layers.")
@click.option("--output", help="Of the last layer.")
@click.option("--gain", type=float, help="Multiplies every weight.")
@click.option("--dropout", type=float, help="Rate after hidden layers.")
@click.option("--negative-slope", type=float, help="Of leaky_relu; with --activation.")
@click.option("--input-size", help="Shape of a batch, e.g. 2,784, if the model does not tell it.")
@click.option(
    "--input", "input_target", help="A batch tensor, or a function that makes one: file.py:name."
)
@click.option(
    "--module", help="Path of a part of the model, e.g. head: the chain inside a larger model."
)
@click.option(
    "--isolate/--no-isolate",
    default=True,
    show_default=True,
    help="Run the target in a process of its own; not for a debugger.",
)
@click.option(
    "--output-format", type=click.Choice(["console", "json"]), default="console", show_default=True
)
@click.option("--output-file", type=FILE, help="Write to this file, not to stdout.")
def _spectrum(
    target: str,
    input_size: str | None,
    input_target: str | None,
    module: str | None,
    isolate: bool,
    output_format: OutputFormat,
    output_file: Path | None,
    **assumptions: Any,
) -> int:
    """Predict the Jacobian's singular values, of widths (as in predict) or of a model
    (as in check).

    With widths the options state the assumptions (those of predict if left out); with a
    model they change it: a what-if. Exit code 3: the theory does not cover the model.
    """
    from initdiag.diagnosing.spectral_report import spectral_report

    given = {name: value for name, value in assumptions.items() if value is not None}
    of_models = {"input_size": input_size, "input": input_target, "module": module}
    try:
        if target[:1].isdecimal() and ":" not in target:
            architecture = _assumed(target, given, of_models)
        else:
            architecture = _traced(target, given, isolate, **of_models)
        report = spectral_report(architecture, target)
    except UnsupportedArchitecture as error:
        click.echo(f"not covered: {target}: {error}", err=True)
        return 3
    write_spectrum(report, output_format, output_file)
    return 0


def _assumed(widths: str, given: dict[str, Any], of_models: dict[str, str | None]) -> Architecture:
    from initdiag.network.architecture import Architecture
    from initdiag.project.targets import parse_widths

    wrong = [
        f"--{name.replace('_', '-')}" for name, value in of_models.items() if value is not None
    ]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: only for a model, not for widths.")
    return Architecture.from_widths(parse_widths(widths), **given)


def _traced(target: str, given: dict[str, Any], isolate: bool, **input_of: Any) -> Architecture:
    from initdiag.project.config import ModelConfig
    from initdiag.project.isolation import isolated
    from initdiag.project.outcome import trace_model
    from initdiag.project.targets import parse_size

    if "negative_slope" in given and "activation" not in given:
        raise click.UsageError(
            "--negative-slope needs --activation with a model, whose own slopes stay otherwise."
        )
    size = input_of["input_size"]
    model = ModelConfig(
        target,
        Path.cwd(),
        module=input_of["module"],
        input_size=parse_size(size) if size else None,
        example_input=input_of["input"],
    )
    result = next(isolated([model], "trace")) if isolate else trace_model(model)
    if isinstance(result, Exception):
        raise result
    architecture: Architecture = result
    return architecture.replace(**given) if given else architecture


@_group.command(
    "report",
    short_help="Show a saved report in any format.",
    epilog=examples(
        "initdiag check net.py:build --output-format json --output-file report.json",
        "initdiag report report.json --output-format html --output-file report.html",
    ),
)
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--fail-on", type=click.Choice(list(FAIL_ON)), default="never", show_default=True)
@output_options
def _report(
    file: IO[str], fail_on: FailOnOption, output_format: OutputFormat, output_file: Path | None
) -> int:
    """Show a saved report in any format: FILE is what --output-format json wrote, - for
    standard input.
    """
    reports = saved(file)
    write(reports, output_format, output_file)
    return exit_code(reports, FAIL_ON[fail_on])
