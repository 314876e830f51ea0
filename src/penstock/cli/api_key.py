"""`penstock api-key`: what service accounts connect with, by SASL PLAIN over TLS.

The secret of a key is shown once, or written to a file that only its owner can read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_accounts, complete_api_keys
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.login_file import login_file, write_options
from penstock.cli.options import DURATION_MS, asks_cluster, confirm, dry_run_option, require_known, yes_option
from penstock.cli.output import Column, Listing, Notice, Result, Row
from penstock.cli.text_formats.times import iso, to_the_second

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.group(
    "api-key",
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("api_key:list_keys", "List API keys, without their secrets."),
            "create": Lazy("api_key:create", "Create an API key for a service account."),
            "delete": Lazy("api_key:delete", "Delete API keys: nobody can connect with them any more."),
        }
    },
)
def api_key() -> None:
    """API keys of service accounts."""


@click.command("list", epilog="JSON: [{key, service_account, description, created_at, expires_at}].")
@click.option(
    "--owner", "owners", metavar="NAME", multiple=True, help="Only keys of this service account.",
    shell_complete=complete_accounts,
)  # fmt: skip
@asks_cluster
def list_keys(client: Client, owners: tuple[str, ...]) -> Result:
    """List API keys, without their secrets."""
    from penstock.cli.kafka.service_accounts import describe_accounts

    rows: list[Row] = [
        {
            "key": key.key_id,
            "service_account": key.owner,
            "description": key.description,
            "created_at": iso(key.created_ms),
            "expires_at": None if key.expires_ms is None else iso(key.expires_ms),
        }
        for account in describe_accounts(client, owners or None)
        for key in account.keys
    ]
    columns = [
        Column("key"), Column("service_account", "owner"), Column("created_at", "created", to_the_second),
        Column("expires_at", "expires", to_the_second), Column("description", wraps=True, is_extra=True),
    ]  # fmt: skip
    return Listing(rows=rows, columns=columns, empty="No API keys yet. Create one: penstock api-key create OWNER")


@click.command(epilog="JSON: {key, secret, service_account, expires_at, file}. secret: null if it is in a file.")
@click.argument("owner", metavar="SERVICE_ACCOUNT", shell_complete=complete_accounts)
@click.option("--description", default="", show_default=False, help="What it is for.")
@click.option("--lifetime", "lifetime_ms", type=DURATION_MS, help="How long it is valid.  [default: for ever]")
@write_options("Write it to FILE, for --client-config and Kafka's --command-config, instead of showing it.")
@dry_run_option
@asks_cluster
def create(
    client: Client, owner: str, description: str, lifetime_ms: int | None, target: Path | None, ca: Path | None,
    dry_run: bool,
) -> Result:  # fmt: skip
    """Create an API key for a service account.

    The secret is shown once, here, and cannot be shown again.

    \b
    penstock api-key create billing --lifetime 90d --write billing.properties
    """
    from penstock.cli.kafka.service_accounts import create_key, describe_accounts

    document: dict[str, str | None]
    file = login_file(client, target, ca)
    if dry_run:
        known = [account.name for account in describe_accounts(client, [owner])]
        require_known([owner], known, "service account", "service-account list")
        document = {"key": None, "secret": None, "service_account": owner, "expires_at": None, "file": None}
        return Notice(document=document, sentence=f"Would create an API key for {owner}.")
    made = create_key(client, owner, description, lifetime_ms)
    if file is not None:
        file.write("PLAIN", made.key_id, made.secret)
    document = {
        "key": made.key_id,
        "secret": None if file is not None else made.secret,
        "service_account": owner,
        "expires_at": None if made.expires_ms is None else iso(made.expires_ms),
        "file": None if target is None else str(target),
    }
    shown = file.sentence if file is not None else f"Its secret: {made.secret}"
    return Notice(document=document, sentence=f"Created API key {made.key_id} for {owner}. {shown}")


@click.command(epilog="JSON: [{key, deleted}].")
@click.argument("key_ids", metavar="KEY...", nargs=-1, required=True, shell_complete=complete_api_keys)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, key_ids: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete API keys: nobody can connect with them any more.

    \b
    penstock api-key delete PKJ4T2M6QXW3R7ZNDA
    """
    from penstock.cli.kafka.service_accounts import delete_keys, describe_accounts

    wanted = tuple(dict.fromkeys(key_ids))
    known = {key.key_id for account in describe_accounts(client) for key in account.keys}
    require_known(wanted, known, "API key", "api-key list")
    if not dry_run:
        confirm(f"Delete {', '.join(wanted)}?", yes=yes)
        delete_keys(client, wanted)
    rows: list[Row] = [{"key": key_id, "deleted": not dry_run} for key_id in wanted]
    return Listing(rows=rows, columns=[Column("key"), Column("deleted")], empty="")
