"""``initdiag explain``: what a finding means, why it happens and how to mend it."""

from __future__ import annotations

import textwrap

import click

from initdiag.cli.group import examples

__all__ = ["explain_command"]

_WIDTH = 88
"""Columns that a text is wrapped at, as the project's own prose is."""


@click.command(
    "explain",
    short_help="Explain a finding: what it means, why it happens, how to mend it.",
    epilog=examples("initdiag explain", "initdiag explain vanishing-gradient"),
)
@click.argument("code", required=False)
def explain_command(code: str | None) -> None:
    """Explain a finding: CODE is e.g. IND012, or a name. Without one, list them all."""
    from initdiag.diagnosing.findings import CATALOGUE, kind_of

    if code is None:
        for kind in CATALOGUE.values():
            click.echo(f"{kind.code}  {kind.severity:7}  {kind.name}")
        return
    kind = kind_of(code)
    click.echo(f"{kind.code}: {kind.name} ({kind.severity})")
    for heading, text in kind.sections():
        click.echo(f"\n{heading}")
        click.echo(textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  "))
