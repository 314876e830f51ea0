"""`penstock doctor`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.doctor.verdicts import Check, Status
from penstock.cli.options import (
    ADDRESS,
    ADDRESSES,
    DURATION_MS,
    Directory,
    client_config_option,
    open_client,
    output_option,
)
from penstock.cli.output import Column, Details, Json, Section, emit
from penstock.cli.text_formats.addresses import Address
from penstock.cli.text_formats.quantities import plural

if TYPE_CHECKING:
    from penstock.cli.doctor.durations import AgentMetrics
    from penstock.cli.kafka.client import Client

CLUSTER_TIMEOUT_S = 5.0
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command(
    epilog="JSON: {status, checks: [{name, status, found, change}], durations: [{what, of, count, mean_ms, p50_ms,"
    " p99_ms}]}. Exit code 1 if a check failed."
)
@click.option(
    "--data-dir",
    type=Directory(file_okay=True),
    default=Path("penstock-data"),
    help="The data directory, which need not exist yet.",
)
@click.option("--kafka", type=ADDRESS, default="127.0.0.1:9092", help="Where Kafka clients connect.")
@click.option("--http", type=ADDRESS, default="127.0.0.1:8080", help="Where health and metrics are served.")
@click.option(
    "-b", "--bootstrap", type=ADDRESSES,
    help="Check this cluster as well: can each broker be reached at the address clients are told?",
)  # fmt: skip
@click.option(
    "--watch", "watch_ms", type=DURATION_MS, default="0s",
    help="How long to watch an agent at --http to see where its time goes; 0s: since it was started.",
)  # fmt: skip
@client_config_option
@output_option
@click.pass_context
def doctor(
    ctx: click.Context, data_dir: Path, kafka: Address, http: Address, bootstrap: Sequence[Address] | None,
    watch_ms: int, client_config: Path | None, output_format: str,
) -> None:  # fmt: skip
    """Check this machine and say what to change.

    Looks at ports, disk (with a few synchronous writes), clock, limits and versions. Changes nothing. If an agent
    answers at --http, it also says what is slow there and where the time goes.

    \b
    penstock doctor --data-dir /var/lib/penstock     before the first start
    penstock doctor -b kafka.example.com:9093        can clients reach each broker?
    penstock doctor --watch 30s                      where does the time go just now?
    """
    with contextlib.ExitStack() as closing:
        client = None
        if bootstrap is not None:
            client = closing.enter_context(open_client(bootstrap, client_config, CLUSTER_TIMEOUT_S))
        metrics = running(http, watch_ms / 1000)
        checks = list(examine(data_dir, kafka, http, client, metrics, watch_ms / 1000))
    counts = {status: sum(check.status is status for check in checks) for status in Status}
    worst = next(status for status in (Status.FAIL, Status.WARN, Status.OK) if counts[status])
    document = _document(checks, worst, metrics)
    emit(
        Details(document=document, sections=[_SECTION], footer=_footer(counts, is_running=metrics is not None)),
        output_format,
    )
    ctx.exit(int(worst is Status.FAIL))


def running(http: Address, watch_s: float) -> AgentMetrics | None:
    """What an agent shows that runs here, if one does: before the disk is made busy for the other checks."""
    from penstock.cli.doctor.agent import scrape_over

    return scrape_over(http, watch_s)


def examine(
    data_dir: Path, kafka: Address, http: Address, client: Client | None = None, metrics: AgentMetrics | None = None,
    watch_s: float = 0.0,
) -> Iterator[Check]:  # fmt: skip
    """Every check, the clock last because it watches the others."""
    from penstock.base.clock import SystemClock
    from penstock.cli.doctor.data import data_checks
    from penstock.cli.doctor.disk import disk_checks
    from penstock.cli.doctor.ports import port_check
    from penstock.cli.doctor.system import ClockWatch, system_checks

    clock = SystemClock()
    watch = ClockWatch(clock)
    is_running = metrics is not None
    yield port_check("kafka", kafka, is_running=is_running)
    yield port_check("http", http, is_running=is_running)
    on_disk = list(disk_checks(data_dir, clock, is_running=is_running))
    yield from on_disk
    yield from data_checks(data_dir)
    yield from system_checks()
    if client is not None:
        from penstock.cli.doctor.cluster import cluster_checks

        yield from cluster_checks(client)
    if metrics is not None:
        from penstock.cli.doctor.agent import agent_checks

        measured = next((one.found for one in on_disk if one.name == "fsync" and data_dir.exists()), None)
        yield from agent_checks(metrics, clock, watch_s, measured)
    yield watch.verdict()


def _document(checks: list[Check], worst: Status, metrics: AgentMetrics | None) -> dict[str, Json]:
    from penstock.cli.doctor.durations import rows_of

    return {
        "status": worst.value,
        "checks": [
            {"name": check.name, "status": check.status.value, "found": check.found, "change": check.change}
            for check in checks
        ],
        "durations": [] if metrics is None else rows_of(metrics),
    }


def _footer(counts: dict[Status, int], *, is_running: bool) -> str:
    if not counts[Status.FAIL] and not counts[Status.WARN]:
        return "All is well." if is_running else "All is well. Next: penstock up"
    return f"{plural(counts[Status.FAIL], 'failure')}, {plural(counts[Status.WARN], 'warning')}."


_SECTION = Section(
    key="checks",
    title="",
    columns=[
        Column("status", style=lambda status: STYLES[str(status)]),
        Column("name", "check"),
        Column("found", wraps=True),
        Column("change", is_below=True, style=lambda change: "bold"),
    ],
)
