"""Writing: large and small batches through an ordinary client, and ready-made requests of one record."""

from __future__ import annotations

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant

VARIANTS = (Variant.KAFKA, Variant.PENSTOCK_DISK, Variant.PENSTOCK_PROCESS)
"""With `process`, which has no target, it can be seen what is the disk's."""


def produce(bench: Bench, variant: Variant, batch_bytes: int) -> Figures:
    server, topic, scale = bench.server(variant), bench.topic("produce"), bench.scale
    bench.settle(server)
    measured = bench.load(
        server, "produce", topic=topic, batch_bytes=batch_bytes, records=scale.produce_bytes // 1024,
        duration=f"{scale.duration_s}s", warmup=f"{scale.warmup_s}s",
    )  # fmt: skip
    figures = costs(measured)
    left_behind_s = bench.settle(server)
    figures["cpu_s_per_gb_settled"] = (measured.account.server_cpu_s + left_behind_s) / (figures["bytes"] / 1e9)
    bench.drop(server, topic)
    return figures


def send_one_records(bench: Bench, variant: Variant, connections: int) -> Figures:
    server, topic, scale = bench.server(variant), bench.topic("one-record"), bench.scale
    bench.settle(server)
    measured = bench.load(
        server, "smallreq", topic=topic, producers=connections,
        duration=f"{scale.duration_s}s", warmup=f"{scale.warmup_s}s",
    )  # fmt: skip
    bench.drop(server, topic)
    return costs(measured)


PRODUCE_16K = Row(
    name="produce-16k",
    title="produce 1 KiB records, 16 KiB batches, idempotent, acks=all",
    variants=VARIANTS,
    measure=lambda bench, variant: produce(bench, variant, 16_384),
    shown=("mb_per_s", "cpu_s_per_gb", "cpu_s_per_gb_settled"),
    targets=(
        Target(figure="mb_per_s", goal=Goal.AT_LEAST, bound=1.5),
        Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=0.5),
    ),
)

PRODUCE_1M = Row(
    name="produce-1m",
    title="produce 1 KiB records, 1 MB batches, idempotent, acks=all",
    variants=VARIANTS,
    measure=lambda bench, variant: produce(bench, variant, 1_000_012),
    shown=("mb_per_s", "cpu_s_per_gb", "cpu_s_per_gb_settled"),
    targets=(
        Target(figure="mb_per_s", goal=Goal.AT_LEAST, bound=2.5),
        Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=0.35),
    ),
)

ONE_RECORD_64 = Row(
    name="one-record-64",
    title="one-record requests, 64 connections",
    variants=(Variant.KAFKA, Variant.PENSTOCK_DISK, Variant.PENSTOCK_PROCESS, Variant.KAFKA_FLUSH),
    measure=lambda bench, variant: send_one_records(bench, variant, 64),
    shown=("records_per_s", "cpu_us_per_record", "ack_p50_ms", "ack_p99_ms"),
    targets=(
        Target(figure="records_per_s", goal=Goal.AT_LEAST, bound=1.0),
        Target(figure="cpu_us_per_record", goal=Goal.AT_MOST, bound=0.8),
        Target(figure="records_per_s", goal=Goal.AT_LEAST, bound=1.2, subject=Variant.PENSTOCK_PROCESS),
        Target(figure="records_per_s", goal=Goal.AT_LEAST, bound=15.0, reference=Variant.KAFKA_FLUSH),
    ),
)

ONE_RECORD_1 = Row(
    name="one-record-1",
    title="one-record requests, 1 connection",
    variants=(Variant.KAFKA, Variant.PENSTOCK_PROCESS),
    measure=lambda bench, variant: send_one_records(bench, variant, 1),
    shown=("records_per_s", "cpu_us_per_record", "ack_p50_ms", "ack_p99_ms"),
    targets=(Target(figure="records_per_s", goal=Goal.AT_LEAST, bound=0.9, subject=Variant.PENSTOCK_PROCESS),),
)
