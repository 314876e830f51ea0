"""Merging small segments, so that rows and objects stay few, whatever the traffic.

WAL compaction makes a segment of what a partition got since the last pass, which is little where traffic is sparse.
`plan` finds neighbours to merge, by two rules:

- Neighbours that fit into one segment, with a next one that does not fit, are merged for good.
- At the end of the log, where more will follow, neighbours are merged once there are `FAN_IN` of them, the small ones
  first, and none makes up more than half of the result. So the segment of a byte at least doubles each time the byte is
  rewritten: a few times in all on its way from 1 KiB to `LONG_BYTES`, as tests/unit/log/test_merging.py measures. A
  partition has a few dozen small segments at most.

Segments of `LONG_BYTES` and more are left alone. Under heavy traffic all are, and nothing is rewritten at all.

"Fit" bounds three things: bytes, offsets (an index counts them in 32 bits), and time, because retention removes whole
segments: a merged segment spans at most an eighth of `retention.ms`, and never more than `segment.ms`. On compacted
topics nothing is merged across the point that key compaction has reached.

Where many partitions have sparse traffic, their merged segments share an object, as the small ones did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData, InvalidRequest
from penstock.log import segment_store
from penstock.log.model import Partition, TopicConfig
from penstock.log.registry import Registry
from penstock.log.segments import LONG_BYTES, MAX_SEGMENT_BYTES, MAX_SEGMENT_OFFSETS, SegmentFacts, ref_of
from penstock.log.upkeep.retention import longest_span_ms
from penstock.log.upkeep.rewriting import Part, Rewrite, SegmentChanges
from penstock.log.upkeep.segment_reader import SegmentUnavailable
from penstock.metadata.database import Rows, Script

FAN_IN = 8
SMALLEST_CLASS_BYTES = 4096
"""Segments are compared by size class: up to this, up to `FAN_IN` times this, and so on."""
LATEST = 256
"""How many segments from the end of a partition are considered."""
MERGED_AT_ONCE = 64
PARTITIONS_AT_ONCE = 64
SHARED_BYTES = 16 * 1024 * 1024
SHARED_SEGMENTS = 500
"""Partitions with little to merge share an object, up to so many bytes and so many old segments."""


class MergeRange(NamedTuple):
    """Neighbours to merge: positions [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeLimits:
    """The limits of a merged segment."""

    max_bytes: int
    max_span_ms: int
    cleaned_to: int = 0
    long_bytes: int = 2**63 - 1
    """Segments of this size are not merged."""

    @classmethod
    def of(cls, partition: Partition) -> MergeLimits:
        """The limits of a partition's topic."""
        config: TopicConfig = partition.topic.config
        span_ms = longest_span_ms(config)
        if config.compact and config.min_compaction_lag_ms > 0:
            # New records must not delay the key compaction of old ones for much longer than necessary.
            span_ms = min(span_ms, config.min_compaction_lag_ms)
        return cls(
            max_bytes=min(config.segment_bytes, MAX_SEGMENT_BYTES),
            max_span_ms=span_ms,
            cleaned_to=partition.cleaned_to if config.compact else 0,
            long_bytes=LONG_BYTES,
        )


def plan(segments: Sequence[SegmentFacts], limits: MergeLimits) -> MergeRange | None:
    """The first neighbours to merge of a partition's last segments, or None."""
    start = 0
    while start < len(segments):
        end = _fitting(segments, start, limits)
        if end == len(segments):
            return _same_tier(segments, start)
        if end - start > 1:
            return MergeRange(start, min(end, start + MERGED_AT_ONCE))
        start = end
    return None


def _fitting(segments: Sequence[SegmentFacts], start: int, limits: MergeLimits) -> int:
    """The end of a segment that begins here. Long ones are not merged: a row is cheaper than the copy."""
    first = segments[start]
    if first.byte_length >= limits.long_bytes:
        return start + 1
    size, oldest, newest = first.byte_length, first.min_timestamp, first.max_timestamp
    is_clean = first.last_offset < limits.cleaned_to
    end = start + 1
    while end < len(segments):
        following = segments[end]
        size += following.byte_length
        oldest, newest = min(oldest, following.min_timestamp), max(newest, following.max_timestamp)
        if (
            size > limits.max_bytes
            or following.byte_length >= limits.long_bytes
            or newest - oldest > limits.max_span_ms
            or following.last_offset - first.base_offset >= MAX_SEGMENT_OFFSETS
            or (following.last_offset < limits.cleaned_to) is not is_clean
        ):
            break
        end += 1
    return end


def _same_tier(segments: Sequence[SegmentFacts], start: int) -> MergeRange | None:
    """Among the last segments: enough neighbours up to some size class, none of them dominating."""
    sizes = [segment.byte_length for segment in segments[start:]]
    classes = [_size_class(size) for size in sizes]
    for wanted in range(max(classes) + 1):
        first = 0
        for is_larger, group in groupby(classes, lambda found: found > wanted):  # noqa: B023
            count = len(list(group))
            if not is_larger and count >= FAN_IN:
                taken = sizes[first : first + min(count, MERGED_AT_ONCE)]
                if sum(taken) >= 2 * max(taken):
                    return MergeRange(start + first, start + first + len(taken))
            first += count
    return None


def _size_class(byte_length: int) -> int:
    number, limit = 0, SMALLEST_CLASS_BYTES
    while byte_length >= limit:
        number, limit = number + 1, limit * FAN_IN
    return number


class Merging:
    """The chore that merges segments. It looks at a partition after it got some segments."""

    name = "merging"

    def __init__(self, changes: SegmentChanges, registry: Registry) -> None:
        self._changes, self._registry = changes, registry
        self._grown: dict[int, int] = {}
        """Partitions, and how many segments they got since the last look."""
        self._waiting: dict[int, None] = {}
        self._is_seeded = False
        self._rewrite: Rewrite | None = None
        self.merges = 0
        self.merged_segments = 0
        self.merged_bytes = 0
        self._damaged: set[int] = set()

    @property
    def backlog(self) -> int:
        """Partitions to look at."""
        return len(self._waiting)

    def added(self, partition_ids: Iterable[int]) -> bool:
        """Partitions got a segment each; returns whether the chore must be woken."""
        for partition_id in partition_ids:
            count = self._grown.get(partition_id, 0) + 1
            if count < FAN_IN:
                self._grown[partition_id] = count
            else:
                self._grown.pop(partition_id, None)
                self._waiting[partition_id] = None
        return bool(self._waiting)

    async def run(self) -> float | None:
        """Continue a merge, or look for the next one."""
        if self._rewrite is not None:
            await self._continue(self._rewrite)
        elif not self._is_seeded:
            found = await self._changes.database.read(lambda: segment_store.small_counts(LONG_BYTES, FAN_IN))
            self._waiting.update((int(row[0]), None) for row in found)
            self._is_seeded = True
        elif self._waiting:
            await self._look()
        return 0.0 if self._waiting or self._rewrite is not None else None

    def close(self) -> None:
        """Abort work in progress."""
        if self._rewrite is not None:
            for part in self._rewrite.parts:
                self._changes.rewriting.discard(part.partition.partition_id)
            self._rewrite.abort()
            self._rewrite = None

    def forget(self, partition_ids: Iterable[int]) -> None:
        """These partitions were deleted."""
        for partition_id in partition_ids:
            self._grown.pop(partition_id, None)
            self._waiting.pop(partition_id, None)

    async def _look(self) -> None:
        """Choose merges of some partitions, as many as fit into one object."""
        looked_at = list(islice(self._waiting, PARTITIONS_AT_ONCE))
        partitions = [partition for partition_id in looked_at if (partition := self._mergeable(partition_id))]
        partition_ids = [partition.partition_id for partition in partitions]
        found = await self._changes.database.read(lambda: _latest(partition_ids))
        for partition_id in looked_at:
            del self._waiting[partition_id]
        chosen: list[tuple[Partition, Sequence[SegmentFacts]]] = []
        size_bytes = count = 0
        for partition, rows in zip(partitions, found, strict=True):
            segments = [SegmentFacts.of(row) for row in rows if row[1] >= partition.log_start]
            run = plan(segments, MergeLimits.of(partition))
            if run is None:
                continue
            # Whether there is more to merge afterwards is found out by the next look.
            self._waiting[partition.partition_id] = None
            merged = segments[run.start : run.end]
            size_bytes += sum(segment.byte_length for segment in merged)
            count += len(merged)
            if not chosen or (size_bytes <= SHARED_BYTES and count <= SHARED_SEGMENTS):
                chosen.append((partition, merged))
        if chosen:
            await self._begin(chosen)

    def _mergeable(self, partition_id: int) -> Partition | None:
        if partition_id in self._damaged:
            return None
        if partition_id in self._changes.rewriting:
            # Key compaction is working on it, and merges as well. Its next segment brings it back here.
            self._grown[partition_id] = FAN_IN - 1
            return None
        partition = self._registry.partition(partition_id)
        if partition is not None and self._changes.is_locked(partition):
            self._grown[partition_id] = FAN_IN - 1
            return None
        return partition

    async def _begin(self, chosen: Sequence[tuple[Partition, Sequence[SegmentFacts]]]) -> None:
        ranges = [(partition.partition_id, run[0].last_offset, len(run)) for partition, run in chosen]
        found = await self._changes.database.read(lambda: _rows(ranges))
        parts = []
        for (partition, _), rows in zip(chosen, found, strict=True):
            refs = [ref_of(row) for row in rows]
            if not await self._changes.can_open(partition, refs):
                self._leave(partition.partition_id)
            elif refs:
                parts.append(Part(partition, refs))
        if parts:
            self._changes.rewriting.update(part.partition.partition_id for part in parts)
            self._rewrite = Rewrite(self._changes, parts, None)

    async def _continue(self, rewrite: Rewrite) -> None:
        try:
            if any(part.partition.topic.deleted for part in rewrite.parts):
                rewrite.abort()
            else:
                await rewrite.step()
        except (CorruptData, InvalidRequest):
            self._damaged.add(rewrite.current.partition_id)
            self.close()
            raise
        except SegmentUnavailable:
            self._leave(rewrite.current.partition_id)
            self.close()
            raise
        except BaseException:
            self.close()
            raise
        if rewrite.is_done:
            self.close()
            if rewrite.written_bytes and not rewrite.conflicted:
                self.merges += len(rewrite.parts)
                self.merged_segments += len(rewrite.removed)
                self.merged_bytes += rewrite.written_bytes

    def _leave(self, partition_id: int) -> None:
        """Skip a partition so that others do not wait. Its next segment brings it back here."""
        self._waiting.pop(partition_id, None)
        self._grown[partition_id] = FAN_IN - 1


def _latest(partition_ids: Sequence[int]) -> Script[list[Rows]]:
    found = []
    for partition_id in partition_ids:
        rows = yield from segment_store.latest_sizes(partition_id, LATEST)
        found.append(rows)
    return found


def _rows(ranges: Sequence[tuple[int, int, int]]) -> Script[list[Rows]]:
    found = []
    for partition_id, first, count in ranges:
        rows = yield from segment_store.segments_from(partition_id, first, count)
        found.append(rows)
    return found
