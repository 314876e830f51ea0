"""Looks at the disk under a data directory: may we write, how much fits, how long until it is really there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from penstock.base.clock import Clock
from penstock.base.randomness import SystemRandomness
from penstock.cli.doctor.data import directory_holder
from penstock.cli.doctor.verdicts import (
    Check,
    check,
    directory_verdict,
    filesystem_verdict,
    fsync_verdict,
    space_verdict,
)

_WRITES, _WRITE_BYTES, _LONGEST_S = 200, 4096, 1.5


def disk_checks(data_dir: Path, clock: Clock, *, is_running: bool = False) -> Iterator[Check]:
    """Everything about the data directory. It is not created: its nearest existing parent stands for it."""
    place = nearest_existing(data_dir)
    problem = write_problem(place)
    shown = str(data_dir.absolute())
    if problem:
        yield check("data directory", f"{shown}: {problem}", fail="Change its owner or choose another: --data-dir DIR")
        return
    yield directory_verdict(
        shown if place == data_dir.absolute() else f"{shown} (will be created)",
        directory_holder(data_dir), is_running=is_running,
    )  # fmt: skip
    usage = shutil.disk_usage(place)
    yield space_verdict(usage.free, usage.total)
    yield filesystem_verdict(filesystem_of(place))
    yield fsync_verdict(fsync_latencies_ms(place, clock))


def nearest_existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def write_problem(directory: Path) -> str | None:
    """Why nothing can be written there."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return (error.strerror or str(error)).lower()


def filesystem_of(path: Path) -> str | None:
    """The type of the file system a path is on, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in mounts:
        _, place, this_kind, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        inside = place == "/" or path.is_relative_to(place)
        if inside and len(place) >= len(best):  # Later mounts hide earlier ones.
            best, kind = place, this_kind
    return kind


def fsync_latencies_ms(directory: Path, clock: Clock) -> list[float]:
    """How long each of some small writes takes until it is on disk, as the log makes them."""
    descriptor, name = tempfile.mkstemp(prefix=".penstock-doctor-", dir=directory)
    os.close(descriptor)
    latencies: list[float] = []
    try:
        descriptor = os.open(name, os.O_WRONLY | getattr(os, "O_DSYNC", os.O_SYNC))
        try:
            os.write(descriptor, bytes(_WRITES * _WRITE_BYTES))  # Allocated first, as a slab is.
            block = SystemRandomness().token(_WRITE_BYTES)
            finish = clock.monotonic() + _LONGEST_S
            for index in range(_WRITES):
                started = clock.monotonic()
                if started > finish:
                    break
                os.pwrite(descriptor, block, index * _WRITE_BYTES)
                latencies.append((clock.monotonic() - started) * 1_000)
        finally:
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
    return latencies
