"""What machine, system and commit the figures belong to, and how fast its disk syncs."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import time
from pathlib import Path
from statistics import median

SYNC_PROBES = 200
WRITE_PROBES = 256
WRITE_PROBE_BYTES = 512 * 1024


def describe(checkout: Path, data_directory: Path) -> dict[str, str | int | float]:
    """The circumstances of a run, for the head of the report."""
    probes_ms = probe_sync_ms(data_directory)
    return {
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "java": _said(["java", "-version"]).partition('"')[2].partition('"')[0],
        "go": _said(["go", "version"]).removeprefix("go version "),
        "commit": _said(["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]),
        "modified": "yes" if _said(["git", "-C", str(checkout), "status", "--porcelain", "--", "src"]) else "no",
        "load_average_1m": os.getloadavg()[0],
        "fsync_p50_ms": round(median(probes_ms), 3),
        "fsync_p99_ms": round(sorted(probes_ms)[int(0.99 * len(probes_ms))], 3),
        "synced_mb_per_s": round(probe_synced_mb_per_s(data_directory)),
    }


def probe_sync_ms(directory: Path) -> list[float]:
    """Time 4 KiB writes with fdatasync into a preallocated file: what an acknowledgement at least costs."""
    path = directory / "sync-probe"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, bytes(4096 * SYNC_PROBES), 0)
        os.fsync(file)
        return [_timed_write_ms(file, number) for number in range(SYNC_PROBES)]
    finally:
        os.close(file)
        path.unlink()


def probe_synced_mb_per_s(directory: Path) -> float:
    """Write 512 KiB at a time around the page cache, each synced: what a log that syncs can get, if it writes once."""
    path = directory / "write-probe"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    size = WRITE_PROBES * WRITE_PROBE_BYTES
    try:
        for _ in range(WRITE_PROBES):
            os.write(file, bytes(WRITE_PROBE_BYTES))
        os.fsync(file)
        os.close(file)
        file = os.open(path, os.O_RDWR | os.O_DSYNC | getattr(os, "O_DIRECT", 0))
        with mmap.mmap(-1, WRITE_PROBE_BYTES) as page_aligned:
            page_aligned.write(os.urandom(WRITE_PROBE_BYTES))
            begun = time.perf_counter()
            for number in range(WRITE_PROBES):
                os.pwrite(file, page_aligned, number * WRITE_PROBE_BYTES)
            return size / (time.perf_counter() - begun) / 1e6
    finally:
        os.close(file)
        path.unlink()


def _timed_write_ms(file: int, number: int) -> float:
    begun = time.perf_counter()
    os.pwrite(file, bytes(4096), number * 4096)
    os.fdatasync(file)
    return (time.perf_counter() - begun) * 1000


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(command: list[str]) -> str:
    """The first line a command prints, on whichever stream; nothing when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]
