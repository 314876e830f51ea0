"""One slab: a local file that holds WAL objects one behind the other and is used again when all of them are dead.

Every object starts on a whole block, so a direct write never touches a block that another object lives in, and
mixing direct and buffered writes in one file stays coherent.

The file's size says how far its blocks have been written. A durable write into blocks that were written before costs
one device flush; one that makes the file grow also waits for the file system's journal, about twice as long for a
small object. `prewrite` therefore writes zeros ahead of the objects. Whatever makes the file grow holds `_growing`,
so zeros never fall on an object.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from penstock.storage.arena import aligned
from penstock.storage.disk import Staging, is_aligned, open_direct, write_fully
from penstock.storage.wal import Buffer

DIRECT_MIN_BYTES = 256 * 1024
"""Objects that wait for no disk go around the page cache from this size on: copying into it would cost more."""

ZERO_STEP_BYTES = 256 * 1024
"""How much is zeroed while an append waits."""


class Sync(Enum):
    """What an append waits for."""

    DISK = "disk"
    PROCESS = "process"


class Slab:
    """An open slab file. Appends are serialised by the owner; `prewrite` may run beside them."""

    def __init__(self, path: Path, number: int, capacity: int, sync: Sync) -> None:
        self.path = path
        self.number = number
        self.capacity = capacity
        self.position = 0
        """Where the next object goes."""
        self.live: dict[int, int] = {}
        """Offset → length of the objects that somebody still needs."""
        self._sync = sync
        self._growing = threading.Lock()
        self._direct: int | None = None
        self._plain: int | None = None
        self.written = aligned(path.stat().st_size) if path.exists() else 0

    @property
    def key(self) -> str:
        """The name that locations carry."""
        return self.path.name

    def open(self) -> None:
        """Get ready for appends."""
        durable = os.O_DSYNC if self._sync is Sync.DISK else 0
        flags = os.O_RDWR | os.O_CREAT | durable
        self._plain = os.open(self.path, flags, 0o644)
        self._direct = open_direct(self.path, flags)

    def seal(self) -> None:
        """No more appends: give the descriptors back."""
        for fd in (self._direct, self._plain):
            if fd is not None:
                os.close(fd)
        self._direct = self._plain = None

    def fits(self, length: int) -> bool:
        """Whether an object of that length has room."""
        return self.position + aligned(length) <= self.capacity

    def append(self, body: Sequence[Buffer], length: int, staging: Staging) -> int:
        """Write an object and return its offset. After a failure its space is as free as before."""
        offset, end = self.position, self.position + aligned(length)
        if self._sync is Sync.DISK and end > self.written:
            with self._growing:
                self._write(body, length, offset, staging)
                self.written = max(self.written, end)
        else:
            self._write(body, length, offset, staging)
        self.position = end
        self.live[offset] = length
        return offset

    def _write(self, body: Sequence[Buffer], length: int, offset: int, staging: Staging) -> None:
        assert self._plain is not None
        if self._direct is None or (self._sync is Sync.PROCESS and length < DIRECT_MIN_BYTES):
            write_fully(self._plain, body, offset)
        elif len(body) == 1 and is_aligned(body[0]):
            write_fully(self._direct, body, offset)
        else:
            staging.write(self._direct, body, offset)

    def prewrite(self, ahead_bytes: int) -> None:
        """Write zeros until that many bytes after the next object's place have been written once."""
        # Not through the appends' descriptor: each step would wait for the device.
        fd = open_direct(self.path, os.O_RDWR)
        if fd is None:
            fd = os.open(self.path, os.O_RDWR)
        try:
            with memoryview(_zeros()) as zeros:
                while self._prewrite_step(fd, zeros, ahead_bytes):
                    pass
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def _prewrite_step(self, fd: int, zeros: memoryview, ahead_bytes: int) -> bool:
        with self._growing:
            target = min(self.capacity, self.position + ahead_bytes)
            count = min(len(zeros), target - self.written)
            if count <= 0:
                return False
            write_fully(fd, [zeros[:count]], self.written)
            self.written += count
            return True


_ZEROS: list[mmap.mmap] = []


def _zeros() -> mmap.mmap:
    if not _ZEROS:
        _ZEROS.append(mmap.mmap(-1, ZERO_STEP_BYTES))
    return _ZEROS[0]
