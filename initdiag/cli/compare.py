"""``initdiag compare``: what differs between two saved reports."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from initdiag.cli.group import examples
from initdiag.cli.options import FILE
from initdiag.cli.output import emit, saved, terminal
from initdiag.errors import InvalidInput, explain
from initdiag.rendering.formats import as_json

if TYPE_CHECKING:
    from initdiag.diagnosing.comparison import Comparison
    from initdiag.diagnosing.report import Report

__all__ = ["compare_command"]

_SAVED = click.File(encoding="utf-8")


@click.command(
    "compare",
    short_help="Compare two saved reports, layer by layer.",
    epilog=examples(
        "initdiag compare before.json after.json",
        "initdiag compare before.json after.json --output-format markdown",
    ),
)
@click.argument("first", type=_SAVED)
@click.argument("second", type=_SAVED)
@click.option(
    "--output-format",
    type=click.Choice(["console", "json", "markdown"]),
    default="console",
    show_default=True,
)
@click.option("--output-file", type=FILE, help="Write to this file, not to stdout.")
def compare_command(
    first: IO[str],
    second: IO[str],
    output_format: Literal["console", "json", "markdown"],
    output_file: Path | None,
) -> int:
    """Compare two saved reports: FIRST and SECOND are what --output-format json wrote.

    Where the files hold several reports, those of one target are compared.
    """
    from initdiag.diagnosing.comparison import compare

    found = [compare(a, b) for a, b in _pairs(first, second)]
    if output_format == "console" and output_file is None:
        for one in found:
            terminal().print(one)
    else:
        emit(_written(found, output_format), output_file)
    return 0


def _pairs(first: IO[str], second: IO[str]) -> list[tuple[Report, Report]]:
    here, there = saved(first), saved(second)
    if len(here) == len(there) == 1:
        return [(here[0], there[0])]
    others = {report.target: report for report in there}
    pairs = [(one, others[one.target]) for one in here if one.target in others]
    missed = {one.target for one in (*here, *there)} - {one.target for one, _ in pairs}
    if not pairs:
        raise InvalidInput(
            explain(
                expected="reports of the same targets in both files",
                got=", ".join(sorted(missed)) or "no report",
                do="Save one report in each file, or reports of the same models.",
            )
        )
    for target in sorted(missed):
        click.echo(f"in one file alone: {target}", err=True)
    return pairs


def _written(found: list[Comparison], output_format: str) -> str:
    if output_format == "json":
        return as_json(found)
    is_markdown = output_format == "markdown"
    return "\n".join(one.to_markdown() if is_markdown else str(one) for one in found)
