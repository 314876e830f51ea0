"""`penstock env`: environments, which are sets of virtual clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_environments
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import asks_cluster, confirm, dry_run_option, require_known, yes_option
from penstock.cli.output import Column, Listing, Notice, Result, Row
from penstock.cli.text_formats.times import iso, to_the_second

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("env:list_environments", "List environments and their clusters."),
            "create": Lazy("env:create", "Create an environment."),
            "delete": Lazy("env:delete", "Delete environments that have no clusters."),
        }
    },
)
def env() -> None:
    """Environments: sets of clusters.

    For platform administrators.
    """


@click.command("list", epilog="JSON: [{environment, clusters, created_at}].")
@asks_cluster
def list_environments(client: Client) -> Result:
    """List environments and their clusters."""
    from penstock.cli.kafka.virtual_clusters import describe_environments

    rows: list[Row] = [
        {"environment": found.name, "clusters": list(found.clusters), "created_at": iso(found.created_ms)}
        for found in describe_environments(client)
    ]
    columns = [
        Column("environment", "name"), Column("clusters", wraps=True), Column("created_at", "created", to_the_second),
    ]  # fmt: skip
    return Listing(rows=rows, columns=columns, empty="No environments.")


@click.command(epilog="JSON: {environment, created}.")
@click.argument("name", metavar="NAME")
@dry_run_option
@asks_cluster
def create(client: Client, name: str, dry_run: bool) -> Result:
    """Create an environment.

    \b
    penstock env create production
    """
    from penstock.cli.kafka.virtual_clusters import alter_environments

    if not dry_run:
        alter_environments(client, creations=[name])
    what = "Would create" if dry_run else "Created"
    return Notice(
        document={"environment": name, "created": not dry_run},
        sentence=f"{what} environment {name}. A cluster in it: penstock cluster create CLUSTER --env {name}",
    )


@click.command(epilog="JSON: [{environment, deleted}].")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_environments)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, names: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete environments that have no clusters.

    \b
    penstock env delete staging
    """
    from penstock.cli.kafka.virtual_clusters import alter_environments, describe_environments

    wanted = tuple(dict.fromkeys(names))
    found = {environment.name: environment for environment in describe_environments(client)}
    require_known(wanted, found, "environment", "env list")
    if not dry_run:
        confirm(f"Delete {', '.join(wanted)}?", yes=yes)
        alter_environments(client, deletions=wanted)
    rows: list[Row] = [{"environment": name, "deleted": not dry_run} for name in wanted]
    return Listing(rows=rows, columns=[Column("environment"), Column("deleted")], empty="")
