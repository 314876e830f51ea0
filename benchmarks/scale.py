"""How long and how large: the full measure, one of half its time, and a quick one that only shows that all works."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1_000_000_000
MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Durations and sizes of all rows."""

    name: str = "full"
    duration_s: float = 10.0
    warmup_s: float = 3.0
    paced_s: float = 20.0  # rows at a fixed rate: long enough for a p99 of 1,000 records/s to rest on 200 records
    idle_s: float = 60.0
    idle_settle_s: float = 20.0
    warm_server_s: float = 15.0  # first load on a fresh server, untimed: a JVM is not itself before
    produce_bytes: int = 3 * GB
    tail_bytes: int = 48 * MB
    segment_bytes: int = 3 * GB
    log_bytes: int = 20 * GB
    topics: int = 300
    keyed_bytes: int = 2 * GB
    idle_groups: int = 10_000
    idle_producers: int = 100_000
    members: int = 50
    member_partitions: int = 100
    sparse_topics: int = 50
    sparse_partitions: int = 100
    sparse_rate: int = 500
    connections: int = 5000
    settle_timeout_s: float = 60.0
    compaction_timeout_s: float = 180.0


FULL = Scale()
BRISK = Scale(
    name="brisk",
    duration_s=6.0,
    warmup_s=2.0,
    paced_s=10.0,
    idle_s=30.0,
    idle_settle_s=8.0,
    warm_server_s=9.0,
    produce_bytes=2 * GB,
    segment_bytes=2 * GB,
    settle_timeout_s=20.0,
    compaction_timeout_s=60.0,
)
QUICK = Scale(
    name="quick",
    duration_s=3.0,
    warmup_s=1.0,
    paced_s=4.0,
    idle_s=5.0,
    idle_settle_s=2.0,
    warm_server_s=3.0,
    produce_bytes=300 * MB,
    segment_bytes=300 * MB,
    log_bytes=1 * GB,
    keyed_bytes=300 * MB,
    idle_groups=1_000,
    idle_producers=5_000,
    topics=40,
    sparse_topics=10,
    connections=1000,
    settle_timeout_s=5.0,
    compaction_timeout_s=20.0,
)
