"""A crowd that does little: thousands of partitions with a trickle each, thousands of silent connections."""

from __future__ import annotations

import time

from benchmarks.bench import Bench
from benchmarks.load import Measured
from benchmarks.model import Figures, Goal, Row, Target, Variant
from benchmarks.peers.server import Server

RATE = 1_000
# "Unchanged" within what two runs of the same thing differ by on a shared machine.
UNCHANGED = 1.25


def _latency(bench: Bench, server: Server) -> Measured:
    scale = bench.scale
    return bench.load(
        server, "latency", topic="others", rate=RATE, linger="0s",
        duration=f"{scale.paced_s}s", warmup=f"{scale.warmup_s}s",
    )  # fmt: skip


def _sparse(bench: Bench, variant: Variant) -> Figures:
    """Latency of an ordinary topic without the crowd and with it, and the memory the crowd needs."""
    scale = bench.scale
    with bench.fleet.fresh(variant) as server:
        server.await_ready()
        bench.fleet.warm(server)
        bench.settle(server)
        alone = _latency(bench, server).seen
        with (
            bench.standing(server, "connections", producers=scale.connections, timeout_s=600),
            bench.standing(
                server, "sparse", topic="sparse", topics=scale.sparse_topics, partitions=scale.sparse_partitions,
                rate=scale.sparse_rate, timeout_s=600,
            ) as crowd,
        ):  # fmt: skip
            time.sleep(scale.idle_settle_s)
            together = _latency(bench, server)
    return {
        "resident_mib": together.account.resident_mib,
        "server_cores": together.account.server_cpu_s / together.account.seconds,
        "create_s": crowd["create_s"],
        "partitions": crowd["partitions"],
        "connections": scale.connections,
        "e2e_alone_p50_ms": alone["e2e_p50_ms"],
        "e2e_alone_p99_ms": alone["e2e_p99_ms"],
        "e2e_p50_ms": together.seen["e2e_p50_ms"],
        "e2e_p99_ms": together.seen["e2e_p99_ms"],
        "p50_ratio": together.seen["e2e_p50_ms"] / alone["e2e_p50_ms"],
        "p99_ratio": together.seen["e2e_p99_ms"] / alone["e2e_p99_ms"],
    }


SPARSE = Row(
    name="sparse",
    title="5,000 partitions, sparse traffic; 5,000 idle connections",
    variants=(Variant.KAFKA, Variant.PENSTOCK_DISK),
    measure=_sparse,
    shown=(
        "resident_mib",
        "e2e_alone_p50_ms",
        "e2e_p50_ms",
        "e2e_alone_p99_ms",
        "e2e_p99_ms",
        "p50_ratio",
        "p99_ratio",
    ),
    targets=(
        Target(figure="resident_mib", goal=Goal.AT_MOST, bound=400, reference=None),
        Target(figure="p50_ratio", goal=Goal.AT_MOST, bound=UNCHANGED, reference=None),
        Target(figure="p99_ratio", goal=Goal.AT_MOST, bound=UNCHANGED, reference=None),
    ),
)
