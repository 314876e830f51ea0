"""A bounded table of open files, for reads of many files by several threads.

A file is opened when it is first read, and closed when many others were read since and it is not in use. Opening
happens outside the lock; the loser of a race closes its own descriptor.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Entry:
    __slots__ = ("dropped", "fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.dropped = False


class DescriptorTable:
    """Read descriptors by path, least recently used evicted first."""

    def __init__(self, limit: int = 64, flags: int = os.O_RDONLY) -> None:
        self._limit = limit
        self._flags = flags
        self._lock = threading.Lock()
        self._entries: OrderedDict[Path, _Entry] = OrderedDict()

    @contextmanager
    def reading(self, path: Path) -> Iterator[int]:
        """A descriptor of the file that stays open until the end of the block. Raises what `open` raises."""
        entry = self._acquire(path)
        try:
            yield entry.fd
        finally:
            self._release(entry)

    @contextmanager
    def reading_if_open(self, path: Path) -> Iterator[int | None]:
        """The same for a file that is open already; None if it is not. Does not block."""
        entry = self._use_open(path)
        if entry is None:
            yield None
            return
        try:
            yield entry.fd
        finally:
            self._release(entry)

    def duplicate(self, path: Path) -> int | None:
        """Another descriptor of an open file, owned by the caller. Does not block; None if the file is not open."""
        with self._lock:
            entry = self._entries.get(path)
            if entry is None:
                return None
            self._entries.move_to_end(path)
            return os.dup(entry.fd)

    def discard(self, path: Path) -> None:
        """Forget a file that was removed or renamed."""
        with self._lock:
            entry = self._entries.pop(path, None)
            if entry is not None:
                self._drop(entry)

    def close(self) -> None:
        """Close everything not in use; the rest when its reader is done."""
        with self._lock:
            for entry in self._entries.values():
                self._drop(entry)
            self._entries.clear()

    def _use_open(self, path: Path) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(path)
            if entry is not None:
                self._entries.move_to_end(path)
                entry.users += 1
            return entry

    def _acquire(self, path: Path) -> _Entry:
        open_entry = self._use_open(path)
        if open_entry is not None:
            return open_entry
        fd = os.open(path, self._flags)
        with self._lock:
            entry = self._entries.get(path)
            if entry is None:
                entry = self._entries[path] = _Entry(fd)
                self._evict()
            else:
                os.close(fd)
            entry.users += 1
            return entry

    def _release(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            if entry.dropped and entry.users == 0:
                os.close(entry.fd)

    def _evict(self) -> None:
        while len(self._entries) > self._limit:
            _, entry = self._entries.popitem(last=False)
            self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        entry.dropped = True
        if entry.users == 0:
            os.close(entry.fd)
