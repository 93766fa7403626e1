"""The command line: a thin adapter over `diagnosis`. Exit codes: 0 clean, 1 at risk, 2 usage or import error, 3 no verdict."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from initdiag import __version__
from initdiag.errors import InitdiagError, InvalidInput, explain
from initdiag.render.formats import FORMATS, render

if TYPE_CHECKING:
    from initdiag.report import Report

__all__ = ["main"]

_FAIL_ON = {"risk": "risk", "no-verdict": "no-verdict", "never": None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one line on stderr and exit code 2."""
    try:
        code = _group.main(
            args=None if arguments is None else list(arguments), prog_name="initdiag", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        click.echo("interrupted", err=True)
        code = 130
    except InitdiagError as error:
        click.echo(f"error: {error}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


@click.group(help="What a PyTorch network's gradients will look like, before the first training step.")
@click.version_option(__version__, prog_name="initdiag")
def _group() -> None:
    pass


def _shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--optimizer", type=click.Choice(["sgd", "adam"]), help="Judge for it (default: plain SGD)."),
        click.option(
            "--max-risk", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="At risk from there."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return _output_options(command)


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    file = click.Path(dir_okay=False, path_type=Path)
    command = click.option("--output-file", type=file, help="Write there, not to stdout.")(command)
    return click.option("--output-format", type=click.Choice(FORMATS), default="console", show_default=True)(command)


@_group.command("check")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--input-size", help="Shape of a batch, e.g. 2,784, if the model does not tell it.")
@click.option("--input", "input_target", help="A batch tensor, or a function that makes one: file.py:name.")
@click.option("--module", help="Path of a part of the model, e.g. head: the chain inside a larger model.")
@click.option("--draws", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--method", type=click.Choice(["auto", "signs", "redraw", "law", "none"]), default="auto", show_default=True
)
@click.option("--fail-on", type=click.Choice(list(_FAIL_ON)), default="no-verdict", show_default=True)
@_shared_options
def _check(
    targets: tuple[str, ...],
    input_size: str | None,
    input_target: str | None,
    module: str | None,
    draws: int,
    seed: int,
    method: str,
    fail_on: str,
    optimizer: str | None,
    max_risk: float,
    output_format: str,
    output_file: Path | None,
) -> int:
    """Check models: TARGET is file.py:name or package.module:name, a torch.nn.Module or a function that returns one."""
    from initdiag.diagnosis import diagnose
    from initdiag.targets import load, parse_widths
    from initdiag.verdict import Thresholds

    size = parse_widths(input_size) if input_size else None
    example = load(input_target) if input_target else None
    example = example() if callable(example) and not hasattr(example, "shape") else example
    reports, has_errors = [], False
    for target in targets:
        try:
            reports.append(
                diagnose(
                    load(target), example, input_size=size, draws=draws, method=method, optimizer=optimizer, seed=seed,
                    thresholds=Thresholds(max_risk=max_risk), progress=output_format == "console", target=target, module=module,
                )
            )  # fmt: skip
        except InitdiagError as error:
            click.echo(f"error: {target}: {error}", err=True)
            has_errors = True
    _write(reports, output_format, output_file)
    return 2 if has_errors else _exit_code(reports, _FAIL_ON[fail_on])


@_group.command("predict")
@click.argument("widths")
@click.option("--init", default="torch_default", show_default=True, help="Initialiser of every layer.")
@click.option("--activation", default="relu", show_default=True, help="Of the hidden layers.")
@click.option("--output", default="linear", show_default=True, help="Of the last layer.")
@click.option("--gain", type=float, default=1.0, show_default=True, help="Multiplies every weight.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="Rate after hidden layers.")
@click.option("--negative-slope", type=float, default=0.01, show_default=True, help="Of leaky_relu.")
@click.option("--fail-on", type=click.Choice(list(_FAIL_ON)), default="never", show_default=True)
@_shared_options
def _predict(
    widths: str,
    fail_on: str,
    optimizer: str | None,
    max_risk: float,
    output_format: str,
    output_file: Path | None,
    **assumptions: Any,
) -> int:
    """Predict from widths alone, e.g. 784,256x8,10: the input's width, each layer's, the output's."""
    from initdiag.architecture import Architecture
    from initdiag.diagnosis import diagnose_architecture
    from initdiag.targets import parse_widths
    from initdiag.verdict import Thresholds

    architecture = Architecture.from_widths(parse_widths(widths), **assumptions)
    thresholds = Thresholds(max_risk=max_risk)
    report = diagnose_architecture(architecture, optimizer=optimizer, thresholds=thresholds, target=widths)
    _write([report], output_format, output_file)
    return _exit_code([report], _FAIL_ON[fail_on])


@_group.command("report")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--fail-on", type=click.Choice(list(_FAIL_ON)), default="never", show_default=True)
@_output_options
def _report(file: IO[str], fail_on: str, output_format: str, output_file: Path | None) -> int:
    """Show a saved report in any format: FILE is what --output-format json wrote, - for standard input."""
    reports = _saved(file)
    _write(reports, output_format, output_file)
    return _exit_code(reports, _FAIL_ON[fail_on])


def _saved(file: IO[str]) -> list[Report]:
    from initdiag.report import Report

    try:
        data = json.load(file)
    except (ValueError, RecursionError) as error:
        expected, do = "a JSON report", "Write one with initdiag check --output-format json."
        raise InvalidInput(explain(expected=expected, got=f"{file.name}: {error}", do=do)) from error
    return [Report.from_dict(one) for one in (data if isinstance(data, list) else [data])]


def _write(reports: list[Report], output_format: str, output_file: Path | None) -> None:
    if output_format == "console" and output_file is None:
        from rich.console import Console

        console = Console()
        for report in reports:
            console.print(report)
        return
    _emit(render(reports, output_format), output_file)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output_format == "github" and summary:
        _append_summary(reports, Path(summary))


def _append_summary(reports: list[Report], path: Path) -> None:
    """Append to the step's summary what room it has left."""
    from initdiag.render.github import SUMMARY_LIMIT, to_step_summary

    try:
        size = path.stat().st_size if path.exists() else 0
        with path.open("a", encoding="utf-8") as file:
            file.write(to_step_summary(*reports, limit=SUMMARY_LIMIT - size))
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error


def _emit(text: str, output_file: Path | None) -> None:
    if output_file is None:
        click.echo(text, nl=False)
        return
    try:
        output_file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise click.FileError(str(output_file), error.strerror or str(error)) from error


def _exit_code(reports: list[Report], fail_on: str | None) -> int:
    """1 before 3: at risk counts more than not judged."""
    from initdiag.diagnosis import fails

    failing = [report for report in reports if fails(report, fail_on)]
    if any(report.verdict.is_at_risk for report in failing):
        return 1
    return 3 if failing else 0
