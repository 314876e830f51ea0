"""The SQL of WAL compaction: a shard's WAL floor, and the commits above it.

The floor is the number of the last commit that is entirely in segments. Rows up to it are obsolete, and are deleted
afterwards, a few at a time: no single transaction keeps the commits of producers waiting for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict
from penstock.log import segment_store
from penstock.log.segment_store import Fold, NewObject
from penstock.log.usage import Metric, UsageKey, add_usage
from penstock.metadata.database import Script

if TYPE_CHECKING:
    from penstock.log.segments import SegmentRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCommits:
    """The commits above the floor."""

    rows: int
    entries: int
    size_bytes: int
    oldest_ms: int
    """When the first of them was committed; 0 if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorAdvance:
    """A run of commits that goes into segments, and the resulting changes of the database."""

    shard_id: int
    floor: int
    """The shard's row must contain this floor."""
    new_floor: int
    objects: Sequence[NewObject]
    segments: Sequence[SegmentRef]
    folds: Sequence[Fold]
    used: Mapping[UsageKey, int]
    used_by_unknown: Mapping[int, Mapping[tuple[int, Metric], int]]
    """Usage of partitions that this agent does not know, by bucket and metric: their topics are deleted."""


def waiting(shard_id: int, last_seq: int) -> Script[PendingCommits]:
    """Count the commits above the floor, up to one."""
    rows = yield (
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(bases)), 0), COALESCE(SUM((wal_length + 4095) / 4096), 0),"
        " COALESCE(MIN(committed_ms), 0) FROM wal_commit WHERE shard_id = $1 AND seq <= $2"
        " AND seq > (SELECT wal_floor FROM shard WHERE shard_id = $1)",
        (shard_id, last_seq),
    )
    count, base_bytes, pages, oldest_ms = rows[0]
    return PendingCommits(
        rows=int(count), entries=int(base_bytes) // 8, size_bytes=int(pages) * 4096, oldest_ms=int(oldest_ms)
    )


def floor_of(shard_id: int) -> Script[int]:
    """The floor."""
    rows = yield "SELECT wal_floor FROM shard WHERE shard_id = $1", (shard_id,)
    return int(rows[0][0])


def advance(change: FloorAdvance) -> Script[frozenset[int]]:
    """Name the segments, advance partitions and the floor, count usage; the partitions that still exist.

    Raises `Conflict`, with nothing written, if the floor or a partition is not where the caller expects it.
    """
    rows = yield (
        "UPDATE shard SET wal_floor = $3 WHERE shard_id = $1 AND wal_floor = $2 RETURNING wal_floor",
        (change.shard_id, change.floor, change.new_floor),
    )
    if not rows:
        raise Conflict(f"the WAL floor of shard {change.shard_id} is not {change.floor} any more")
    accepted = yield from segment_store.publish(change.objects, change.segments, change.folds)
    used = Counter(change.used)
    for partition_id, counts in sorted(change.used_by_unknown.items()):
        cluster_id = yield from _cluster_of_deleted(partition_id)
        if cluster_id is not None:
            for (bucket_ms, metric), value in counts.items():
                used[UsageKey(cluster_id, bucket_ms, metric)] += value
    yield from add_usage(change.shard_id, used)
    return accepted


def _cluster_of_deleted(partition_id: int) -> Script[int | None]:
    """The cluster of a deleted partition. None if even the deletion is forgotten: then nobody ever saw its records."""
    rows = yield "SELECT cluster_id FROM topic_deletion WHERE partition_id = $1", (partition_id,)
    if rows:
        return int(rows[0][0])
    rows = yield "SELECT partition_id FROM partition WHERE partition_id = $1", (partition_id,)
    if rows:
        raise Conflict(f"partition {partition_id} exists, but this agent does not know it yet")
    return None


def outcome(change: FloorAdvance) -> Script[frozenset[int] | None]:
    """The result of `advance` if it happened, or None if it did not and never will. A `locking` transaction."""
    yield from segment_store.end_of_doubt(change.shard_id)
    floor = yield from floor_of(change.shard_id)
    if floor < change.new_floor:
        return None
    accepted = set()
    for fold in change.folds:
        rows = yield "SELECT segmented_to FROM partition WHERE partition_id = $1", (fold.partition_id,)
        if rows and rows[0][0] >= fold.segmented_to:
            accepted.add(fold.partition_id)
    named = next((segment for segment in change.segments if segment.partition_id in accepted), None)
    if named is not None:
        is_ours = yield from segment_store.has_object(named.object_id)
        if not is_ours:
            raise Conflict("somebody else moved these commits into segments")
    return frozenset(accepted)


def forget_commits(shard_id: int, floor: int, limit: int) -> Script[bool]:
    """Delete the oldest obsolete rows; whether there are more of them."""
    rows = yield "SELECT MIN(seq) FROM wal_commit WHERE shard_id = $1", (shard_id,)
    first = rows[0][0]
    if first is None or first > floor:
        return False
    last = min(floor, int(first) + limit - 1)
    yield "DELETE FROM wal_commit WHERE shard_id = $1 AND seq <= $2", (shard_id, last)
    return last < floor
