"""`penstock topic`: the group, and its plain commands; describe, alter and trim have files of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_topics
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import (
    SETTING,
    WholeNumber,
    asks_cluster,
    confirm,
    dry_run_option,
    settings_of,
    yes_option,
)
from penstock.cli.output import Column, Listing, Notice, Result, Row, number
from penstock.cli.text_formats.quantities import count_text, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.cli.kafka.client import Client


_COLUMNS = [Column("name", "topic"), number("partitions"), number("replication_factor", "replicas")]


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("topic:list_topics", "List topics."),
            "create": Lazy("topic:create", "Create topics."),
            "describe": Lazy("topic_describe:describe", "Show a topic's partitions, offsets, size and settings."),
            "alter": Lazy("topic_alter:alter", "Change settings of a topic."),
            "add-partitions": Lazy("topic:add_partitions", "Give a topic more partitions."),
            "trim": Lazy("topic_trim:trim", "Delete the oldest records of a topic."),
            "delete": Lazy("topic:delete", "Delete topics and their records."),
        }
    },
)
def topic() -> None:
    """List, create, describe, alter, delete and trim topics."""


@click.command("list", epilog="JSON: [{name, id, partitions, replication_factor, internal}].")
@click.option("--internal", is_flag=True, help="Also list internal topics.")
@asks_cluster
def list_topics(client: Client, internal: bool) -> Result:
    """List topics."""
    topics = client.retry(lambda: client.metadata(None)).topics
    rows: list[Row] = [
        {
            "name": topic.name,
            "id": topic.topic_id,
            "partitions": len(topic.partitions),
            "replication_factor": max((len(partition.replicas) for partition in topic.partitions.values()), default=0),
            "internal": topic.internal,
        }
        for topic in (topics[name] for name in sorted(topics))
        if internal or not topic.internal
    ]
    none = "No topics that you may see." if client.security.uses_sasl else "No topics yet."
    return Listing(rows=rows, columns=[*_COLUMNS, Column("id")], empty=f"{none} Create one: penstock topic create NAME")


@click.command(epilog="JSON: [{name, partitions, replication_factor, created}].")
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@click.option(
    "-p",
    "--partitions",
    metavar="N",
    type=WholeNumber(min=1),
    help="Number of partitions.  [default: num.partitions]",
)
@click.option(
    "-r", "--replication-factor", metavar="N", type=WholeNumber(min=1),
    help="Replicas of each partition. Penstock reports the number, but replicates nothing.",
)  # fmt: skip
@click.option(
    "-c", "--config", "-s", "--set", "configs", type=SETTING, multiple=True,
    help="A setting, such as retention.ms=3600000. May be repeated.",
)  # fmt: skip
@click.option("--if-not-exists", is_flag=True, help="Do nothing if a topic exists already.")
@dry_run_option
@asks_cluster
def create(
    client: Client,
    names: tuple[str, ...],
    partitions: int | None,
    replication_factor: int | None,
    configs: tuple[tuple[str, str], ...],
    if_not_exists: bool,
    dry_run: bool,
) -> Result:
    """Create topics.

    All topics are checked before any of them is created.

    \b
    penstock topic create orders --partitions 6
    penstock topic create profiles -c cleanup.policy=compact
    penstock topic create clicks -c retention.ms=86400000 -c compression.type=zstd
    """
    settings = settings_of(configs, "--config")
    wanted = list(dict.fromkeys(names))
    rows: list[Row] = []
    for trial in [True, False] if len(wanted) > 1 and not dry_run else [dry_run]:
        rows = [
            _create(client, name, partitions, replication_factor, settings, if_not_exists, trial) for name in wanted
        ]
    return Listing(rows=rows, columns=[*_COLUMNS, Column("created")], empty="")


def _create(
    client: Client, name: str, partitions: int | None, replication_factor: int | None, settings: Mapping[str, str],
    if_not_exists: bool, dry_run: bool,
) -> Row:  # fmt: skip
    from penstock.cli.kafka.failures import BrokerError
    from penstock.cli.kafka.topics import create_topic
    from penstock.wire.error_codes import ErrorCode

    row: dict[str, str | int | bool | None] = {"name": name, "partitions": None, "replication_factor": None}
    try:
        made = create_topic(
            client, name, partitions=partitions or -1, replication_factor=replication_factor or -1,
            configs=settings, dry_run=dry_run,
        )  # fmt: skip
    except BrokerError as error:
        if error.code != ErrorCode.TOPIC_ALREADY_EXISTS or not if_not_exists:
            raise
        return row | {"created": False}
    # Brokers before version 5 of the answer do not tell what they chose.
    return row | {
        "partitions": made.num_partitions if made.num_partitions > 0 else partitions,
        "replication_factor": made.replication_factor if made.replication_factor > 0 else replication_factor,
        "created": not dry_run,
    }


@click.command("add-partitions", epilog="JSON: {name, partitions_before, partitions, changed}.")
@click.argument("name", metavar="TOPIC", shell_complete=complete_topics)
@click.option("-n", "--add", metavar="N", type=WholeNumber(min=1), help="How many partitions to add.")
@click.option("-t", "--total", metavar="N", type=WholeNumber(min=1), help="How many partitions to have afterwards.")
@dry_run_option
@asks_cluster
def add_partitions(client: Client, name: str, add: int | None, total: int | None, dry_run: bool) -> Result:
    """Give a topic more partitions.

    Keys move: records of a key may go to another partition from then on.

    \b
    penstock topic add-partitions orders --total 12
    penstock topic add-partitions orders --add 2 --dry-run
    """
    from penstock.cli.kafka.topics import add_partitions as grow

    if (add is None) == (total is None):
        raise click.UsageError("give one of --add and --total")
    before = len(client.retry(lambda: client.metadata([name]).topic(name)).partitions)
    after = before + add if add is not None else total or 0
    grow(client, name, total=after, dry_run=dry_run)
    verb = "would get" if dry_run else "has"
    return Notice(
        document={"name": name, "partitions_before": before, "partitions": after, "changed": not dry_run},
        sentence=f"{name} {verb} {plural(after, 'partition')} (before: {before}).",
    )


@click.command(epilog="JSON: [{name, partitions, records, deleted}].")
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True, shell_complete=complete_topics)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, names: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete topics and their records.

    \b
    penstock topic delete orders clicks
    """
    from penstock.cli.kafka.client import TopicPartition
    from penstock.cli.kafka.offsets import offset_ranges
    from penstock.cli.kafka.topics import delete_topic

    cluster = client.retry(lambda: client.metadata(names))
    rows: list[Row] = []
    for name in dict.fromkeys(names):
        found = cluster.topic(name)
        kept = offset_ranges(client, (TopicPartition(name, partition) for partition in found.partitions))
        records = sum(extent.records for extent in kept.values())
        rows.append({"name": name, "partitions": len(found.partitions), "records": records, "deleted": not dry_run})
    if not dry_run:
        loss = plural(sum(int(str(row["records"])) for row in rows), "record")
        confirm(f"Delete {', '.join(str(row['name']) for row in rows)} with {loss}?", yes=yes)
        for row in rows:
            delete_topic(client, str(row["name"]))
    columns = [Column("name", "topic"), number("partitions"), number("records", show=count_text), Column("deleted")]
    return Listing(rows=rows, columns=columns, empty="")
