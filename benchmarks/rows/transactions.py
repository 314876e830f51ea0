"""Transactions: small ones of many producers, and reading, writing and committing exactly once."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant

THREE = (Variant.KAFKA, Variant.PENSTOCK_DISK, Variant.PENSTOCK_PROCESS)
RECORDS = 10
PACED_PER_S = 150
"""A rate that Kafka reaches, too."""
RELAYED_AT_ONCE = 500
RELAYED_BYTES_PER_S = 200_000_000
"""More than anybody relays."""


def _of(producers: int, *, per_s: int = 0) -> Callable[[Bench, Variant], Figures]:
    def measure(bench: Bench, variant: Variant) -> Figures:
        server, topic, scale = bench.server(variant), bench.topic("transactions"), bench.scale
        bench.settle(server)
        measured = bench.load(
            server, "transactions", topic=topic, producers=producers, batch_records=RECORDS, linger="0s",
            transaction_rate=per_s, duration=f"{scale.duration_s}s", warmup=f"{scale.warmup_s}s",
        )  # fmt: skip
        bench.drop(server, topic)
        figures = costs(measured)
        figures["cpu_us_per_transaction"] = measured.account.server_cpu_s / figures["transactions"] * 1e6
        return figures

    return measure


def _relay(bench: Bench, variant: Variant) -> Figures:
    server, topic, scale = bench.server(variant), bench.topic("relay"), bench.scale
    bench.fill(server, topic, int((scale.duration_s + scale.warmup_s) * RELAYED_BYTES_PER_S))
    bench.settle(server)
    measured = bench.load(
        server, "relay", topic=topic, batch_records=RELAYED_AT_ONCE, linger="0s",
        duration=f"{scale.duration_s}s", warmup=f"{scale.warmup_s}s",
    )  # fmt: skip
    bench.drop(server, topic)
    return costs(measured)


def _row(producers: int) -> Row:
    return Row(
        name=f"transactions-{producers}",
        title=f"transactions of {RECORDS} records, {producers} producer{'s' if producers > 1 else ''}",
        variants=THREE,
        measure=_of(producers),
        shown=("transactions_per_s", "commit_p50_ms", "commit_p99_ms", "cpu_us_per_transaction"),
        targets=(
            Target(figure="transactions_per_s", goal=Goal.AT_LEAST, bound=1.0),
            Target(figure="commit_p99_ms", goal=Goal.AT_MOST, bound=1.5),
        ),
    )


TRANSACTIONS_1, TRANSACTIONS_10, TRANSACTIONS_100 = _row(1), _row(10), _row(100)

TRANSACTIONS_PACED = Row(
    name="transactions-paced",
    title=f"transactions of {RECORDS} records, 100 producers, {PACED_PER_S} a second in all",
    variants=THREE,
    measure=_of(100, per_s=PACED_PER_S),
    shown=("transactions_per_s", "commit_p50_ms", "commit_p99_ms", "cpu_us_per_transaction"),
    targets=(Target(figure="commit_p99_ms", goal=Goal.AT_MOST, bound=1.5),),
)
"""As fast as they can, a hundred producers have as many commits waiting for each other as the broker lets them get that
far, which differs by a factor of ten. At the same rate latencies can be compared."""

RELAY = Row(
    name="relay",
    title=f"relay exactly once, up to {RELAYED_AT_ONCE} records a transaction",
    variants=THREE,
    measure=_relay,
    shown=("records_per_s", "cpu_us_per_record"),
    targets=(Target(figure="records_per_s", goal=Goal.AT_LEAST, bound=1.0),),
)
