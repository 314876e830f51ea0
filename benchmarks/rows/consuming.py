"""Reading raw batches over one connection: what was just written, and what has long left memory."""

from __future__ import annotations

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant
from benchmarks.peers.server import Server

PAIR = (Variant.KAFKA, Variant.PENSTOCK_DISK)


def _read(bench: Bench, server: Server, topic: str) -> Figures:
    scale = bench.scale
    return costs(
        bench.load(server, "consume", topic=topic, duration=f"{scale.duration_s}s", warmup=f"{scale.warmup_s}s")
    )


def read_tail(bench: Bench, variant: Variant) -> Figures:
    """Write a little and read it at once, over and over: it is still in memory."""
    server, topic = bench.server(variant), bench.topic("tail")
    bench.settle(server)
    bench.fill(server, topic, bench.scale.tail_bytes)
    figures = _read(bench, server, topic)
    bench.drop(server, topic)
    return figures


def _segments(bench: Bench, variant: Variant) -> Figures:
    """Read a log far larger than any tail, after its compaction and a restart that emptied memory."""
    server = bench.server(variant)
    topic = bench.once(server, "segments", lambda: _prepare_segments(bench, server))
    bench.settle(server)
    return _read(bench, server, topic)


def _prepare_segments(bench: Bench, server: Server) -> str:
    topic = bench.topic("segments")
    bench.fill(server, topic, bench.scale.segment_bytes)
    bench.settle(server, bench.scale.compaction_timeout_s)
    bench.fleet.restart(server, kill=False)
    server.await_ready()
    bench.fleet.warm(server)
    return topic


CONSUME_TAIL = Row(
    name="consume-tail",
    title="consume raw, tail",
    variants=PAIR,
    measure=read_tail,
    shown=("mb_per_s", "cpu_s_per_gb"),
    targets=(Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=0.7),),
)

CONSUME_SEGMENTS = Row(
    name="consume-segments",
    title="consume raw, segments",
    variants=PAIR,
    measure=_segments,
    shown=("mb_per_s", "cpu_s_per_gb"),
    targets=(Target(figure="cpu_s_per_gb", goal=Goal.AT_MOST, bound=1.0),),
)
