"""Offsets by timestamp: the look-ups behind ListOffsets (KIP-33, KIP-734).

Records need not be ordered by timestamp, so a look-up goes by maxima: segments and spans know the highest timestamp
that they contain, and a segment's time index narrows it down to some 64 KiB. Only the batch that must contain the
record is decoded. Markers count as records here, as in Kafka.

Compaction may move spans into segments between the search in segments and the search in spans, which would miss both;
`Partition.segmented_to` reveals it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.log.model import Partition
from penstock.log.reader import Reader
from penstock.log.segments import SegmentIndex
from penstock.storage.wal import Buffer
from penstock.wire.primitives import Malformed
from penstock.wire.records import BatchHeader, iter_batches, iter_records

READ_BYTES = 256 * 1024

Views = Sequence[memoryview]
"""What was read, whole batches."""
Found = tuple[int, int]
"""Offset and timestamp of a record."""


class OffsetForTimestamp(Protocol):
    """Finds a record by its timestamp."""

    async def __call__(self, partition: Partition, timestamp: int, *, max_only: bool) -> Found | None:
        """The lowest offset whose record is not older than `timestamp`, with that record's timestamp; None when all
        are older. With `max_only`, the first record with the highest timestamp of all."""


class Timestamps:
    """Finds records by timestamp, first in segments and then in spans."""

    def __init__(self, reader: Reader, segments: SegmentIndex) -> None:
        self._reader, self._segments = reader, segments

    async def offset_for_timestamp(self, partition: Partition, timestamp: int, *, max_only: bool) -> Found | None:
        """See `OffsetForTimestamp`."""
        if not max_only:
            return await self._first_since(partition, timestamp)
        highest = await self._highest(partition)
        return None if highest < 0 else await self._first_since(partition, highest)

    async def _first_since(self, partition: Partition, timestamp: int) -> Found | None:
        offset = partition.log_start
        while True:
            segmented_to = partition.segmented_to
            ref = await self._segments.with_timestamp(partition, offset, timestamp)
            if ref is not None:
                start, end = max(offset, ref.offset_before(timestamp)), ref.last_offset + 1
            elif partition.segmented_to != segmented_to:
                continue
            else:
                span = next(
                    (one for one in partition.spans if one.last_offset >= offset and one.max_timestamp >= timestamp),
                    None,
                )
                if span is None:
                    return None
                start, end = max(offset, span.base_offset), span.last_offset + 1
            found = await self._scan(partition, start, end, timestamp)
            if found is not None:
                return found
            # The record with the maximum was trimmed or compacted away.
            offset = end

    async def _highest(self, partition: Partition) -> int:
        """The highest timestamp of any record, -1 if there is none."""
        while True:
            start, segmented_to = partition.log_start, partition.segmented_to
            ref = await self._segments.with_highest_timestamp(partition, start)
            first = await self._segments.lookup(partition, start)
            if partition.segmented_to == segmented_to:
                break
        highest = max((span.max_timestamp for span in partition.spans if span.base_offset >= start), default=-1)
        if ref is not None:
            highest = max(highest, ref.max_timestamp)
        # Where the log start is inside a segment or span, its maximum may belong to a removed record.
        if first is not None and first.base_offset < start and first.max_timestamp > highest:
            highest = max(highest, await self._highest_within(partition, start, first.last_offset + 1))
        cut = next((span for span in partition.spans if span.base_offset < start <= span.last_offset), None)
        if cut is not None and cut.max_timestamp > highest:
            highest = max(highest, await self._highest_within(partition, start, cut.last_offset + 1))
        return highest

    # What was read must not be referred to any more when the next read begins: that may wait for its memory. So it is
    # only the argument of a function.

    async def _highest_within(self, partition: Partition, offset: int, end: int) -> int:
        highest, start = -1, offset
        while offset < end:
            highest, offset = _highest_of(
                await self._reader.read_batches(partition, offset, READ_BYTES), highest, start, offset, end
            )
        return highest

    async def _scan(self, partition: Partition, offset: int, end: int, timestamp: int) -> Found | None:
        """The first record within [offset, end) that is not older."""
        found, start = None, offset
        while offset < end and found is None:
            found, offset = _first_of(
                await self._reader.read_batches(partition, offset, READ_BYTES), timestamp, start, offset, end
            )
        return found


def _highest_of(views: Views, highest: int, start: int, offset: int, end: int) -> tuple[int, int]:
    """The highest timestamp of records from `start` on in what was read, if it is above `highest`, and where to go on:
    `end` when done."""
    batches, following = _batches_within(views, offset, end)
    for header, batch in batches:
        if header.max_timestamp > highest:
            highest = max(highest, *(found[1] for found in _times(header, batch) if found[0] >= start), -1)
    return highest, following


def _first_of(views: Views, timestamp: int, start: int, offset: int, end: int) -> tuple[Found | None, int]:
    """The first record from `start` on in what was read that is not older, and where to go on: `end` when done."""
    batches, following = _batches_within(views, offset, end)
    for header, batch in batches:
        if header.max_timestamp >= timestamp:
            for found in _times(header, batch):
                if found[1] >= timestamp and found[0] >= start:
                    return found, following
    return None, following


def _batches_within(views: Views, offset: int, end: int) -> tuple[list[tuple[BatchHeader, Buffer]], int]:
    """The batches that were read within [offset, end), and where to go on: `end` when done."""
    batches: list[tuple[BatchHeader, Buffer]] = []
    following = offset
    for view in views:
        for position, header in iter_batches(view):
            if header.base_offset >= end:
                return batches, end
            following = max(following, header.last_offset + 1)
            batches.append((header, view[position : position + header.size_bytes]))
    return batches, following if following > offset else end


def _times(header: BatchHeader, batch: Buffer) -> list[Found]:
    """Offset and timestamp of a batch's records; if it cannot be decoded, what its header says about the last one."""
    try:
        return [(record.offset, record.timestamp) for record in iter_records(batch, check_offsets=False)]
    except Malformed:
        return [(header.last_offset, header.max_timestamp)]
