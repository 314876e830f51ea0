"""`penstock quota`: limits of users, clients and addresses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from penstock.base.errors import InvalidRequest
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import Parsed, asks_cluster, confirm, dry_run_option, limits_of, parse_setting, yes_option
from penstock.cli.output import Column, Json, Listing, Notice, Result, Row, number
from penstock.cli.text_formats.quantities import amount_text, parse_amount

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.quotas import Entity, Quota

KEYS = (
    "producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate",
    "connection_creation_rate",
)  # fmt: skip
_TYPES = {"user": "user", "client_id": "client-id", "ip": "ip"}
"""Our names of the types of entities, and Kafka's."""
DEFAULT = "<default>"
_SHAPE = "JSON: [{user, client_id, ip, " + ", ".join(KEYS) + "}]. A default is shown as <default>."


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("quota:list_quotas", "List quotas."),
            "set": Lazy("quota:set_quota", "Limit a user, a client or an address."),
            "unset": Lazy("quota:unset_quota", "Remove limits."),
        }
    },
)
def quota() -> None:
    """Quotas: limits of users, clients and addresses.

    Of the quotas that match a client, the most specific one applies: user and client id, then user, then client id; a
    name before a default. Limits: producer_byte_rate and consumer_byte_rate (bytes per second), request_percentage (of
    an agent's time), controller_mutation_rate (partitions created and deleted per second), connection_creation_rate
    (per second, of an address).
    """


def parse_limit(text: str) -> tuple[str, float]:
    """Read `key=value`; rates of bytes may have a unit."""
    key, value = parse_setting(text)
    if key not in KEYS:
        raise InvalidRequest(f"{key!r} cannot be limited; use one of {', '.join(KEYS)}")
    return key, parse_amount(value, in_bytes=key.endswith("_byte_rate"))


LIMIT = Parsed("KEY=VALUE", parse_limit)


def entity_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--user`, `--client-id`, `--ip` and their defaults; the function gets an `entity`."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        entity: dict[str, str | None] = {}
        for ours, theirs in _TYPES.items():
            name, default = kwargs.pop(ours), kwargs.pop(f"default_{ours}")
            option = f"--{ours.replace('_', '-')}"
            if name is not None and default:
                raise click.UsageError(f"{option} and --default{option[1:]} are two quotas; set one after the other")
            if name == "":
                raise click.UsageError(f"{option} needs a name")
            if name is not None or default:
                entity[theirs] = name
        if "ip" in entity and len(entity) > 1:
            raise click.UsageError("an address has quotas of its own, whoever connects from it")
        return function(*args, entity=entity, **kwargs)

    for option, entity in (("--ip", "address"), ("--client-id", "client id"), ("--user", "user")):
        every = f"Every {entity} without a quota of its own."
        gathered = click.option(f"--default{option[1:]}", is_flag=True, help=every)(gathered)
        gathered = click.option(option, metavar="NAME", help=f"The {entity} that the quota is for.")(gathered)
    return gathered


@click.command("list", epilog=_SHAPE)
@entity_options
@asks_cluster
def list_quotas(client: Client, entity: Entity) -> Result:
    """List quotas.

    All of them, or those of the given user, client id or address.

    \b
    penstock quota list --user alice
    """
    from penstock.cli.kafka.quotas import quotas

    return _listing([_row(found) for found in quotas(client, entity, strict=False)])


@click.command("set", epilog=_SHAPE)
@click.argument("limits", metavar="KEY=VALUE...", type=LIMIT, nargs=-1, required=True)
@entity_options
@dry_run_option
@asks_cluster
def set_quota(client: Client, entity: Entity, limits: Sequence[tuple[str, float]], dry_run: bool) -> Result:
    """Limit a user, a client or an address.

    \b
    penstock quota set --user alice producer_byte_rate=10MiB consumer_byte_rate=50MiB
    penstock quota set --default-client-id request_percentage=25
    """
    from penstock.cli.kafka.quotas import Quota, alter_quota, quotas

    _require(entity)
    wanted = limits_of(limits)
    alter_quota(client, entity, wanted, dry_run=dry_run)
    if dry_run:
        return _listing([_row(Quota(entity=entity, limits=wanted))])
    return _listing([_row(found) for found in quotas(client, entity, strict=True)])


@click.command("unset", epilog="JSON: {user, client_id, ip, removed}.")
@click.argument("keys", metavar="[KEY]...", type=click.Choice(KEYS), nargs=-1)
@entity_options
@yes_option
@dry_run_option
@asks_cluster
def unset_quota(client: Client, entity: Entity, keys: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Remove limits.

    Those that are named, or all, of a user, a client id or an address.

    \b
    penstock quota unset --user alice consumer_byte_rate
    penstock quota unset --default-ip
    """
    from penstock.cli.kafka.quotas import alter_quota, quotas

    _require(entity)
    present = [key for found in quotas(client, entity, strict=True) for key in found.limits]
    going = [key for key in present if key in keys or not keys]
    if going and not dry_run:
        confirm(f"Remove {', '.join(going)}?", yes=yes)
        alter_quota(client, entity, dict.fromkeys(going), dry_run=False)
    what = "Would remove" if dry_run else "Removed"
    sentence = f"{what} {', '.join(going)}." if going else "There is no such quota."
    return Notice(document={**_names(entity), "removed": going}, sentence=sentence)


def _require(entity: Entity) -> None:
    if not entity:
        raise click.UsageError("whose quota? Give --user, --client-id, --ip, or a default such as --default-user.")


def _names(entity: Mapping[str, str | None]) -> dict[str, Json]:
    return {
        ours: (DEFAULT if entity[theirs] is None else entity[theirs]) if theirs in entity else None
        for ours, theirs in _TYPES.items()
    }


def _row(found: Quota) -> Row:
    return {**_names(found.entity), **{key: found.limits.get(key) for key in KEYS}}


def _listing(rows: list[Row]) -> Listing:
    # What nobody has is no column for people.
    used = [key for key in (*_TYPES, *KEYS) if any(row[key] is not None for row in rows)]
    columns = [number(key, show=amount_text) if key in KEYS else Column(key) for key in used]
    return Listing(rows=rows, columns=columns, empty="No quotas: nobody is limited.")
