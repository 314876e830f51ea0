"""`penstock topic trim`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.base.errors import InvalidRequest
from penstock.cli.completion import complete_topics
from penstock.cli.options import Parsed, asks_cluster, confirm, dry_run_option, position_of, yes_option
from penstock.cli.output import Column, Details, Result, Row, Section, number
from penstock.cli.text_formats.positions import parse_partitions
from penstock.cli.text_formats.quantities import count_text, plural

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.command(epilog="JSON: {name, deleted, records, partitions: [{partition, start_before, start_after, records}]}.")
@click.argument("name", metavar="TOPIC", shell_complete=complete_topics)
@click.option(
    "--before", metavar="POSITION", required=True,
    help="The first record to keep: an offset, a time, -N (keep the last N), or end.",
)  # fmt: skip
@click.option(
    "-p", "--partition", "numbers", type=Parsed("LIST", parse_partitions), help="Only these partitions, such as 0,2-4."
)
@yes_option
@dry_run_option
@asks_cluster
def trim(client: Client, name: str, before: str, numbers: tuple[int, ...] | None, yes: bool, dry_run: bool) -> Result:
    """Delete the oldest records of a topic.

    Works on every partition unless told otherwise. A position before a partition's start deletes nothing there.

    \b
    penstock topic trim orders --before @7d            keep the last week
    penstock topic trim orders --before -1000 -p 0     the last thousand of one partition
    penstock topic trim orders --before end --dry-run
    """
    from penstock.cli.kafka.client import TopicPartition
    from penstock.cli.kafka.offsets import offset_ranges, resolve
    from penstock.cli.kafka.topics import delete_records

    position = position_of(before, "--before", now_ms=client.clock.now_ms())
    topic = client.retry(lambda: client.metadata([name]).topic(name))
    kept = offset_ranges(client, [TopicPartition(name, index) for index in numbers or topic.partitions])
    targets = {where: max(offset, kept[where].start) for where, offset in resolve(client, position, kept).items()}
    for where, offset in targets.items():
        if offset > kept[where].end:
            raise InvalidRequest(f"{where} ends at {kept[where].end}; it cannot be trimmed to {offset}")
    rows: list[Row] = [
        {
            "partition": where.partition,
            "start_before": kept[where].start,
            "start_after": offset,
            "records": offset - kept[where].start,
        }
        for where, offset in sorted(targets.items())
    ]
    records = sum(offset - kept[where].start for where, offset in targets.items())
    moved = {where: offset for where, offset in targets.items() if offset > kept[where].start}
    if not dry_run and moved:
        confirm(f"Delete {plural(records, 'record')} of {name}?", yes=yes)
        delete_records(client, moved)
    columns = [
        number("partition"),
        number("start_before"),
        number("start_after"),
        number("records", "deleted records", count_text),
    ]
    return Details(
        document={"name": name, "deleted": bool(moved) and not dry_run, "records": records, "partitions": rows},
        fields=[Column("name", "topic")],
        sections=[Section(key="partitions", title="", columns=columns)],
        footer="Nothing was deleted." if dry_run or not moved else "",
    )
