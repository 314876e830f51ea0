"""A group of commands whose modules are imported when one of them runs, not when the group is listed.

The one-line summaries are therefore kept in the table of the group; a test compares them with the commands' own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from penstock.base.dataclasses import dataclass
from penstock.base.errors import PlatformError
from penstock.cli.errors import Failure, OutputClosed, sentence_of
from penstock.cli.suggestions import AFTER_THE_COMMAND, command_for, option_for


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is, `module:attribute` under penstock.cli, and what it does in a few words."""

    place: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module_name, _, attribute = self.place.partition(":")
        command = getattr(importlib.import_module(f"penstock.cli.{module_name}"), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """Commands by section, each loaded when needed. Our failures leave as one line and exit code 1."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, Lazy]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self.lazy = {name: lazy for section in sections.values() for name, lazy in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        lazy = self.lazy.get(cmd_name)
        return None if lazy is None else lazy.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        width = max(map(len, self.lazy))
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), lazy.summary) for name, lazy in section.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words; of an option that is a command's, say where it goes."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            if name in AFTER_THE_COMMAND:
                message = f"{name} goes after the command, as in: penstock topic list {name} …"
            elif (command := name.lstrip("-")) in self.lazy:
                message = f"{name} is a command here: {ctx.command_path} {command}"
            else:
                raise
            raise click.UsageError(message, ctx=ctx) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; when there is none, name the closest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0].startswith("-"):
                raise  # An option, about which click knows more.
            root = ctx.find_root().command
            elsewhere = root.lazy if isinstance(root, LazyGroup) else {}
            close = command_for(args[0], self.lazy, elsewhere)
            message = f"no command {args[0]!r}" + (f"; did you mean {close!r}?" if close else "")
            raise click.UsageError(message, ctx=ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what we raise on purpose becomes one line."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if (message := option_for(error.option_name, error.ctx)) is None:
                raise
            raise click.UsageError(message, ctx=error.ctx) from error
        except PlatformError as error:
            raise Failure(str(error)) from error
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:  # A full disk behind the output, say.
            raise Failure(sentence_of(error)) from error
        except UnicodeEncodeError as error:  # An argument that is no text.
            raise Failure(f"{error.object!r} is not text in UTF-8") from error
