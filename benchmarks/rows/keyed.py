"""Compaction by key of a log that was written before."""

from __future__ import annotations

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Row, Variant

OVERWRITTEN = 4
"""How often each key is written."""
SEGMENTS = 16
FILL = "cleanup.policy=delete,segment.bytes="
COMPACT = "cleanup.policy=compact,min.cleanable.dirty.ratio=0.01"
RECORD_BYTES = 1024
TIMEOUT_S = 300.0


def _compact(bench: Bench, variant: Variant) -> Figures:
    """Fill one partition, let the server rest, and only then let it compact."""
    server, topic, records = bench.server(variant), bench.topic("keyed"), bench.scale.keyed_bytes // RECORD_BYTES
    keys, segment_bytes = records // OVERWRITTEN, bench.scale.keyed_bytes // SEGMENTS
    bench.call(server, "configure", topic=topic, partitions=1, configs=f"{FILL}{segment_bytes}")
    bench.load(
        server, "produce", topic=topic, partitions=1, keys=keys, batch_bytes=1_000_012, warmup="0s", duration="1h",
        records=records, timeout_s=TIMEOUT_S,
    )  # fmt: skip
    bench.settle(server)
    bench.conditions()  # Of the filling nothing counts.
    measured = bench.load(
        server, "compaction", topic=topic, keys=keys, records=records, batch_bytes=segment_bytes, configs=COMPACT,
        timeout_s=TIMEOUT_S,
    )  # fmt: skip
    bench.drop(server, topic)
    return {**costs(measured), "server_cpu_s": measured.account.server_cpu_s}


COMPACTION = Row(
    name="compaction",
    title=f"compaction by key of 2 GB, each key {OVERWRITTEN} times",
    variants=(Variant.KAFKA, Variant.PENSTOCK_DISK),
    measure=_compact,
    shown=("mb_per_s", "compaction_s", "server_cpu_s", "cpu_s_per_gb"),
)
