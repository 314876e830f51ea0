"""Arenas: recycled, page-aligned memory for received frames, WAL objects, the tail, and cold reads.

Fresh pages are the most expensive thing on the hot path: the kernel zeroes each one, 2-3 ms of CPU per MiB in a virtual
machine, several times the cost of everything else. So bytes are put into chunks that are reused, and that direct I/O
accepts (4 KiB aligned).

A chunk is reused only when nothing refers to its bytes any more. Python does the reference counting: every memoryview
of a chunk, and every slice of one, is an export of its `mmap`, and `mmap.resize` fails while there are exports.
Resizing to the same size is a cheap test. So a response that a slow client has not read yet keeps its bytes valid by
merely existing. While old chunks are held (by a compaction, say), an arena exceeds its budget by up to a quarter rather
than evict what is new.

Chunks are filled in order and reused in order, oldest first, which makes an arena the tail cache as well: the owner is
notified before a chunk's bytes are overwritten. Memory is touched only when written, so a large reservation costs
nothing until bytes arrive. What an owner remembers about each piece takes memory that is not counted elsewhere: a chunk
of very many small pieces is full before its bytes are.

Where direct I/O is to read or write the memory, it consists of huge pages if the system has them: a disk can then take
up to 2 MiB as one request, where each page of 4 KiB may lie elsewhere and need one of its own. That is not for memory
of which only a small part may be touched, as of requests that announce more than they bring.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from collections.abc import Callable
from typing import Any

ALIGNMENT = 4096
CHUNK_BYTES = 8 * 1024 * 1024
HUGE_PAGE_BYTES = 2 * 1024 * 1024
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)
"""None on systems that have no such advice."""
OCCUPANT_BYTES = 1024
"""A chunk has at most one occupant for so many of its bytes: what is remembered of each takes half as many."""


def aligned(size_bytes: int) -> int:
    """Round up to whole pages."""
    return (size_bytes + ALIGNMENT - 1) & -ALIGNMENT


def huge_pages(size_bytes: int) -> mmap.mmap:
    """Anonymous memory, of huge pages if it is as large as one and the system has them."""
    return _anonymous(size_bytes, huge=True)


def _anonymous(size_bytes: int, *, huge: bool) -> mmap.mmap:
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge and _HUGE is not None:
        with contextlib.suppress(OSError):  # A kernel without them.
            memory.madvise(_HUGE)
    return memory


class Chunk:
    """A piece of anonymous memory, allocated from its beginning to its end."""

    __slots__ = ("base", "map", "occupants", "size_bytes", "used_bytes")

    def __init__(self, size_bytes: int, *, huge: bool = False) -> None:
        self.size_bytes = size_bytes
        self.map = _anonymous(size_bytes, huge=huge)
        self.base: memoryview | None = memoryview(self.map)
        self.used_bytes = 0
        self.occupants: list[Any] = []
        """The owner's objects to notify about when the chunk is recycled."""

    def released(self) -> bool:
        """Whether nothing refers to the chunk's bytes any more. Drops the chunk's own view; `reopen` creates it
        again."""
        if self.base is not None:
            self.base.release()
            self.base = None
        try:
            self.map.resize(self.size_bytes)
        except BufferError:
            return False
        return True

    def reopen(self) -> None:
        """Start allocating from the beginning again."""
        self.base = memoryview(self.map)
        self.used_bytes = 0


class Arena:
    """Chunks within one budget. Not thread-safe: one event loop owns it, other threads only use views they were
    given."""

    def __init__(
        self,
        budget_bytes: int,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        huge: bool = False,
        on_recycle: Callable[[list[Any]], None] | None = None,
    ) -> None:
        """`huge`: of huge pages, where the system has them."""
        self._budget_bytes, self._huge = budget_bytes, huge
        self._slack_bytes = budget_bytes // 4
        self._chunk_bytes = min(chunk_bytes, max(ALIGNMENT, budget_bytes))
        self._occupants_max = self._chunk_bytes // OCCUPANT_BYTES
        self._on_recycle = on_recycle
        self._chunks: deque[Chunk] = deque()
        self._current: Chunk | None = None
        self.size_bytes = 0
        """Memory held, including chunks that wait for their last reader."""

    def reserve(self, size_bytes: int) -> tuple[memoryview, Chunk]:
        """Writable memory of that size, page-aligned, and its chunk."""
        current = self._current
        if (
            current is None
            or current.base is None
            or current.used_bytes + size_bytes > current.size_bytes
            or len(current.occupants) >= self._occupants_max
        ):
            current = self._current = self._next(size_bytes)
        start = current.used_bytes
        current.used_bytes = start + aligned(size_bytes)
        assert current.base is not None
        return current.base[start : start + size_bytes], current

    @property
    def pinned_bytes(self) -> int:
        """How far the arena is over its budget because of readers that have not finished."""
        return max(0, self.size_bytes - self._budget_bytes)

    def trim(self) -> None:
        """Release memory over the budget that nothing refers to, after one very large frame for example."""
        if self.size_bytes > self._budget_bytes:
            self._evict_until(self._budget_bytes)

    def drop(self) -> None:
        """Release all memory that nothing refers to."""
        self._evict_until(0)
        self._current = None

    def _next(self, size_bytes: int) -> Chunk:
        wanted = max(self._chunk_bytes, aligned(size_bytes))
        chunk = self._evict_until(self._budget_bytes - wanted, wanted)
        if chunk is None:
            chunk = Chunk(wanted, huge=self._huge)
            self.size_bytes += wanted
        self._chunks.append(chunk)
        return chunk

    def _evict_until(self, target_bytes: int, wanted_bytes: int = 0) -> Chunk | None:
        """Recycle the oldest chunks until only `target_bytes` are held; return one of the wanted size for reuse."""
        pinned: list[Chunk] = []
        found: Chunk | None = None
        while self._chunks and found is None and self.size_bytes > target_bytes:
            chunk = self._chunks.popleft()
            was_let = bool(chunk.occupants)
            if was_let:
                # Emptied in place: the owner of a reserved piece adds its occupants to this list later.
                occupants = chunk.occupants.copy()
                chunk.occupants.clear()
                if self._on_recycle is not None:
                    self._on_recycle(occupants)
                del occupants
            if not chunk.released():
                pinned.append(chunk)
                if was_let and wanted_bytes and self.size_bytes <= self._budget_bytes + self._slack_bytes:
                    break  # Exceed the budget for a while rather than evict the newest bytes.
            elif chunk.size_bytes == wanted_bytes:
                chunk.reopen()
                found = chunk
            else:
                self.size_bytes -= chunk.size_bytes
                chunk.map.close()
        self._chunks.extendleft(reversed(pinned))
        return found
