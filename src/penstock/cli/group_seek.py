"""`penstock group seek`: old offsets to new ones, shown before or after they are committed.

A file names offsets line by line, as `topic,partition,offset` or as the JSON that `group seek -o json` and
`group lag -o json` print, so a position can be kept and restored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.base.errors import InvalidRequest
from penstock.cli.completion import complete_groups
from penstock.cli.options import asks_cluster, dry_run_option
from penstock.cli.output import Column, Details, Result, Row, Section, number
from penstock.cli.texts.positions import parse_position, parse_topic_partitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.cli.kafka.client import Client, TopicPartition
    from penstock.cli.kafka.groups import Group


@click.command(
    epilog="JSON: {group, changed, partitions: [{topic, partition, before, offset}]}. before is null where nothing was "
    "committed."
)
@click.argument("name", metavar="GROUP", shell_complete=complete_groups)
@click.option(
    "--to", "target", metavar="POSITION", required=True,
    help="start, end, an offset, -N (N before the end), a time such as @1h or 2026-01-31T12:00Z, or file:PATH.",
)  # fmt: skip
@click.option(
    "-t", "--topic", "topics", metavar="TOPIC[:PARTITIONS]", multiple=True,
    help="Only this.  [default: everything the group committed]",
)  # fmt: skip
@dry_run_option
@asks_cluster
def seek(client: Client, name: str, target: str, topics: tuple[str, ...], dry_run: bool) -> Result:
    """Move a group to other offsets.

    Refused while the group has members: they would overwrite it. Offsets outside of what a partition keeps are moved
    to the nearest one it does.
    """
    from penstock.cli.kafka.groups import commit_offsets, committed_offsets

    if target.startswith("file:") and topics:
        raise click.UsageError("--topic does not go with --to file:PATH; the file names the partitions")
    if not _may_seek(client, name) and not dry_run:
        raise InvalidRequest(f"group {name!r} has members, who would overwrite this. Stop its consumers first")
    committed = committed_offsets(client, name)
    offsets = _targets(client, target, topics, list(committed))
    if not offsets:
        raise InvalidRequest(f"group {name!r} has committed nothing; say where with --topic")
    if not dry_run:
        commit_offsets(client, name, offsets)
    rows: list[Row] = [
        {
            "topic": where.topic,
            "partition": where.partition,
            "before": committed[where].offset if where in committed else None,
            "offset": offset,
        }
        for where, offset in sorted(offsets.items())
    ]
    columns = [Column("topic"), number("partition"), number("before"), number("offset", "after")]
    return Details(
        document={"group": name, "changed": not dry_run, "partitions": rows},
        fields=[Column("group")],
        sections=[Section(key="partitions", title="", columns=columns)],
        footer="Nothing was changed." if dry_run else "",
    )


def _may_seek(client: Client, name: str) -> bool:
    from penstock.cli.kafka.failures import BrokerError
    from penstock.cli.kafka.groups import describe_group
    from penstock.wire.error_codes import ErrorCode

    try:
        found: Group = describe_group(client, name)
    except BrokerError as error:
        if error.code == ErrorCode.GROUP_ID_NOT_FOUND:
            return True  # A group may be given offsets before its first consumer starts.
        raise
    return not found.members and found.state in ("Empty", "Dead", "")


def _targets(
    client: Client, target: str, topics: Sequence[str], committed: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    from penstock.cli.kafka.offsets import extents, resolve

    if target.startswith("file:"):
        wanted = read_offsets(_text_of(Path(target.removeprefix("file:"))))
        kept = extents(client, wanted)
        placed: Mapping[TopicPartition, int] = wanted
    else:
        position = parse_position(target, now_ms=client.clock.now_ms())
        kept = extents(client, _named(client, topics) if topics else committed)
        placed = resolve(client, position, kept)
    return {where: min(max(offset, kept[where].start), kept[where].end) for where, offset in placed.items()}


def _named(client: Client, topics: Sequence[str]) -> list[TopicPartition]:
    from penstock.cli.kafka.client import TopicPartition

    wanted = dict(parse_topic_partitions(text) for text in topics)
    cluster = client.settled(lambda: client.metadata(wanted))
    return [
        TopicPartition(topic, partition)
        for topic, partitions in wanted.items()
        for partition in partitions or cluster.topic(topic).partitions
    ]


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def read_offsets(text: str) -> dict[TopicPartition, int]:
    """Offsets by partition from lines of `topic,partition,offset`, or from what the commands print as JSON."""
    from penstock.cli.kafka.client import TopicPartition

    try:
        if text.lstrip().startswith(("{", "[")):
            document = json.loads(text)
            rows = document["partitions"] if isinstance(document, dict) else document
            return {
                TopicPartition(str(row["topic"]), int(row["partition"])): int(row.get("offset", row.get("committed")))
                for row in rows
                if row.get("offset", row.get("committed")) is not None
            }
        lines = [line.rsplit(",", 2) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return {
            TopicPartition(topic.strip(), int(partition)): int(offset)
            for topic, partition, offset in lines
            if partition.strip().isdigit()  # A heading is not an offset.
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest("the file holds neither lines of topic,partition,offset nor JSON with them") from error
