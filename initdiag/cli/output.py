"""What the command line reads and writes: saved reports in, reports in any format out,
exit codes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from initdiag._core.choices import FailOn
from initdiag._core.files import write_whole
from initdiag.errors import InvalidInput, explain
from initdiag.rendering.formats import OutputFormat, render
from initdiag.rendering.words import plain

if TYPE_CHECKING:
    from initdiag._core.console import Console
    from initdiag.diagnosing.report import Report
    from initdiag.diagnosing.spectral_report import SpectralReport

__all__ = [
    "ReaderGone",
    "complain",
    "emit",
    "exit_code",
    "saved",
    "terminal",
    "write",
    "write_spectrum",
]


def saved(file: IO[str]) -> list[Report]:
    """Return the reports of a JSON file, one or a list of them."""
    from initdiag.diagnosing.report import Report

    try:
        data = json.loads(file.read().removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        expected, do = "a JSON report", "Write one with initdiag check --output-format json."
        raise InvalidInput(
            explain(expected=expected, got=f"{file.name}: {error}", do=do)
        ) from error
    return [Report.from_dict(one) for one in (data if isinstance(data, list) else [data])]


def complain(text: str) -> None:
    """Say an error in one line on stderr, whatever the user's own error holds."""
    click.echo(f"error: {plain(' '.join(text.split()))}", err=True)


class ReaderGone(Exception):
    """The reader of stdout has closed it; click would make exit code 1 of the
    OSError.
    """


def terminal() -> Console:
    """Return the terminal; a reader that has gone is an error that `main` knows."""
    from initdiag._core.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise ReaderGone

    return Terminal()


def write(reports: list[Report], output_format: OutputFormat, output_file: Path | None) -> None:
    """Write reports in a format, to a file or standard output.

    Under GitHub Actions what is shown on the console is followed by its annotations,
    and annotations go to the step's summary, too.
    """
    if output_format == "console" and output_file is None:
        console = terminal()
        for report in reports:
            console.print(report)
        if os.environ.get("GITHUB_ACTIONS") != "true":
            return
        output_format = "github"
    emit(render(reports, output_format), output_file)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output_format == "github" and summary:
        _append_summary(reports, Path(summary))


def _append_summary(reports: list[Report], path: Path) -> None:
    """Append to the step's summary what room it has left."""
    from initdiag.rendering.github import SUMMARY_LIMIT, to_step_summary

    try:
        size = path.stat().st_size if path.exists() else 0
        with path.open("a", encoding="utf-8") as file:
            file.write(to_step_summary(*reports, limit=SUMMARY_LIMIT - size))
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error


def emit(text: str, output_file: Path | None) -> None:
    """Write a text to a file or standard output."""
    if output_file is None:
        click.echo(text, nl=False)
        return
    try:
        write_whole(output_file, text)
    except OSError as error:
        raise click.FileError(str(output_file), error.strerror or str(error)) from error


def exit_code(reports: list[Report], fail_on: FailOn | None) -> int:
    """Return the worst exit code: 1 (at risk) counts more than 3 (not judged)."""
    from initdiag.diagnosing.diagnose import fails

    failing = [report for report in reports if fails(report, fail_on)]
    if any(report.verdict.is_at_risk for report in failing):
        return 1
    return 3 if failing else 0


def write_spectrum(
    report: SpectralReport, output_format: OutputFormat, output_file: Path | None
) -> None:
    """Write a spectrum as JSON or as text."""
    from initdiag.rendering.spectrum import renderable, to_text

    if output_format == "json":
        text = json.dumps(report.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        emit(text, output_file)
    elif output_file is not None:
        emit(to_text(report, width=100), output_file)
    else:
        terminal().print(renderable(report))
