"""Options and decorators that commands share.

`asks_cluster` turns a function `(client, **options) -> Result` into a command's body: it adds `--bootstrap`,
`--timeout` and `-o`, opens the client, prints the result, closes the client.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.base.errors import InvalidRequest
from penstock.cli.completion import complete_clusters
from penstock.cli.output import FORMATS, Result, emit
from penstock.cli.text_formats.addresses import Address, parse_address, parse_addresses
from penstock.cli.text_formats.positions import Position, parse_position
from penstock.cli.text_formats.quantities import parse_size
from penstock.cli.text_formats.times import parse_duration_ms

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"


class Parsed(click.ParamType[Any]):
    """An option whose text one of our rules reads; what the rule refuses is wrong usage."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text; defaults may be values already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except InvalidRequest as error:
            self.fail(str(error), param, ctx)


class WholeNumber(click.IntRange):
    """A number in a range. What is none is called so in plain words."""

    name = "whole number"


class Directory(click.Path):
    """A directory. An empty text is not the current one: it is a variable of a script that nobody has set."""

    def __init__(self, *, file_okay: bool = False) -> None:
        super().__init__(file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse none."""
        if value == "":
            self.fail("it is empty; write . for the current directory", param, ctx)
        return super().convert(value, param, ctx)


DIRECTORY = Directory()
ADDRESS = Parsed("HOST:PORT", parse_address)
ADDRESSES = Parsed("HOST:PORT[,…]", parse_addresses)
DURATION_MS = Parsed("DURATION", parse_duration_ms)


def parse_timeout_ms(text: str) -> int:
    """Read a duration in which something can be done."""
    duration_ms = parse_duration_ms(text)
    if duration_ms == 0:
        raise InvalidRequest(f"{text!r} leaves no time to connect; write 500ms, 10s or 5m")
    return duration_ms


TIMEOUT_MS = Parsed("DURATION", parse_timeout_ms)
SIZE = Parsed("SIZE", parse_size)


def parse_setting(text: str) -> tuple[str, str]:
    """Read `key=value`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InvalidRequest(f"{text!r} is not a setting; write key=value")
    return key.strip(), value.strip()


SETTING = Parsed("KEY=VALUE", parse_setting)


def position_of(text: str, option: str, *, now_ms: int) -> Position:
    """The position that an option names; what is none is wrong usage."""
    try:
        return parse_position(text, now_ms=now_ms)
    except InvalidRequest as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def settings_of(pairs: Sequence[tuple[str, str]], option: str) -> Mapping[str, str]:
    """Settings by name; the same name twice is wrong usage."""
    settings: dict[str, str] = {}
    for key, value in pairs:
        if key in settings:
            raise click.BadParameter(f"{key} is given twice", param_hint=option)
        settings[key] = value
    return settings


def setting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--set` and `--unset`; the function gets `changes` and `unset`."""
    unset = click.option(
        "-u", "--unset", metavar="KEY", multiple=True, help="A setting to reset to its default. May be repeated."
    )
    return click.option(
        "-s", "--set", "changes", type=SETTING, multiple=True, help="A setting to change. May be repeated."
    )(unset(function))


def changes_of(pairs: Sequence[tuple[str, str]], unset: Sequence[str]) -> dict[str, str]:
    """What to set; nothing at all, or a setting both set and unset, is wrong usage."""
    wanted = dict(settings_of(pairs, "--set"))
    if not wanted and not unset:
        raise click.UsageError("nothing to change; give --set KEY=VALUE or --unset KEY")
    both = sorted(set(wanted) & set(unset))
    if both:
        raise click.UsageError(f"{both[0]} is both set and unset")
    return wanted


def limits_of(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Limits by name; the same twice is wrong usage."""
    limits = dict(pairs)
    if len(limits) < len(pairs):
        raise click.UsageError("a limit is given twice")
    return limits


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`-o table|json|yaml`."""
    return click.option(
        "-o", "--output", "output_format", type=click.Choice(FORMATS), default="table", help="How to print the result."
    )(function)


client_config_option = click.option(
    "--client-config", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    envvar="PENSTOCK_CLIENT_CONFIG", show_envvar=True,
    help="A client.properties file: security.protocol, sasl.username, ssl.ca.location, …",
)  # fmt: skip


def client_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--bootstrap`, `--client-config`, `--cluster` and `--timeout`; the function gets a `client`, which connects when
    it is first used."""

    @click.option(
        "-b", "--bootstrap", type=ADDRESSES, default=DEFAULT_BOOTSTRAP, envvar="PENSTOCK_BOOTSTRAP", show_envvar=True,
        help="The cluster to connect to.",
    )  # fmt: skip
    @client_config_option
    @click.option(
        "--cluster", metavar="NAME", envvar="PENSTOCK_CLUSTER", show_envvar=True, shell_complete=complete_clusters,
        help="The virtual cluster to work in, for platform administrators. For others their credentials decide.",
    )  # fmt: skip
    @click.option("--timeout", "timeout_ms", type=TIMEOUT_MS, default="30s", help="How long to try before giving up.")
    @functools.wraps(function)
    def with_client(
        *args: Any, bootstrap: Sequence[Address], client_config: Path | None, cluster: str | None, timeout_ms: int,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        with open_client(bootstrap, client_config, timeout_ms / 1_000, cluster) as client:
            return function(client, *args, **kwargs)

    return with_client


def open_client(
    bootstrap: Sequence[Address], client_config: Path | None, timeout_s: float, cluster: str | None = None,
    ctx: click.Context | None = None,
) -> Client:  # fmt: skip
    """A client as the options, the file they name and the environment say."""
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.client_config import read_config

    config = read_config(client_config, os.environ)
    ctx = ctx or click.get_current_context(silent=True)
    source = ctx.get_parameter_source("bootstrap") if ctx is not None else None
    if config.bootstrap is not None and source is click.core.ParameterSource.DEFAULT:
        bootstrap = parse_addresses(config.bootstrap)
    return Client(bootstrap, timeout_s=timeout_s, security=config.security, cluster=cluster)


def asks_cluster(function: Callable[..., Result]) -> Callable[..., None]:
    """Make a function from a client to a result into the body of a command."""

    def body(client: Client, output_format: str, **kwargs: Any) -> None:
        emit(function(client, **kwargs), output_format)

    functools.update_wrapper(body, function)
    return client_options(output_option(body))


def require_known(names: Iterable[str], known: Container[str], what: str, see: str) -> None:
    """Raise unless there is something of each name; `see` is the command that shows what there is."""
    for name in names:
        if name not in known:
            raise InvalidRequest(f"there is no {what} {name!r}. See: penstock {see}")


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Standard input is not a terminal: add --yes to confirm.")
    if not click.confirm(question, err=True):
        raise click.Abort
