"""`python -m benchmarks`: install, start, measure, report, end everything."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.bench import Bench
from benchmarks.load import build
from benchmarks.measuring.machine import describe
from benchmarks.measuring.speed import Speedometer
from benchmarks.model import Row, Variant
from benchmarks.options import CHECKOUT, HERE, parse
from benchmarks.peers.fleet import Fleet
from benchmarks.peers.kafka import VERSION, Kafka
from benchmarks.peers.penstock import Penstock
from benchmarks.peers.server import Peer
from benchmarks.processes import BenchmarkError, allow_many_files
from benchmarks.reporting.picture import draw
from benchmarks.reporting.store import Measurement, newest, save, to_document
from benchmarks.reporting.table import demand, render
from benchmarks.rows import ROWS
from benchmarks.runner import Rules, in_running_order, run_rows, to_terminal
from benchmarks.scale import BRISK, FULL, GB, QUICK, Scale
from benchmarks.warming import warm


def main() -> int:
    options = parse(None)
    if options.list:
        _list()
        return 0
    if options.report:
        _report(options.results)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):  # Also SIGINT: shells start background jobs deaf to it.
        signal.signal(number, _interrupt)
    try:
        _run(options)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; everything started was ended, the rows done are kept", file=sys.stderr)
        return 130
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _list() -> None:
    for row in ROWS:
        print(f"{row.name:<17} {row.title}")
        for target in row.targets:
            print(f"{'':<17}   {target.subject.title}: {target.figure} {demand(target)}")


def _run(options: argparse.Namespace) -> None:
    rows = in_running_order([row for row in ROWS if not options.only or row.name in options.only])
    scale = _scale(options)
    options.cache.mkdir(parents=True, exist_ok=True)
    allow_many_files()
    to_terminal("building the load client")
    program = build(options.cache)
    rules = Rules(repeats=options.repeats, attempts=options.attempts, noise_limit_cores=options.noise_limit)
    with _workplace(options.directory) as directory, Speedometer() as speedometer:
        _demand_space(directory, scale, rows)
        with _fleet(options, directory, program, scale, rows) as fleet:
            circumstances = describe(CHECKOUT, directory) | {
                "kafka": VERSION,
                "scale": scale.name + (", Kafka in Penstock's place" if options.calibrate else ""),
            }
            bench = Bench(program=program, fleet=fleet, scale=scale, speedometer=speedometer)
            results: dict[str, object] = {}
            for result in run_rows(bench, rows, rules, to_terminal):
                at = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
                measurement = Measurement(at=at, circumstances=circumstances, result=result)
                results[result.row.name] = to_document(measurement)
                save(options.results / "results", at[:10], measurement)
                _report(options.results)
    if options.output == "json":
        print(json.dumps(results, indent=1))
    else:
        print((options.results / "RESULTS.md").read_text())


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else BRISK if options.brisk else FULL
    return replace(scale, log_bytes=int(options.log_gb * GB)) if options.log_gb else scale


def _report(directory: Path) -> None:
    measurements = newest(directory / "results", ROWS)
    notes = HERE / "NOTES.md"
    text = render(measurements, notes.read_text() if notes.exists() and directory == HERE else "")
    (directory / "RESULTS.md").write_text(text)
    draw(measurements, directory / "results.png")


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A directory for all data, removed on the way out."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="data-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _fleet(
    options: argparse.Namespace, directory: Path, program: Path, scale: Scale, rows: list[Row]
) -> Iterator[Fleet]:
    peers = _peers(options.cache, calibrate=options.calibrate)
    fleet = Fleet(peers, directory, partial(warm, program, scale=scale))
    to_terminal("installing what is compared")
    fleet.install({variant for row in rows for variant in row.variants})
    try:
        yield fleet
    finally:
        fleet.close()


def _peers(cache: Path, *, calibrate: bool) -> Mapping[Variant, Peer]:
    kafka, kafka_tls = Kafka(cache), Kafka(cache, tls=True)
    return {
        Variant.KAFKA: kafka,
        Variant.KAFKA_FLUSH: Kafka(cache, {"log.flush.interval.messages": "1"}),
        Variant.PENSTOCK_DISK: kafka if calibrate else Penstock("disk"),
        Variant.PENSTOCK_PROCESS: kafka if calibrate else Penstock("process"),
        Variant.PENSTOCK_GUARDED: kafka if calibrate else Penstock("disk", guarded=True),
        Variant.PENSTOCK_TENANT: kafka if calibrate else Penstock("disk", tenants=True),
        Variant.PENSTOCK_ELSEWHERE: kafka if calibrate else Penstock("disk", tenants=True),
        Variant.PENSTOCK_NEIGHBOUR: kafka if calibrate else Penstock("disk", tenants=True),
        Variant.PROCESS_TENANT: kafka if calibrate else Penstock("process", tenants=True),
        Variant.PROCESS_NEIGHBOUR: kafka if calibrate else Penstock("process", tenants=True),
        Variant.KAFKA_TLS: kafka_tls,
        Variant.PENSTOCK_TLS: kafka_tls if calibrate else Penstock("disk", tls=True),
    }


def _demand_space(directory: Path, scale: Scale, rows: list[Row]) -> None:
    """Every server keeps at most a few runs' data at a time; deleted topics take a minute to go."""
    largest = 8 * scale.produce_bytes + 2 * scale.segment_bytes
    if any(row.name == "recovery" for row in rows):
        largest = max(largest, int(1.5 * scale.log_bytes))
    free = shutil.disk_usage(directory).free
    if free < largest:
        raise BenchmarkError(f"{directory} has {free / GB:.0f} GB free, {largest / GB:.0f} GB are needed")


if __name__ == "__main__":
    sys.exit(main())
