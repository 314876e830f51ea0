"""The first load on every server that is kept: the same for each, and never timed."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load import Option, running
from benchmarks.peers.server import Server
from benchmarks.scale import Scale


def warm(program: Path, server: Server, scale: Scale) -> None:
    """Small requests, small batches, large batches, raw reading: each path the rows time, until compilers are done."""
    long_s, short_s = scale.warm_server_s, scale.warm_server_s / 3
    topic = "warm"
    steps: list[tuple[str, dict[str, Option]]] = [
        ("smallreq", {"producers": 64, "duration": f"{long_s}s"}),
        ("produce", {"duration": f"{short_s}s", "records": 300_000}),
        ("produce", {"duration": f"{short_s}s", "records": 300_000, "batch_bytes": 1_000_012}),
        ("consume", {"duration": f"{short_s}s"}),
        ("latency", {"duration": f"{short_s}s", "rate": 5000, "linger": "0s"}),
    ]
    for mode, options in steps:
        with running(program, server, mode, {"topic": topic, "warmup": "0s", **options}) as client:
            client.measure()
    with running(program, server, "delete", {"topic": topic}) as client:
        client.finish()
