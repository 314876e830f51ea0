"""What one tenant feels of another who is beyond all limits."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, costs
from benchmarks.model import Figures, Goal, Row, Target, Variant
from benchmarks.peers.server import Server
from benchmarks.processes import BenchmarkError, tied

RATE = 1_000
MOVED = 1.20
"""Of the p99 without the other tenant."""
START_S = 2.0
"""What is free at the beginning is used up by then."""


_SOURCES = {
    Variant.PENSTOCK_TENANT: None,
    Variant.PENSTOCK_ELSEWHERE: Variant.PENSTOCK_NEIGHBOUR,
    Variant.PENSTOCK_NEIGHBOUR: Variant.PENSTOCK_NEIGHBOUR,
    Variant.PROCESS_TENANT: None,
    Variant.PROCESS_NEIGHBOUR: Variant.PROCESS_NEIGHBOUR,
}
"""At which agent there is noise."""


@contextlib.contextmanager
def _noise(bench: Bench, server: Server) -> Iterator[None]:
    directory = server.place.directory
    command = [
        sys.executable, "-m", "benchmarks.neighbour", (directory / "sasl").read_text(), str(directory / "password"),
    ]  # fmt: skip
    with (directory / "noise.log").open("ab") as log:
        process = subprocess.Popen(tied(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != b"standing":
                raise BenchmarkError(f"the other tenant makes no noise: see {log.name}")
            time.sleep(START_S)
            with bench.counted(process.pid):
                yield
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _measure(bench: Bench, variant: Variant) -> Figures:
    server, topic, scale = bench.server(variant), bench.topic("steady"), bench.scale
    source = _SOURCES[variant]
    noisy = None if source is None else bench.server(source)
    bench.settle(server)
    with contextlib.ExitStack() as around:
        if noisy is not None:
            around.enter_context(_noise(bench, noisy))
        if noisy not in (None, server):
            around.enter_context(bench.counted(noisy.pid))
        measured = bench.load(
            server, "latency", topic=topic, rate=RATE, linger="0s", duration=f"{scale.paced_s}s",
            warmup=f"{scale.warmup_s}s",
        )  # fmt: skip
    bench.drop(server, topic)
    return costs(measured)


NEIGHBOUR = Row(
    name="neighbour",
    title="1,000 records/s of one tenant, without and with another at its limits",
    variants=(Variant.PENSTOCK_TENANT, Variant.PENSTOCK_ELSEWHERE, Variant.PENSTOCK_NEIGHBOUR),
    measure=_measure,
    shown=("e2e_p50_ms", "e2e_typical_p99_ms", "e2e_p99_ms", "server_cores"),
    targets=(
        # A shared disk that stands still for 100 ms moves the p99 of a whole run, with the noise or without; the noise
        # never pauses, so what it costs is in each window.
        Target(
            figure="e2e_typical_p99_ms", goal=Goal.AT_MOST, bound=MOVED, subject=Variant.PENSTOCK_NEIGHBOUR,
            reference=Variant.PENSTOCK_TENANT,
        ),
        # The clients of both share this machine's processors and disk with the agent. What only the agent adds is what
        # the noise costs here and not where another agent beside it has to bear it.
        Target(
            figure="e2e_typical_p99_ms", goal=Goal.AT_MOST, bound=MOVED, subject=Variant.PENSTOCK_NEIGHBOUR,
            reference=Variant.PENSTOCK_ELSEWHERE,
        ),
    ),
)  # fmt: skip

NEIGHBOUR_PROCESS = Row(
    name="neighbour-process",
    title="the same, acknowledged by the process",
    variants=(Variant.PROCESS_TENANT, Variant.PROCESS_NEIGHBOUR),
    measure=_measure,
    shown=NEIGHBOUR.shown,
    targets=(
        # No record waits for the disk, which both tenants share and which no agent can divide.
        Target(
            figure="e2e_p99_ms", goal=Goal.AT_MOST, bound=MOVED, subject=Variant.PROCESS_NEIGHBOUR,
            reference=Variant.PROCESS_TENANT,
        ),
    ),
)  # fmt: skip
