"""`penstock cluster list|create|describe|alter|delete`: virtual clusters, one for each tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.base.errors import InvalidRequest
from penstock.cli.completion import complete_clusters, complete_environments
from penstock.cli.options import (
    Parsed,
    asks_cluster,
    confirm,
    dry_run_option,
    limits_of,
    parse_setting,
    require_known,
    yes_option,
)
from penstock.cli.output import Column, Details, Json, Listing, Notice, Result, Row, Section, number
from penstock.cli.text_formats.quantities import count_text, parse_amount, plural
from penstock.cli.text_formats.times import iso, to_the_second

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.virtual_clusters import VirtualCluster


def parse_limit(text: str) -> tuple[str, float]:
    """Read `limit=value`; a value may have a unit."""
    key, value = parse_setting(text)
    return key, parse_amount(value, in_bytes=key.startswith("bytes_"))


LIMIT = Parsed("LIMIT=VALUE", parse_limit)
LIMIT_COLUMNS = [Column("limit"), number("value", show=count_text), number("used", show=count_text)]


def limit_rows(found: VirtualCluster) -> list[Row]:
    """What a cluster may have, and what it has."""
    keys = sorted({*found.limits, *found.usage})
    return [{"limit": key, "value": found.limits.get(key), "used": found.usage.get(key)} for key in keys]


@click.command("list", epilog="JSON: [{cluster, environment, id, state, description, created_at}].")
@asks_cluster
def list_clusters(client: Client) -> Result:
    """List virtual clusters.

    Platform administrators see all of them, anybody else their own.
    """
    from penstock.cli.kafka.virtual_clusters import describe_clusters

    rows: list[Row] = [
        {
            "cluster": found.name,
            "environment": found.environment,
            "id": found.kafka_id,
            "state": found.state,
            "description": found.description,
            "created_at": iso(found.created_ms),
        }
        for found in describe_clusters(client)
    ]
    columns = [
        Column("cluster", "name"),
        Column("environment"),
        Column("state"),
        Column("created_at", "created", to_the_second),
        Column("description", wraps=True, is_extra=True),
    ]
    return Listing(rows=rows, columns=columns, empty="No clusters.")


@click.command(epilog="JSON: {cluster, environment, id, created}.")
@click.argument("name", metavar="NAME")
@click.option(
    "--env", "environment", metavar="NAME", default="default", help="The environment it belongs to.",
    shell_complete=complete_environments,
)  # fmt: skip
@click.option("--description", default="", show_default=False, help="What it is for.")
@click.option("--limit", "limits", type=LIMIT, multiple=True, help="A limit of the cluster. May be repeated.")
@click.option("--encrypt", is_flag=True, help="Encrypt what it stores. Cannot be undone.")
@dry_run_option
@asks_cluster
def create(
    client: Client,
    name: str,
    environment: str,
    description: str,
    limits: tuple[tuple[str, float], ...],
    encrypt: bool,
    dry_run: bool,
) -> Result:
    """Create a virtual cluster.

    \b
    penstock cluster create acme --env production --limit partitions=1000
    penstock topic create orders --cluster acme
    """
    from penstock.cli.kafka.cluster_keys import ENCRYPT, alter_keys
    from penstock.cli.kafka.virtual_clusters import create_cluster

    wanted, kafka_id = limits_of(limits), None
    if not dry_run:
        kafka_id = create_cluster(client, name, environment=environment, description=description, limits=wanted)
        if encrypt:
            # Nobody can have written to it yet. If this fails, it is there and not encrypted, and that is said.
            alter_keys(client, name, ENCRYPT)
    document: Row = {"cluster": name, "environment": environment, "id": kafka_id, "created": not dry_run}
    what = "Would create" if dry_run else "Created"
    return Notice(
        document=document, sentence=f"{what} cluster {name} in environment {environment}. Go there: --cluster {name}"
    )


@click.command(
    epilog="JSON: {cluster, environment, id, state, description, created_at, limits: [{limit, value, used}]}."
)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_clusters)
@asks_cluster
def describe(client: Client, name: str | None) -> Result:
    """Show a virtual cluster, its limits and what it uses of them.

    Without a name, the one that the connection is in.

    \b
    penstock cluster describe acme
    """
    from penstock.cli.kafka.virtual_clusters import describe_clusters

    clusters = describe_clusters(client, [] if name is None else [name])
    if not clusters:
        raise InvalidRequest(f"cluster {name!r} does not exist, or you may not see it. See: penstock cluster list")
    found = clusters[0]
    document: dict[str, Json] = {
        "cluster": found.name,
        "environment": found.environment,
        "id": found.kafka_id,
        "state": found.state,
        "description": found.description,
        "created_at": iso(found.created_ms),
        "limits": limit_rows(found),
    }
    fields = [Column(key) for key in ("cluster", "environment", "id", "state", "description", "created_at")]
    section = Section(key="limits", title="", columns=LIMIT_COLUMNS, empty="No limits.")
    return Details(document=document, fields=fields, sections=[section])


@click.command(epilog="JSON: {cluster, changed}.")
@click.argument("name", metavar="NAME", shell_complete=complete_clusters)
@click.option("--description", help="What it is for.")
@click.option("--limit", "limits", type=LIMIT, multiple=True, help="A limit to set. May be repeated.")
@click.option("--no-limit", "unlimited", metavar="LIMIT", multiple=True, help="A limit to remove. May be repeated.")
@dry_run_option
@asks_cluster
def alter(
    client: Client, name: str, description: str | None, limits: tuple[tuple[str, float], ...],
    unlimited: tuple[str, ...], dry_run: bool,
) -> Result:  # fmt: skip
    """Change a virtual cluster's description and limits.

    New limits apply at once. What a cluster already has beyond them it keeps.

    \b
    penstock cluster alter acme --limit partitions=2000 --limit bytes_in_rate=20MiB
    penstock cluster alter acme --no-limit partitions
    """
    from penstock.cli.kafka.virtual_clusters import alter_cluster, describe_clusters

    wanted: dict[str, float | None] = {**limits_of(limits)}
    both = sorted(set(wanted) & set(unlimited))
    if both:
        raise click.UsageError(f"{both[0]} is both set and taken away")
    wanted.update(dict.fromkeys(unlimited))
    if not wanted and description is None:
        raise click.UsageError("nothing to change; give --limit LIMIT=VALUE, --no-limit LIMIT or --description")
    if not describe_clusters(client, [name]):
        raise InvalidRequest(f"there is no cluster {name!r}. See: penstock cluster list")
    if not dry_run:
        alter_cluster(client, name, description=description, limits=wanted)
    what = "Would change" if dry_run else "Changed"
    return Notice(document={"cluster": name, "changed": not dry_run}, sentence=f"{what} cluster {name}.")


@click.command(epilog="JSON: [{cluster, partitions, deleted}].")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_clusters)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, names: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete virtual clusters with everything in them.

    A cluster is unreachable at once; its contents are removed in the background, and then its name is free again.

    \b
    penstock cluster delete acme
    """
    from penstock.cli.kafka.virtual_clusters import delete_cluster, describe_clusters

    wanted = tuple(dict.fromkeys(names))
    found = {cluster.name: cluster for cluster in describe_clusters(client, wanted)}
    require_known(wanted, found, "cluster", "cluster list")
    if not dry_run:
        partitions = sum(int(cluster.usage.get("partitions", 0)) for cluster in found.values())
        confirm(f"Delete {', '.join(wanted)} with {plural(partitions, 'partition')} and all records?", yes=yes)
        for name in wanted:
            delete_cluster(client, name)
    rows: list[Row] = [
        {"cluster": name, "partitions": int(found[name].usage.get("partitions", 0)), "deleted": not dry_run}
        for name in wanted
    ]
    return Listing(rows=rows, columns=[Column("cluster"), number("partitions"), Column("deleted")], empty="")
