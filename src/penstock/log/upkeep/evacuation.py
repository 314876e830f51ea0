"""Evacuation: freeing the space of objects that are mostly dead.

An object dies with its last segment. Objects contain segments of many partitions, some removed early (by retention,
trimming, key compaction) and some kept for long: a few live bytes would keep many dead ones. So the live segments of a
mostly dead object are copied into a new one, and the old one becomes garbage. At least three times as much is freed as
is copied.

Often the rest of an object expires soon anyway. Therefore an object is evacuated only if it was found mostly dead
twice, an interval apart. Objects are scanned only after segments were removed.
"""

from __future__ import annotations

from penstock.base.errors import CorruptData, InvalidRequest
from penstock.log import segment_store
from penstock.log.registry import Registry
from penstock.log.segments import ref_of
from penstock.log.upkeep.rewriting import Part, Rewrite, SegmentChanges
from penstock.log.upkeep.segment_reader import SegmentUnavailable

INTERVAL_MS = 600_000
OBJECTS_AT_ONCE = 100
SEGMENTS_AT_ONCE = 200
LIVE_SHARE = 4
"""An object is mostly dead when less than one in so many of its bytes is live."""
MIN_FREED_BYTES = 1024 * 1024


class Evacuation:
    """The chore that evacuates objects."""

    name = "evacuation"

    def __init__(
        self, changes: SegmentChanges, registry: Registry, *, interval_ms: int = INTERVAL_MS,
        min_freed_bytes: int = MIN_FREED_BYTES,
    ) -> None:  # fmt: skip
        self._changes, self._registry, self._interval_s = changes, registry, interval_ms / 1000
        self._min_freed_bytes = min_freed_bytes
        self._next_scan_at = changes.clock.monotonic() + self._interval_s
        self._removed = True
        """Whether segments were removed since the last scan began. Unknown at start, so True."""
        self._cursor: bytes | None = None
        """The last object that this scan has looked at; None between scans."""
        self._found: set[bytes] = set()
        self._found_before: set[bytes] = set()
        self._damaged: set[bytes] = set()
        self._rewrite: Rewrite | None = None
        self._source = b""
        self.moves = 0
        self.copied_bytes = 0

    def removed(self) -> bool:
        """Segments were removed; returns whether the chore is idle and must be woken."""
        is_news, self._removed = not self._removed, True
        return is_news

    async def run(self) -> float | None:
        """Continue with an object, or scan for the next one."""
        if self._rewrite is not None:
            await self._continue(self._rewrite)
            return 0.0
        if self._cursor is None:
            if not self._removed and not self._found_before:
                return None
            wait_s = self._next_scan_at - self._changes.clock.monotonic()
            if wait_s > 0:
                return wait_s
            self._cursor, self._removed, self._found = b"", False, set()
        if await self._scan(self._cursor):
            return 0.0
        self._cursor, self._found_before = None, self._found
        self._next_scan_at = self._changes.clock.monotonic() + self._interval_s
        return self._interval_s if self._removed or self._found_before else None

    def close(self) -> None:
        """Abort work in progress."""
        if self._rewrite is not None:
            for part in self._rewrite.parts:
                self._changes.rewriting.discard(part.partition.partition_id)
            self._rewrite.abort()
            self._rewrite = None

    async def _scan(self, cursor: bytes) -> bool:
        """Scan the next objects, up to one to evacuate; False at the end."""
        rows = await self._changes.database.read(lambda: segment_store.live_bytes(cursor, OBJECTS_AT_ONCE))
        for object_id, size_bytes, live_bytes in rows:
            mostly_dead = live_bytes * LIVE_SHARE < size_bytes and size_bytes - live_bytes >= self._min_freed_bytes
            if mostly_dead and object_id not in self._damaged:
                if object_id in self._found_before and await self._begin(object_id):
                    # Scanned again after this: it may have more segments than are copied at once.
                    return True
                self._found.add(object_id)
            self._cursor = object_id
        return len(rows) == OBJECTS_AT_ONCE

    async def _begin(self, object_id: bytes) -> bool:
        """Start evacuating an object; False if none of its segments can be moved now."""
        rows = await self._changes.database.read(lambda: segment_store.segments_in(object_id, SEGMENTS_AT_ONCE))
        rewriting = self._changes.rewriting
        parts = [
            Part(partition, [ref])
            for ref in map(ref_of, rows)
            if ref.partition_id not in rewriting
            and (partition := self._registry.partition(ref.partition_id))
            and not self._changes.is_locked(partition)
            and await self._changes.can_open(partition, (ref,))
        ]
        if parts:
            rewriting.update(part.partition.partition_id for part in parts)
            self._rewrite, self._source = Rewrite(self._changes, parts, None), object_id
        return bool(parts)

    async def _continue(self, rewrite: Rewrite) -> None:
        try:
            await rewrite.step()
        except (CorruptData, InvalidRequest):
            self._damaged.add(self._source)
            self.close()
            raise
        except SegmentUnavailable:
            # The next scan comes back to it; this one continues after it.
            self._found.add(self._source)
            self._cursor = self._source
            self.close()
            raise
        except BaseException:
            self.close()
            raise
        if rewrite.is_done:
            self.close()
            if not rewrite.conflicted:
                self.moves += 1
                self.copied_bytes += rewrite.written_bytes
