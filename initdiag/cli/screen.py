"""``initdiag screen``: a thin adapter over `initdiag.screening`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from initdiag.cli.group import examples
from initdiag.cli.options import FILE, assumption_options, training_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initdiag.screening.files.run import Counts

__all__ = ["screen_command"]


@click.command(
    "screen",
    short_help="Keep the architectures of a file whose risk is low enough.",
    epilog=examples(
        "initdiag screen candidates.parquet -o kept.parquet --init he_normal",
        "initdiag screen candidates.csv -o kept.csv --column widths --max-risk 0.2",
    ),
)
@click.argument("file", type=FILE)
@click.option(
    "-o",
    "--output-file",
    type=FILE,
    required=True,
    help="File for the rows that are kept, of the same kind as FILE.",
)
@click.option("--column", default="widths", show_default=True, help="Of the widths.")
@click.option("--restart", is_flag=True, hidden=True, expose_value=False, help="Has no effect.")
@training_options
@assumption_options
def screen_command(file: Path, output_file: Path, **options: Any) -> int:
    """Keep those architectures of FILE (.parquet, .csv, .jsonl) whose risk is below
    --max-risk.

    Widths: a list column of a Parquet file, a CSV column such as "784,256x8,10", a JSON
    list a line or in an object. The rows are written as they came, with a column
    initdiag_risk (in place of an earlier one); rows that are not architectures go to
    OUTPUT.rejects.jsonl with their line and the reason. The output gets its name when
    it is whole: a run that is stopped leaves none, and the next one begins anew.
    """
    from initdiag.screening.files.run import rejects_of, screen_file

    given = {name: value for name, value in options.items() if value is not None}
    with _progress(sys.stderr.isatty()) as show:
        counts = screen_file(file, output_file, progress=show, note=_note, **given)
    click.echo(
        f"{counts.rows:,} rows: {counts.kept:,} kept, {counts.at_risk:,} at risk, "
        f"{counts.rejected:,} rejected",
        err=True,
    )
    if counts.rejected:
        click.echo(f"rejects: {rejects_of(output_file)}", err=True)
    return 0


def _note(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _progress(is_shown: bool) -> Iterator[Callable[[int, int, Counts], None]]:
    if not is_shown:
        yield lambda read, size, counts: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def show(read: int, size: int, counts: Counts) -> None:
            said = f"{counts.rows:,} rows, {counts.kept:,} kept, {counts.rejected:,} rejected"
            bar.update(task, completed=read, total=size, description=said)

        yield show
