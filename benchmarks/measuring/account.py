"""The account of one timed part: two readings of /proc and their difference."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .procfs import Usage, kernel_cpu_s, read_busy_s, read_stats, read_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything at one moment."""

    at_s: float
    server: Usage
    clients_cpu_s: float
    harness_cpu_s: float
    kernel_cpu_s: float
    busy_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who burnt how much CPU between two readings, and what the server held at the second."""

    began_s: float
    """By `time.monotonic`."""
    seconds: float
    server_cpu_s: float
    clients_cpu_s: float
    kernel_cpu_s: float
    others_cpu_s: float
    resident_mib: float
    peak_mib: float
    written_bytes: int
    processes: int

    @property
    def others_cores(self) -> float:
        """How many cores the rest of the machine kept busy: the noise of this run."""
        return max(0.0, self.others_cpu_s) / self.seconds if self.seconds else 0.0


def read(server_pid: int, client_pids: Iterable[int] = ()) -> Reading:
    """Read now. The server comes first: what follows it costs time of ours, not of the load."""
    at_s, stats = time.monotonic(), read_stats()
    server = read_usage(stats, server_pid)
    return Reading(
        at_s=at_s,
        server=server,
        clients_cpu_s=sum(read_usage(stats, pid).cpu_s for pid in client_pids),
        harness_cpu_s=stats[os.getpid()].cpu_s,
        kernel_cpu_s=kernel_cpu_s(stats),
        busy_cpu_s=read_busy_s(),
    )


def between(first: Reading, second: Reading) -> Account:
    """What happened from one reading to the next."""
    server = second.server.cpu_s - first.server.cpu_s
    clients = second.clients_cpu_s - first.clients_cpu_s
    harness = second.harness_cpu_s - first.harness_cpu_s
    kernel = second.kernel_cpu_s - first.kernel_cpu_s
    return Account(
        began_s=first.at_s,
        seconds=second.at_s - first.at_s,
        server_cpu_s=server,
        clients_cpu_s=clients,
        kernel_cpu_s=kernel,
        others_cpu_s=second.busy_cpu_s - first.busy_cpu_s - server - clients - harness - kernel,
        resident_mib=second.server.resident_mib,
        peak_mib=second.server.peak_mib,
        written_bytes=second.server.written_bytes - first.server.written_bytes,
        processes=second.server.processes,
    )
