"""What a row needs to measure: servers, loads on them, quiet before them, and their costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import TIMEOUT_S, Measured, Option, running
from benchmarks.measuring.account import Account, between, read
from benchmarks.measuring.procfs import read_dirty_mib, read_stats, read_usage
from benchmarks.measuring.speed import Speedometer
from benchmarks.model import Conditions, Variant
from benchmarks.peers.fleet import Fleet
from benchmarks.peers.server import Server
from benchmarks.processes import BenchmarkError
from benchmarks.scale import Scale

QUIET_CORES = 0.05
QUIET_DIRTY_MIB = 64.0
QUIET_LOOKS = 3
LOOK_S = 0.5


class Bench:
    """One benchmark under way."""

    def __init__(self, *, program: Path, fleet: Fleet, scale: Scale, speedometer: Speedometer) -> None:
        self.fleet, self.scale = fleet, scale
        self._speedometer = speedometer
        self._accounts: list[Account] = []
        self._program = program
        self._number = 0
        self._prepared: dict[tuple[str, Path], str] = {}
        self._standing: list[int] = []

    def server(self, variant: Variant) -> Server:
        return self.fleet.server(variant)

    def topic(self, purpose: str) -> str:
        """A name not used before."""
        self._number += 1
        return f"{purpose}-{self._number}"

    def load(self, server: Server, mode: str, *, timeout_s: float = TIMEOUT_S, **options: Option) -> Measured:
        """Run one timed load and note how noisy the machine was."""
        with running(self._program, server, mode, options, timeout_s) as client:
            measured = client.measure(self._standing)
        self.note(measured.account)
        return measured

    def call(self, server: Server, mode: str, *, timeout_s: float = TIMEOUT_S, **options: Option) -> dict[str, float]:
        """Run a mode that has no timed part."""
        with running(self._program, server, mode, options, timeout_s) as client:
            return client.finish()

    @contextmanager
    def standing(
        self, server: Server, mode: str, *, timeout_s: float = TIMEOUT_S, **options: Option
    ) -> Iterator[dict[str, float]]:
        """Keep a load up while the block runs. Its report is there after the block, and must be of success."""
        report: dict[str, float] = {}
        with running(self._program, server, mode, options, timeout_s) as client:
            client.await_standing()
            self._standing.append(client.pid)
            try:
                yield report
            finally:
                self._standing.remove(client.pid)
            report.update(client.finish())

    @contextmanager
    def counted(self, pid: int) -> Iterator[None]:
        """A process that is one of the clients, whose CPU is no noise."""
        self._standing.append(pid)
        try:
            yield
        finally:
            self._standing.remove(pid)

    @contextmanager
    def background(self, server: Server, mode: str, **options: Option) -> Iterator[None]:
        """Keep a load up that is simply cut off."""
        with running(self._program, server, mode, options):
            yield

    def fill(self, server: Server, topic: str, size_bytes: int) -> None:
        """Write so many bytes in large batches, untimed."""
        self.load(
            server, "produce", topic=topic, batch_bytes=1_000_012, warmup="0s", duration="1h",
            records=size_bytes // 1024, timeout_s=600 + size_bytes / 30e6,
        )  # fmt: skip

    def once(self, server: Server, purpose: str, prepare: Callable[[], str]) -> str:
        """What `prepare` returned the first time for this server, so that repeats share it."""
        key = (purpose, server.place.directory)
        if key not in self._prepared:
            self._prepared[key] = prepare()
        return self._prepared[key]

    def drop(self, server: Server, topic: str) -> None:
        """Delete topics by prefix, so that data of one run does not fill the disk of the next."""
        self.call(server, "delete", topic=topic, timeout_s=60)

    def watch(self, server: Server, seconds: float) -> Account:
        """What a server burns by itself."""
        first = read(server.pid)
        time.sleep(seconds)
        account = between(first, read(server.pid))
        self.note(account)
        return account

    def note(self, account: Account) -> None:
        self._accounts.append(account)

    def conditions(self) -> Conditions:
        """The worst of the loads since it was last asked for."""
        accounts, self._accounts = self._accounts, []
        return Conditions(
            others_cores=max((account.others_cores for account in accounts), default=0.0),
            speed=min(
                (self._speedometer.speed(account.began_s, account.began_s + account.seconds) for account in accounts),
                default=1.0,
            ),
        )

    def settle(self, server: Server, timeout_s: float | None = None) -> float:
        """Wait until every server rests and its pages are on disk; return the CPU seconds one used until then.

        This is where the work that a load leaves behind (compaction, cleaning) shows, and why it does not burden
        whoever is measured next: another server's compaction writes to the same disk. Gives up after a time: a server
        that never rests is no reason not to measure.
        """
        servers = [server, *(other for other in self.fleet.kept() if other is not server)]
        before, deadline, quiet = _cpu_s(server), time.monotonic() + (timeout_s or self.scale.settle_timeout_s), 0
        os.sync()
        last = [_cpu_s(each) for each in servers]
        while quiet < QUIET_LOOKS and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = [_cpu_s(each) for each in servers]
            busiest_s = max(later - earlier for earlier, later in zip(last, now, strict=True))
            resting = busiest_s < QUIET_CORES * LOOK_S + 0.011 and read_dirty_mib() < QUIET_DIRTY_MIB
            quiet, last = (quiet + 1 if resting else 0), now
        return last[0] - before


def _cpu_s(server: Server) -> float:
    if not server.child.running:
        raise BenchmarkError(f"{server.place.variant.title} has ended by itself")
    return read_usage(read_stats(), server.pid).cpu_s


def costs(measured: Measured) -> dict[str, float]:
    """The figures of a load with its account folded in."""
    seen, account = measured.seen, measured.account
    figures = dict(seen)
    gigabytes, records = seen.get("bytes", 0) / 1e9, seen.get("records", 0)
    if gigabytes:
        figures["cpu_s_per_gb"] = account.server_cpu_s / gigabytes
        figures["client_cpu_s_per_gb"] = account.clients_cpu_s / gigabytes
    if records:
        figures["cpu_us_per_record"] = account.server_cpu_s / records * 1e6
    figures |= {
        "server_cores": account.server_cpu_s / account.seconds,
        "client_cores": account.clients_cpu_s / account.seconds,
        "kernel_cores": account.kernel_cpu_s / account.seconds,
        "others_cores": account.others_cores,
        "resident_mib": account.resident_mib,
        "peak_mib": account.peak_mib,
        "written_bytes": account.written_bytes,
    }
    return figures
