"""`penstock produce`: standard input, or a file, to a topic."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.cli.completion import complete_topics
from penstock.cli.options import Parsed, WholeNumber, client_options, output_option
from penstock.cli.output import Details, emit
from penstock.cli.text_formats.input_records import (
    InputRecord,
    Splitter,
    json_splitter,
    parse_header,
    template_splitter,
)
from penstock.cli.text_formats.output_records import as_bytes
from penstock.cli.text_formats.quantities import count_text, plural, size_text

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.producing import Producer, ProducerSettings

_CHUNK_BYTES = 256 * 1024
# How long input may pause before what came so far is written: short enough for a person, long enough for a pipe.
_PAUSE_S = 0.01
RATED_RECORDS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What every record gets that it does not bring itself."""

    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    partition: int | None
    null_empty: bool


@click.command(
    epilog="JSON: {topic, records, bytes, seconds, records_per_second, bytes_per_second, partitions: [{partition, "
    "records, first_offset, last_offset}]}, on standard output."
)
@click.argument("topic", shell_complete=complete_topics)
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Read this file instead of standard input."
)
@click.option(
    "-f", "--format", "template", metavar="FORMAT",
    help=r"What a record looks like, such as '%k:%v\n'; or json, as consume -o json prints it.  [default: %v\n]",
)  # fmt: skip
@click.option("-K", "--key-separator", metavar="TEXT", help="What separates key and value in a line.")
@click.option("-k", "--key", metavar="KEY", help="The key of every record.")
@click.option(
    "-H", "--header", "headers", metavar="NAME=VALUE", type=Parsed("NAME=VALUE", parse_header), multiple=True,
    help="A header of every record. May be repeated.",
)  # fmt: skip
@click.option(
    "-p",
    "--partition",
    metavar="N",
    type=WholeNumber(min=0),
    help="The partition to write to.  [default: by key, like the Java producer]",
)
@click.option("-Z", "--null-empty", is_flag=True, help="Write an empty value as null: a tombstone.")
@click.option(
    "-z", "--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none",
    help="How to compress batches.",
)  # fmt: skip
@click.option(
    "-a", "--acks", type=click.Choice(["all", "1", "0"]), default="all", help="Which acknowledgement to wait for."
)
@click.option(
    "--idempotent/--no-idempotent",
    default=None,
    help="Store a record once, however often it is retried.  [default: if acks=all]",
)
@output_option
@client_options
def produce(
    client: Client,
    topic: str,
    path: Path | None,
    template: str | None,
    key_separator: str | None,
    key: str | None,
    headers: tuple[tuple[str, bytes | None], ...],
    partition: int | None,
    null_empty: bool,
    compression: str,
    acks: str,
    idempotent: bool | None,
    output_format: str,
) -> None:
    """Write records from standard input or a file. One per line, unless a format says otherwise.

    \b
    echo hello | penstock produce greetings
    echo 'user-1:{"name": "Ada"}' | penstock produce users -K :
    penstock produce events -f '%k\\t%v\\n' --file events.tsv -z zstd

    In a format: %k key, %v value, %h headers as name=value,..., %T timestamp in ms, %p partition; \\n \\t \\xHH.
    """
    if idempotent and acks != "all":
        raise click.UsageError("--idempotent needs --acks all")
    splitter = _splitter(template, key_separator)
    shape = Shape(
        key=as_bytes(key) if key is not None else None, headers=headers, partition=partition, null_empty=null_empty
    )
    started = client.clock.monotonic()
    with _opened(path) as source:
        producer = _producer(client, topic, _settings(acks, compression, idempotent))
        try:
            _pump(source, splitter, producer, shape)
        except BaseException:
            if producer.written:  # What is stored stays stored, whatever ended this.
                click.echo(_sentence(_report(topic, producer, client.clock.monotonic() - started).document), err=True)
            raise
    report = _report(topic, producer, client.clock.monotonic() - started)
    if output_format == "table":
        click.echo(_sentence(report.document), err=True)
    else:
        emit(report, output_format)


def _splitter(template: str | None, key_separator: str | None) -> Splitter:
    if template is not None and key_separator is not None:
        raise click.UsageError("give one of --format and --key-separator")
    if template == "json":
        return json_splitter()
    try:
        if key_separator is not None:
            escaped = key_separator.replace("%", "%%")
            return template_splitter(f"%k{escaped}%v\\n")
        return template_splitter("%v\\n" if template is None else template)
    except InvalidRequest as error:
        raise click.BadParameter(str(error), param_hint="--format") from error


def _settings(acks: str, compression: str, idempotent: bool | None) -> ProducerSettings:
    from penstock.cli.kafka.producing import ProducerSettings
    from penstock.wire.compression import Compression

    number = -1 if acks == "all" else int(acks)
    return ProducerSettings(
        acks=number,
        compression=Compression[compression.upper()],
        idempotent=number == -1 if idempotent is None else idempotent,
    )


def _producer(client: Client, topic: str, settings: ProducerSettings) -> Producer:
    from penstock.base.randomness import SystemRandomness
    from penstock.cli.kafka.producing import Producer

    return Producer(client, topic, settings, SystemRandomness())


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        if sys.stdin.isatty() and sys.stderr.isatty():
            click.echo("Reading what you type, a record a line. Ctrl-D ends it.", err=True)
        yield sys.stdin.buffer
        return
    try:
        source = path.open("rb", buffering=0)
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    with source:
        yield source


def _pump(source: IO[bytes], splitter: Splitter, producer: Producer, shape: Shape) -> None:
    for chunk in _chunks(source, producer):
        for record in splitter.feed(chunk):
            _append(producer, record, shape)
    for record in splitter.finish():
        _append(producer, record, shape)
    producer.flush()


def _chunks(source: IO[bytes], producer: Producer) -> Iterator[bytes]:
    """Input as it comes; when it pauses, what came so far is written before waiting on."""
    try:
        descriptor = source.fileno()
    except (OSError, ValueError):  # Not a file of the operating system: all of it is there already.
        yield source.read()
        return
    while True:
        if producer.has_pending and not select.select([descriptor], [], [], _PAUSE_S)[0]:
            producer.flush()
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _append(producer: Producer, record: InputRecord, shape: Shape) -> None:
    producer.append(
        key=shape.key if record.key is None else record.key,
        value=None if shape.null_empty and not record.value else record.value,
        headers=record.headers + shape.headers,
        timestamp_ms=record.timestamp_ms,
        partition=shape.partition if record.partition is None else record.partition,
    )


def _report(topic: str, producer: Producer, seconds: float) -> Details:
    from penstock.cli.kafka.producing import total

    whole = total(list(producer.written.values()))
    return Details(
        document={
            "topic": topic,
            "records": whole.records,
            "bytes": whole.size_bytes,
            "seconds": round(seconds, 3),
            "records_per_second": round(whole.records / seconds, 1) if seconds else 0.0,
            "bytes_per_second": round(whole.size_bytes / seconds, 1) if seconds else 0.0,
            "partitions": [
                {
                    "partition": partition,
                    "records": written.records,
                    "first_offset": written.first_offset,
                    "last_offset": written.last_offset,
                }
                for partition, written in sorted(producer.written.items())
            ],
        }
    )


def _sentence(report: object) -> str:
    assert isinstance(report, dict)
    done = f"{plural(report['records'], 'record')} ({size_text(report['bytes'])}) to {report['topic']}"
    if report["records"] < RATED_RECORDS:
        return done  # What they took says nothing of what could be reached.
    return (
        f"{done} in {report['seconds']:.2f} s: {count_text(report['records_per_second'])} records/s, "
        f"{size_text(report['bytes_per_second'])}/s"
    )
