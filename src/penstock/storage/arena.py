"""Recycled, page-aligned memory for bytes on their way through: received frames, WAL objects, the tail, cold reads.

Fresh pages are the dearest thing on the hot path: the kernel zeroes each one, 2-3 ms of CPU per MiB in a virtual
machine, several times what everything else costs together. So bytes are put into chunks that are used again and
again, and that direct I/O accepts (4 KiB aligned).

A chunk is used again only when nobody looks at it any more. Nobody counts references for that: Python does. Every
memoryview of a chunk, and every slice of one, is an export of its `mmap`, and `mmap.resize` refuses while there are
exports. Resizing to the same size is a cheap way to ask. A response that a slow client has not taken yet therefore
keeps its bytes valid by merely existing. While old chunks are held (by a compaction, say), an arena exceeds its budget
by up to a quarter rather than give up what is new.

Chunks are filled in order and used again in order, oldest first, which makes an arena the tail cache as well: the
owner is told when a chunk's bytes are about to go. Memory is touched only when written, so a large reservation
costs nothing until bytes arrive. What an owner remembers about a piece costs memory too, which is nowhere else counted:
a chunk of very many small pieces is full before its bytes are.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from typing import Any

ALIGNMENT = 4096
CHUNK_BYTES = 8 * 1024 * 1024
TENANT_BYTES = 1024
"""A chunk has at most one tenant for so many of its bytes: what is remembered of each takes half as many."""


def aligned(size_bytes: int) -> int:
    """Round up to whole pages."""
    return (size_bytes + ALIGNMENT - 1) & -ALIGNMENT


class Chunk:
    """A piece of anonymous memory, handed out from its beginning to its end."""

    __slots__ = ("base", "map", "size_bytes", "tenants", "used_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.map = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.base: memoryview | None = memoryview(self.map)
        self.used_bytes = 0
        self.tenants: list[Any] = []
        """Whatever the owner wants to be told about when the chunk is recycled."""

    def released(self) -> bool:
        """Whether nobody looks at the chunk's bytes any more. Drops the chunk's own view; `reopen` takes it again."""
        if self.base is not None:
            self.base.release()
            self.base = None
        try:
            self.map.resize(self.size_bytes)
        except BufferError:
            return False
        return True

    def reopen(self) -> None:
        """Start handing out from the beginning again."""
        self.base = memoryview(self.map)
        self.used_bytes = 0


class Arena:
    """Chunks under one budget. Not thread-safe: one loop owns it, other threads only look at what they were given."""

    def __init__(
        self,
        budget_bytes: int,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        on_recycle: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._slack_bytes = budget_bytes // 4
        self._chunk_bytes = min(chunk_bytes, max(ALIGNMENT, budget_bytes))
        self._tenants_max = self._chunk_bytes // TENANT_BYTES
        self._on_recycle = on_recycle
        self._chunks: deque[Chunk] = deque()
        self._current: Chunk | None = None
        self.size_bytes = 0
        """Memory held, including chunks that are only waiting for their last reader."""

    def reserve(self, size_bytes: int) -> tuple[memoryview, Chunk]:
        """Writable memory of that size, page-aligned, and the chunk it lies in."""
        current = self._current
        if (
            current is None
            or current.base is None
            or current.used_bytes + size_bytes > current.size_bytes
            or len(current.tenants) >= self._tenants_max
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
        """Give back what is over the budget and what nobody looks at: memory that one large frame took, say."""
        if self.size_bytes > self._budget_bytes:
            self._evict_until(self._budget_bytes)

    def drop(self) -> None:
        """Give back all memory that nobody looks at."""
        self._evict_until(0)
        self._current = None

    def _next(self, size_bytes: int) -> Chunk:
        wanted = max(self._chunk_bytes, aligned(size_bytes))
        chunk = self._evict_until(self._budget_bytes - wanted, wanted)
        if chunk is None:
            chunk = Chunk(wanted)
            self.size_bytes += wanted
        self._chunks.append(chunk)
        return chunk

    def _evict_until(self, target_bytes: int, wanted_bytes: int = 0) -> Chunk | None:
        """Empty the oldest chunks until only `target_bytes` are held; return one of the wanted size for reuse."""
        pinned: list[Chunk] = []
        found: Chunk | None = None
        while self._chunks and found is None and self.size_bytes > target_bytes:
            chunk = self._chunks.popleft()
            was_let = bool(chunk.tenants)
            if was_let:
                # Emptied in place: who has reserved a piece adds its tenants to this list when they are known.
                tenants = chunk.tenants.copy()
                chunk.tenants.clear()
                if self._on_recycle is not None:
                    self._on_recycle(tenants)
                del tenants
            if not chunk.released():
                pinned.append(chunk)
                if was_let and wanted_bytes and self.size_bytes <= self._budget_bytes + self._slack_bytes:
                    break  # Better some memory more for a while than the newest bytes for the sake of the oldest.
            elif chunk.size_bytes == wanted_bytes:
                chunk.reopen()
                found = chunk
            else:
                self.size_bytes -= chunk.size_bytes
                chunk.map.close()
        self._chunks.extendleft(reversed(pinned))
        return found
