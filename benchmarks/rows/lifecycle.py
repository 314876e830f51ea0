"""Starting, idling, and coming back after a kill."""

from __future__ import annotations

import time

from benchmarks.bench import Bench
from benchmarks.measuring.account import Account
from benchmarks.model import Figures, Goal, Row, Target, Variant
from benchmarks.peers.server import Server

PAIR = (Variant.KAFKA, Variant.PENSTOCK_DISK)
DISK = (Variant.PENSTOCK_DISK,)


def _start(bench: Bench, variant: Variant) -> Figures:
    """From the first command in an empty directory (Kafka's `format` is one) to an acknowledged record."""
    with bench.fleet.fresh(variant) as server:
        figures = bench.call(server, "ready", topic="first", partitions=1, since=server.started_ns, timeout_s=120)
        figures["start_resident_mib"] = bench.watch(server, 0.1).resident_mib
        return figures


def _idle(bench: Bench, variant: Variant) -> Figures:
    """A fresh server left alone, then the same again after it was loaded."""
    scale = bench.scale
    with bench.fleet.fresh(variant) as server:
        server.await_ready()
        time.sleep(scale.idle_settle_s)
        fresh = bench.watch(server, scale.idle_s)
        bench.fleet.warm(server)
        bench.settle(server)
        time.sleep(scale.idle_settle_s)
        loaded = bench.watch(server, scale.idle_s)
    return {**_resting("", fresh), **_resting("loaded_", loaded)}


def _resting(prefix: str, account: Account) -> dict[str, float]:
    return {
        f"{prefix}resident_mib": account.resident_mib,
        f"{prefix}cpu_percent": 100 * account.server_cpu_s / account.seconds,
        f"{prefix}written_bytes": account.written_bytes,
    }


def _crowd(bench: Bench, variant: Variant) -> Figures:
    """Groups that have committed and producers that have written, of which none does anything any more."""
    scale = bench.scale
    with bench.fleet.fresh(variant) as server:
        server.await_ready()
        made = bench.call(
            server, "crowd", topic="crowd", groups=scale.idle_groups, producers=scale.idle_producers, timeout_s=300
        )
        bench.settle(server)
        time.sleep(scale.idle_settle_s)
        figures = _resting("", bench.watch(server, scale.idle_s))
    return {**made, **figures}


def _recover(bench: Bench, variant: Variant) -> Figures:
    """Kill a server under load that holds a large log, and time until it takes and returns a record again."""
    server = bench.server(variant)
    bench.once(server, "log", lambda: _prepare_log(bench, server))
    busy = bench.topic("killed")
    with bench.background(server, "smallreq", topic=busy, producers=16, warmup="60s"):
        time.sleep(bench.scale.warmup_s)
        server.child.kill()
    begun_ns = time.time_ns()
    bench.fleet.restart(server, kill=True)
    figures = bench.call(server, "ready", topic=bench.topic("after"), partitions=1, since=begun_ns, timeout_s=120)
    server.await_ready()
    return {**figures, "log_gb": bench.scale.log_bytes / 1e9}


def _prepare_log(bench: Bench, server: Server) -> str:
    topic = bench.topic("log")
    bench.fill(server, topic, bench.scale.log_bytes)
    return topic


START = Row(
    name="start",
    title="start to first acknowledged record, fresh directory",
    variants=PAIR,
    measure=_start,
    shown=("ready_s", "read_s"),
    targets=(Target(figure="ready_s", goal=Goal.AT_MOST, bound=1.5, reference=None),),
)

IDLE = Row(
    name="idle",
    title="idle, fresh and after a load",
    variants=PAIR,
    measure=_idle,
    shown=("resident_mib", "cpu_percent", "written_bytes",
           "loaded_resident_mib", "loaded_cpu_percent", "loaded_written_bytes"),
    targets=(
        Target(figure="resident_mib", goal=Goal.AT_MOST, bound=90, reference=None),
        Target(figure="cpu_percent", goal=Goal.AT_MOST, bound=0.3, reference=None),
        Target(figure="written_bytes", goal=Goal.AT_MOST, bound=0, reference=None),
        Target(figure="loaded_cpu_percent", goal=Goal.AT_MOST, bound=0.3, reference=None),
        Target(figure="loaded_written_bytes", goal=Goal.AT_MOST, bound=0, reference=None),
    ),
)  # fmt: skip

CROWD = Row(
    name="crowd",
    title="10,000 idle groups and 100,000 producer ids",
    variants=PAIR,
    measure=_crowd,
    shown=("resident_mib", "written_bytes", "cpu_percent"),
    targets=(
        Target(figure="resident_mib", goal=Goal.AT_MOST, bound=300, reference=None),
        Target(figure="written_bytes", goal=Goal.AT_MOST, bound=0, reference=None),
    ),
)

RECOVERY = Row(
    name="recovery",
    title="large log, `kill -9` under load, restart",
    variants=DISK,
    measure=_recover,
    shown=("log_gb", "ready_s", "read_s"),
    targets=(Target(figure="read_s", goal=Goal.AT_MOST, bound=3.0, reference=None),),
)
