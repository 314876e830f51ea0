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
from penstock.cli.options import Parsed, asks_cluster, dry_run_option, position_of
from penstock.cli.output import Column, Details, Result, Row, Section, number
from penstock.cli.text_formats.positions import Position, parse_topic_partitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.cli.kafka.client import Client, TopicPartition
    from penstock.cli.kafka.groups import Group


NamedTopic = tuple[str, tuple[int, ...] | None]
"""A topic and some partitions of it, or all."""


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
    "-t", "--topic", "topics", type=Parsed("TOPIC[:PARTITIONS]", parse_topic_partitions), multiple=True,
    help="Only this topic, or these partitions of it.  [default: all that the group has committed]",
)  # fmt: skip
@dry_run_option
@asks_cluster
def seek(client: Client, name: str, target: str, topics: tuple[NamedTopic, ...], dry_run: bool) -> Result:
    """Move a group to other offsets.

    Refused while the group has members: they would overwrite the offsets. An offset that a partition does not have is
    replaced by the nearest one that it has.

    \b
    penstock group seek billing --to @1h --dry-run       show what going back an hour would change
    penstock group seek billing --to start -t orders:0,2
    penstock group lag billing -o json > before.json     save the offsets
    penstock group seek billing --to file:before.json    restore them
    """
    from penstock.cli.kafka.groups import commit_offsets, committed_offsets

    if target.startswith("file:") and topics:
        raise click.UsageError("--topic does not go with --to file:PATH; the file names the partitions")
    wanted = _read_target(target, now_ms=client.clock.now_ms())
    if not _may_seek(client, name) and not dry_run:
        raise InvalidRequest(f"group {name!r} has members, who would overwrite this. Stop its consumers first")
    committed = committed_offsets(client, name)
    offsets = _targets(client, wanted, topics, list(committed))
    if not offsets:
        raise InvalidRequest(f"group {name!r} has committed nothing: name the topics with --topic")
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


def _read_target(target: str, *, now_ms: int) -> Position | dict[TopicPartition, int]:
    """Where to: the same for everything, or what a file says."""
    if target.startswith("file:"):
        return read_offsets(_text_of(Path(target.removeprefix("file:"))))
    return position_of(target, "--to", now_ms=now_ms)


def _targets(
    client: Client, wanted: Position | dict[TopicPartition, int], topics: Sequence[NamedTopic],
    committed: Sequence[TopicPartition],
) -> dict[TopicPartition, int]:  # fmt: skip
    from penstock.cli.kafka.offsets import offset_ranges, resolve

    if isinstance(wanted, dict):
        kept = offset_ranges(client, wanted)
        placed: Mapping[TopicPartition, int] = wanted
    else:
        kept = offset_ranges(client, _named(client, topics) if topics else committed)
        placed = resolve(client, wanted, kept)
    return {where: min(max(offset, kept[where].start), kept[where].end) for where, offset in placed.items()}


def _named(client: Client, topics: Sequence[NamedTopic]) -> list[TopicPartition]:
    from penstock.cli.kafka.client import TopicPartition

    cluster = client.retry(lambda: client.metadata({topic for topic, _ in topics}))
    named = (
        TopicPartition(topic, partition)
        for topic, partitions in topics
        for partition in partitions or cluster.topic(topic).partitions
    )
    return list(dict.fromkeys(named))


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"cannot read {path}: it is not text") from error


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRequest("the file holds neither lines of topic,partition,offset nor JSON with them") from error
