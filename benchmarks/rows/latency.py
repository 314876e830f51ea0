"""From a producer to a consumer at a steady rate."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant

THREE = (Variant.KAFKA, Variant.PENSTOCK_PROCESS, Variant.PENSTOCK_DISK)
DISK_P50_MS = 1.0
DISK_P99_MS = 10.0


def _at(rate: int) -> Callable[[Bench, Variant], Figures]:
    def measure(bench: Bench, variant: Variant) -> Figures:
        server, topic, scale = bench.server(variant), bench.topic("latency"), bench.scale
        bench.settle(server)
        measured = bench.load(
            server, "latency", topic=topic, rate=rate, linger="0s",
            duration=f"{scale.paced_s}s", warmup=f"{scale.warmup_s}s",
        )  # fmt: skip
        bench.drop(server, topic)
        return costs(measured)

    return measure


def _targets() -> tuple[Target, ...]:
    process = Variant.PENSTOCK_PROCESS
    return (
        Target(figure="e2e_p50_ms", goal=Goal.AT_MOST, bound=1.0, subject=process),
        Target(figure="e2e_p99_ms", goal=Goal.AT_MOST, bound=1.0, subject=process),
        Target(figure="e2e_p50_ms", goal=Goal.AT_MOST, bound=DISK_P50_MS, reference=None),
        Target(figure="e2e_p99_ms", goal=Goal.AT_MOST, bound=DISK_P99_MS, reference=None),
    )


END_TO_END_1K = Row(
    name="e2e-1k",
    title="end to end, 1,000 records/s",
    variants=THREE,
    measure=_at(1_000),
    shown=("e2e_p50_ms", "e2e_p99_ms", "cpu_s_per_gb"),
    targets=_targets(),
)

END_TO_END_10K = Row(
    name="e2e-10k",
    title="end to end, 10,000 records/s",
    variants=THREE,
    measure=_at(10_000),
    shown=("e2e_p50_ms", "e2e_p99_ms", "cpu_s_per_gb"),
    targets=(
        *_targets(),
        Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=0.8),
        Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=0.8, subject=Variant.PENSTOCK_PROCESS),
    ),
)
