"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from initdiag._core.choices import FAMILIES, LOSSES
from initdiag.rendering.formats import FORMATS

__all__ = [
    "FILE",
    "assumption_options",
    "output_options",
    "training_options",
]

FILE = click.Path(dir_okay=False, path_type=Path)

Command = Callable[..., Any]


def training_options(command: Command) -> Command:
    """Add the options that say how the network is trained, and the limit of risk."""
    return _all(
        command,
        [
            click.option(
                "--optimizer",
                type=click.Choice(FAMILIES),
                help="Optimiser to judge for (default: plain SGD).",
            ),
            click.option(
                "--lr", type=float, help="The learning rate (default: averaged over usual ones)."
            ),
            click.option(
                "--loss",
                type=click.Choice(LOSSES),
                help="Kind of loss (default: averaged over both).",
            ),
            click.option(
                "--max-risk",
                type=click.FloatRange(0, 1),
                default=0.5,
                show_default=True,
                help="Risk from which on a network is at risk.",
            ),
        ],
    )


def assumption_options(command: Command) -> Command:
    """Add the options for a network of which only the widths are given: the keywords of
    `Architecture.from_widths`.
    """
    return _all(
        command,
        [
            click.option(
                "--init",
                default="torch_default",
                show_default=True,
                help="Initialiser of every layer.",
            ),
            click.option(
                "--activation", default="relu", show_default=True, help="Of the hidden layers."
            ),
            click.option(
                "--output", default="linear", show_default=True, help="Of the last layer."
            ),
            click.option(
                "--gain",
                type=float,
                default=1.0,
                show_default=True,
                help="Multiplies every weight.",
            ),
            click.option(
                "--dropout",
                type=float,
                default=0.0,
                show_default=True,
                help="Rate after hidden layers.",
            ),
            click.option(
                "--negative-slope",
                type=float,
                default=0.01,
                show_default=True,
                help="Of leaky_relu.",
            ),
        ],
    )


def output_options(command: Command) -> Command:
    """Add the options that say how reports are written, and where to."""
    return _all(
        command,
        [
            click.option(
                "--output-format", type=click.Choice(FORMATS), default="console", show_default=True
            ),
            click.option("--output-file", type=FILE, help="Write to this file, not to stdout."),
        ],
    )


def _all(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
