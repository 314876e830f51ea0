"""Direct and vectored file I/O, allocation, and fsync.

Direct I/O bypasses the page cache, which costs 2-3 ms of CPU per MiB of fresh pages in a virtual machine. It requires
memory, file offset and length in whole blocks; 4 KiB satisfies every device. Unaligned bytes are copied through a
staging buffer. Where a file system refuses `O_DIRECT` (tmpfs, some network file systems) files are opened without it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from penstock.base.errors import Unavailable
from penstock.storage.arena import ALIGNMENT, aligned
from penstock.storage.wal import Buffer

STAGING_BYTES = 8 * 1024 * 1024
_VECTORS = 512
"""Buffers per call; the kernel's limit is 1,024."""

O_DIRECT = getattr(os, "O_DIRECT", 0)
"""0 on systems that have no such flag."""


def open_direct(path: Path, flags: int) -> int | None:
    """A descriptor that bypasses the page cache, or None where the file system refuses."""
    if not O_DIRECT:
        return None
    try:
        return os.open(path, flags | O_DIRECT, 0o644)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
            return None
        raise


def is_aligned(buffer: Buffer) -> bool:
    """Whether direct I/O can use the buffer without copying."""
    if not isinstance(buffer, memoryview) or buffer.readonly or buffer.nbytes % ALIGNMENT or not buffer.nbytes:
        return False
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    return address % ALIGNMENT == 0


def size_of(body: Sequence[Buffer]) -> int:
    """Bytes in a body."""
    return sum(memoryview(part).nbytes for part in body)


def write_fully(fd: int, body: Sequence[Buffer], offset: int) -> None:
    """Write every byte at an offset; continue after short writes."""
    if len(body) == 1:
        _write_one(fd, memoryview(body[0]), offset)
        return
    for start in range(0, len(body), _VECTORS):
        vectors = body[start : start + _VECTORS]
        wanted = size_of(vectors)
        written = os.pwritev(fd, vectors, offset)
        if written < wanted:
            _write_one(fd, memoryview(b"".join(vectors))[written:], offset + written)
        offset += wanted


def _write_one(fd: int, view: memoryview, offset: int) -> None:
    while True:
        written = os.pwrite(fd, view, offset)
        if written == view.nbytes:
            return
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written


def read_fully(fd: int, start: int, buffer: memoryview) -> bool:
    """Fill a buffer from a file offset; False where the file ends before."""
    while buffer.nbytes:
        count = os.preadv(fd, [buffer], start)
        if count == 0:
            return False
        buffer, start = buffer[count:], start + count
    return True


class Staging:
    """Aligned memory through which unaligned bytes are written to a direct descriptor. One user at a time."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._lock = threading.Lock()

    def write(self, fd: int, body: Sequence[Buffer], offset: int) -> None:
        """Write a body, padded with zeros to whole blocks."""
        with self._lock:
            if self._map is None:
                self._map = mmap.mmap(-1, STAGING_BYTES)
            with memoryview(self._map) as staging:
                used = 0
                for part in body:
                    view = memoryview(part).cast("B")
                    while view.nbytes:
                        count = min(view.nbytes, STAGING_BYTES - used)
                        staging[used : used + count] = view[:count]
                        used, view = used + count, view[count:]
                        if used == STAGING_BYTES:
                            write_fully(fd, [staging], offset)
                            offset, used = offset + used, 0
                if used:
                    end = aligned(used)
                    staging[used:end] = bytes(end - used)
                    with staging[:end] as filled:
                        write_fully(fd, [filled], offset)


def allocates_cheaply(directory: Path) -> bool:
    """Whether allocating a file is fast: on a block device, not in memory or over a network."""
    return sys.platform == "linux" and os.major(directory.stat().st_dev) != 0


def allocate(fd: int, start: int, size_bytes: int) -> None:
    """Allocate blocks for a range of a file, which grows to include it."""
    os.posix_fallocate(fd, start, size_bytes)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_full(error: OSError) -> bool:
    """Whether there was no space left, on the disk or within a quota or limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unavailable(error: OSError, doing: str, path: Path) -> Unavailable:
    """The error of a write that changed nothing, with a message for the operator."""
    if is_full(error):
        return Unavailable(f"the disk that holds {path} is full: free some space or shorten the retention of topics")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Unavailable(f"too many open files while {doing} {path}: raise the limit (ulimit -n)")
    return Unavailable(f"{doing} {path} failed: {error.strerror}")
