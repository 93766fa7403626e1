"""``initdiag map``: the risk over depth and width, with one network in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from initdiag._core.choices import Family, Loss
from initdiag.cli.group import examples
from initdiag.cli.options import FILE, assumption_options, training_options
from initdiag.cli.output import emit, terminal
from initdiag.rendering.formats import as_json

__all__ = ["map_command"]


@click.command(
    "map",
    short_help="Show the risk over depth and width, with a network in it.",
    epilog=examples(
        "initdiag map 784,256x8,10",
        "initdiag map 784,256x8,10 --init he_normal --optimizer adam --figure map.png",
    ),
)
@click.argument("widths")
@assumption_options
@training_options
@click.option(
    "--output-format", type=click.Choice(["console", "json"]), default="console", show_default=True
)
@click.option("--output-file", type=FILE, help="Write to this file, not to stdout.")
@click.option("--figure", type=FILE, help="Write a figure, too: .png, .svg or .pdf.")
def map_command(
    widths: str,
    optimizer: Family | None,
    lr: float | None,
    loss: Loss | None,
    max_risk: float,
    output_format: Literal["console", "json"],
    output_file: Path | None,
    figure: Path | None,
    **assumptions: Any,
) -> int:
    """Show the risk over depth and width, with a network in it: WIDTHS as in predict,
    e.g. 784,256x8,10.
    """
    from initdiag.project.targets import parse_widths
    from initdiag.screening.depth_width import risk_map

    found = risk_map(
        parse_widths(widths),
        optimizer=optimizer,
        max_risk=max_risk,
        lr=lr,
        loss=loss,
        **assumptions,
    )
    if output_format == "json":
        emit(as_json([found]), output_file)
    elif output_file is not None:
        emit(str(found), output_file)
    else:
        terminal().print(found)
    if figure is not None:
        _save(found.figure(), figure)
    return 0


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise click.FileError(str(path), str(error)) from error
