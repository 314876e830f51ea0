"""Removing segments that cannot be read any more: below log starts, and of deleted topics.

A moved log start or a deleted topic is durable before this; readers cannot get there. These chores only remove the
rows, a bounded number in each step, and with an object's last row the object becomes garbage.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock.base.errors import OutcomeUnknown
from penstock.log import segment_store
from penstock.log.model import Partition
from penstock.log.registry import Registry
from penstock.log.upkeep.rewriting import SegmentChanges

PassFlush = Callable[[], Awaitable[None]]
SEGMENTS_AT_ONCE = 100
PARTITIONS_AT_ONCE = 64


class Trimming:
    """Removes segments that end below their partition's log start. At start it checks every partition once.

    It also resolves changes whose outcome is unknown.
    """

    name = "trimming"

    def __init__(self, changes: SegmentChanges, registry: Registry, *, wake: Callable[[], None]) -> None:
        self._changes, self._wake = changes, wake
        self._unseen = [partition for partition in registry.partitions() if partition.log_start > 0]
        """Partitions that may have been trimmed in an earlier run."""
        self._trimmed: dict[Partition, None] = {}
        self.removed_segments = 0

    @property
    def backlog(self) -> int:
        """Partitions that may have segments to remove."""
        return len(self._unseen) + len(self._trimmed)

    def trimmed(self, partition: Partition) -> None:
        """A log start has moved."""
        self._trimmed[partition] = None
        self._wake()

    async def run(self) -> float | None:
        """Remove some segments of one partition, or check which of some partitions have any to remove."""
        await self._changes.settle()
        if self._unseen and not self._trimmed:
            await self._look()
        elif self._trimmed:
            await self._trim(next(iter(self._trimmed)))
        return 0.0 if self._trimmed or self._unseen else None

    async def _look(self) -> None:
        some = self._unseen[:PARTITIONS_AT_ONCE]
        starts = [(partition.partition_id, partition.log_start) for partition in some]
        found = set(await self._changes.database.read(lambda: segment_store.reaching_below(starts)))
        del self._unseen[: len(some)]
        self._trimmed.update((partition, None) for partition in some if partition.partition_id in found)

    async def _trim(self, partition: Partition) -> None:
        # A log start that moves during this adds the partition again, by another call of `trimmed`.
        del self._trimmed[partition]
        if partition.topic.deleted:
            return
        try:
            count = await self._changes.drop_below_start(partition, SEGMENTS_AT_ONCE)
        except BaseException:
            self._trimmed[partition] = None
            raise
        self.removed_segments += count
        if count == SEGMENTS_AT_ONCE:
            self._trimmed[partition] = None


class TopicRemoval:
    """Removes the segments of deleted topics, and forgets a deletion once nothing can follow.

    A deletion is kept while commits from before it are in the WAL; `commits_folded` must be called when some have left
    it. A flush that was in flight when the topic was deleted is waited for, because its bytes are metered too; later
    ones leave the topic out. An agent that does not know of the deletion yet, because the answer was lost, still
    appends: so it waits until it does.
    """

    name = "topic removal"

    def __init__(
        self, changes: SegmentChanges, registry: Registry, *, wake: Callable[[], None],
        pass_flush: PassFlush | None = None,
    ) -> None:  # fmt: skip
        self._changes, self._registry, self._wake, self._pass_flush = changes, registry, wake, pass_flush
        self._cursor = 0
        self._page: list[int] = []
        self._left = 0
        self._again = False
        """Whether something happened since this pass began that only another pass is certain to see."""
        self.removed_segments = 0

    @property
    def backlog(self) -> int:
        """Partitions whose removal has not ended; an estimate beyond the next few."""
        return len(self._page) + self._left

    def topic_deleted(self) -> None:
        """A topic was deleted."""
        self._again = True
        self._wake()

    def commits_folded(self) -> None:
        """Commits have left the WAL."""
        if self._left:
            self._again = True
            self._wake()

    async def run(self) -> float | None:
        """Remove some segments of one partition."""
        changes = self._changes
        if not self._page:
            cursor = self._cursor
            if cursor == 0:
                self._again, self._left = False, 0
            self._page = await changes.database.read(
                lambda: segment_store.deleted_partitions(cursor, PARTITIONS_AT_ONCE)
            )
            if not self._page:
                self._cursor = 0
                return 0.0 if self._again else None
        partition_id = self._page[0]
        is_known_deleted = self._registry.partition(partition_id) is None
        count = await self._free(partition_id) if is_known_deleted else 0
        self.removed_segments += count
        if count:
            changes.segments.drop(partition_id)
            changes.on_garbage()
        else:
            self._left += await self._is_left(partition_id)
            self._cursor = partition_id
            del self._page[0]
        return 0.0

    async def _free(self, partition_id: int) -> int:
        changes, now_ms = self._changes, self._changes.clock.now_ms()
        if self._pass_flush is not None:
            await self._pass_flush()
        await changes.store_rows()
        try:
            return await changes.database.transaction(
                lambda: segment_store.free_deleted(partition_id, changes.shard_id, SEGMENTS_AT_ONCE, now_ms),
                background=True,
            )
        except OutcomeUnknown:
            changes.on_garbage()
            raise

    async def _is_left(self, partition_id: int) -> bool:
        return partition_id in await self._changes.database.read(
            lambda: segment_store.deleted_partitions(partition_id - 1, 1)
        )
