"""Garbage collection: deleting objects whose last segment was removed, and orphans that nothing ever named.

An object dies when no segment names it any more. Readers that looked up a segment before that may still be reading, so
its bytes are kept for a grace period. The bytes are deleted first and the row after them; what a crash leaves in
between is deleted again, which is harmless.

An orphan is an object whose writer never named it: it crashed, or its segments had changed. The sweep lists the store,
which is expensive, so it runs at start and then rarely. It takes an object for an orphan only if it is old, no writer
in this process has it registered, and no row names it, checked in this order: a writer that deregistered before the
check has named it by then, or never will.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence

from penstock.log import segment_store
from penstock.log.upkeep.rewriting import SegmentChanges
from penstock.log.upkeep.uploads import object_id_of
from penstock.storage.object_store import ObjectInfo

GRACE_MS = 60_000
"""How long the bytes of dead objects are kept, and how old an object must be to be taken for an orphan."""
SWEEP_INTERVAL_MS = 6 * 3_600_000
DEAD_AT_ONCE = 64
LISTED_AT_ONCE = 500
_log = logging.getLogger(__name__)


class DeadObjects:
    """The chore that deletes objects a grace period after they died."""

    name = "dead objects"

    def __init__(self, changes: SegmentChanges, *, grace_ms: int = GRACE_MS) -> None:
        self._changes, self._grace_ms = changes, grace_ms
        self.deleted_objects = 0

    async def run(self) -> float | None:
        """Delete some, or wait until the next one is due."""
        changes = self._changes
        due_ms = changes.clock.now_ms() - self._grace_ms
        dead = await changes.database.read(lambda: segment_store.dead_objects(due_ms, DEAD_AT_ONCE))
        if dead:
            await changes.in_thread(lambda: changes.objects.delete([key for _, key in dead]))
            object_ids = [object_id for object_id, _ in dead]
            await changes.database.transaction(lambda: segment_store.forget_objects(object_ids), background=True)
            self.deleted_objects += len(dead)
            return 0.0
        next_ms = await changes.database.read(lambda: segment_store.next_death(due_ms))
        return None if next_ms is None else max(0, next_ms - due_ms + 1) / 1000


class Orphans:
    """The chore that deletes objects no row names."""

    name = "orphan sweep"

    def __init__(
        self, changes: SegmentChanges, *, grace_ms: int = GRACE_MS, interval_ms: int = SWEEP_INTERVAL_MS
    ) -> None:
        self._changes, self._grace_ms, self._interval_ms = changes, grace_ms, interval_ms
        self._listing: Iterator[ObjectInfo] | None = None
        self._next_sweep_at = changes.clock.monotonic()
        self._young_ms = 0
        """When the youngest unnamed object seen by this sweep will be old enough, or 0."""
        self.deleted_objects = 0

    async def run(self) -> float | None:
        """Check some objects of the listing."""
        changes, now = self._changes, self._changes.clock.monotonic()
        if self._listing is None:
            if now < self._next_sweep_at:
                return self._next_sweep_at - now
            self._listing, self._young_ms = changes.objects.list(""), 0
        listing = self._listing
        try:
            page = await changes.in_thread(lambda: list(itertools.islice(listing, LISTED_AT_ONCE)))
            await self._sweep(page)
        except BaseException:
            self._listing = None
            raise
        if len(page) == LISTED_AT_ONCE:
            return 0.0
        return self._ended()

    def _ended(self) -> float:
        delay_ms = self._interval_ms
        if self._young_ms:
            delay_ms = min(delay_ms, max(1, self._young_ms - self._changes.clock.now_ms()))
        self._listing = None
        self._next_sweep_at = self._changes.clock.monotonic() + delay_ms / 1000
        return delay_ms / 1000

    async def _sweep(self, page: Sequence[ObjectInfo]) -> None:
        changes = self._changes
        suspects = {}
        for info in page:
            object_id = object_id_of(info.key)
            if object_id is not None and object_id not in changes.uploads:
                suspects[object_id] = info
        if not suspects:
            return
        object_ids = list(suspects)
        named = await changes.database.read(lambda: segment_store.named_objects(object_ids))
        orphans, old_ms = [], changes.clock.now_ms() - self._grace_ms
        for object_id, info in suspects.items():
            if object_id in named:
                continue
            if info.modified_ms < old_ms:
                orphans.append(info.key)
            else:
                self._young_ms = max(self._young_ms, info.modified_ms + self._grace_ms + 1)
        if orphans:
            await changes.in_thread(lambda: changes.objects.delete(orphans))
            self.deleted_objects += len(orphans)
            _log.info("deleted %d unreferenced objects", len(orphans))
