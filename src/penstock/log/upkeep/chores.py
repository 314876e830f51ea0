"""The chores that work on segments, wired together.

Retention moves log starts; trimming and topic removal drop segments; merging, key compaction and evacuation rewrite
them; and whatever all of them leave behind is garbage, collected after a grace period. Each is a chore of its own and
is woken by what creates work for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from penstock.base.clock import Clock
from penstock.base.settings import LiveSettings
from penstock.log.model import Partition, Topic
from penstock.log.registry import Registry
from penstock.log.sealing import Sealing
from penstock.log.segments import SegmentIndex
from penstock.log.topics import Topics
from penstock.log.upkeep.background import Chore
from penstock.log.upkeep.cleaner import Cleaner
from penstock.log.upkeep.evacuation import Evacuation
from penstock.log.upkeep.garbage import GRACE_MS, DeadObjects, Orphans
from penstock.log.upkeep.merging import Merging
from penstock.log.upkeep.producer_expiry import ProducerExpiry
from penstock.log.upkeep.removal import PassFlush, TopicRemoval, Trimming
from penstock.log.upkeep.retention import Retention
from penstock.log.upkeep.rewriting import SegmentChanges, StoreRows
from penstock.log.upkeep.uploads import Uploads
from penstock.metadata.database import Database
from penstock.storage.object_store import ObjectStore


class Upkeep:
    """The chores of a loaded registry. Hand `chores` to a `Background`, and its `wake` to `bind`."""

    def __init__(
        self, *, database: Database, registry: Registry, topics: Topics, segments: SegmentIndex, objects: ObjectStore,
        uploads: Uploads, settings: LiveSettings, clock: Clock, executor: Executor | None, shard_id: int = 1,
        grace_ms: int = GRACE_MS, store_rows: StoreRows | None = None, sealing: Sealing | None = None,
        pass_flush: PassFlush | None = None, activity: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._wake: Callable[[str], None] = _nobody
        self.changes = changes = SegmentChanges(
            database=database, segments=segments, objects=objects, uploads=uploads, clock=clock, executor=executor,
            shard_id=shard_id, on_garbage=self._on_garbage,
            on_doubt=lambda: self._wake(Trimming.name), store_rows=store_rows, sealing=sealing,
        )  # fmt: skip
        self.retention = Retention(
            database=database, registry=registry, topics=topics, settings=settings, clock=clock, settle=changes.settle
        )
        self.trimming = Trimming(changes, registry, wake=lambda: self._wake(Trimming.name))
        self.topic_removal = TopicRemoval(
            changes, registry, wake=lambda: self._wake(TopicRemoval.name), pass_flush=pass_flush
        )  # fmt: skip
        self.merging = Merging(changes, registry)
        self.cleaner = Cleaner(changes, registry, settings, activity)
        self.evacuation = Evacuation(changes, registry)
        self.dead_objects = DeadObjects(changes, grace_ms=grace_ms)
        self.orphans = Orphans(changes, grace_ms=grace_ms)
        self.producer_expiry = ProducerExpiry(database=database, registry=registry, settings=settings, clock=clock)
        topics.listen(self)

    @property
    def chores(self) -> Sequence[Chore]:
        """All chores."""
        return (
            self.retention, self.trimming, self.topic_removal, self.merging, self.cleaner, self.evacuation,
            self.dead_objects, self.orphans, self.producer_expiry,
        )  # fmt: skip

    async def on_topic_created(self, topic: Topic) -> None:
        """Nothing to do."""

    async def on_topic_altered(self, topic: Topic) -> None:
        """Compact it soon, if that is what was asked for."""
        if topic.config.compact:
            self.cleaner.look_soon()
            self._wake(Cleaner.name)

    async def on_topic_deleted(self, topic: Topic) -> None:
        """Schedule the removal of a topic's segments."""
        partition_ids = [partition.partition_id for partition in topic.partitions]
        self.merging.forget(partition_ids)
        self.cleaner.forget(partition_ids)
        self.topic_removal.topic_deleted()

    async def on_trimmed(self, partition: Partition) -> None:
        """Schedule the removal of segments below a log start."""
        self.trimming.trimmed(partition)

    def bind(self, wake: Callable[[str], None]) -> None:
        """Set the function that wakes chores."""
        self._wake = wake

    def on_segments(self, partition_ids: Iterable[int]) -> None:
        """WAL compaction has written segments: these partitions got one each."""
        if self.merging.added(partition_ids):
            self._wake(Merging.name)
        self.topic_removal.commits_folded()

    def _on_garbage(self) -> None:
        self._wake(DeadObjects.name)
        if self.evacuation.removed():
            self._wake(Evacuation.name)

    def close(self) -> None:
        """Abort work in progress. Call it after the background has stopped."""
        self.merging.close()
        self.cleaner.close()
        self.evacuation.close()

    def counters(self) -> Sequence[tuple[str, str, int]]:
        """Name, meaning and value of each counter since the process started."""
        cleaner, merging = self.cleaner.stats, self.merging
        return (
            ("retention_moves", "Log starts moved by retention.", self.retention.moved_starts),
            (
                "segments_removed", "Segments removed below log starts and with topics.",
                self.trimming.removed_segments + self.topic_removal.removed_segments,
            ),
            ("merges", "Merges of small segments.", merging.merges),
            ("merged_segments", "Small segments merged into larger ones.", merging.merged_segments),
            ("merged_bytes", "Bytes rewritten by merging.", merging.merged_bytes),
            ("cleaner_passes", "Passes of key compaction over a partition.", cleaner.passes),
            ("cleaner_read_bytes", "Bytes read by key compaction to be rewritten.", cleaner.read_bytes),
            ("cleaner_written_bytes", "Bytes written by key compaction.", cleaner.written_bytes),
            ("cleaner_mapped_bytes", "Bytes read by key compaction to map their keys.", cleaner.mapped_bytes),
            ("evacuations", "Evacuations of mostly dead objects.", self.evacuation.moves),
            ("evacuated_bytes", "Bytes copied by evacuations.", self.evacuation.copied_bytes),
            (
                "objects_deleted", "Objects deleted a grace period after their last segment went.",
                self.dead_objects.deleted_objects,
            ),
            ("orphans_deleted", "Objects deleted because nothing ever named them.", self.orphans.deleted_objects),
            ("producers_expired", "Idempotent producers forgotten.", self.producer_expiry.expired_producers),
        )  # fmt: skip

    @property
    def uncleanable_partitions(self) -> int:
        """Partitions that key compaction gave up on because they are damaged."""
        return self.cleaner.stats.uncleanable_partitions


def _nobody(name: str) -> None:
    """Used before there is a background."""
