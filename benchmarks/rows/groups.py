"""Consumer groups: many reading the same, and many members joining one."""

from __future__ import annotations

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant
from benchmarks.peers.server import Server

PAIR = (Variant.KAFKA, Variant.PENSTOCK_DISK)
FANOUT_GROUPS = 8
FANOUT_RATE = 5_000
MANY = 1_000
SHARED_BYTES_PER_S = 750_000_000
"""More than anybody reads in a share group."""
SHARE_WARMING_RUNS = 3
"""After so many runs Kafka's compiler has done most of its work: its rate doubles until then."""


def _fanout(bench: Bench, variant: Variant) -> Figures:
    server, topic, scale = bench.server(variant), bench.topic("fanout"), bench.scale
    bench.settle(server)
    measured = bench.load(
        server, "fanout", topic=topic, rate=FANOUT_RATE, groups=FANOUT_GROUPS, linger="5ms",
        duration=f"{scale.paced_s}s", warmup=f"{scale.warmup_s}s",
    )  # fmt: skip
    bench.drop(server, topic)
    return costs(measured)


def _join(bench: Bench, variant: Variant) -> Figures:
    server, topic, scale = bench.server(variant), bench.topic("join"), bench.scale
    bench.settle(server)
    measured = bench.load(
        server, "members", topic=topic, members=scale.members, partitions=scale.member_partitions, timeout_s=120
    )
    bench.drop(server, topic)
    return costs(measured)


FANOUT = Row(
    name="fanout",
    title=f"1 → {FANOUT_GROUPS} groups, {FANOUT_RATE:,} records/s",
    variants=PAIR,
    measure=_fanout,
    shown=("e2e_p50_ms", "e2e_p99_ms", "cpu_s_per_gb"),
    targets=(
        Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=0.8),
        Target(figure="e2e_p50_ms", goal=Goal.AT_MOST, bound=1.0),
        Target(figure="e2e_p99_ms", goal=Goal.AT_MOST, bound=1.0),
    ),
)


def _many(bench: Bench, variant: Variant) -> Figures:
    server, topic = bench.server(variant), bench.topic("many")
    bench.settle(server)
    measured = bench.load(server, "heartbeats", topic=topic, members=MANY, partitions=MANY, timeout_s=120)
    bench.drop(server, topic)
    return costs(measured)


def _share(bench: Bench, variant: Variant) -> Figures:
    server = bench.server(variant)
    topic = bench.once(server, "share", lambda: _prepare_share(bench, server))
    bench.settle(server)
    return _consume_share(bench, server, topic)


def _prepare_share(bench: Bench, server: Server) -> str:
    """A topic that others have read before, all of it, so that the first run finds neither compilers nor files cold."""
    topic, scale = bench.topic("share"), bench.scale
    bench.fill(server, topic, int((scale.duration_s + scale.warmup_s) * SHARED_BYTES_PER_S))
    bench.settle(server, scale.compaction_timeout_s)
    bench.load(server, "consume", topic=topic, duration=f"{2 * scale.duration_s}s", warmup="0s")
    for _ in range(SHARE_WARMING_RUNS):
        _consume_share(bench, server, topic)
    return topic


def _consume_share(bench: Bench, server: Server, topic: str) -> Figures:
    """Read it as a new group, from its beginning."""
    scale = bench.scale
    return costs(bench.load(server, "share", topic=topic, duration=f"{scale.duration_s}s", warmup=f"{scale.warmup_s}s"))


JOIN = Row(
    name="join",
    title="50 members join a classic group over 100 partitions",
    variants=PAIR,
    measure=_join,
    shown=("join_s", "leave_s"),
    targets=(Target(figure="join_s", goal=Goal.AT_MOST, bound=1.5, reference=None),),
)

MANY_MEMBERS = Row(
    name="many-members",
    title=f"{MANY:,} members join a consumer group (KIP-848) over {MANY:,} partitions",
    variants=PAIR,
    measure=_many,
    shown=("join_s",),
    targets=(Target(figure="join_s", goal=Goal.AT_MOST, bound=5.0, reference=None),),
)

SHARE = Row(
    name="share",
    title="consume in a share group, one member",
    variants=PAIR,
    measure=_share,
    shown=("records_per_s", "mb_per_s", "cpu_us_per_record"),
    targets=(Target(figure="records_per_s", goal=Goal.AT_LEAST, bound=1.0),),
)
