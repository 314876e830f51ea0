"""One slab: a file of fixed size that is filled with objects from beginning to end.

A slab tracks three things. `position` is where the next object goes. `written_bytes` is how far its blocks have been
written at least once: the first write to a block that is only allocated changes the file system's extent map, and a
durable write then waits for its journal as well. And `starts` marks the pages where live objects begin, a byte each, so
that releasing an object twice is harmless and needs no table of objects.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from penstock.storage.arena import ALIGNMENT, aligned
from penstock.storage.disk import Staging, allocate, is_aligned, open_direct, write_fully
from penstock.storage.wal import Buffer

DIRECT_MIN_BYTES = 256 * 1024
"""Without fsync, the page cache is faster below this size and slower above."""
_PADDING = bytes(ALIGNMENT)


class SlabWriter:
    """The descriptors that one slab is written through."""

    def __init__(self, path: Path, *, durable: bool, direct_io: bool, staging: Staging) -> None:
        flags = os.O_WRONLY | (os.O_DSYNC if durable else 0)
        self._direct_min_bytes = 0 if durable else DIRECT_MIN_BYTES
        self._staging = staging
        self._plain = os.open(path, flags)
        try:
            self._direct = open_direct(path, flags) if direct_io else None
        except OSError:
            os.close(self._plain)
            raise

    def write(self, body: Sequence[Buffer], size_bytes: int, offset: int) -> None:
        """Write an object and pad its last page."""
        if self._direct is not None and size_bytes >= self._direct_min_bytes:
            try:
                self._write_direct(self._direct, body, offset)
            except OSError as error:
                # Some file systems accept the flag and then fail the write.
                if error.errno != errno.EINVAL:
                    raise
                os.close(self._direct)
                self._direct = None
            else:
                return
        padding = aligned(size_bytes) - size_bytes
        # Whole pages, so that the kernel never has to read the rest of a page before it can change part of it.
        write_fully(self._plain, [*body, _PADDING[:padding]] if padding else body, offset)

    def direct_for(self, size_bytes: int) -> int | None:
        """The descriptor for so many aligned bytes, if they bypass the page cache."""
        return self._direct if size_bytes >= self._direct_min_bytes else None

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self._plain)
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _write_direct(self, descriptor: int, body: Sequence[Buffer], offset: int) -> None:
        if len(body) == 1 and is_aligned(body[0]):
            write_fully(descriptor, body, offset)
        else:
            self._staging.write(descriptor, body, offset)


class Slab:
    """The state of one slab. Everything here is changed under the owner's lock."""

    __slots__ = (
        "is_shared", "live_objects", "path", "position", "sealed", "size_bytes", "starts", "writer", "written_bytes",
        "zero_goal",
    )  # fmt: skip

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.position = 0
        self.written_bytes = 0
        self.zero_goal = 0
        self.sealed = False
        self.is_shared = False
        """Whether the file may be shared with the object store: then it is never written again."""
        self.writer: SlabWriter | None = None
        self.starts = bytearray(size_bytes // ALIGNMENT)
        self.live_objects = 0

    @property
    def key(self) -> str:
        """The file's name. A recycled file gets a new name, so a key never means two things."""
        return self.path.name

    @property
    def has_room(self) -> bool:
        """Whether there are objects in it, and room for more."""
        return 0 < self.position < self.size_bytes

    def mark(self, offset: int) -> None:
        """An object begins here."""
        if not self.starts[offset // ALIGNMENT]:
            self.starts[offset // ALIGNMENT] = 1
            self.live_objects += 1

    def unmark(self, offset: int) -> bool:
        """The object that begins here is no longer needed. False if there is none."""
        page, rest = divmod(offset, ALIGNMENT)
        if rest or page >= len(self.starts) or not self.starts[page]:
            return False
        self.starts[page] = 0
        self.live_objects -= 1
        return True

    def seal(self) -> None:
        """Write nothing more here until the slab is recycled."""
        self.sealed = True
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def recycle(self, path: Path) -> None:
        """Start again under another name; which blocks were written before is kept."""
        self.path = path
        self.position = self.zero_goal = 0
        self.sealed = False


def create_file(path: Path, size_bytes: int, *, sparse: bool) -> None:
    """Create a file of this size, with its blocks allocated unless `sparse`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        if sparse:
            os.ftruncate(descriptor, size_bytes)
        else:
            allocate(descriptor, 0, size_bytes)
    finally:
        os.close(descriptor)


def written_extent(path: Path) -> int:
    """How far a file's blocks were written: up to its first hole or its first unwritten extent."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
