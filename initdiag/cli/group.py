"""The group of commands, alike under every version of click."""

from __future__ import annotations

from typing import Any

import click

from initdiag._core.validation import did_you_mean
from initdiag.cli.output import ReaderGone

__all__ = ["Commands", "examples"]


def examples(*lines: str) -> str:
    """Return an epilogue of example commands, a line each, that click does not wrap."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


class Commands(click.Group):
    """Commands of which a misspelt one is answered with the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest: not every version of click does."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = did_you_mean(args[0], self.commands)
            message = " ".join(filter(None, (f"No such command {args[0]!r}.", near)))
            raise click.UsageError(message, ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click would make exit code 1, at risk, of a broken pipe."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error
