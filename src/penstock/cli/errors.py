"""How a command fails: one line on standard error that says what happened and what to do, and an exit code."""

from __future__ import annotations

import sys
from typing import Any

import click

from penstock.cli.output import is_terminal


class Failure(click.ClickException):
    """A failure in one sentence, with what to do; exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print it to standard error."""
        stream = sys.stderr if file is None else file
        label = click.style("error:", fg="red", bold=True) if is_terminal(stream) else "error:"
        click.echo(f"{label} {self.message}", file=stream)


class Misuse(Failure):
    """What was asked for cannot be right; exit code 2."""

    exit_code = 2


class WrongUsage(Failure):
    """What click refuses, as one line that ends in where to look; exit code 2."""

    exit_code = 2

    def __init__(self, error: click.UsageError) -> None:
        message = error.format_message().rstrip(".")
        if message[:2].istitle():  # Click begins its sentences with a capital letter, unlike all of ours.
            message = message[0].lower() + message[1:]
        stop = "" if message.endswith("?") else "."
        see = f" See: {error.ctx.command_path} --help" if error.ctx is not None else ""
        super().__init__(f"{message}{stop}{see}" if see else message)


class OutputClosed(Exception):
    """Whoever read our output has seen enough. Not an OSError, which click would turn into a failure."""


def sentence_of(error: OSError) -> str:
    """What the operating system refused."""
    what = (error.strerror or str(error) or type(error).__name__).lower()
    return what if error.filename is None else f"{error.filename}: {what}"
