"""CPU, memory and disk writes from /proc.

A server is its process with all live descendants. CPU is `utime + stime` of each and
`cutime + cstime` of the children it has reaped, so a child that ends between two readings
is still counted, once. The kernel keeps these sums exactly and shows them in ticks of 10 ms.

The machine's busy time comes from /proc/stat, which samples at the tick: over seconds it is right
to a few per cent of a core, and "others", a difference of the two kinds, may come out slightly negative.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KERNEL_THREADS_PARENT = 2
_PROC = Path("/proc")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """One line of /proc/PID/stat, as far as it matters here."""

    parent: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process and its descendants have used so far, and hold now."""

    cpu_s: float = 0.0
    resident_mib: float = 0.0
    peak_mib: float = 0.0
    written_bytes: int = 0
    processes: int = 0


def parse_stat(text: str) -> ProcessStat:
    """Read a stat line; the command name in it may hold spaces and brackets."""
    fields = text[text.rindex(")") + 1 :].split()
    return ProcessStat(parent=int(fields[1]), cpu_s=sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S)


def parse_busy_s(text: str) -> float:
    """Busy CPU seconds of the whole machine since boot: all but idle and waiting for I/O, guests not twice."""
    fields = [int(ticks) for ticks in text.splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def parse_keyed(text: str, key: str) -> int:
    """The number behind `key:` in status, io or meminfo; 0 when it is not there."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    return 0


def descendants(stats: dict[int, ProcessStat], root: int) -> list[int]:
    """`root` and everything below it."""
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _read(pid: int, name: str) -> str:
    """A file of /proc/PID, empty when the process has just ended."""
    try:
        return (_PROC / str(pid) / name).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir(_PROC) if entry.isdigit())


def read_stats() -> dict[int, ProcessStat]:
    """Every process there is."""
    texts = ((pid, _read(pid, "stat")) for pid in _pids())
    return {pid: parse_stat(text) for pid, text in texts if text}


def read_usage(stats: dict[int, ProcessStat], root: int) -> Usage:
    """What `root` and its descendants have used, by CPU figures already read."""
    tree = [pid for pid in descendants(stats, root) if pid in stats]
    statuses = [_read(pid, "status") for pid in tree]
    return Usage(
        cpu_s=sum(stats[pid].cpu_s for pid in tree),
        resident_mib=sum(parse_keyed(status, "VmRSS") for status in statuses) * 1024 / _MIB,
        peak_mib=sum(parse_keyed(status, "VmHWM") for status in statuses) * 1024 / _MIB,
        written_bytes=sum(parse_keyed(_read(pid, "io"), "write_bytes") for pid in tree),
        processes=len(tree),
    )


def kernel_cpu_s(stats: dict[int, ProcessStat]) -> float:
    """CPU of kernel threads: writing back dirty pages, mostly, which is the peers' doing but in no peer's account."""
    return sum(stat.cpu_s for stat in stats.values() if stat.parent == KERNEL_THREADS_PARENT)


def read_busy_s() -> float:
    return parse_busy_s((_PROC / "stat").read_text())


def read_dirty_mib() -> float:
    """Pages still to be written to disk."""
    text = (_PROC / "meminfo").read_text()
    return (parse_keyed(text, "Dirty") + parse_keyed(text, "Writeback")) * 1024 / _MIB
