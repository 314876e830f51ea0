"""Creating topics one by one."""

from __future__ import annotations

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant


def _create(bench: Bench, variant: Variant) -> Figures:
    server = bench.server(variant)
    bench.settle(server)
    return costs(bench.load(server, "topics", topic=bench.topic("created"), count=bench.scale.topics, partitions=1))


TOPICS = Row(
    name="topics",
    title="topics created one by one",
    variants=(Variant.KAFKA, Variant.PENSTOCK_DISK),
    measure=_create,
    shown=("topics_per_s", "create_p50_ms"),
    targets=(Target(figure="topics_per_s", goal=Goal.AT_LEAST, bound=200, reference=None),),
)
