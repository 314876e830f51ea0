"""Segments: the older batches of a partition, found by offset or by timestamp.

A segment is a run of a partition's batches inside an object, written by compaction. It covers the offsets from its
first batch's base to its last batch's last offset; key compaction may have removed batches within it, and whole ranges
between segments, but segments never overlap. Its row also contains two sparse indexes over the same points, about one
for every `INDEX_STEP_BYTES`, always at the start of a batch:

- offset index: per point the batch's base offset, relative to the segment's base, u32; and the batch's position,
  relative to the segment's first byte, u32;
- time index: per point the highest timestamp of everything before the point, i64.

The segment's first batch has no point, so small segments have empty indexes. From a point on, readers walk from batch
header to batch header.

`SegmentIndex` caches rows that were used lately. Every change that this process makes is applied to it; so a cached row
is either current, or was replaced a moment ago, and then its object outlives its readers by the grace period of garbage
collection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData
from penstock.log import segment_store
from penstock.log.model import NO_TIMESTAMP, Partition, Seal
from penstock.metadata.database import Database
from penstock.storage.wal import Buffer
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD

INDEX_STEP_BYTES = 64 * 1024
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
MAX_SEGMENT_OFFSETS = 2**31
"""Offsets in a segment are 32 bits, relative to its base."""

CACHE_BYTES = 16 * 1024 * 1024
LOADED_AT_ONCE = 8
LONG_BYTES = 256 * 1024
"""From this size on a range deserves a segment of its own: copying it to have fewer rows costs more than the row."""
_REF_BYTES = 600
"""Roughly what a row costs in memory, without its indexes."""

_POINT = Struct(">II")
_POINT_REACH = 2**32 - 1
_TIME = Struct(">q")
_HOP = Struct(">qi11xi8xq")
"""The fields of a batch header that are read: base offset, length, last offset delta, maximum timestamp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """A segment's row."""

    partition_id: int
    base_offset: int
    last_offset: int
    object_id: bytes
    object_key: str
    byte_offset: int
    byte_length: int
    record_count: int
    min_timestamp: int
    """Commit time of the first batches that went into it; a hint of its age, not a bound."""
    max_timestamp: int
    offset_index: bytes = b""
    time_index: bytes = b""
    seal: Seal | None = None
    """The seal, if it is encrypted. Length and indexes refer to plain bytes."""
    generation: int = 0
    """How often its records were rewritten by key compaction or a merge."""

    def position_for(self, offset: int) -> int:
        """Position, relative to the segment's first byte, of a batch at or before the one that contains the offset."""
        blob, delta = self.offset_index, offset - self.base_offset
        point = bisect_right(
            range(len(blob) // _POINT.size), delta, key=lambda n: int(_POINT.unpack_from(blob, n * _POINT.size)[0])
        )
        return int(_POINT.unpack_from(blob, (point - 1) * _POINT.size)[1]) if point else 0

    def range_from(self, offset: int, max_bytes: int) -> tuple[int, int] | None:
        """Start and end, relative to the segment's first byte, of whole batches from an offset on, as many as fit.

        None unless the index has a point at exactly this offset, and one after it.
        """
        blob, delta = self.offset_index, offset - self.base_offset
        points = range(len(blob) // _POINT.size)
        start, place = 0, 0
        if delta:
            place = bisect_left(points, delta, key=lambda n: int(_POINT.unpack_from(blob, n * _POINT.size)[0]))
            if place == len(points):
                return None
            found, start = _POINT.unpack_from(blob, place * _POINT.size)
            if found != delta:
                return None
        if self.byte_length - start <= max_bytes:
            return start, self.byte_length
        end = self.point_before(start + max_bytes)
        return (start, end) if end > start else None

    def point_before(self, position: int) -> int:
        """The last position up to this one at which the index has a batch start."""
        blob = self.offset_index
        point = bisect_right(
            range(len(blob) // _POINT.size), position, key=lambda n: int(_POINT.unpack_from(blob, n * _POINT.size)[1])
        )
        return int(_POINT.unpack_from(blob, (point - 1) * _POINT.size)[1]) if point else 0

    def offset_before(self, timestamp: int) -> int:
        """The highest offset known from the index such that every record of the segment before it is older than
        `timestamp`."""
        blob = self.time_index
        point = bisect_left(
            range(len(blob) // _TIME.size), timestamp, key=lambda n: int(_TIME.unpack_from(blob, n * _TIME.size)[0])
        )
        if point == 0:
            return self.base_offset
        return self.base_offset + int(_POINT.unpack_from(self.offset_index, (point - 1) * _POINT.size)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts:
    """The facts about a segment that retention, merging and cleaning decide by."""

    base_offset: int
    last_offset: int
    byte_length: int
    min_timestamp: int
    """The row's hint of its age, or when its object was written if there is none."""
    max_timestamp: int
    """Newest timestamp of its records, or when its object was written if they have none."""
    created_ms: int = 0

    @classmethod
    def of(cls, row: Sequence[Any]) -> SegmentFacts:
        """From a row of `segment_store.sizes`."""
        base_offset, last_offset, byte_length, min_timestamp, max_timestamp, created_ms = row
        return cls(
            base_offset=base_offset, last_offset=last_offset, byte_length=byte_length,
            min_timestamp=created_ms if min_timestamp < 0 else min_timestamp,
            max_timestamp=created_ms if max_timestamp < 0 else max_timestamp, created_ms=created_ms,
        )  # fmt: skip


class SegmentBuilder:
    """Computes a segment's row while its bytes are assembled."""

    __slots__ = (
        "_last_point", "_points", "_times", "base_offset", "byte_length", "last_offset", "max_timestamp",
        "min_timestamp", "record_count",
    )  # fmt: skip

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.last_offset = base_offset - 1
        self.byte_length = 0
        self.record_count = 0
        self.min_timestamp = NO_TIMESTAMP
        self.max_timestamp = NO_TIMESTAMP
        self._points = bytearray()
        self._times = bytearray()
        self._last_point = 0

    def add(self, first_offset: int, size_bytes: int, max_timestamp: int) -> None:
        """Account for the next whole batches: several small ones, or a single one."""
        position = self.byte_length
        delta = first_offset - self.base_offset
        # Points have 32 bits. Beyond that there are none: readers start at the last one.
        if position - self._last_point >= INDEX_STEP_BYTES and delta <= _POINT_REACH:
            self._points += _POINT.pack(delta, position)
            self._times += _TIME.pack(self.max_timestamp)
            self._last_point = position
        self.byte_length = position + size_bytes
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp

    def add_batches(self, data: Buffer) -> None:
        """Account for the next batches, by their headers, which have final offsets."""
        hop, position, end, add = _HOP.unpack_from, 0, len(data), self.add
        while position < end:
            base_offset, length, _, max_timestamp = hop(data, position)
            size = length + LENGTH_OVERHEAD
            if size < HEADER_BYTES or position + size > end:
                raise CorruptData(f"a batch at offset {base_offset} claims {size} of {end - position} bytes")
            add(base_offset, size, max_timestamp)
            position += size

    @property
    def mark(self) -> tuple[int, int, int, int]:
        """The current state, for `back_to`."""
        return self.byte_length, self.max_timestamp, self._last_point, len(self._points)

    def back_to(self, mark: tuple[int, int, int, int]) -> None:
        """Undo everything added since `mark`."""
        self.byte_length, self.max_timestamp, self._last_point, size = mark
        del self._points[size:], self._times[size:]

    def cover(self, last_offset: int, record_count: int, min_timestamp: int) -> None:
        """Record how far the segment reaches now."""
        self.last_offset = last_offset
        self.record_count += record_count
        if min_timestamp >= 0 and (self.min_timestamp < 0 or min_timestamp < self.min_timestamp):
            self.min_timestamp = min_timestamp

    @property
    def index(self) -> tuple[bytes, bytes]:
        """Offset index and time index of everything added."""
        return bytes(self._points), bytes(self._times)

    def finish(
        self, *, partition_id: int, object_id: bytes, object_key: str, byte_offset: int, seal: Seal | None = None,
        generation: int = 0,
    ) -> SegmentRef:  # fmt: skip
        """The row."""
        return SegmentRef(
            partition_id=partition_id, base_offset=self.base_offset, last_offset=self.last_offset,
            object_id=object_id, object_key=object_key, byte_offset=byte_offset, byte_length=self.byte_length,
            record_count=self.record_count, min_timestamp=self.min_timestamp, max_timestamp=self.max_timestamp,
            offset_index=bytes(self._points), time_index=bytes(self._times), seal=seal, generation=generation,
        )  # fmt: skip


class SegmentIndex:
    """The segments of all partitions: rows in the database, recently used ones cached. On the event loop's thread."""

    def __init__(self, database: Database, *, capacity_bytes: int = CACHE_BYTES) -> None:
        self._database = database
        self._capacity_bytes = capacity_bytes
        self._refs: dict[int, list[SegmentRef]] = {}
        self._recent: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._removals = 0
        self.size_bytes = 0

    def cached(self, partition: Partition, offset: int) -> SegmentRef | None:
        """The segment that covers an offset, if it is in memory."""
        refs = self._refs.get(partition.partition_id)
        if refs is None:
            return None
        place = bisect_left(refs, offset, key=_last_offset)
        if place == len(refs) or refs[place].base_offset > offset:
            return None
        ref = refs[place]
        self._recent.move_to_end((ref.partition_id, ref.last_offset))
        return ref

    def following(self, partition: Partition, last_offset: int) -> Iterator[SegmentRef]:
        """The segments directly after the one with that last offset, as far as they are in memory."""
        refs = self._refs.get(partition.partition_id, [])
        for place in range(bisect_left(refs, last_offset, key=_last_offset) + 1, len(refs)):
            ref = refs[place]
            if ref.base_offset != last_offset + 1:
                return
            yield ref
            last_offset = ref.last_offset

    async def lookup(self, partition: Partition, offset: int) -> SegmentRef | None:
        """The first segment that ends at or after an offset; None if there is none."""
        ref = self.cached(partition, offset)
        if ref is not None:
            return ref
        removals, partition_id = self._removals, partition.partition_id
        found = await self._database.read(lambda: segment_store.segments_from(partition_id, offset, LOADED_AT_ONCE))
        refs = [ref_of(row) for row in found]
        if removals == self._removals:
            # The rows may have been read before a concurrent removal; then they serve this caller and are not cached.
            self.add(refs)
        return refs[0] if refs else None

    async def with_timestamp(self, partition: Partition, offset: int, timestamp: int) -> SegmentRef | None:
        """The first segment from an offset on that has records as new as `timestamp`."""
        partition_id = partition.partition_id
        rows = await self._database.read(lambda: segment_store.segment_with_timestamp(partition_id, offset, timestamp))
        return ref_of(rows[0]) if rows else None

    async def with_highest_timestamp(self, partition: Partition, base_offset: int) -> SegmentRef | None:
        """The segment with the newest records among those that start at `base_offset` or later."""
        partition_id = partition.partition_id
        rows = await self._database.read(lambda: segment_store.segment_with_max_timestamp(partition_id, base_offset))
        return ref_of(rows[0]) if rows else None

    async def list(self, partition: Partition) -> list[SegmentRef]:
        """All segments of a partition, by offset."""
        partition_id = partition.partition_id
        rows = await self._database.read(lambda: segment_store.segments_from(partition_id, 0, None))
        return [ref_of(row) for row in rows]

    def add(self, refs: Iterable[SegmentRef]) -> None:
        """Cache rows that were read or written."""
        for ref in refs:
            key = (ref.partition_id, ref.last_offset)
            if key in self._recent:
                continue
            known = self._refs.setdefault(ref.partition_id, [])
            known.insert(bisect_left(known, ref.last_offset, key=_last_offset), ref)
            self._recent[key] = None
            self.size_bytes += _weight(ref)
        while self.size_bytes > self._capacity_bytes:
            partition_id, last_offset = next(iter(self._recent))
            self._forget(partition_id, last_offset)

    def remove(self, refs: Iterable[SegmentRef]) -> None:
        """These rows were removed."""
        self._removals += 1
        for ref in refs:
            self._forget(ref.partition_id, ref.last_offset)

    def drop(self, partition_id: int) -> None:
        """The partition was deleted, or the cache may be wrong about it."""
        self._removals += 1
        for ref in list(self._refs.get(partition_id, ())):
            self._forget(partition_id, ref.last_offset)

    def _forget(self, partition_id: int, last_offset: int) -> None:
        key = (partition_id, last_offset)
        if key not in self._recent:
            return
        del self._recent[key]
        refs = self._refs[partition_id]
        place = bisect_left(refs, last_offset, key=_last_offset)
        self.size_bytes -= _weight(refs[place])
        del refs[place]
        if not refs:
            del self._refs[partition_id]


def _last_offset(ref: SegmentRef) -> int:
    return ref.last_offset


def _weight(ref: SegmentRef) -> int:
    return _REF_BYTES + len(ref.offset_index) + len(ref.time_index)


def ref_of(row: Sequence[Any]) -> SegmentRef:
    """A segment from its row, with the columns in the order of `segment_store`."""
    (
        partition_id, base_offset, last_offset, object_id, object_key, byte_offset, byte_length, record_count,
        min_timestamp, max_timestamp, offset_index, time_index, generation, key_id, salt,
    ) = row  # fmt: skip
    return SegmentRef(
        partition_id=partition_id, base_offset=base_offset, last_offset=last_offset, object_id=bytes(object_id),
        object_key=object_key, byte_offset=byte_offset, byte_length=byte_length, record_count=record_count,
        min_timestamp=min_timestamp, max_timestamp=max_timestamp, offset_index=bytes(offset_index),
        time_index=bytes(time_index), generation=generation,
        seal=None if key_id is None else Seal(int(key_id), bytes(salt)),
    )  # fmt: skip
