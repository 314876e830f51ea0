"""`penstock service-account`: programs that act in their own name, which API keys let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_accounts
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import asks_cluster, confirm, dry_run_option, require_known, yes_option
from penstock.cli.output import Column, Listing, Notice, Result, Row, number
from penstock.cli.text_formats.quantities import plural
from penstock.cli.text_formats.times import iso, to_the_second

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.group(
    "service-account",
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("service_account:list_accounts", "List service accounts."),
            "create": Lazy("service_account:create", "Create a service account."),
            "delete": Lazy("service_account:delete", "Delete service accounts, their API keys and tokens."),
        }
    },
)
def service_account() -> None:
    """Service accounts: identities of programs."""


@click.command("list", epilog="JSON: [{service_account, description, keys, created_at}].")
@asks_cluster
def list_accounts(client: Client) -> Result:
    """List service accounts."""
    from penstock.cli.kafka.service_accounts import describe_accounts

    rows: list[Row] = [
        {
            "service_account": account.name,
            "description": account.description,
            "keys": len(account.keys),
            "created_at": iso(account.created_ms),
        }
        for account in describe_accounts(client)
    ]
    columns = [
        Column("service_account", "name"),
        number("keys"),
        Column("created_at", "created", to_the_second),
        Column("description", wraps=True, is_extra=True),
    ]
    return Listing(
        rows=rows, columns=columns, empty="No service accounts yet. Create one: penstock service-account create NAME"
    )


@click.command(epilog="JSON: {service_account, created}.")
@click.argument("name", metavar="NAME")
@click.option("--description", default="", show_default=False, help="What it is for.")
@dry_run_option
@asks_cluster
def create(client: Client, name: str, description: str, dry_run: bool) -> Result:
    """Create a service account.

    Its principal is User:NAME. It connects with API keys: penstock api-key create NAME.

    \b
    penstock service-account create billing --description "makes the invoices"
    """
    from penstock.cli.kafka.service_accounts import create_account

    if not dry_run:
        create_account(client, name, description)
    document: Row = {"service_account": name, "created": not dry_run}
    what = "Would create" if dry_run else "Created"
    return Notice(
        document=document, sentence=f"{what} service account {name}. A key for it: penstock api-key create {name}"
    )


@click.command(epilog="JSON: [{service_account, keys, deleted}].")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_accounts)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, names: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete service accounts, their API keys and tokens.

    \b
    penstock service-account delete billing
    """
    from penstock.cli.kafka.service_accounts import delete_accounts, describe_accounts

    wanted = tuple(dict.fromkeys(names))
    found = {account.name: account for account in describe_accounts(client, wanted)}
    require_known(wanted, found, "service account", "service-account list")
    if not dry_run:
        keys = plural(sum(len(account.keys) for account in found.values()), "API key")
        confirm(f"Delete {', '.join(wanted)} with {keys}?", yes=yes)
        delete_accounts(client, wanted)
    rows: list[Row] = [
        {"service_account": name, "keys": len(found[name].keys), "deleted": not dry_run} for name in wanted
    ]
    columns = [Column("service_account", "name"), number("keys"), Column("deleted")]
    return Listing(rows=rows, columns=columns, empty="")
