"""`penstock consume`: records of topics to standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from penstock.base.errors import InvalidRequest
from penstock.cli.completion import complete_groups, complete_topics
from penstock.cli.options import Parsed, WholeNumber, client_options, output_option, position_of
from penstock.cli.output import yaml_text
from penstock.cli.text_formats.output_records import ShownRecord, compile_format, to_document, to_json
from penstock.cli.text_formats.positions import parse_partitions

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client, TopicPartition
    from penstock.cli.kafka.fetching import Reader
    from penstock.cli.kafka.group_reading import GroupReader
    from penstock.cli.kafka.offsets import OffsetRange
    from penstock.wire.records import Record

_WAIT_MS = 500


@click.command(
    epilog="JSON: one document per line: {topic, partition, offset, timestamp, key, value, headers: [{name, value}]}; "
    "what is not UTF-8 is base64, and key_encoding, value_encoding or name_encoding beside it says so."
)
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True, shell_complete=complete_topics)
@click.option(
    "-s", "--from", "start", metavar="POSITION", default="start",
    help="Where to begin: start, end, an offset, -N (N before the end), or a time such as @1h or @2026-01-31T12:00Z.",
)  # fmt: skip
@click.option("-n", "--count", metavar="N", type=WholeNumber(min=1), help="Stop after so many records.")
@click.option("-F", "--follow", is_flag=True, help="Wait for more instead of stopping at the end.")
@click.option(
    "-p", "--partition", "numbers", type=Parsed("LIST", parse_partitions), help="Only these partitions, such as 0,2-4."
)
@click.option("-f", "--format", "template", metavar="FORMAT", help=r"How to print a record, such as '%p:%o %k=%v\n'.")
@click.option("--keys", is_flag=True, help="Also print keys.")
@click.option("--headers", is_flag=True, help="Also print headers.")
@click.option(
    "-g", "--group", metavar="NAME", shell_complete=complete_groups,
    help="Read as a member of this consumer group, and commit what was printed. --from applies where it has committed"
    " nothing.",
)  # fmt: skip
@click.option("--committed", is_flag=True, help="Leave out records of transactions that are open or aborted.")
@output_option
@client_options
def consume(
    client: Client,
    topics: tuple[str, ...],
    start: str,
    count: int | None,
    follow: bool,
    numbers: tuple[int, ...] | None,
    template: str | None,
    keys: bool,
    headers: bool,
    group: str | None,
    committed: bool,
    output_format: str,
) -> None:
    """Print records of topics.

    \b
    penstock consume orders                            everything, then stop
    penstock consume orders -s -10 -F                  the last ten, then new ones
    penstock consume orders -s @1h -f '%D %k %v\\n'     the last hour
    penstock consume orders -g billing -F              as a member of a group

    In a format: %t topic, %p partition, %o offset, %T timestamp in ms, %D as ISO 8601, %k key, %v or %s value,
    %K %S their sizes, %R size of the value as 4 bytes, %h headers; \\n \\t \\xHH.
    """
    show = _printer(template, output_format, keys=keys, headers=headers)
    out = sys.stdout.buffer
    if group is not None:
        if numbers is not None:
            raise click.UsageError("--partition does not go with --group: the group decides who reads which partitions")
        _consume_in_group(client, group, topics, start, show, out, follow=follow, committed=committed, count=count)
        return
    reader, kept = _reader(client, topics, start, numbers, follow=follow, committed=committed)
    try:
        printed = _print(reader, show, out, count=count)
    except KeyboardInterrupt:
        if not follow:
            raise
        printed = -1  # This is how following ends.
    out.flush()
    if printed == 0 and sys.stderr.isatty():
        click.echo(_nothing(start, kept), err=True)


def _consume_in_group(
    client: Client, group: str, topics: Sequence[str], start: str, show: Callable[[ShownRecord], bytes], out: BinaryIO,
    *, follow: bool, committed: bool, count: int | None,
) -> None:  # fmt: skip
    from penstock.cli.kafka.group_reading import GroupReader

    position = position_of(start, "--from", now_ms=client.clock.now_ms())
    cluster = client.retry(lambda: client.metadata(topics))
    for name in topics:
        cluster.topic(name)
    member = GroupReader(client, group, topics, position, follow=follow, committed=committed)
    try:
        _print(member, show, out, count=count, shown=member.shown, after=member.commit)
        out.flush()
    except KeyboardInterrupt:
        out.flush()
        client.close()  # The answer to the request that was interrupted may be on its way.
        member.leave()
        if not follow:
            raise
    except BrokenPipeError:
        member.leave(commit=False)  # What was printed last has not been read.
        raise
    else:
        member.leave()


def _printer(template: str | None, output_format: str, *, keys: bool, headers: bool) -> Callable[[ShownRecord], bytes]:
    match output_format:
        case "json":
            return to_json
        case "yaml":
            return lambda record: f"---\n{yaml_text(to_document(record))}".encode()
    default = ("%k\\t" if keys else "") + ("%h\\t" if headers else "") + "%v\\n"
    try:
        return compile_format(default if template is None else template)
    except InvalidRequest as error:
        raise click.BadParameter(str(error), param_hint="--format") from error


def _reader(
    client: Client, topics: Sequence[str], start: str, numbers: Sequence[int] | None, *, follow: bool, committed: bool
) -> tuple[Reader, dict[TopicPartition, OffsetRange]]:
    from penstock.cli.kafka.client import TopicPartition
    from penstock.cli.kafka.fetching import Reader
    from penstock.cli.kafka.offsets import offset_ranges, resolve

    position = position_of(start, "--from", now_ms=client.clock.now_ms())
    cluster = client.retry(lambda: client.metadata(topics))
    wheres = [
        TopicPartition(name, number)
        for name in dict.fromkeys(topics)
        for number in numbers or cluster.topic(name).partitions
    ]
    kept = offset_ranges(client, wheres, committed=committed)
    positions = resolve(client, position, kept)
    ends = None if follow else {where: extent.end for where, extent in kept.items()}
    return Reader(client, positions, ends=ends, committed=committed), kept


def _print(
    reader: Reader | GroupReader, show: Callable[[ShownRecord], bytes], out: BinaryIO, *, count: int | None,
    shown: Callable[[TopicPartition, int], None] = lambda where, offset: None, after: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Print records as they come; how many. `shown` is called with each, `after` when a round of them is flushed."""
    printed = 0
    while reader.open:
        for where, record in reader.poll(_WAIT_MS):
            out.write(show(_shown(where, record)))
            shown(where, record.offset)
            printed += 1
            if printed == count:
                return printed
        out.flush()
        after()
    return printed


def _shown(where: TopicPartition, record: Record) -> ShownRecord:
    return ShownRecord(
        where.topic, where.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


def _nothing(start: str, kept: dict[TopicPartition, OffsetRange]) -> str:
    names = ", ".join(sorted({where.topic for where in kept}))
    records = sum(extent.records for extent in kept.values())
    if records:
        return f"{names}: no records from {start} on; {records:,} before. To wait for more, add --follow"
    return f"{names}: no records. Write one: echo hello | penstock produce {names.split(',')[0]}"
