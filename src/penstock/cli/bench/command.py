"""`penstock bench`: options, phases, report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from penstock.base.errors import PlatformError
from penstock.cli.completion import complete_topics
from penstock.cli.options import DURATION_MS, SIZE, WholeNumber, asks_cluster
from penstock.cli.output import Column, Details, Json, Result, Section, is_terminal, number
from penstock.cli.text_formats.quantities import count_text, size_text

if TYPE_CHECKING:
    from penstock.cli.bench.plan import Plan
    from penstock.cli.kafka.client import Client


@click.command(
    epilog="JSON: {topic, partitions, record_bytes, batch_bytes, acks, compression, phases: [{phase, records, "
    "records_per_second, bytes_per_second, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, lost}], notes}. "
    "What a phase does not measure is null."
)
@click.option(
    "-t",
    "--topic",
    metavar="TOPIC",
    help="Use this topic, and keep it.  [default: a temporary one]",
    shell_complete=complete_topics,
)
@click.option(
    "-p", "--partitions", metavar="N", type=WholeNumber(min=1), default=4, help="Partitions of the temporary topic."
)
@click.option(
    "-d", "--duration", "duration_ms", type=DURATION_MS, default="5s", help="The longest that each phase may take."
)
@click.option("--size", "record_bytes", type=SIZE, default="1KiB", help="Size of a record, at least 16 bytes.")
@click.option("--batch", "batch_bytes", type=SIZE, default="16KiB", help="Size of the batches of the first phase.")
@click.option(
    "--rate",
    metavar="N",
    type=WholeNumber(min=0),
    default=200,
    help="Records per second in the latency phase; 0 skips it.",
)
@click.option(
    "-z",
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    help="How to compress batches.",
)
@click.option(
    "-a", "--acks", type=click.Choice(["all", "1", "0"]), default="all", help="Which acknowledgement to wait for."
)
@asks_cluster
def bench(
    client: Client,
    topic: str | None,
    partitions: int,
    duration_ms: int,
    record_bytes: int,
    batch_bytes: int,
    rate: int,
    compression: str,
    acks: str,
) -> Result:
    """Measure a cluster: produce, consume, latency.

    Three phases: produce batches as fast as they are acknowledged; read all of it back; produce single records at a
    steady rate, each timed from when it was due until a consumer had it.

    \b
    penstock bench
    penstock bench -d 30s --size 200 --batch 1MiB -z zstd
    """
    from penstock.base.randomness import SystemRandomness
    from penstock.cli.bench.plan import MIN_RECORD_BYTES, Plan
    from penstock.wire.compression import Compression

    if record_bytes < MIN_RECORD_BYTES:
        raise click.BadParameter(f"a record needs {MIN_RECORD_BYTES} bytes", param_hint="--size")
    randomness = SystemRandomness()
    plan = Plan(
        topic=topic or f"penstock-bench-{randomness.token(4).hex()}",
        partitions=partitions,
        record_bytes=record_bytes,
        batch_bytes=batch_bytes,
        duration_s=duration_ms / 1_000,
        rate=rate,
        acks=-1 if acks == "all" else int(acks),
        compression=Compression[compression.upper()],
    )
    with _topic(client, plan, made=topic is None):
        phases = _phases(client, plan)
    return _report(client, plan, phases)


@contextlib.contextmanager
def _topic(client: Client, plan: Plan, *, made: bool) -> Iterator[None]:
    from penstock.cli.kafka.topics import create_topic, delete_topic, wait_for_topic

    if not made:
        client.retry(lambda: client.metadata([plan.topic]).topic(plan.topic))
        yield
        return
    create_topic(client, plan.topic, partitions=plan.partitions)
    try:
        wait_for_topic(client, plan.topic)
        yield
    except BaseException:
        client.close()  # Answers that are on their way are none to what follows.
        raise
    finally:
        try:
            delete_topic(client, plan.topic)
        except PlatformError:
            click.echo(f"The topic {plan.topic} is left. To delete it: penstock topic delete {plan.topic}", err=True)
            raise


def _phases(client: Client, plan: Plan) -> list[dict[str, Json]]:
    from penstock.base.randomness import SystemRandomness
    from penstock.cli.bench.latency import measure
    from penstock.cli.bench.load import consume, produce

    randomness = SystemRandomness()
    phases: list[dict[str, Json]] = []
    with _progress() as phase:
        phases.append({"phase": "produce", **produce(client, plan, randomness, phase("produce")).document()})
        phases.append({"phase": "consume", **consume(client, plan, phase("consume")).document()})
        if plan.rate:
            with client.clone() as reader:
                latency = measure(client, reader, plan, randomness, phase("latency"))
            phases.append({"phase": "end to end", **latency.document()})
    return [{**_EMPTY_PHASE, **{key: found[key] for key in _EMPTY_PHASE if key in found}} for found in phases]


_EMPTY_PHASE: dict[str, Json] = dict.fromkeys(
    (
        "phase",
        "records",
        "records_per_second",
        "bytes_per_second",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "p999_ms",
        "max_ms",
        "lost",
    )
)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[float, str], None]]]:
    """Bars on a terminal, one per phase; silence elsewhere."""
    if not is_terminal(sys.stderr):
        yield lambda name: lambda fraction, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<8}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def phase(name: str) -> Callable[[float, str], None]:
            task = bars.add_task(name, total=1.0, text="")
            return lambda fraction, text: bars.update(task, completed=min(1.0, fraction), text=text)

        yield phase


def _report(client: Client, plan: Plan, phases: list[dict[str, Json]]) -> Details:
    from penstock.cli.kafka.failures import LOCAL

    acks = "all" if plan.acks == -1 else str(plan.acks)
    notes = _notes(plan, local=all(broker.address.host in LOCAL for broker in client.metadata([]).brokers.values()))
    return Details(
        document={
            "topic": plan.topic,
            "partitions": plan.partitions,
            "record_bytes": plan.record_bytes,
            "batch_bytes": plan.batch_bytes,
            "acks": acks,
            "compression": plan.compression.name.lower(),
            "phases": phases,
            "notes": notes,
        },
        sections=[
            Section(
                key="phases",
                title="Times in milliseconds.",
                columns=[
                    Column("phase"),
                    number("records", show=count_text),
                    number("records_per_second", "records/s", count_text),
                    number("bytes_per_second", "bytes/s", size_text),
                    *(
                        number(f"{name}_ms", title, _tenths)
                        for name, title in (
                            ("p50", "p50"),
                            ("p90", "p90"),
                            ("p99", "p99"),
                            ("p999", "p99.9"),
                            ("max", "max"),
                        )
                    ),
                    Column("lost", right=True, is_extra=True),
                ],
            )
        ],
        footer="\n".join(notes),
    )


def _tenths(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms:,.1f}"


def _notes(plan: Plan, *, local: bool) -> list[str]:
    from penstock.cli.bench.latency import WARM_UP_S
    from penstock.cli.bench.load import IN_FLIGHT

    per_batch = f"{plan.records_per_batch} to a batch" if plan.records_per_batch > 1 else "each its own batch"
    notes = [
        f"Measured: one client process; records of {size_text(plan.record_bytes)} of random bytes, {per_batch}; "
        f"up to {IN_FLIGHT} requests in flight, whose waiting for each other is in the times of produce.",
        "Consume read what was just written, so most likely from memory; checksums verified, records not decoded.",
        "Not measured: many clients, consumer groups, reads of old data, CPU and memory of the broker.",
    ]
    if plan.rate and plan.duration_s <= WARM_UP_S:
        notes.append(f"The first {WARM_UP_S:g} s of end to end are not counted: give it longer, such as -d 5s.")
    if local:
        notes.append("Client and broker share this machine and its CPU: each slowed the other.")
    return notes
