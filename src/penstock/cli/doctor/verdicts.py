"""What a measurement means: pure rules from a number to ok, warn or fail, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from penstock.base.dataclasses import dataclass
from penstock.base.memory import DEFAULT_BYTES, LEAST_BYTES
from penstock.cli.text_formats.quantities import milliseconds_text, percentile, size_text

MIB, GIB = 1024**2, 1024**3
OWN_BYTES = 96 * MIB
"""What the process itself needs, and a little more."""


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    change: str | None = None
    """What to do about it."""


def check(name: str, found: str, *, warn: str | None = None, fail: str | None = None) -> Check:
    """A check that failed, or deserves a warning, or is fine, in this order; the text is what to change."""
    status = Status.FAIL if fail else Status.WARN if warn else Status.OK
    return Check(name=name, status=status, found=found, change=fail or warn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a port."""

    pid: int | None
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})" if self.pid is not None else self.command


def port_verdict(
    option: str, port: int, holder: Holder | None, *, ours: bool, is_running: bool = False
) -> Check:  # fmt: skip
    """Whether `up` can listen there. `is_running`: the Penstock that does is the one that is asked about."""
    name = f"port {port} ({option})"
    if holder is None:
        return check(name, "free")
    found = f"in use by {holder}"
    if ours and is_running:
        return check(name, found)
    if ours:
        return check(name, found, warn=f"Penstock runs already. For another one: penstock up --{option} HOST:PORT")
    return check(name, found, fail=f"Stop it, or listen elsewhere: penstock up --{option} HOST:PORT")


def directory_verdict(shown: str, holder: Holder | None, *, is_running: bool = False) -> Check:
    """Whether `up` can have a data directory to itself."""
    name = "data directory"
    if holder is None:
        return check(name, shown)
    found = f"{shown}, in use by {holder}"
    if is_running:
        return check(name, found)
    return check(
        name, found,
        warn="Two processes cannot share a directory. Stop that one, or choose another: penstock up --data-dir DIR",
    )  # fmt: skip


def space_verdict(free: int, total: int) -> Check:
    """Whether data fits."""
    found = f"{size_text(free)} free of {size_text(total)}"
    if free < 256 * MIB:
        return check("disk space", found, fail="Free some space, or choose another disk: --data-dir DIR")
    if free < GIB or free < total * 0.05:
        return check(
            "disk space", found, warn="Little is left. Free some, shorten retention.ms, or choose another --data-dir"
        )
    return check("disk space", found)


def filesystem_verdict(kind: str | None) -> Check:
    """Whether the file system keeps what it is told to keep."""
    name = "file system"
    if kind is None:
        return check(name, "unknown")
    if kind in ("tmpfs", "ramfs"):
        return check(
            name, f"{kind}: in memory", warn="Data is lost when the machine stops. Choose a --data-dir on a disk"
        )
    if kind.startswith(("nfs", "cifs", "smb", "fuse", "9p")):
        return check(
            name,
            kind,
            warn="File locks and fsync may not hold on network and user-space file systems. Use a local disk",
        )
    return check(name, kind)


def fsync_verdict(latencies_ms: Sequence[float]) -> Check:
    """How long an acknowledgement of `--durability disk` takes at least."""
    if not latencies_ms:
        return check("fsync", "not measured")
    p50, p99 = percentile(latencies_ms, 50), percentile(latencies_ms, 99)
    found = f"p50 {milliseconds_text(p50)}, p99 {milliseconds_text(p99)} ({len(latencies_ms)} writes of 4 KiB)"
    if p50 > 100:
        return check(
            "fsync", found, fail="Every acknowledgement waits for this. Use another disk, or --durability process"
        )
    if p50 > 10 or p99 > 100:
        return check("fsync", found, warn="Acknowledgements will be slow. A local SSD takes about 1 ms")
    if p50 < 0.02:
        return check("fsync", found, warn="Too fast for a disk: it may not keep what it acknowledges when power fails")
    return check("fsync", found)


def data_verdict(
    *, version: int, newest: int, database: int | None, newest_database: int, metadata: str
) -> Check:  # fmt: skip
    """Whether this program can open what is there, and what it will make of it."""
    name = "data version"
    found = f"format {version}" + (f", database {database}" if database is not None else "") + f", in {metadata}"
    if version > newest or (database or 0) > newest_database:
        return check(
            name, f"{found}; this program knows format {newest} and database {newest_database}",
            fail="It was written by a newer release: start that one, or choose another --data-dir",
        )  # fmt: skip
    if database is not None and database < newest_database:
        return check(
            name, found,
            warn=f"The next start brings the database to {newest_database}, which older releases refuse: keep a copy",
        )  # fmt: skip
    return check(name, found)


def broker_verdict(name: str, address: str, latencies_ms: Sequence[float]) -> Check:
    """Whether a broker answers soon, without work for it to do."""
    p50, p99 = percentile(latencies_ms, 50), percentile(latencies_ms, 99)
    found = f"{address}, answers in p50 {milliseconds_text(p50)}, p99 {milliseconds_text(p99)}"
    if p50 > 100:
        return check(name, found, warn="It is busy or far away: every request takes that long at least")
    return check(name, found)


def files_verdict(soft: int, hard: int) -> Check:
    """Whether there are descriptors enough: one per connection, and some per segment."""
    found = f"{soft:,} allowed" + (f", {hard:,} at most" if hard > soft else "")
    raise_it = (
        "Raise it: ulimit -n 65536" if hard >= 65536 or hard < 0 else "Raise it in /etc/security/limits.conf (nofile)"
    )
    if soft < 256:
        return check("open files", found, fail=raise_it)
    if soft < 4096:
        return check("open files", found, warn=f"Enough for {soft - 100:,} connections. {raise_it}")
    return check("open files", found)


def memory_verdict(available: int | None) -> Check:
    """Whether the process fits, and all that clients may make it hold."""
    if available is None:
        return check("memory", "unknown")
    found = f"{size_text(available)} available; clients can make it hold {size_text(DEFAULT_BYTES)}"
    if available < 128 * MIB:
        return check("memory", found, fail="Stop something: Penstock needs about 128 MiB")
    if available < DEFAULT_BYTES + OWN_BYTES:
        fitting = max(LEAST_BYTES, (available - OWN_BYTES) // (16 * MIB) * 16 * MIB)
        return check("memory", found, warn=f"Let them have less: penstock up --set memory.max.bytes={fitting}")
    return check("memory", found)


def clock_verdict(*, synchronized: bool | None, now_ms: int, newest_known_ms: int, drift_ms: float) -> Check:
    """Whether record timestamps and retention can be trusted."""
    if now_ms < newest_known_ms:
        return check(
            "clock", "before this program was installed", fail="Set the clock: timestamps and retention depend on it"
        )
    if abs(drift_ms) > 50:
        return check(
            "clock",
            f"moved by {drift_ms:+.0f} ms while being scrape_over",
            warn="Something steps the clock. Use one time service that slews",
        )
    if synchronized is None:
        return check("clock", "runs steadily; whether it is synchronised is not known")
    if not synchronized:
        return check(
            "clock", "runs steadily, not synchronised", warn="Turn on time synchronisation (systemd-timesyncd, chrony)"
        )
    return check("clock", "synchronised")


def version_verdict(name: str, found: str, parts: Sequence[int], oldest: Sequence[int]) -> Check:
    """Whether a version is recent enough."""
    wanted = ".".join(map(str, oldest))
    too_old = tuple(parts) < tuple(oldest)
    return check(name, found, fail=f"Use {wanted} or newer" if too_old else None)


def twin_verdict(why_not: str) -> Check:
    """Whether the hot path is compiled. It works without; only speed is another."""
    return check("compiled twin", why_not or "in use")


def tools_verdict(found: Mapping[str, str | None]) -> Check:
    """Toolchains that only the project's own tests want."""
    there = [name for name, path in found.items() if path]
    missing = [name for name, path in found.items() if not path]
    text = ", ".join(there) or "none"
    return check("toolchains", text + (f"; not here: {', '.join(missing)} (only tests want them)" if missing else ""))
