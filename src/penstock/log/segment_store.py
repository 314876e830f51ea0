"""The SQL of segments and of the objects that contain them.

Two invariants hold in every transaction here: an object's `live` is the number of segment rows that name it, and an
object whose last segment is removed gets `dead_ms`, from which time on it cannot be found. What compaction writes is
conditional on what it was computed from: a partition advances only from the offset that the caller knows, segments are
replaced only if they still exist. Otherwise the script raises `Conflict` and nothing happens.

Scripts that change rows of `partition` must be run as `locking` transactions.

When the answer of a commit was lost, the object that the transaction would have inserted says whether it happened; but
only to callers of `is_named_for_good`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict
from penstock.log import aborted_store
from penstock.log.model import AbortedTransaction
from penstock.metadata.database import Rows, Script

if TYPE_CHECKING:
    from penstock.log.segments import SegmentRef

NO_LIMIT = 2**31 - 1

_SELECT_SEGMENT = (
    "SELECT s.partition_id, s.base_offset, s.last_offset, s.object_id, o.key, s.byte_offset, s.byte_length,"
    " s.record_count, s.min_timestamp, s.max_timestamp, s.offset_index, s.time_index, s.generation,"
    " s.key_id, s.salt"
    " FROM segment s JOIN object o ON o.object_id = s.object_id"
)
_INSERT_SEGMENT = (
    "INSERT INTO segment (partition_id, last_offset, base_offset, object_id, byte_offset, byte_length, record_count,"
    " min_timestamp, max_timestamp, time_index, offset_index, generation, key_id, salt)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
)
_LAST_OFFSET = "SUBSTR({0}.batches, LENGTH({0}.batches) - 15, 8)"
"""Of the last batch packed: big-endian, so that bytes compare as numbers do."""
_IS_AHEAD = (
    "producer_state.epoch > excluded.epoch OR (producer_state.epoch = excluded.epoch"
    " AND (LENGTH(excluded.batches) = 0 OR (LENGTH(producer_state.batches) > 0"
    f" AND {_LAST_OFFSET.format('producer_state')} >= {_LAST_OFFSET.format('excluded')})))"
)
_FOLD_PRODUCER = (
    "INSERT INTO producer_state (partition_id, producer_id, epoch, last_ms, batches, txn_first_offset,"
    " txn_started_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (partition_id, producer_id) DO UPDATE SET"
    f" epoch = CASE WHEN {_IS_AHEAD} THEN producer_state.epoch ELSE excluded.epoch END,"
    f" batches = CASE WHEN {_IS_AHEAD} THEN producer_state.batches ELSE excluded.batches END,"
    f" last_ms = CASE WHEN {_IS_AHEAD} THEN producer_state.last_ms ELSE excluded.last_ms END,"
    " txn_first_offset = excluded.txn_first_offset, txn_started_ms = excluded.txn_started_ms"
    f" WHERE NOT ({_IS_AHEAD}) OR producer_state.txn_first_offset <> excluded.txn_first_offset"
)
"""Where commits update producer rows themselves (several agents), those are ahead of what is folded, and stay so.
Transactions are stored as they were at the end of the segments."""


class ObjectKind(IntEnum):
    """The kinds of objects in the object table."""

    SEGMENTS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """An object that was written and is to be named."""

    object_id: bytes
    shard_id: int
    key: str
    size_bytes: int
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerRow:
    """A stored producer state."""

    producer_id: int
    epoch: int
    last_ms: int
    batches: bytes
    txn_first_offset: int = -1
    """First offset of its open transaction, or -1."""
    txn_started_ms: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What moves from commit rows into a partition's row."""

    partition_id: int
    segmented_from: int
    """The partition's `segmented_to` must be this."""
    segmented_to: int
    head_seq: int
    size_bytes: int
    """Bytes that became segments."""
    first_dirty_ms: int
    producers: tuple[ProducerRow, ...] = ()
    aborted: tuple[AbortedTransaction, ...] = ()
    """Aborted transactions whose markers are in the new segments."""


# ---- reading ---------------------------------------------------------------------------------------------------


def segments_from(partition_id: int, offset: int, limit: int | None) -> Script[Rows]:
    """Segments that end at or after an offset, in order."""
    return (
        yield (
            f"{_SELECT_SEGMENT} WHERE s.partition_id = $1 AND s.last_offset >= $2 ORDER BY s.last_offset LIMIT $3",
            (partition_id, offset, NO_LIMIT if limit is None else limit),
        )
    )


def segment_with_timestamp(partition_id: int, offset: int, timestamp: int) -> Script[Rows]:
    """The first segment from an offset on that has records as new as `timestamp`."""
    return (
        yield (
            f"{_SELECT_SEGMENT} WHERE s.partition_id = $1 AND s.last_offset >= $2 AND s.max_timestamp >= $3"
            " ORDER BY s.last_offset LIMIT 1",
            (partition_id, offset, timestamp),
        )
    )


def segment_with_max_timestamp(partition_id: int, base_offset: int) -> Script[Rows]:
    """The segment with the newest records among those that start at `base_offset` or later; the first, if several."""
    return (
        yield (
            f"{_SELECT_SEGMENT} WHERE s.partition_id = $1 AND s.base_offset >= $2"
            " ORDER BY s.max_timestamp DESC, s.last_offset LIMIT 1",
            (partition_id, base_offset),
        )
    )


def sizes(partition_id: int, offset: int, limit: int) -> Script[Rows]:
    """base_offset, last_offset, byte_length, min_timestamp, max_timestamp, object's created_ms, from an offset on."""
    return (
        yield (
            "SELECT s.base_offset, s.last_offset, s.byte_length, s.min_timestamp, s.max_timestamp, o.created_ms"
            " FROM segment s JOIN object o ON o.object_id = s.object_id"
            " WHERE s.partition_id = $1 AND s.last_offset >= $2 ORDER BY s.last_offset LIMIT $3",
            (partition_id, offset, limit),
        )
    )


def bytes_below(partition_id: int, log_start: int) -> Script[int]:
    """Bytes of segments that end below the log start."""
    rows = yield (
        "SELECT COALESCE(SUM(byte_length), 0) FROM segment WHERE partition_id = $1 AND last_offset < $2",
        (partition_id, log_start),
    )
    return int(rows[0][0])


def latest_sizes(partition_id: int, limit: int) -> Script[Rows]:
    """The same of the partition's last segments, in order."""
    rows = yield (
        "SELECT s.base_offset, s.last_offset, s.byte_length, s.min_timestamp, s.max_timestamp, o.created_ms"
        " FROM segment s JOIN object o ON o.object_id = s.object_id"
        " WHERE s.partition_id = $1 ORDER BY s.last_offset DESC LIMIT $2",
        (partition_id, limit),
    )
    return list(reversed(rows))


def small_counts(smaller_than_bytes: int, at_least: int) -> Script[Rows]:
    """partition_id and number of segments, for partitions with many small ones."""
    return (
        yield (
            "SELECT partition_id, COUNT(*) FROM segment WHERE byte_length < $1 GROUP BY partition_id"
            " HAVING COUNT(*) >= $2 ORDER BY partition_id",
            (smaller_than_bytes, at_least),
        )
    )


def dirty_since(partition_ids: Sequence[int]) -> Script[dict[int, int]]:
    """The commit time of the oldest record that key compaction has not processed, for partitions that have one."""
    found = {}
    for partition_id in partition_ids:
        rows = yield "SELECT first_dirty_ms FROM partition WHERE partition_id = $1", (partition_id,)
        if rows and rows[0][0] >= 0:
            found[partition_id] = int(rows[0][0])
    return found


def stored_size(partition_id: int) -> Script[tuple[int, int] | None]:
    """Bytes in a partition's segments, and its `segmented_to`."""
    rows = yield "SELECT size_bytes, segmented_to FROM partition WHERE partition_id = $1", (partition_id,)
    return (int(rows[0][0]), int(rows[0][1])) if rows else None


def reaching_below(log_starts: Sequence[tuple[int, int]]) -> Script[list[int]]:
    """Which of these partitions, given with their log starts, have segments that end below them."""
    found = []
    for partition_id, log_start in log_starts:
        rows = yield (
            "SELECT 1 FROM segment WHERE partition_id = $1 AND last_offset < $2 LIMIT 1",
            (partition_id, log_start),
        )
        if rows:
            found.append(partition_id)
    return found


def keys_in_use(key_ids: Sequence[int]) -> Script[list[int]]:
    """Which of these data keys seal any segment."""
    found: dict[int, None] = {}
    for key_id in key_ids:
        rows = yield "SELECT key_id FROM segment WHERE key_id = $1 LIMIT 1", (key_id,)
        found.update((int(row[0]), None) for row in rows)
    return list(found)


def has_object(object_id: bytes) -> Script[bool]:
    """Whether the transaction that names an object happened."""
    rows = yield "SELECT 1 FROM object WHERE object_id = $1", (object_id,)
    return bool(rows)


def end_of_doubt(shard_id: int) -> Script[None]:
    """After this, the outcome of a `locking` transaction whose answer was lost is final: what it has done is visible,
    and what it has not done never will be.

    One that is still running holds the shard's row, so this waits for it. And one that failed to reach the disk could
    be found there by recovery, until something else is written in its place.
    """
    yield "UPDATE shard SET commit_seq = commit_seq WHERE shard_id = $1", (shard_id,)
    yield (
        "INSERT INTO counter (name, value) VALUES ('doubts', 1)"
        " ON CONFLICT (name) DO UPDATE SET value = counter.value + 1",
        (),
    )


def is_named_for_good(shard_id: int, object_id: bytes) -> Script[bool]:
    """Whether the transaction that names an object happened; if not, it never will. A `locking` transaction."""
    yield from end_of_doubt(shard_id)
    return (yield from has_object(object_id))


def size_for_good(shard_id: int, partition_id: int) -> Script[tuple[int, int] | None]:
    """`stored_size` after all transactions whose answers were lost. A `locking` transaction."""
    yield from end_of_doubt(shard_id)
    return (yield from stored_size(partition_id))


# ---- the log moves into segments -------------------------------------------------------------------------------


def publish(
    objects: Sequence[NewObject], segments: Sequence[SegmentRef], folds: Sequence[Fold]
) -> Script[frozenset[int]]:
    """Name the segments of objects and advance their partitions; the partitions that still exist.

    Deleted partitions do not advance, and their segments are not named.
    """
    accepted = set()
    for fold in sorted(folds, key=lambda fold: fold.partition_id):
        if (yield from _move_on(fold)):
            accepted.add(fold.partition_id)
    named = [segment for segment in segments if segment.partition_id in accepted]
    for new in objects:
        within = [segment for segment in named if segment.object_id == new.object_id]
        if within:
            yield from _insert_object(new, within)
    return frozenset(accepted)


def _move_on(fold: Fold) -> Script[bool]:
    rows = yield (
        "UPDATE partition SET segmented_to = $3, head_seq = $4, size_bytes = size_bytes + $5,"
        " next_offset = CASE WHEN next_offset < $3 THEN $3 ELSE next_offset END,"
        " first_dirty_ms = CASE WHEN first_dirty_ms < 0 THEN $6 ELSE first_dirty_ms END"
        " WHERE partition_id = $1 AND segmented_to = $2 RETURNING partition_id",
        (
            fold.partition_id, fold.segmented_from, fold.segmented_to, fold.head_seq, fold.size_bytes,
            fold.first_dirty_ms,
        ),
    )  # fmt: skip
    if not rows:
        rows = yield "SELECT segmented_to FROM partition WHERE partition_id = $1", (fold.partition_id,)
        if rows:
            raise Conflict(
                f"partition {fold.partition_id} is in segments up to {rows[0][0]}, not {fold.segmented_from}"
            )
        return False
    for row in fold.producers:
        yield (
            _FOLD_PRODUCER,
            (
                fold.partition_id, row.producer_id, row.epoch, row.last_ms, row.batches, row.txn_first_offset,
                row.txn_started_ms,
            ),
        )  # fmt: skip
    yield from aborted_store.add(fold.partition_id, fold.aborted)
    return True


def _insert_object(new: NewObject, segments: Sequence[SegmentRef]) -> Script[None]:
    yield (
        "INSERT INTO object (object_id, shard_id, key, size_bytes, kind, live, created_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        (
            new.object_id, new.shard_id, new.key, new.size_bytes, int(ObjectKind.SEGMENTS), len(segments),
            new.created_ms,
        ),
    )  # fmt: skip
    for ref in segments:
        yield (
            _INSERT_SEGMENT,
            (
                ref.partition_id, ref.last_offset, ref.base_offset, ref.object_id, ref.byte_offset, ref.byte_length,
                ref.record_count, ref.min_timestamp, ref.max_timestamp, ref.time_index, ref.offset_index,
                ref.generation, *(ref.seal or (None, None)),
            ),
        )  # fmt: skip


# ---- segments change -------------------------------------------------------------------------------------------


def replace(
    new: NewObject | None, removed: Sequence[SegmentRef], added: Sequence[SegmentRef], now_ms: int
) -> Script[None]:
    """Replace segments by rewritten ones; raise `Conflict` if one of the old ones does not exist any more."""
    if new is not None:
        # Even if partitions are gone: callers that resolve a lost answer wait on the same row.
        yield "UPDATE shard SET commit_seq = commit_seq WHERE shard_id = $1", (new.shard_id,)
    else:
        for ref in removed[:1]:
            yield from _hold_commits(ref.partition_id)
    for ref in sorted(removed, key=lambda ref: (ref.partition_id, ref.last_offset)):
        rows = yield (
            "DELETE FROM segment WHERE partition_id = $1 AND last_offset = $2 AND object_id = $3 AND byte_offset = $4"
            " RETURNING last_offset",
            (ref.partition_id, ref.last_offset, ref.object_id, ref.byte_offset),
        )
        if not rows:
            raise Conflict(f"partition {ref.partition_id} has no segment {ref.base_offset}-{ref.last_offset} any more")
    if new is not None:
        yield from _insert_object(new, added)
    grown: Counter[int] = Counter()
    for ref in added:
        grown[ref.partition_id] += ref.byte_length
    for ref in removed:
        grown[ref.partition_id] -= ref.byte_length
    for partition_id, size_bytes in sorted(grown.items()):
        if size_bytes:
            yield (
                "UPDATE partition SET size_bytes = size_bytes + $2 WHERE partition_id = $1",
                (partition_id, size_bytes),
            )
    yield from _release(Counter(ref.object_id for ref in removed), now_ms)


def cleaned(partition_id: int, cleaned_to: int, first_dirty_ms: int) -> Script[None]:
    """Record that key compaction has processed everything below an offset."""
    yield from _hold_commits(partition_id)
    yield (
        "UPDATE partition SET cleaned_to = $2, first_dirty_ms = $3 WHERE partition_id = $1 AND cleaned_to <= $2",
        (partition_id, cleaned_to, first_dirty_ms),
    )


def drop_below(partition_id: int, log_start: int, limit: int, now_ms: int) -> Script[tuple[int, int]]:
    """Move the log start forward and remove segments that end below it; their number and bytes.

    At most `limit` of them: there may be more.
    """
    yield from _hold_commits(partition_id)
    yield (
        "UPDATE partition SET log_start = $2 WHERE partition_id = $1 AND log_start < $2",
        (partition_id, log_start),
    )
    rows = yield from _delete_segments(partition_id, log_start, limit, now_ms)
    yield from aborted_store.forget_below(partition_id, log_start)
    size_bytes = sum(int(row[1]) for row in rows)
    if size_bytes:
        yield "UPDATE partition SET size_bytes = size_bytes - $2 WHERE partition_id = $1", (partition_id, size_bytes)
    return len(rows), size_bytes


def _hold_commits(partition_id: int) -> Script[None]:
    """Block commits of a partition's shard until the end of the transaction.

    They update the partition's row continuously. A transaction that changes it as well queues up with them by first
    updating what they update first; otherwise it might never succeed while agents write without a pause.
    """
    yield (
        "UPDATE shard SET commit_seq = commit_seq"
        " WHERE shard_id = (SELECT shard_id FROM partition WHERE partition_id = $1)",
        (partition_id,),
    )


def _delete_segments(partition_id: int, below: int, limit: int, now_ms: int) -> Script[Rows]:
    last = yield (
        "SELECT MAX(last_offset) FROM (SELECT last_offset FROM segment WHERE partition_id = $1 AND last_offset < $2"
        " ORDER BY last_offset LIMIT $3) AS first",
        (partition_id, below, limit),
    )
    if last[0][0] is None:
        return []
    rows = yield (
        "DELETE FROM segment WHERE partition_id = $1 AND last_offset <= $2 RETURNING object_id, byte_length",
        (partition_id, last[0][0]),
    )
    yield from _release(Counter(bytes(row[0]) for row in rows), now_ms)
    return rows


def _release(counts: Counter[bytes], now_ms: int) -> Script[None]:
    for object_id, count in sorted(counts.items()):
        yield (
            "UPDATE object SET live = live - $2,"
            " dead_ms = CASE WHEN live = $2 THEN CAST($3 AS BIGINT) ELSE dead_ms END WHERE object_id = $1",
            (object_id, count, now_ms),
        )


# ---- garbage ---------------------------------------------------------------------------------------------------


def deleted_partitions(after: int, limit: int) -> Script[list[int]]:
    """Partitions of deleted topics that may still have segments, with ids above `after`."""
    rows = yield (
        "SELECT partition_id FROM topic_deletion WHERE partition_id > $1 ORDER BY partition_id LIMIT $2",
        (after, limit),
    )
    return [int(row[0]) for row in rows]


def free_deleted(partition_id: int, shard_id: int, limit: int, now_ms: int) -> Script[int]:
    """Remove segments of a deleted partition; how many. Forget the deletion itself once nothing can follow.

    Commits from before the deletion still have to be metered, and the deletion says whose they were.
    """
    rows = yield from _delete_segments(partition_id, 2**63 - 1, limit, now_ms)
    if not rows:
        yield "DELETE FROM producer_state WHERE partition_id = $1", (partition_id,)
        yield "DELETE FROM aborted_txn WHERE partition_id = $1", (partition_id,)
        yield (
            "UPDATE topic_deletion SET last_seq = (SELECT COALESCE(MAX(seq), 0) FROM wal_commit WHERE shard_id = $2)"
            " WHERE partition_id = $1 AND last_seq IS NULL",
            (partition_id, shard_id),
        )
        yield (
            "DELETE FROM topic_deletion WHERE partition_id = $1 AND NOT EXISTS (SELECT 1 FROM wal_commit"
            " WHERE shard_id = $2 AND seq <= topic_deletion.last_seq"
            " AND seq > (SELECT wal_floor FROM shard WHERE shard_id = $2))",
            (partition_id, shard_id),
        )
    return len(rows)


def live_bytes(after: bytes, limit: int) -> Script[list[tuple[bytes, int, int]]]:
    """Objects with segments and ids above `after`, in order: id, size, and bytes that segments name."""
    rows = yield (
        "SELECT o.object_id, o.size_bytes, (SELECT COALESCE(SUM(s.byte_length), 0) FROM segment s"
        " WHERE s.object_id = o.object_id) FROM object o WHERE o.object_id > $1 AND o.live > 0"
        " ORDER BY o.object_id LIMIT $2",
        (after, limit),
    )
    return [(bytes(object_id), int(size_bytes), int(live)) for object_id, size_bytes, live in rows]


def segments_in(object_id: bytes, limit: int) -> Script[Rows]:
    """Segments that lie in an object."""
    return (
        yield (
            f"{_SELECT_SEGMENT} WHERE s.object_id = $1 ORDER BY s.partition_id, s.last_offset LIMIT $2",
            (object_id, limit),
        )
    )


def dead_objects(dead_before_ms: int, limit: int) -> Script[list[tuple[bytes, str]]]:
    """Objects that died before a time: id and key."""
    rows = yield (
        "SELECT object_id, key FROM object WHERE dead_ms IS NOT NULL AND dead_ms < $1 AND live = 0"
        " ORDER BY dead_ms LIMIT $2",
        (dead_before_ms, limit),
    )
    return [(bytes(object_id), key) for object_id, key in rows]


def next_death(after_ms: int) -> Script[int | None]:
    """The earliest `dead_ms` of an object after a time."""
    rows = yield "SELECT MIN(dead_ms) FROM object WHERE dead_ms IS NOT NULL AND dead_ms >= $1", (after_ms,)
    return None if rows[0][0] is None else int(rows[0][0])


def forget_objects(object_ids: Iterable[bytes]) -> Script[None]:
    """Remove the rows of objects whose bytes are deleted."""
    for object_id in object_ids:
        yield "DELETE FROM object WHERE object_id = $1 AND live = 0 AND dead_ms IS NOT NULL", (object_id,)


def named_objects(object_ids: Sequence[bytes]) -> Script[frozenset[bytes]]:
    """Which of these objects have a row."""
    found = set()
    for object_id in object_ids:
        rows = yield "SELECT 1 FROM object WHERE object_id = $1", (object_id,)
        if rows:
            found.add(object_id)
    return frozenset(found)


def forget_producers(partition_ids: Sequence[int], before_ms: int) -> Script[None]:
    """Remove the stored states of producers that have written nothing since a time."""
    for partition_id in sorted(partition_ids):
        yield (
            "DELETE FROM producer_state WHERE partition_id = $1 AND last_ms < $2 AND txn_first_offset < 0",
            (partition_id, before_ms),
        )
