"""What people type who know Kafka's tools, kcat or rpk, and what that is called here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

AFTER_THE_COMMAND = frozenset({"-b", "--bootstrap", "--client-config", "--cluster", "--timeout", "-o", "--output"})
"""Options of commands, which people also write before the command."""
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "add": ("create", "allow", "set", "add-partitions"),
    "alter-config": ("alter",),
    "consumer": ("consume",),
    "consumer-group": ("group",),
    "consumer-groups": ("group",),
    "delete-records": ("trim",),
    "edit": ("alter", "set"),
    "get": ("describe", "list"),
    "health": ("doctor",),
    "info": ("describe",),
    "list-offsets": ("describe",),
    "ls": ("list",),
    "metadata": ("info", "cluster"),
    "new": ("create",),
    "offsets": ("lag",),
    "perf": ("bench",),
    "producer": ("produce",),
    "remove": ("delete", "unset", "revoke"),
    "reset": ("seek",),
    "reset-offsets": ("seek",),
    "rm": ("delete", "remove"),
    "run": ("up",),
    "serve": ("up",),
    "server": ("up",),
    "set": ("alter",),
    "show": ("describe",),
    "start": ("up",),
    "status": ("info", "doctor"),
    "terminate": ("abort",),
    "trim-prefix": ("trim",),
    "update": ("alter", "set"),
}
"""Commands of other tools, and what may be meant by them here."""
_OPTIONS: Mapping[str, str] = {
    "--add-config": "--set",
    "--broker-list": "--bootstrap",
    "--brokers": "--bootstrap",
    "--by-duration": "--to @1h",
    "--delete-config": "--unset",
    "--max-messages": "--count",
    "--num": "--count",
    "--offset": "--from",
    "--to-datetime": "--to @TIME",
    "--to-earliest": "--to start",
    "--to-latest": "--to end",
    "--to-offset": "--to OFFSET",
    "--shift-by": "--to OFFSET",
}
"""Options of other tools, and what to write instead, if the command has that."""
_NEEDLESS: Mapping[str, tuple[str, str]] = {
    "--execute": ("--dry-run", "without --dry-run it is done"),
    "--from-beginning": ("--from", "that is the default"),
    "--topic": ("", "topics are named without an option"),
}
"""Options of other tools that nothing corresponds to: which option a command has where that is so, and why."""


def command_for(word: str, here: Iterable[str], elsewhere: Iterable[str] = ()) -> str | None:
    """The command of this group that is meant by a word, else the one that `penstock` itself has of that name."""
    from difflib import get_close_matches

    here = list(here)
    meant = [command for command in _COMMANDS.get(word, ()) if command in here]
    if meant:
        return meant[0]
    if word in elsewhere:
        return f"penstock {word}"
    return next(iter(get_close_matches(word, here, n=1)), None)


def option_for(name: str, ctx: click.Context | None) -> str | None:
    """What to say of an option that the command does not have; None if nothing is known of it."""
    has = {option for parameter in ctx.command.params for option in parameter.opts} if ctx is not None else set()
    known, why = _NEEDLESS.get(name, (None, ""))
    if known == "" or known in has:
        return f"no such option {name!r}: {why}"
    instead = _OPTIONS.get(name, "")
    return f"no such option {name!r}; did you mean {instead!r}?" if instead.partition(" ")[0] in has else None
