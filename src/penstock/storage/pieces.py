"""Ranges of files on their way to a socket, which never pass through this process's memory (`sendfile`).

The kernel sends them from its page cache. That is the cheapest way to serve an old segment repeatedly, and blocks the
event loop when the bytes are not in the cache; so that is tested first (`page_cache`). Where it cannot be tested
nothing counts as cached, and files are read into memory by worker threads.

The pieces of a file share a descriptor, so their bytes stay valid when the file is deleted meanwhile. It is closed when
nothing refers to any of them any more; as with `arena`, Python does the reference counting. How many files may be open
like this is bounded: a client that takes nothing must not use up the descriptors of the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import

if TYPE_CHECKING:
    from penstock.storage import page_cache
else:  # Of those who have files that were asked for.
    page_cache = lazy_import("penstock.storage.page_cache")

PIECE_MIN_BYTES = 64 * 1024
"""Shorter ranges are read into memory: a piece costs some system calls of its own."""


class Descriptor:
    """A file descriptor that is closed with the last piece that uses it."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)


class FilePiece:
    """A range of an open file. It has a length as buffers have, and `rest` instead of slices."""

    __slots__ = ("_descriptor", "_length", "_start", "prefetches", "seen_cached_at")

    def __init__(self, descriptor: Descriptor, start: int, length: int, seen_cached_at: float | None = None) -> None:
        self._descriptor, self._start, self._length = descriptor, start, length
        self.prefetches = 0
        """How often the kernel was asked to read it ahead."""
        self.seen_cached_at = seen_cached_at
        """When all of it was seen in the page cache, by the sender's clock; None if it has to be tested."""

    @classmethod
    def of(cls, fd: int, start: int, length: int) -> FilePiece:
        """A piece of a file; takes ownership of the descriptor."""
        return cls(Descriptor(fd), start, length)

    def __len__(self) -> int:
        return self._length

    def rest(self, sent: int) -> FilePiece:
        """What remains after so many bytes were sent."""
        return FilePiece(self._descriptor, self._start + sent, self._length - sent, self.seen_cached_at)

    def is_cached(self) -> bool:
        """Whether all of it is most likely in the page cache."""
        return page_cache.is_cached(self._descriptor.fd, self._start, self._length)

    def prefetch(self) -> None:
        """Start readahead (posix_fadvise)."""
        self.prefetches += 1
        os.posix_fadvise(self._descriptor.fd, self._start, self._length, os.POSIX_FADV_WILLNEED)

    def send_to(self, socket_fd: int) -> int:
        """Send as much as the socket takes; how much that was. Raises `BlockingIOError` when it takes nothing."""
        sent = os.sendfile(socket_fd, self._descriptor.fd, self._start, self._length)
        if not sent:
            raise OSError(errno.EIO, "a file is shorter than it was")
        return sent

    def load(self) -> bytes:
        """The bytes, for callers that have to look at them."""
        found = os.pread(self._descriptor.fd, self._length, self._start)
        if len(found) < self._length:
            raise OSError(errno.EIO, "a file is shorter than it was")
        return found
