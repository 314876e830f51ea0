"""What it costs to be asked who one is and what one may do: ACLs and quotas, TLS."""

from __future__ import annotations

from benchmarks.model import Goal, Row, Target, Variant

from .consuming import read_tail
from .producing import produce, send_one_records

WITHOUT_AND_WITH = (Variant.PENSTOCK_DISK, Variant.PENSTOCK_GUARDED)
TLS = (Variant.KAFKA_TLS, Variant.PENSTOCK_TLS)
COST = 1.10
"""Of the CPU without them."""

GUARDED_PRODUCE = Row(
    name="guarded-produce",
    title="ACLs and quotas: produce 1 KiB records, 16 KiB batches",
    variants=WITHOUT_AND_WITH,
    measure=lambda bench, variant: produce(bench, variant, 16_384),
    shown=("mb_per_s", "cpu_s_per_gb"),
    targets=(
        Target(
            figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=COST, subject=Variant.PENSTOCK_GUARDED,
            reference=Variant.PENSTOCK_DISK,
        ),
    ),
)  # fmt: skip

GUARDED_ONE_RECORD = Row(
    name="guarded-one-record",
    title="ACLs and quotas: one-record requests, 64 connections",
    variants=WITHOUT_AND_WITH,
    measure=lambda bench, variant: send_one_records(bench, variant, 64),
    shown=("records_per_s", "cpu_us_per_record"),
    targets=(
        Target(
            figure="cpu_us_per_record", goal=Goal.AT_MOST, bound=COST, subject=Variant.PENSTOCK_GUARDED,
            reference=Variant.PENSTOCK_DISK,
        ),
    ),
)  # fmt: skip


def _as_cheap_by_tls() -> tuple[Target, ...]:
    return (
        Target(
            figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=1.0, subject=Variant.PENSTOCK_TLS,
            reference=Variant.KAFKA_TLS,
        ),
    )  # fmt: skip


TLS_PRODUCE = Row(
    name="tls-produce",
    title="TLS: produce 1 KiB records, 1 MB batches",
    variants=TLS,
    measure=lambda bench, variant: produce(bench, variant, 1_000_012),
    shown=("mb_per_s", "cpu_s_per_gb"),
    targets=_as_cheap_by_tls(),
)

TLS_CONSUME = Row(
    name="tls-consume",
    title="TLS: consume raw, tail",
    variants=TLS,
    measure=read_tail,
    shown=("mb_per_s", "cpu_s_per_gb"),
    targets=_as_cheap_by_tls(),
)
