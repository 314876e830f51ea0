"""Looks at the machine and at what this program runs on: limits, memory, clock, versions, toolchains."""

from __future__ import annotations

import ctypes
import platform
import resource
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import penstock.version
from penstock.base import twins
from penstock.base.clock import Clock
from penstock.base.memory import machine_bytes
from penstock.cli.doctor.verdicts import (
    Check,
    check,
    clock_verdict,
    files_verdict,
    memory_verdict,
    tools_verdict,
    twin_verdict,
    version_verdict,
)

OLDEST_PYTHON, OLDEST_SQLITE = (3, 11), (3, 35)
TOOLS = {"Java": "java", "Go": "go", "Node": "node", "PostgreSQL": "psql"}
_TIME_ERROR = 5
_TIMEX_BYTES = 512  # More than any system's struct timex.


class ClockWatch:
    """Compares the wall clock with the monotonic one over the time the other checks take."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall_ms, self._steady_s = clock.now_ms(), clock.monotonic()

    def verdict(self) -> Check:
        """What was seen."""
        now_ms = self._clock.now_ms()
        drift_ms = (now_ms - self._wall_ms) - (self._clock.monotonic() - self._steady_s) * 1_000
        installed_ms = int(Path(penstock.version.__file__).stat().st_mtime * 1_000)
        return clock_verdict(
            synchronized=clock_is_synchronized(), now_ms=now_ms, newest_known_ms=installed_ms, drift_ms=drift_ms
        )


def system_checks() -> Iterator[Check]:
    """Limits, memory, versions, toolchains."""
    yield files_verdict(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield memory_verdict(available_memory())
    yield version_verdict("Python", platform.python_version(), sys.version_info[:3], OLDEST_PYTHON)
    yield version_verdict("SQLite", sqlite3.sqlite_version, sqlite3.sqlite_version_info, OLDEST_SQLITE)
    yield libraries()
    yield twin_verdict(twins.why_not())
    yield tools_verdict({name: shutil.which(command) for name, command in TOOLS.items()})


def libraries() -> Check:
    """The native code we rely on."""
    found: list[str] = []
    for name in ("cramjam", "crc32c"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            return check(
                "libraries", f"{name} is missing", fail="Install Penstock again: pip install --force-reinstall penstock"
            )
    return check("libraries", ", ".join(found))


def available_memory() -> int | None:
    """Bytes a new process can have, where the system tells; no more than its container or service may have at all."""
    most = machine_bytes()
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return most
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*available, *([] if most is None else [most])], default=None)


def clock_is_synchronized() -> bool | None:
    """What the kernel thinks of the clock; None where it cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # All zero: only asks.
    return None if state < 0 else int(state) != _TIME_ERROR
